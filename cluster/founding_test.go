package cluster_test

// Rule R15: nothing comes back from the dead. These stories prove that first
// members found one cluster however they start, that a disk which was wiped is
// never let in while one node remembers it, and that a node which forgets what it
// promised does not start.

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

func TestFirstMembersFoundOneCluster(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		c.Apply([]byte("a"))
		for _, id := range c.IDs() {
			eventually(t, id+" applies the entry", func() bool { return js.of(id).has("a") })
			if got := voters(c.Node(id)); !slices.Equal(got, []string{"n1", "n2", "n3"}) {
				t.Errorf("%s knows the voters %v", id, got)
			}
		}
	})
}

func TestOneNodeAloneWorksAtOnce(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, Nodes: 1, FSM: js.make})
		c.Apply([]byte("a"))
		c.Stop("n1")
		c.Start("n1")
		c.Apply([]byte("b"))
		if got := js.of("n1").all(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("after a restart it holds %v", got)
		}
	})
}

// A node that is not there yet holds up the founding, for it might be one that
// remembers another cluster. Nobody leads, and nobody has started Raft.
func TestFoundingWaitsForTheLastNode(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.Prepare(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		var wg sync.WaitGroup
		opened := make(chan string, 2)
		for _, id := range []string{"n1", "n2"} {
			wg.Go(func() {
				c.Start(id)
				opened <- id
			})
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		select {
		case id := <-opened:
			t.Fatalf("%s started without having heard of n3", id)
		default:
		}
		c.Start("n3")
		wg.Wait()
		c.Apply([]byte("a"))
	})
}

// A node that gives up waiting leaves nothing that a later attempt could trip over.
func TestFoundingCanBeGivenUp(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.Prepare(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		if _, err := c.OpenContext(within(t, time.Second), "n1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
		c.StartAll()
		c.Apply([]byte("a"))
	})
}

// deaf is a network on which a node can be called, but can call nobody.
type deaf struct{ cluster.Network }

func (deaf) Dial(context.Context, string) (net.Conn, error) { return nil, errors.New("deaf") }

// n3 said that it is empty, and crashed before it heard the others say so. They have
// founded the cluster meanwhile, and vouch for the disk that they heard of.
func TestFounderThatCrashedBeforeItAgreedIsLetIn(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		first := true
		c := clustertest.Prepare(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			if cfg.ID == "n3" && first {
				first = false
				cfg.Network = deaf{cfg.Network}
			}
		}})
		ctx, crash := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.OpenContext(ctx, "n3"); !errors.Is(err, context.Canceled) {
				t.Errorf("n3: got %v, want to be still waiting", err)
			}
		})
		wg.Go(func() { c.Start("n1") })
		c.Start("n2")
		c.Apply([]byte("a"))
		crash()
		wg.Wait()
		c.Start("n3")
		eventually(t, "n3 applies the entry", func() bool { return js.of("n3").has("a") })
	})
}

// n3 comes late. Meanwhile n2 was wiped, and tells n3 that it is empty; n1 tells n3
// of the disk that n2 had. n3 keeps to that, so that n2 finds nobody who lets it in,
// n1 or no n1.
func TestLateFounderVouchesForNoSecondDisk(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		first := true
		c := clustertest.Prepare(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			if cfg.ID == "n3" && first {
				first = false
				cfg.Network = deaf{cfg.Network}
			}
		}})
		ctx, crash := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { c.OpenContext(ctx, "n3") })
		up := make(chan struct{})
		go func() {
			defer close(up)
			c.Start("n1")
		}()
		c.Start("n2")
		<-up
		crash()
		wg.Wait()

		c.Crash("n2")
		c.Wipe("n2")
		c.Network.CutBoth("n1", "n2")
		wg.Go(func() {
			if _, err := c.OpenContext(within(t, 10*time.Minute), "n2"); !errors.Is(err, cluster.ErrEmptyDisk) {
				t.Errorf("n2 with another disk: got %v, want ErrEmptyDisk", err)
			}
		})
		synctest.Wait()
		c.Start("n3")
		c.Crash("n1")
		wg.Wait()
	})
}

// One of three is wiped: it neither votes nor starts, whoever else is up, and its
// error says what to do. The two others go on, and hold nothing of a fourth life.
func TestWipedNodeNeverVotes(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		c.Apply([]byte("a"))
		wiped := follower(c)
		c.Crash(wiped)
		c.Wipe(wiped)
		if _, err := c.OpenContext(within(t, time.Minute), wiped); !errors.Is(err, cluster.ErrEmptyDisk) {
			t.Fatalf("got %v, want ErrEmptyDisk", err)
		}
		c.Apply([]byte("b"))

		// Its vote would now be the majority: one node that remembers, one that does
		// not. There must be no leader.
		leader := c.WaitLeader().Status().ID
		c.Crash(leader)
		if _, err := c.OpenContext(within(t, time.Minute), wiped); !errors.Is(err, cluster.ErrEmptyDisk) {
			t.Fatalf("got %v, want ErrEmptyDisk", err)
		}
		time.Sleep(time.Minute)
		if l := c.Leader(); l != nil {
			t.Fatalf("%s leads with the vote of a wiped node", l.Status().ID)
		}
		c.Start(leader)
		c.Apply([]byte("c"))
	})
}

// A wiped node that reaches nobody waits: silence is not "I am empty too".
func TestWipedNodeAloneWaits(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		for _, id := range c.IDs() {
			c.Crash(id)
		}
		c.Wipe("n2")
		if _, err := c.OpenContext(within(t, time.Minute), "n2"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
	})
}

// Two of three are wiped and start together with each other: the majority is empty,
// and the one that remembers keeps both out.
func TestTwoWipedNodesFoundNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		c.Apply([]byte("a"))
		for _, id := range c.IDs() {
			c.Crash(id)
		}
		c.Wipe("n1")
		c.Wipe("n2")
		var wg sync.WaitGroup
		for _, id := range []string{"n1", "n2"} {
			wg.Go(func() {
				if _, err := c.OpenContext(within(t, time.Minute), id); !errors.Is(err, cluster.ErrEmptyDisk) {
					t.Errorf("%s: got %v, want ErrEmptyDisk", id, err)
				}
			})
		}
		c.Start("n3")
		wg.Wait()
		time.Sleep(time.Minute)
		if c.Leader() != nil {
			t.Error("one node of three leads")
		}
	})
}

// R15: only the log is lost, and the node's identity is not: it knows that it has
// promised something, and does not start.
func TestLostLogIsNotAnEmptyDisk(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed":   os.RemoveAll,
		"truncated": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T) {
				var js journals
				c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
				c.Crash("n2")
				path := logOf(c.Config("n2").Dir)
				if logStore == cluster.WAL && name == "truncated" {
					t.Skip("a wal is a directory")
				}
				if err := lose(path); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Open("n2"); !errors.Is(err, cluster.ErrDataLost) {
					t.Fatalf("got %v, want ErrDataLost", err)
				}
				if info, err := os.Stat(path); err == nil && info.Size() > 0 {
					t.Error("the refused start has written a new log")
				}
			})
		})
	}
}

// The nodes were given different lists: nobody founds anything with half of them.
func TestDifferentPeersFoundNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.Prepare(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			if cfg.ID == "n3" {
				cfg.Peers[0] = cluster.Peer{ID: "n4", RaftAddress: "n1:7000"}
			}
		}})
		var wg sync.WaitGroup
		failed := make(chan error, 3)
		for _, id := range c.IDs() {
			wg.Go(func() {
				_, err := c.OpenContext(within(t, time.Minute), id)
				failed <- err
			})
		}
		wg.Wait()
		close(failed)
		differ := 0
		for err := range failed {
			switch {
			case err == nil:
				t.Error("a node started")
			case errors.Is(err, cluster.ErrPeersDiffer):
				differ++
			}
		}
		if differ == 0 {
			t.Error("no node says that the peers differ")
		}
	})
}

// A node outside of a running cluster that is given its members as peers is told to
// be added instead.
func TestUninvitedNodeIsToldSo(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		cfg := c.Config("n9")
		cfg.Peers = []cluster.Peer{
			{ID: "n1", RaftAddress: "n1:7000"}, {ID: "n2", RaftAddress: "n2:7000"}, {ID: "n9", RaftAddress: "n9:7000"},
		}
		if _, err := cluster.Open(within(t, time.Minute), cfg); !errors.Is(err, cluster.ErrNotInvited) {
			t.Fatalf("got %v, want ErrNotInvited", err)
		}
	})
}
