package cluster_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// TestTheLogIsBoundedInBytes holds R14: entries that are few, and never come to the
// threshold, but large bring snapshots too, behind which the log keeps no more bytes
// than it is told; and nothing is lost over a restart.
func TestTheLogIsBoundedInBytes(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		const size, entries = 100, 500
		const every, kept = 100, 64 // entries: a snapshot, and what stays behind it
		var js journals
		c := clustertest.New(t, clustertest.Options{Nodes: 1, FSM: js.make, Memory: true, Configure: func(cfg *cluster.Config) {
			cfg.SnapshotThreshold, cfg.SnapshotBytes, cfg.TrailingBytes = 1<<40, every*size, size
		}})
		for range entries {
			c.Apply(bytes.Repeat([]byte("x"), size))
			time.Sleep(10 * time.Millisecond) // snapshots happen meanwhile
		}
		c.Stop("n1")
		store, err := c.Disk("n1").Open(hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		first, err := store.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		last, err := store.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		// What came between a snapshot's beginning and its end stays too.
		if n := last - first + 1; last < entries || n > kept+every+10 {
			t.Errorf("%d entries in the log, from %d to %d", n, first, last)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		c.Start("n1")
		eventually(t, "n1 has everything after its restart", func() bool { return len(js.of("n1").all()) == entries })
	})
}
