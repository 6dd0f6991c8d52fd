package cluster_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// Nodes of several releases. The lowest level that any of them reads is told only where
// each of them has answered, a node that tells none included; one that reads less than
// the cluster uses is not admitted, and is once it reads more.
func TestLevels(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		var mu sync.Mutex
		levels := map[string]uint32{"n1": 3, "n2": 2, "n4": 1} // n3 is older than levels
		inUse := uint32(0)
		set := func(f func()) {
			mu.Lock()
			defer mu.Unlock()
			f()
		}
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			set(func() { cfg.Level = levels[cfg.ID] })
			cfg.LevelInUse = func() uint32 {
				mu.Lock()
				defer mu.Unlock()
				return inUse
			}
		}})
		lowest := func() (level uint32, err error) {
			err = c.WaitLeader().AtLowestLevel(within(t, time.Minute), func(l uint32) error {
				level = l
				return nil
			})
			return level, err
		}
		if l, err := lowest(); l != 0 || err != nil {
			t.Errorf("lowest level %d, %v; n3 tells none", l, err)
		}
		c.Crash("n3")
		if l, err := lowest(); !errors.Is(err, cluster.ErrUnreachable) || !strings.Contains(err.Error(), "n3") {
			t.Errorf("lowest level %d, %v; n3 is down", l, err)
		}
		set(func() { levels["n3"] = 4 })
		c.Start("n3")
		if l, err := lowest(); l != 2 || err != nil {
			t.Errorf("lowest level %d, %v; n2 reads 2", l, err)
		}
		failed := errors.New("failed")
		if err := c.WaitLeader().AtLowestLevel(within(t, time.Minute), func(uint32) error { return failed }); err != failed {
			t.Error(err)
		}
		idle := c.Node(follower(c))
		if err := idle.AtLowestLevel(within(t, time.Minute), func(uint32) error { return nil }); !errors.Is(err, cluster.ErrNotLeader) {
			t.Error(err)
		}

		set(func() { inUse = 2 })
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if _, err := c.OpenContext(within(t, 10*time.Second), "n4"); err == nil {
				t.Error("n4 was let in")
			}
		}()
		eventually(t, "n4 is refused", func() bool {
			err := c.WaitLeader().AddNode(within(t, time.Minute), peer("n4"))
			if err == nil || !errors.Is(err, cluster.ErrTooOld) && !errors.Is(err, cluster.ErrUnreachable) {
				t.Fatal(err)
			}
			return strings.Contains(err.Error(), "reads levels up to 1, the cluster is at 2")
		})
		<-gone
		set(func() { levels["n4"] = 2 })
		add(t, c, "n4")
	})
}
