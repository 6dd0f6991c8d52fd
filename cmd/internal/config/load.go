package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
	c := Default()
	settings := c.settings()
	env := decreeVariables(environ)

	var errs []error
	if path := filePath(flags, env); path != "" {
		errs = append(errs, fromFile(settings, path)...)
	}
	errs = append(errs, fromEnv(settings, env, ignored)...)
	errs = append(errs, fromFlags(settings, flags)...)
	return c, errors.Join(append(errs, c.Validate())...)
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

func fromFlags(settings []setting, flags *pflag.FlagSet) []error {
	var errs []error
	for _, s := range settings {
		flag := flags.Lookup(s.name)
		if flag == nil || !flag.Changed {
			continue
		}
		if err := s.value.set(flag.Value.String()); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", s.name, err))
		}
	}
	return errs
}

func fromEnv(settings []setting, env map[string]string, ignored []string) []error {
	var errs []error
	known := append([]string{fileEnv}, ignored...)
	for _, s := range settings {
		known = append(known, s.env())
		text, set := env[s.env()]
		if !set {
			continue
		}
		if err := s.value.set(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.env(), err))
		}
	}
	var unknown []string
	for name := range env {
		if !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		errs = append(errs, fmt.Errorf("%s: no such setting", name))
	}
	return errs
}

func fromFile(settings []setting, path string) []error {
	root, err := readYAML(path)
	if err != nil {
		return []error{fmt.Errorf("%s: %w", path, err)}
	}
	if root == nil {
		return nil
	}
	var errs []error
	seen := map[string]int{}
	for pair := range slices.Chunk(root.Content, 2) {
		key, node := pair[0], pair[1]
		if err := setFromYAML(settings, key, node, seen); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %s: %w", path, key.Line, key.Value, err))
		}
	}
	return errs
}

// setFromYAML sets what one line of the file says. seen holds the lines of the
// keys before it.
func setFromYAML(settings []setting, key, node *yaml.Node, seen map[string]int) error {
	if line, twice := seen[key.Value]; twice {
		return fmt.Errorf("set on line %d already", line)
	}
	seen[key.Value] = key.Line
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key() == key.Value })
	if i < 0 {
		return errors.New("no such setting")
	}
	text, err := nodeText(node)
	if err != nil {
		return err
	}
	return settings[i].value.set(text)
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
