package node

// R11: cluster time does not follow a wall clock that is wrong by days, where the node
// has heard a live leader's; and it does follow the wall clock where all that the node
// has heard may be old. All in virtual time.

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

func TestClockHears(t *testing.T) {
	const day = 24 * time.Hour
	present := func() txn.Time { return txn.Time(time.Now().UnixNano()) }
	for _, tt := range []struct {
		name  string
		play  func(c *clock)
		want  bool
		drift time.Duration // of what it tells, behind the present
	}{
		{"nothing", func(*clock) {}, false, 0},
		{"a replay", func(c *clock) {
			for i := range 100 {
				c.hear(present().Add(time.Duration(i)*time.Minute - day))
			}
		}, false, 0},
		{"a live leader", func(c *clock) {
			for range 3 {
				c.hear(present())
				time.Sleep(retentionInterval)
			}
		}, true, 0},
		{"a replay, then a live leader for a moment", func(c *clock) {
			c.hear(present().Add(-day))
			time.Sleep(day)
			c.hear(present())
			time.Sleep(time.Second)
			c.hear(present())
		}, false, 0},
		{"a live leader with entries that come late", func(c *clock) {
			for i := range 200 {
				c.hear(present().Add(-time.Duration(i%5) * time.Second))
				time.Sleep(time.Second)
			}
		}, true, 0},
		{"a live leader, and then nothing for a day", func(c *clock) {
			for range 3 {
				c.hear(present())
				time.Sleep(retentionInterval)
			}
			time.Sleep(day)
		}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var nap time.Duration
				c := newClock(func() time.Duration { return nap })
				tt.play(c)
				nap = 8 * time.Hour // the machine sleeps: the monotonic clock does not see it
				got, sure := c.now()
				if sure != tt.want {
					t.Fatalf("sure %t, want %t", sure, tt.want)
				}
				if off := present().Add(nap).Sub(got); sure && off != 0 {
					t.Errorf("it tells a time %s ago", off)
				}
			})
		})
	}
}

// The nodes' wall clocks jump, and another leads next: by ten days, either way, which
// nobody believes; and by an hour, as clocks do that were behind and are put right:
// cluster time must not stay behind, for it would refuse all new ids as from the future.
func TestWallClockOfAnotherMonth(t *testing.T) {
	for off, want := range map[time.Duration]time.Duration{240 * time.Hour: 0, -240 * time.Hour: 0, time.Hour: time.Hour, -time.Hour: 0} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { jumpOfClocks(t, off, want) })
		})
	}
}

func jumpOfClocks(t *testing.T, off, want time.Duration) {
	var mu sync.Mutex
	wrong := time.Duration(0)
	wall := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(wrong)
	}
	nodes := map[string]*Node{}
	disks := clustertest.Prepare(t, clustertest.Options{
		FSM: func(string) raft.FSM { return nil }, Memory: true, Seed: 1,
	})
	var starts sync.WaitGroup
	for _, id := range disks.IDs() {
		starts.Go(func() {
			n, err := Open(t.Context(), Config{Cluster: disks.Config(id), Drivers: participants.Drivers{}, Wall: wall})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			nodes[id] = n
		})
	}
	starts.Wait()
	time.Sleep(2 * hearingTime)
	mu.Lock()
	wrong = off
	mu.Unlock()
	leader := leaderOf(t, nodes)
	before := leader.Machine.Cluster().Now
	if err := leader.Cluster.TransferLeadership(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	next := leaderOf(t, nodes)
	if next == leader {
		t.Fatal("nobody else leads")
	}
	if moved := next.Machine.Cluster().Now.Sub(before); moved < want || moved > want+2*time.Minute {
		t.Errorf("cluster time moved by %s within a minute, want %s more", moved, want)
	}
	for _, n := range nodes {
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	time.Sleep(time.Minute) // replication of an old leader lives on for some seconds
}

func leaderOf(t *testing.T, nodes map[string]*Node) *Node {
	t.Helper()
	for range 100 {
		for _, n := range nodes {
			if n.Coordinator.Leads() {
				return n
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("nobody leads")
	return nil
}
