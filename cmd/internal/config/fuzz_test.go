package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// allocated is how many bytes f allocates, whether or not they are freed.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// bomb is YAML whose aliases stand for 9 to the power of levels values.
func bomb(levels int) string {
	text := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := range levels {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	return text
}

// FuzzLoad holds that no file, variable or flag makes Load panic, or take memory out
// of proportion to its input: not the aliases of YAML, nor its nesting; and that what
// is accepted is valid, and is read again as the same from what its settings show.
func FuzzLoad(f *testing.F) {
	const variables = "DECREE_NODE_ID=n1\nDECREE_DATA_DIR=d\nDECREE_PEERS=n1=127.0.0.1:7301"
	for _, seed := range [][3]string{
		{"node_id: n1\ndata_dir: /var/lib/decree\npeers:\n  n2: b.example:7301\n  n1: \"[::1]:7301\"\nmax_timeout: 1h30m\nmax_payload: 512KiB\n", "", ""},
		{"peers: [n1=127.0.0.1:7301]\nhttp_addr: ''\n", "DECREE_NODE_ID=n1", "--data-dir=d"},
		{"", variables, "--log-level=debug"},
		{"", variables, "--join"},
		{"", variables + "\nDECREE_NODE_IDD=x", ""},
		{"---\n", variables, ""}, {"a: b\n---\nc: d\n", variables, ""}, {"log_level: &a info\nlog_format: *a\n", variables, ""},
		{"log_level: !!binary aW5mbw==\n? [a]\n: b\n<<: {node_id: n2}\n", variables, ""},
		{bomb(8), variables, ""},
		{strings.Repeat("[", 300), variables, ""}, {"peers: " + strings.Repeat("{a: ", 300), variables, ""},
		{"log_level: \x00\xff", variables, "--max-payload=9999999GiB"},
	} {
		f.Add([]byte(seed[0]), seed[1], seed[2])
	}
	path := filepath.Join(f.TempDir(), "decree.yaml")
	f.Fuzz(func(t *testing.T, file []byte, environ, arg string) {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
		flags.SetOutput(devNull{})
		Register(flags)
		if !strings.Contains(arg, "=") || flags.Parse([]string{arg}) != nil || flags.Changed(fileFlag) {
			arg = "" // pflag refuses it, or it names another file
		}
		variables := strings.Split(environ, "\n")
		for i, v := range variables {
			if strings.HasPrefix(v, fileEnv+"=") {
				variables[i] = ""
			}
		}
		variables = append(variables, fileEnv+"="+path)

		var c Server
		var err error
		size := len(file) + len(environ) + len(arg)
		if n := allocated(func() { c, err = Load(flags, variables, nil) }); n > 2048*size+1<<20 {
			t.Fatalf("%d bytes of memory for %d of configuration", n, size)
		}
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted, but not valid: %v", err)
		}
		again := Default()
		for i, s := range again.settings() {
			if err := s.value.set(c.settings()[i].value.show()); err != nil {
				t.Fatalf("%s is not read again: %v", s.name, err)
			}
		}
		if !reflect.DeepEqual(again, c) {
			t.Fatalf("\n got %+v\nwant %+v", again, c)
		}
	})
}

type devNull struct{}

func (devNull) Write(p []byte) (int, error) { return len(p), nil }
