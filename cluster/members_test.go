package cluster_test

// These stories prove that the membership changes one node at a time, through the
// leader, that a node which is added has caught up before it votes, that an id the
// cluster knows is not added with another disk (rule R15), and that a node which
// was removed stops.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// add starts a node without peers and has the leader add it.
func add(t *testing.T, c *clustertest.Cluster, id string) {
	t.Helper()
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		c.Start(id)
	}()
	eventually(t, id+" is added", func() bool {
		err := c.WaitLeader().AddNode(within(t, time.Minute), peer(id))
		if err != nil && !errors.Is(err, cluster.ErrUnreachable) {
			t.Fatal(err)
		}
		return err == nil
	})
	<-opened
}

func peer(id string) cluster.Peer {
	return cluster.Peer{ID: id, RaftAddress: clustertest.Address(id)}
}

// A fourth node is added under load. It holds everything when it becomes a voter,
// and goes on by itself after a restart.
func TestAddNode(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		for i := range 200 {
			c.Apply(fmt.Append(nil, i))
		}
		add(t, c, "n4")
		if got := voters(c.WaitLeader()); !slices.Equal(got, []string{"n1", "n2", "n3", "n4"}) {
			t.Fatalf("voters %v", got)
		}
		eventually(t, "n4 applies what was there", func() bool { return len(js.of("n4").all()) == 200 })

		c.Crash("n4")
		c.Start("n4") // nobody has to add it again
		c.Apply([]byte("more"))
		eventually(t, "n4 follows after its restart", func() bool { return js.of("n4").has("more") })
	})
}

// R15: an admission is meant for one disk. One that was sent to the disk which the
// node had before arrives at its new one, and is refused.
func TestAdmissionIsForOneDisk(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		opened := make(chan struct{})
		go func() {
			defer close(opened)
			c.Start("n4")
		}()
		late := `{"version":1,"id":"n1","incarnation":"x","admit":{"id":"n4","incarnation":"the disk before"}}`
		var said string
		eventually(t, "n4 answers", func() bool {
			var err error
			said, err = hello(t, c, "n4", late)
			return err == nil
		})
		if !strings.Contains(said, "another disk") {
			t.Errorf("n4 took an admission of another disk: %s", said)
		}
		select {
		case <-opened:
			t.Error("n4 takes part, and no leader knows it")
		default:
		}
		eventually(t, "n4 is added", func() bool {
			return c.WaitLeader().AddNode(within(t, time.Minute), peer("n4")) == nil
		})
		<-opened
	})
}

// hello sends a node a question, and returns its answer as it came.
func hello(t *testing.T, c *clustertest.Cluster, to, question string) (string, error) {
	t.Helper()
	conn, err := c.Network.Host("stranger").Dial(within(t, time.Minute), clustertest.Address(to))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	frame := binary.BigEndian.AppendUint32([]byte("H"), uint32(len(question)))
	if _, err := conn.Write(append(frame, question...)); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// The log that the new node needs is gone: it gets the snapshot.
func TestAddNodeBehindASnapshot(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.SnapshotInterval = 20, 1, time.Second
		}})
		for i := range 100 {
			c.Apply(fmt.Append(nil, i))
			time.Sleep(100 * time.Millisecond) // snapshots happen meanwhile
		}
		add(t, c, "n4")
		eventually(t, "n4 applies what was there", func() bool { return len(js.of("n4").all()) == 100 })
		c.Crash("n4")
		c.Start("n4")
		eventually(t, "n4 has it after its restart", func() bool { return len(js.of("n4").all()) == 100 })
	})
}

// What can not be added is refused by name, and leaves nothing behind.
func TestAddNodeRefuses(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		leader := c.WaitLeader()
		for _, refusal := range []struct {
			what string
			peer cluster.Peer
			want error
		}{
			{"no id", cluster.Peer{RaftAddress: "n4:7000"}, cluster.ErrInvalidPeer},
			{"a bad address", cluster.Peer{ID: "n4", RaftAddress: "n4"}, cluster.ErrInvalidPeer},
			{"nobody there", peer("n4"), cluster.ErrUnreachable},
			{"a member", peer("n2"), cluster.ErrAlreadyMember},
			{"another id at a member's address", cluster.Peer{ID: "n4", RaftAddress: "n2:7000"}, cluster.ErrWrongNode},
		} {
			if err := leader.AddNode(within(t, time.Minute), refusal.peer); !errors.Is(err, refusal.want) {
				t.Errorf("%s: got %v, want %v", refusal.what, err, refusal.want)
			}
		}
		if err := c.Node(follower(c)).AddNode(within(t, time.Minute), peer("n4")); !errors.Is(err, cluster.ErrNotLeader) {
			t.Errorf("at a follower: got %v, want ErrNotLeader", err)
		}
		if got := len(leader.Status().Members); got != 3 {
			t.Errorf("%d members", got)
		}
	})
}

// n4 was a member, and comes back with an empty disk: its id is refused, and free
// again only once it was removed. In between it neither votes nor follows.
func TestAddNodeRefusesAKnownIDWithAnEmptyDisk(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		add(t, c, "n4")
		c.Crash("n4")
		c.Wipe("n4")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { c.OpenContext(ctx, "n4") })
		time.Sleep(time.Second)
		leader := c.WaitLeader()
		if err := leader.AddNode(within(t, time.Minute), peer("n4")); !errors.Is(err, cluster.ErrEmptyDisk) {
			t.Fatalf("got %v, want ErrEmptyDisk", err)
		}
		if c.Node("n4") != nil {
			t.Fatal("n4 runs with an empty disk")
		}
		if err := leader.RemoveNode(within(t, time.Minute), "n4"); err != nil {
			t.Fatal(err)
		}
		if err := leader.AddNode(within(t, time.Minute), peer("n4")); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		c.Apply([]byte("a"))
		eventually(t, "n4 follows", func() bool { return js.of("n4").has("a") })
	})
}

// A node of another cluster is not empty: its disk holds somebody else's promises.
func TestAddNodeRefusesAnotherClustersNode(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		cfg := c.Config("x1")
		cfg.Peers = []cluster.Peer{peer("x1")}
		other, err := cluster.Open(within(t, time.Minute), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close(context.Background())
		if err := c.WaitLeader().AddNode(within(t, time.Minute), peer("x1")); !errors.Is(err, cluster.ErrNotEmpty) {
			t.Fatalf("got %v, want ErrNotEmpty", err)
		}
	})
}

// helloOnly is a network on which nobody's Raft reaches the node while it is shut.
type helloOnly struct {
	cluster.Network
	shut *atomic.Bool
}

func (h helloOnly) Listen(address string) (net.Listener, error) {
	l, err := h.Network.Listen(address)
	return helloListener{l, h.shut}, err
}

type helloListener struct {
	net.Listener
	shut *atomic.Bool
}

func (l helloListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return helloConn{c, l.shut}, err
}

type helloConn struct {
	net.Conn
	shut *atomic.Bool
}

func (c helloConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if len(p) == 1 && n == 1 && p[0] == 'R' && c.shut.Load() { // the byte that says what it carries
		return 0, net.ErrClosed
	}
	return n, err
}

// The new node is admitted, but nothing of the log reaches it. It stays a member
// without a vote, which holds nobody up, and AddNode goes on where it stopped.
func TestAddNodeGoesOnWhereItStopped(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		var shut atomic.Bool
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			if cfg.ID == "n4" {
				cfg.Network = helloOnly{cfg.Network, &shut}
			}
		}})
		leader := c.WaitLeader()
		shut.Store(true)
		opened := make(chan struct{})
		go func() {
			defer close(opened)
			c.Start("n4")
		}()
		synctest.Wait() // it waits to be added
		err := leader.AddNode(within(t, 10*time.Second), peer("n4"))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, cluster.ErrUnknown) {
			t.Fatalf("got %v, want the context's error and ErrUnknown", err)
		}
		<-opened
		if got := len(leader.Status().Members); got != 4 || len(voters(leader)) != 3 {
			t.Fatalf("%d members with the voters %v", got, voters(leader))
		}
		index, _ := c.Apply([]byte("a"))
		shut.Store(false)
		if err := leader.AddNode(within(t, time.Minute), peer("n4")); err != nil {
			t.Fatal(err)
		}
		if got := voters(leader); len(got) != 4 {
			t.Errorf("voters %v", got)
		}
		if got := c.Node("n4").Status().LastIndex; got < index {
			t.Errorf("n4 votes, and holds entries up to %d of %d", got, index)
		}
	})
}

// The word of a node that is behind, and has not heard of n4, is not the cluster's:
// n4 has no leader and asks, and does not stop.
func TestWordOfAFollowerRemovesNobody(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		behind := follower(c)
		c.Isolate(behind)
		c.Network.CutBoth(behind, "n4")
		add(t, c, "n4")
		for _, id := range others(c, behind) {
			c.Crash(id)
		}
		c.Network.Heal()
		time.Sleep(time.Minute)
		for _, id := range others(c, behind) {
			c.Start(id)
		}
		c.Apply([]byte("a"))
		eventually(t, "n4 follows", func() bool { return js.of("n4").has("a") })
	})
}

// A removal that is not committed may be taken back, and stops nobody. Here only the
// leader holds it, and perhaps the removed node, which hears nothing more and asks;
// the third node, without which the removal does not count, is away.
func TestUncommittedRemovalStopsNobody(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			// The leader's lease outlasts several questions of the removed node.
			cfg.HeartbeatTimeout, cfg.LeaderLease, cfg.ElectionTimeout = 10*time.Second, 10*time.Second, 10*time.Second
			if cfg.ID == "n3" {
				cfg.HeartbeatTimeout, cfg.LeaderLease, cfg.ElectionTimeout = time.Second, time.Second, time.Second
			}
		}})
		c.Apply([]byte("a"))
		if err := c.WaitLeader().TransferLeadership(within(t, time.Minute), "n1"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "n1 leads", func() bool { return c.WaitLeader().Status().ID == "n1" })
		c.Apply([]byte("b"))
		c.Isolate("n2")
		if err := c.Node("n1").RemoveNode(within(t, 8*time.Second), "n3"); !errors.Is(err, cluster.ErrUnknown) {
			t.Fatalf("got %v, want ErrUnknown", err)
		}
		select {
		case err := <-c.Exit("n3"):
			t.Fatalf("n3 stopped, and was not removed: %v", err)
		default:
		}
		if l, ok := c.Node("n1").Leader(); !ok || l.ID != "n1" {
			t.Fatal("n1 has lost its office, and the story proves nothing")
		}
		c.Network.Heal()
		c.WaitExit("n3") // now it is committed
	})
}

// An admitted node that lost its log has promised something, too.
func TestAddedNodeThatLostItsLogDoesNotStart(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		add(t, c, "n4")
		c.Crash("n4")
		if err := os.RemoveAll(logOf(c.Config("n4").Dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Open("n4"); !errors.Is(err, cluster.ErrDataLost) {
			t.Fatalf("got %v, want ErrDataLost", err)
		}
	})
}

// A removed follower stops, says why, and does not start again.
func TestRemovedFollowerStops(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		gone := follower(c)
		if err := c.WaitLeader().RemoveNode(within(t, time.Minute), gone); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitExit(gone); !errors.Is(err, cluster.ErrRemoved) {
			t.Errorf("exit: %v", err)
		}
		c.Crash(gone)
		if _, err := c.Open(gone); !errors.Is(err, cluster.ErrRemoved) {
			t.Errorf("start again: got %v, want ErrRemoved", err)
		}
		c.Apply([]byte("a"))
		if got := voters(c.WaitLeader()); len(got) != 2 {
			t.Errorf("voters %v", got)
		}
	})
}

// A node that was away while it was removed learns of it when it comes back.
func TestNodeRemovedWhileAwayStops(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		gone := follower(c)
		c.Crash(gone)
		if err := c.WaitLeader().RemoveNode(within(t, time.Minute), gone); err != nil {
			t.Fatal(err)
		}
		c.Start(gone)
		if err := c.WaitExit(gone); !errors.Is(err, cluster.ErrRemoved) {
			t.Errorf("exit: %v", err)
		}
	})
}

// A node that is only cut off, however long, was not removed and does not stop.
func TestNodeThatIsCutOffDoesNotStop(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		away := follower(c)
		c.Isolate(away)
		time.Sleep(10 * time.Minute)
		c.Network.Heal()
		c.Apply([]byte("a"))
		eventually(t, away+" follows again", func() bool { return js.of(away).has("a") })
	})
}

// The leader removes itself: the removal is committed when it answers, it steps
// down and stops, and the others go on.
func TestLeaderRemovesItself(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		e := newEpochs(t)
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Lead: e.lead})
		<-e.begun
		leader := c.WaitLeader()
		id := leader.Status().ID
		if err := leader.RemoveNode(within(t, time.Minute), id); err != nil {
			t.Fatal(err)
		}
		<-e.begun
		c.WaitLeaderExcept(id)
		if err := c.WaitExit(id); !errors.Is(err, cluster.ErrRemoved) {
			t.Errorf("exit: %v", err)
		}
		c.Crash(id)
		c.Apply([]byte("a"))
		if got := voters(c.WaitLeader()); !slices.Equal(got, others(c, id)) {
			t.Errorf("voters %v", got)
		}
	})
}

// What can not be removed, or given the leadership, is refused by name.
func TestRemoveAndTransferRefuse(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		leader, other := c.WaitLeader(), c.Node(follower(c))
		for _, refusal := range []struct {
			what string
			got  error
			want error
		}{
			{"remove a stranger", leader.RemoveNode(within(t, time.Minute), "n9"), cluster.ErrUnknownNode},
			{"remove at a follower", other.RemoveNode(within(t, time.Minute), "n1"), cluster.ErrNotLeader},
			{"transfer to a stranger", leader.TransferLeadership(within(t, time.Minute), "n9"), cluster.ErrUnknownNode},
			{"transfer at a follower", other.TransferLeadership(within(t, time.Minute), ""), cluster.ErrNotLeader},
			{"transfer to itself", leader.TransferLeadership(within(t, time.Minute), leader.Status().ID), nil},
		} {
			if !errors.Is(refusal.got, refusal.want) {
				t.Errorf("%s: got %v, want %v", refusal.what, refusal.got, refusal.want)
			}
		}
		for _, id := range others(c, leader.Status().ID) {
			if err := leader.RemoveNode(within(t, time.Minute), id); err != nil {
				t.Fatal(err)
			}
			if err := c.WaitExit(id); !errors.Is(err, cluster.ErrRemoved) {
				t.Error(err)
			}
		}
		if err := leader.RemoveNode(within(t, time.Minute), leader.Status().ID); !errors.Is(err, cluster.ErrLastVoter) {
			t.Errorf("remove the last voter: got %v, want ErrLastVoter", err)
		}
		if err := leader.TransferLeadership(within(t, time.Minute), ""); !errors.Is(err, cluster.ErrUnknownNode) {
			t.Errorf("transfer to nobody: got %v, want ErrUnknownNode", err)
		}
	})
}

// The leadership goes where it is sent.
func TestTransferLeadership(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		for range 3 {
			for _, id := range c.IDs() {
				c.Apply([]byte("a"))
				if err := c.WaitLeader().TransferLeadership(within(t, time.Minute), id); err != nil {
					t.Fatal(err)
				}
				eventually(t, id+" leads", func() bool { return c.WaitLeader().Status().ID == id })
			}
		}
	})
}

// The target has just restarted, as in a rolling upgrade: the leader's idle
// connections to it are all dead, and it gets the leadership all the same.
func TestTransferToANodeThatHasJustRestarted(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		for range 20 {
			c.Apply([]byte("a"))
			leader, target := c.WaitLeader(), follower(c)
			c.Stop(target)
			c.Start(target)
			if err := leader.TransferLeadership(within(t, time.Minute), target); err != nil {
				t.Fatal(err)
			}
			eventually(t, target+" leads", func() bool { return c.WaitLeader().Status().ID == target })
		}
	})
}

// A follower tells where the leader serves clients.
func TestAPIAddress(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		leader := c.WaitLeader().Status().ID
		for _, id := range c.IDs() {
			eventually(t, id+" knows the leader", func() bool { l, ok := c.Node(id).Leader(); return ok && l.ID == leader })
			l, _ := c.Node(id).Leader()
			got, err := c.Node(id).APIAddress(within(t, time.Minute), l.RaftAddress)
			if err != nil || got != "api."+leader {
				t.Errorf("%s: got %q, %v", id, got, err)
			}
		}
		if _, err := c.Node("n1").APIAddress(within(t, time.Minute), "n9:7000"); !errors.Is(err, cluster.ErrUnreachable) {
			t.Errorf("of nobody: %v", err)
		}
	})
}
