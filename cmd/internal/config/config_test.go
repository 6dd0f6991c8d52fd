package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// What is proven here: which source wins, that every mistake of every source is
// told at once, and that a name nobody knows is a mistake and not a silence.

// load runs Load on flags, variables and the content of a file; no file when it
// is empty.
func load(t *testing.T, args, environ []string, file string) (Server, error) {
	t.Helper()
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	Register(flags)
	if file != "" {
		path := filepath.Join(t.TempDir(), "decree.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(flags, environ, []string{"DECREE_ENDPOINTS"})
}

// enough are the settings without a default.
var enough = []string{"--node-id", "n1", "--data-dir", "d", "--peers", "n1=127.0.0.1:7301"}

func TestPrecedence(t *testing.T) {
	const file = "prepare_timeout: 1s\ndelivery_timeout: 1s\nstop_timeout: 1s\n"
	environ := []string{"DECREE_PREPARE_TIMEOUT=2s", "DECREE_DELIVERY_TIMEOUT=2s", "DECREE_ENDPOINTS=x", "HOME=/"}
	got, err := load(t, append(enough, "--prepare-timeout", "3s"), environ, file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		source    string
		got, want time.Duration
	}{
		{"a flag wins", got.PrepareTimeout, 3 * time.Second},
		{"a variable beats the file", got.DeliveryTimeout, 2 * time.Second},
		{"the file beats the default", got.StopTimeout, time.Second},
		{"the default", got.DefaultTimeout, Default().DefaultTimeout},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.source, tt.got, tt.want)
		}
	}
}

func TestConfigFileFromEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decree.yaml")
	if err := os.WriteFile(path, []byte("log_level: debug\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := load(t, enough, []string{"DECREE_CONFIG=" + path}, "")
	if err != nil || got.LogLevel != "debug" {
		t.Errorf("log level %q, error %v; want debug from the file", got.LogLevel, err)
	}
}

// TestWholeFile sets everything in YAML, in the forms that people write.
func TestWholeFile(t *testing.T) {
	got, err := load(t, nil, nil, `
# The first of three.
node_id: n1
data_dir: /var/lib/decree
log_store: wal
raft_addr: 0.0.0.0:7301
raft_advertise: a.example:7301
grpc_addr: 0.0.0.0:7101
grpc_advertise: a.example:7101
http_addr: ""
insecure: true
peers:
  n2: b.example:7301
  n1: a.example:7301
  n3: "[::1]:7301"
log_format: json
max_timeout: 1h30m
max_payload: 512KiB
max_unfinished: 10
disk_headroom: 1GiB
disk_reserve: 128MiB
`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := got.Peers.String(), "n1=a.example:7301,n2=b.example:7301,n3=[::1]:7301"; got != want {
		t.Errorf("peers %s, want %s", got, want)
	}
	if got.DiskHeadroom != 1<<30 || got.DiskReserve != 128<<20 {
		t.Errorf("room on the disk: %d and %d", got.DiskHeadroom, got.DiskReserve)
	}
	if got.LogStore != "wal" {
		t.Errorf("log store %s", got.LogStore)
	}
	if got.HTTPAddr != "" || got.MaxTimeout != 90*time.Minute || got.MaxPayload != 512<<10 || got.MaxUnfinished != 10 {
		t.Errorf("read as %+v", got)
	}
}

func TestEmptyFilesSetNothing(t *testing.T) {
	for _, file := range []string{"\n", "# only a comment\n", "---\n"} {
		if _, err := load(t, enough, nil, file); err != nil {
			t.Errorf("file %q: %v", file, err)
		}
	}
}

// TestEveryMistakeAtOnce is the operator's case: three mistakes, one in each
// source, and one more between settings. All are told.
func TestEveryMistakeAtOnce(t *testing.T) {
	_, err := load(t, append(enough, "--heartbeat-timeout", "soon", "--leader-lease", "2s"),
		[]string{"DECREE_GRPC_ADDR=7101", "DECREE_GRCP_ADDR=x"},
		"max_payload: big\nnode-id: n1\nmax_payload: 1\n")
	for _, want := range []string{
		`--heartbeat-timeout: "soon": want a duration`,
		`leader-lease: 2s: must not exceed heartbeat-timeout, 500ms`,
		`DECREE_GRPC_ADDR: "7101": want host:port`,
		`DECREE_GRCP_ADDR: no such setting; did you mean DECREE_GRPC_ADDR?`,
		`decree.yaml:1: max_payload: "big": want a size`,
		`decree.yaml:2: node-id: no such setting; did you mean node_id?`,
		`decree.yaml:3: max_payload: set on line 1 already`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct {
		name string
		args []string
		file string
		want string // empty: no mistake
	}{
		{"nothing said", []string{}, "", "node-id: missing"},
		{"no data directory", []string{"--node-id", "n1"}, "", "data-dir: missing"},
		{"neither peers nor join", []string{"--node-id", "n1", "--data-dir", "d"}, "", "peers: missing"},
		{"join alone", []string{"--node-id", "n4", "--data-dir", "d", "--join"}, "", ""},
		{"peers and join", append(enough, "--join"), "", "join: excludes peers"},
		{"bad id", append(enough, "--node-id", "1/../x"), "", "node-id: \"1/../x\": want letters"},
		{"peers without this node", append(enough, "--node-id", "n9"), "", "does not name this node, n9"},
		{"a peer twice", append(enough, "--peers", "n1=a:1,n1=b:1"), "", "n1 is named twice"},
		{"two peers, one address", append(enough, "--peers", "n1=a:1,n2=a:1"), "", "n1 and n2 have the same address a:1"},
		{"a peer without an address", append(enough, "--peers", "n1"), "", `"n1": want id=host:port`},
		{"a trailing comma", append(enough, "--peers", "n1=a:1,"), "", ""},
		{"an odd port", append(enough, "--grpc-addr", "a:99999"), "", "grpc-addr: \"a:99999\": want host:port"},
		{"nobody can dial it", append(enough, "--grpc-addr", "0.0.0.0:7101"), "", "grpc-advertise: missing: nobody can dial 0.0.0.0:7101"},
		{"peers tell how to dial", append(enough, "--raft-addr", ":7301", "--insecure"), "", ""},
		{"open to all by omission", append(enough, "--raft-addr", ":7301"), "", "insecure: whoever reaches raft-addr :7301 could end any transaction: give tls-cert"},
		{"open to all at two addresses", append(enough, "--grpc-addr", "10.0.0.1:7101", "--http-addr", "[::]:80"), "", "reaches grpc-addr 10.0.0.1:7101, http-addr [::]:80 could"},
		{"open and secured", append(enough, "--insecure", "--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"), "", "insecure: contradicts"},
		{"secured", append(enough, "--grpc-addr", "10.0.0.1:7101", "--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"), "", ""},
		{"half secured", append(enough, "--tls-cert", "c"), "", "tls-ca: missing: TLS needs"},
		{"tokens in plain text", append(enough, "--access-file", "f"), "", "access-file: needs tls-cert"},
		{"raft address told twice, differently", append(enough, "--raft-advertise", "b:7301"), "", "but peers has this node at 127.0.0.1:7301"},
		{"one port twice", append(enough, "--http-addr", "127.0.0.1:7101"), "", "http-addr: 127.0.0.1:7101 is grpc-addr already"},
		{"profiles at loopback", append(enough, "--operator-addr", "127.0.0.1:6060"), "", ""},
		{"profiles for all by omission", append(enough, "--operator-addr", ":6060"), "", "operator-addr: \":6060\": profiles show"},
		{"profiles for all", append(enough, "--operator-addr", ":6060"), "operator_public: true\n", ""},
		{"profiles at the API's port", append(enough, "--operator-addr", "127.0.0.1:7101"), "", "operator-addr: 127.0.0.1:7101 is grpc-addr already"},
		{"a free port each", append(enough, "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"), "", ""},
		{"no headroom", append(enough, "--disk-headroom", "0"), "", "disk-headroom: 0: must be more than zero"},
		{"a reserve below nothing", append(enough, "--disk-reserve", "-1B"), "", "disk-reserve: -1: must be more than zero"},
		{"a log store", append(enough, "--log-store", "wal"), "", ""},
		{"a log store that is none", append(enough, "--log-store", "pebble"), "", "log-store: \"pebble\": want one of boltdb, wal"},
		{"log level", append(enough, "--log-level", "loud"), "", "log-level: \"loud\": want one of"},
		{"negative time", append(enough, "--stop-timeout", "-1s"), "", "stop-timeout: -1s: must be more than zero"},
		{"negative delay", append(enough, "--drain-delay", "-1s"), "", "drain-delay: -1s: must not be less than zero"},
		{"delay for all of the stop", append(enough, "--drain-delay", "10s"), "", "drain-delay: 10s: must be less than stop-timeout, 10s"},
		{"no room", append(enough, "--max-unfinished", "0"), "", "max-unfinished: 0: must be more than zero"},
		{"a size past all bounds", append(enough, "--max-payload", "9999999GiB"), "", "want a size"},
		{"a clock too fast", append(enough, "--leader-lease", "1ms"), "", "leader-lease: 1ms: must be at least 10ms"},
		{"a disk that may take no time", append(enough, "--store-timeout", "1ms"), "", "store-timeout: 1ms: must be at least 10ms"},
		{"retention shorter than a retry", append(enough, "--retention", "1m"), "", "retention: 1m0s: must be at least 10m"},
		{"more than an entry takes", append(enough, "--max-payload", "1GiB"), "", "max-payload: 1073741824: a transaction takes at most"},
		{"election before heartbeat", append(enough, "--election-timeout", "100ms"), "", "heartbeat-timeout: 500ms: must not exceed election-timeout"},
		{"not YAML", enough, "a: [", "decree.yaml: yaml:"},
		{"a list at the top", enough, "- a\n", "want settings, one a line"},
		{"two documents", enough, "log_level: info\n---\nlog_level: warn\n", "want one YAML document"},
		{"a key without a value", enough, "log_level:\n", "log_level: has no value"},
		{"too deep", enough, "peers:\n  n1: [a]\n", "line 2: want a plain value"},
		{"nested without end", enough, strings.Repeat("[", 20000), "decree.yaml: yaml:"},
		{"aliases of aliases", enough, bomb(8), "decree.yaml:9: a8: no such setting"},
		{"a file past all bounds", enough, strings.Repeat("#", maxFile+1), "larger than 1048576 bytes"},
		{"aliases", enough, "log_level: &a info\nlog_format: *a\n", "log_format: want a plain value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.args, nil, tt.file)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	_, err := load(t, append(enough, "--config", "nowhere.yaml"), nil, "")
	if err == nil || !strings.Contains(err.Error(), "nowhere.yaml: no such file") {
		t.Errorf("error %v, want the file's name once and why", err)
	}
}

// TestDefaultsAreShownAndValid holds what help prints, and that a node needs no
// more than an id, a directory and its peers.
func TestDefaultsAreShownAndValid(t *testing.T) {
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	Register(flags)
	for name, want := range map[string]string{
		"max-timeout": "1h", "max-payload": "1MiB", "disk-headroom": "64MiB", "heartbeat-timeout": "500ms", "join": "false", "default-timeout": "15s", "store-timeout": "10s",
	} {
		if got := flags.Lookup(name).DefValue; got != want {
			t.Errorf("--%s shows the default %q, want %q", name, got, want)
		}
	}
	if _, err := load(t, enough, nil, ""); err != nil {
		t.Errorf("the least configuration is refused: %v", err)
	}
}

// TestShownValuesAreRead holds that what a setting shows, it reads.
func TestShownValuesAreRead(t *testing.T) {
	c := Default()
	c.Peers = Peers{{"n1", "[::1]:1"}, {"n2", "b:2"}}
	for _, s := range c.settings() {
		before := s.value.show()
		if err := s.value.set(before); err != nil {
			t.Errorf("%s does not read what it shows: %v", s.name, err)
		}
		if after := s.value.show(); after != before {
			t.Errorf("%s shows %q after reading %q", s.name, after, before)
		}
	}
}
