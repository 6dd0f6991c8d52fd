package cluster_test

// Nodes move their logs to a wal one after the other while the cluster works: clusters
// of both log stores are clusters, whoever leads (R10), and a node that was away gets
// its snapshot and goes on behind it, more than once, with either store.

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

func TestNodesMoveTheirLogsOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var js journals
		moved := map[string]bool{}
		c := clustertest.New(t, clustertest.Options{FSM: js.make, Configure: func(cfg *cluster.Config) {
			if moved[cfg.ID] {
				cfg.LogStore = cluster.WAL
			}
		}})
		var want []string
		apply := func() {
			t.Helper()
			for range 20 {
				entry := fmt.Sprint("entry ", len(want))
				want = append(want, entry)
				c.Apply([]byte(entry))
			}
		}
		apply()
		for _, id := range c.IDs() {
			c.Stop(id)
			apply()
			moved[id] = true
			c.Start(id)
			eventually(t, id+" to catch up", func() bool { return js.of(id).has(want[len(want)-1]) })
			if err := c.WaitLeader().TransferLeadership(within(t, time.Minute), id); err != nil && c.WaitLeader().Status().ID != id {
				t.Fatalf("%s does not take the leadership: %v", id, err)
			}
			apply()
		}
		for _, id := range c.IDs() {
			eventually(t, id+" to have all", func() bool { return slices.Equal(distinct(js.of(id).all()), want) })
		}
	})
}

// distinct leaves out what an unknown outcome has made apply again.
func distinct(entries []string) []string {
	var once []string
	for _, e := range entries {
		if !slices.Contains(once, e) {
			once = append(once, e)
		}
	}
	return once
}

// R10: behind a snapshot that was installed, the log goes on with a gap.
func TestFollowerGoesOnBehindASnapshot(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			cfg.SnapshotThreshold, cfg.SnapshotInterval, cfg.TrailingLogs = 50, time.Second, 8
		}})
		away := follower(c)
		for round := range 3 {
			c.Apply([]byte("before"))
			c.Crash(away)
			for range 200 {
				c.Apply([]byte("while it is away"))
			}
			time.Sleep(10 * time.Second) // a snapshot is taken, and what is behind it goes
			c.Start(away)
			for i := range 5 {
				entry := fmt.Sprint("round ", round, " entry ", i)
				c.Apply([]byte(entry))
				eventually(t, entry, func() bool { return js.of(away).has(entry) })
			}
			c.Crash(away) // and reads its log again
			c.Start(away)
		}
	})
}
