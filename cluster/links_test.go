package cluster_test

// Rule R5: unknown is an outcome. These stories prove, over links that are cut, that
// a proposal which failed for certain was never applied, that one whose outcome is
// unknown may have been, and that nobody is told the first where the second holds.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// The leader's messages arrive and the answers do not. The leader loses its office
// with an entry under way, which the others then commit: raft says "leadership
// lost", and only unknown is true.
func TestEntryOfALostLeaderIsAppliedByTheNext(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		leader := c.WaitLeader()
		id := leader.Status().ID
		c.Apply([]byte("before"))
		synctest.Wait() // no message is under way that would wait for its answer
		for _, other := range others(c, id) {
			c.Network.Cut(other, id)
		}
		_, _, err := leader.Apply([]byte("late")).Wait(within(t, time.Minute))
		if !errors.Is(err, cluster.ErrUnknown) || errors.Is(err, cluster.ErrNotLeader) {
			t.Fatalf("got %v, want ErrUnknown alone", err)
		}
		next := c.WaitLeaderExcept(id).Status().ID
		eventually(t, next+" applies the entry of the leader before it", func() bool { return js.of(next).has("late") })
	})
}

// The leader is cut off altogether. Its entry is lost, which nobody could know;
// after the links have healed all hold the same.
func TestEntryOfACutOffLeaderIsUnknown(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		leader := c.WaitLeader()
		id := leader.Status().ID
		c.Isolate(id)
		_, _, err := leader.Apply([]byte("lost")).Wait(within(t, time.Minute))
		if !errors.Is(err, cluster.ErrUnknown) {
			t.Fatalf("got %v, want ErrUnknown", err)
		}
		if err := leader.Barrier(within(t, time.Minute)); !errors.Is(err, cluster.ErrNotLeader) && !errors.Is(err, cluster.ErrUnknown) {
			t.Fatalf("a barrier without a majority: %v", err)
		}
		c.WaitLeaderExcept(id)
		c.Network.Heal()
		c.Apply([]byte("kept"))
		for _, id := range c.IDs() {
			eventually(t, id+" holds what the others hold", func() bool {
				return slices.Equal(js.of(id).all(), js.of(c.WaitLeader().Status().ID).all()) && js.of(id).has("kept")
			})
		}
	})
}

// What is refused for certain is refused before anybody has it: at a follower, while
// the leadership is handed over, on a closed node.
func TestDefiniteRefusals(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		leader, other := c.WaitLeader(), follower(c)
		refuse := func(what string, n *cluster.Node) {
			t.Helper()
			_, _, err := n.Apply([]byte(what)).Wait(within(t, time.Minute))
			if !errors.Is(err, cluster.ErrNotLeader) || errors.Is(err, cluster.ErrUnknown) {
				t.Errorf("%s: got %v, want ErrNotLeader alone", what, err)
			}
		}
		refuse("at a follower", c.Node(other))

		// The transfer waits for a target that can not be reached.
		c.Isolate(other)
		transferred := make(chan error, 1)
		go func() { transferred <- leader.TransferLeadership(within(t, time.Minute), other) }()
		synctest.Wait()
		refuse("while the leadership is handed over", leader)
		if err := <-transferred; !errors.Is(err, cluster.ErrUnknown) {
			t.Errorf("a transfer to a node that is cut off: %v", err)
		}
		c.Network.Heal()
		c.Apply([]byte("a"))

		closed := c.WaitLeader()
		c.Stop(closed.Status().ID)
		refuse("on a closed node", closed)
		c.Apply([]byte("b"))
		for _, entry := range js.of(c.WaitLeader().Status().ID).all() {
			if entry != "a" && entry != "b" {
				t.Errorf("%q was refused for certain, and is applied", entry)
			}
		}
	})
}

// A caller's context ends before the entry is committed: the answer is unknown, and
// the entry is applied all the same.
func TestWaitThatIsGivenUpIsUnknown(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		leader := c.WaitLeader()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		pending := leader.Apply([]byte("a"))
		if _, _, err := pending.Wait(ctx); err != nil && !errors.Is(err, cluster.ErrUnknown) {
			t.Errorf("got %v, want ErrUnknown", err)
		}
		index, answer, err := pending.Wait(within(t, time.Minute)) // it may be asked again
		if err != nil || index == 0 || answer != 1 {
			t.Errorf("got index %d, answer %v, error %v", index, answer, err)
		}
	})
}

// Links are cut at random, one way and both, while entries are proposed at whoever
// leads. An entry that was answered is held by all, in one order; one that was
// refused for certain, by none.
func TestNothingAnsweredIsLostOverBadLinks(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		var answered, refused []string
		c.WaitLeader()
		for i := range 60 {
			from, to := c.IDs()[i%3], c.IDs()[(i+1+i/3%2)%3]
			switch i % 4 {
			case 0:
				c.Network.Cut(from, to)
			case 1:
				c.Network.CutBoth(from, to)
			case 2:
				c.Isolate(from)
			case 3:
				c.Network.Heal()
				c.Apply([]byte("healed"))
			}
			for _, id := range c.IDs() {
				entry := fmt.Sprintf("%d at %s", i, id)
				switch _, _, err := c.Node(id).Apply([]byte(entry)).Wait(within(t, 300*time.Millisecond)); {
				case err == nil:
					answered = append(answered, entry)
				case errors.Is(err, cluster.ErrNotLeader):
					refused = append(refused, entry)
				}
			}
		}
		c.Network.Heal()
		c.Apply([]byte("end"))
		if len(answered) == 0 || len(refused) == 0 {
			t.Fatalf("%d answered, %d refused: the story proves nothing", len(answered), len(refused))
		}
		want := js.of(c.WaitLeader().Status().ID).all()
		for _, id := range c.IDs() {
			eventually(t, id+" holds what the leader holds", func() bool { return slices.Equal(js.of(id).all(), want) })
		}
		for _, entry := range answered {
			if !slices.Contains(want, entry) {
				t.Errorf("%q was answered, and is lost", entry)
			}
		}
		for _, entry := range refused {
			if slices.Contains(want, entry) {
				t.Errorf("%q was refused for certain, and is applied", entry)
			}
		}
	})
}

// A follower that was away, and has asked for elections in vain, deposes nobody when
// it comes back: it asks whether it could win before it raises the term.
func TestFollowerThatReturnsDeposesNobody(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		before := c.WaitLeader().Status()
		away := follower(c)
		c.Isolate(away)
		time.Sleep(time.Minute)
		c.Network.Heal()
		c.Apply([]byte("a"))
		eventually(t, away+" is back", func() bool { return js.of(away).has("a") })
		time.Sleep(time.Minute)
		if after := c.WaitLeader().Status(); after.ID != before.ID || after.Term != before.Term {
			t.Errorf("%s leads in term %d, before it was %s in term %d", after.ID, after.Term, before.ID, before.Term)
		}
	})
}
