package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

const (
	envPrefix = "DECREE_"
	fileFlag  = "config"
	fileEnv   = envPrefix + "CONFIG"

	// maxFile bounds the YAML file: a whole configuration is below 4 KiB.
	maxFile = 1 << 20
)

// Register adds a flag for each setting, and --config for the YAML file. The
// flags take any text: Load reads them, so that a mistake in one does not hide
// those in others.
func Register(flags *pflag.FlagSet) {
	flags.String(fileFlag, "", "read settings from this YAML `file` (env "+fileEnv+")")
	defaults := Default()
	for _, s := range defaults.settings() {
		flag := flags.VarPF(&rawFlag{text: s.value.show(), kind: s.value.kind}, s.name, "", s.usage)
		if s.value.kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// rawFlag is a flag whose text is read later.
type rawFlag struct{ text, kind string }

func (f *rawFlag) String() string     { return f.text }
func (f *rawFlag) Type() string       { return f.kind }
func (f *rawFlag) Set(s string) error { f.text = s; return nil }

// Load reads flags that Register added, the environment (as os.Environ gives it)
// and the file that they name. Every mistake of every source is in the error, and
// so is what Validate has to say. DECREE_ variables that no setting has are
// mistakes too, but for those of ignored.
func Load(flags *pflag.FlagSet, environ, ignored []string) (Server, error) {
	c, _, problems := Explain(flags, environ, ignored)
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return c, errors.Join(errs...)
}

func filePath(flags *pflag.FlagSet, env map[string]string) string {
	if flag := flags.Lookup(fileFlag); flag != nil && flag.Changed {
		return flag.Value.String()
	}
	return env[fileEnv]
}

func decreeVariables(environ []string) map[string]string {
	env := map[string]string{}
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok && strings.HasPrefix(name, envPrefix) {
			env[name] = value
		}
	}
	return env
}

func (r *reading) fromFlags(flags *pflag.FlagSet) {
	for _, s := range r.settings {
		if flag := flags.Lookup(s.name); flag != nil && flag.Changed {
			r.set(s, flag.Value.String(), origin{FromFlag, "--" + s.name, s.name})
		}
	}
}

func (r *reading) fromEnv(env map[string]string, ignored []string) {
	known := append([]string{fileEnv}, ignored...)
	for _, s := range r.settings {
		known = append(known, s.env())
		if text, set := env[s.env()]; set {
			r.set(s, text, origin{FromEnv, s.env(), s.name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !slices.Contains(known, name) {
			r.complain(origin{place: name}, unknownSetting(name, known))
		}
	}
}

func (r *reading) fromFile(path string) {
	root, err := readYAML(path)
	if err != nil {
		r.complain(origin{place: path}, err)
		return
	}
	if root == nil {
		return
	}
	seen := map[string]int{}
	for pair := range slices.Chunk(root.Content, 2) {
		key, node := pair[0], pair[1]
		at := origin{FromFile, fmt.Sprintf("%s:%d", path, key.Line), key.Value}
		if line, twice := seen[key.Value]; twice {
			r.complain(at, fmt.Errorf("set on line %d already", line))
			continue
		}
		seen[key.Value] = key.Line
		r.setFromYAML(node, at)
	}
}

// setFromYAML sets what one key of the file says.
func (r *reading) setFromYAML(node *yaml.Node, at origin) {
	var known []string
	for _, s := range r.settings {
		if s.key() != at.name {
			known = append(known, s.key())
			continue
		}
		text, err := nodeText(node)
		if err != nil {
			r.complain(at, err)
			return
		}
		r.set(s, text, at)
		return
	}
	r.complain(at, unknownSetting(at.name, known))
}

// readYAML gives the top mapping of a file that holds one document; nil when it
// is empty.
func readYAML(path string) (*yaml.Node, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err) // the path is named by the caller
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("want one YAML document")
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("want settings, one a line, such as node_id: n1")
	}
	return root, nil
}
