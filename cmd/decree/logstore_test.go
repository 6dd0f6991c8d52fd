package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is proven here: --log-store moves a node from bbolt to a wal with all that it
// knows, and refuses the way back in words.

func TestServerMovesItsLog(t *testing.T) {
	node := newLone(t)
	leads := func(logStore string) *running {
		r := start(t, node.args("--log-store", logStore)...)
		r.await("the node to lead", func() bool {
			return run(t, nil, "", "cluster", "status", "-q", "--patience", "1s", "--endpoints", node.grpc).stdout == "n1\n"
		})
		return r
	}
	submit := func() {
		t.Helper()
		got := run(t, nil, "", "tx", "submit", "--branch", "dice={}", "--endpoints", node.grpc)
		if got.exit != exitOK {
			t.Fatal(got.stderr)
		}
	}
	r := leads("boltdb")
	if put := run(t, nil, "", "participant", "put", "dice", "--driver", "sim", "--endpoints", node.grpc); put.exit != exitOK {
		t.Fatal(put.stderr)
	}
	submit()
	r.end()
	for round := range 2 { // the second has nothing to move
		r = leads("wal")
		submit()
		r.await("all transactions so far", func() bool {
			return strings.Count(run(t, nil, "", "tx", "list", "-q", "--endpoints", node.grpc).stdout, "\n") == 2+round
		})
		r.end()
	}
	if _, err := os.Stat(filepath.Join(node.dir, "raft.db")); !os.IsNotExist(err) {
		t.Errorf("bbolt's log is still there (%v)", err)
	}
	back := run(t, nil, "", node.args("--log-store", "boltdb", "--log-level", "off")...)
	for _, want := range []string{"the data directory holds another kind of log", "there is no way back", "choose log store wal"} {
		if back.exit != exitFailed || !strings.Contains(back.stderr, want) {
			t.Errorf("exit %d, %q is not in: %s", back.exit, want, back.stderr)
		}
	}
	free(t, node.raft, node.grpc, node.http)
}
