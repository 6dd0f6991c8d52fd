package cluster_test

// Bad input gets a clear error and leaves nothing behind: a configuration with
// several mistakes names them all, and a data directory that is foreign, corrupt,
// or held by another process is left as it was.

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/cluster"
)

// alone is the configuration of a cluster of one, over TCP.
func alone(t *testing.T, id, dir string) cluster.Config {
	return cluster.Config{
		ID: id, Bind: "127.0.0.1:0", Dir: dir, FSM: &journal{},
		Peers: []cluster.Peer{{ID: id}},
		Exit:  func(err error) { t.Errorf("exit: %v", err) },
	}
}

func open(t *testing.T, cfg cluster.Config) (*cluster.Node, error) {
	t.Helper()
	n, err := cluster.Open(within(t, 30*time.Second), cfg)
	if err == nil {
		t.Cleanup(func() { n.Close(context.Background()) })
	}
	return n, err
}

func TestConfigNamesEveryMistake(t *testing.T) {
	cfg := cluster.Config{
		ID: "n 1", Bind: "7000", Advertise: "0.0.0.0:7000",
		HeartbeatTimeout: time.Second, ElectionTimeout: 100 * time.Millisecond, LeaderLease: 2 * time.Second, LeadGrace: -1,
		Peers: []cluster.Peer{{ID: "n2", RaftAddress: "a:1"}, {ID: "n2", RaftAddress: "a:1"}, {ID: "n3", RaftAddress: "b"}},
	}
	_, err := cluster.Open(context.Background(), cfg)
	if err == nil {
		t.Fatal("it opened")
	}
	for _, mistake := range []string{
		`node id "n 1"`, "data directory is missing", "state machine is missing", `bind address "7000"`, `address "0.0.0.0:7000"`,
		`"n2" is there twice`, `"a:1" is there twice`, `address "b"`, `this node, "n 1", is not among them`,
		"lead grace -1ns", "election timeout 100ms", "leader lease 2s",
	} {
		if !strings.Contains(err.Error(), mistake) {
			t.Errorf("the error does not name %q:\n%v", mistake, err)
		}
	}
	if err := (cluster.Config{ID: "n1", Bind: ":7000", Dir: "d", FSM: &journal{}}).Validate(); err != nil {
		t.Errorf("a minimal configuration: %v", err)
	}
}

// A node restarts on its own directory, over TCP, and holds what it held.
func TestRestartOnItsOwnDirectory(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		cfg := alone(t, "n1", dir)
		j := &journal{}
		cfg.FSM = j
		n, err := open(t, cfg)
		if err != nil {
			t.Fatal(err)
		}
		changes, cancel := n.LeaderChanges()
		for _, ok := n.Leader(); !ok; _, ok = n.Leader() {
			<-changes
		}
		cancel()
		if _, answer, err := n.Apply([]byte("a")).Wait(within(t, 30*time.Second)); err != nil || answer != i+1 {
			t.Fatalf("start %d: answer %v, error %v", i+1, answer, err)
		}
		if err := n.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirectoryOfAnotherNode(t *testing.T) {
	dir := t.TempDir()
	n, err := open(t, alone(t, "n1", dir))
	if err != nil {
		t.Fatal(err)
	}
	n.Close(context.Background())
	before := contents(t, dir)
	_, err = open(t, alone(t, "n2", dir))
	if !errors.Is(err, cluster.ErrForeignDir) || !strings.Contains(err.Error(), `"n1"`) {
		t.Errorf("got %v, want ErrForeignDir with the owner's name", err)
	}
	unchanged(t, dir, before)
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	if _, err := open(t, alone(t, "n1", dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, alone(t, "n1", dir)); !errors.Is(err, cluster.ErrDirInUse) {
		t.Errorf("got %v, want ErrDirInUse", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := alone(t, "n1", t.TempDir())
	cfg.Bind = l.Addr().String()
	if _, err := open(t, cfg); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v, want the port to be in use", err)
	}
}

// Nobody could dial what is bound.
func TestAddressNobodyCanDial(t *testing.T) {
	cfg := alone(t, "n1", t.TempDir())
	cfg.Bind = "0.0.0.0:0"
	if _, err := open(t, cfg); err == nil || !strings.Contains(err.Error(), "no address is advertised") {
		t.Errorf("got %v", err)
	}
}

// A file that is damaged is reported, and not replaced.
func TestCorruptDirectory(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"node.json is cut": func(dir string) error { return os.Truncate(filepath.Join(dir, "node.json"), 20) },
		"node.json is of the future": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "node.json"), []byte(`{"version":99,"id":"n1","incarnation":"x","phase":"member"}`), 0o600)
		},
		"node.json says nothing": func(dir string) error { return os.WriteFile(filepath.Join(dir, "node.json"), []byte(`{}`), 0o600) },
		"node.json is gone":      func(dir string) error { return os.Remove(filepath.Join(dir, "node.json")) },
		"raft.db is cut":         func(dir string) error { return os.Truncate(filepath.Join(dir, "raft.db"), 9000) },
		"raft.db is another file": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "raft.db"), []byte("hello, world"), 0o600)
		},
		"raft.db has bad pages": func(dir string) error { return overwrite(filepath.Join(dir, "raft.db"), 2*4096, 64*4096) },
		"raft.db has no head":   func(dir string) error { return overwrite(filepath.Join(dir, "raft.db"), 0, 2*4096) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n, err := open(t, alone(t, "n1", dir))
			if err != nil {
				t.Fatal(err)
			}
			n.Close(context.Background())
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			before := contents(t, dir)
			if _, err := open(t, alone(t, "n1", dir)); !errors.Is(err, cluster.ErrCorruptDir) {
				t.Errorf("got %v, want ErrCorruptDir", err)
			}
			unchanged(t, dir, before)
		})
	}
}

// overwrite fills a part of a file, up to its end at most, with rubbish.
func overwrite(path string, from, to int64) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i := from; i < min(to, int64(len(raw))); i++ {
		raw[i] = 0xa5
	}
	return os.WriteFile(path, raw, 0o600)
}

// contents are a directory's files.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		files[path] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func unchanged(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	after := contents(t, dir)
	for path, was := range before {
		if after[path] != was {
			t.Errorf("%s was changed by a start that was refused", filepath.Base(path))
		}
	}
}
