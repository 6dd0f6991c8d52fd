package cluster_test

// Rule R3: leadership is an epoch. These stories prove that a term's work begins
// only after a barrier in that term and has ended before the node's next term
// begins, that work which outlives its term ends the process, and that a graceful
// stop hands the leadership over.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// epochs watches the work of every node's terms.
type epochs struct {
	t      *testing.T
	linger time.Duration // how long work goes on after its context has ended

	mu     sync.Mutex
	active map[string]uint64 // guarded by mu: node to the term whose work runs
	led    map[uint64]string // guarded by mu: term to the node that led it
	order  []uint64          // guarded by mu: terms, as they began
	begun  chan uint64       // the newest term that began
}

func newEpochs(t *testing.T) *epochs {
	return &epochs{t: t, active: map[string]uint64{}, led: map[uint64]string{}, begun: make(chan uint64, 1000)}
}

func (e *epochs) lead(n *cluster.Node, id string) func(context.Context, uint64) {
	return func(ctx context.Context, term uint64) {
		e.begin(id, term)
		<-ctx.Done()
		if e.linger > 0 {
			time.Sleep(e.linger)
		}
		e.end(id)
	}
}

func (e *epochs) begin(id string, term uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if before, ok := e.active[id]; ok {
		e.t.Errorf("%s begins term %d while its work of term %d still runs", id, term, before)
	}
	if before, ok := e.led[term]; ok {
		e.t.Errorf("%s and %s both lead term %d", before, id, term)
	}
	if n := len(e.order); n > 0 && term <= e.order[n-1] {
		e.t.Errorf("term %d begins after term %d", term, e.order[n-1])
	}
	e.active[id], e.led[term] = term, id
	e.order = append(e.order, term)
	e.begun <- term
}

func (e *epochs) end(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.active, id)
}

// of is the term whose work runs on a node, 0 for none.
func (e *epochs) of(id string) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.active[id]
}

func (e *epochs) running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.active)
}

// Leaders are cut off, crash and hand over, fifteen times; links heal in between.
// Every term has one leader, whose work never overlaps its next.
func TestTermsNeverOverlapOnANode(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		e := newEpochs(t)
		e.linger = 300 * time.Millisecond
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Lead: e.lead})
		<-e.begun
		for i := range 15 {
			leader := c.WaitLeader().Status().ID
			switch i % 3 {
			case 0:
				c.Isolate(leader)
				<-e.begun
				c.Network.Heal()
			case 1:
				c.Crash(leader)
				<-e.begun
				c.Start(leader)
			case 2:
				if err := c.Node(leader).TransferLeadership(within(t, time.Minute), ""); err != nil {
					t.Fatal(err)
				}
				<-e.begun
			}
			c.Apply(fmt.Append(nil, i))
		}
		for _, id := range c.IDs() {
			c.Stop(id)
		}
		if n := e.running(); n != 0 {
			t.Errorf("the work of %d terms outlived Close", n)
		}
	})
}

// A node that leads again while the work of its former term goes on waits for its end.
func TestTermWaitsForTheOneBefore(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		e := newEpochs(t)
		e.linger = 2 * time.Second
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Lead: e.lead})
		before := <-e.begun
		node := c.WaitLeader()
		if err := node.TransferLeadership(within(t, time.Minute), ""); err != nil {
			t.Fatal(err)
		}
		<-e.begun
		if err := c.WaitLeader().TransferLeadership(within(t, time.Minute), node.Status().ID); err != nil {
			t.Fatal(err)
		}
		if at := e.of(node.Status().ID); c.WaitLeader() != node || at != before {
			t.Fatalf("it works on term %d when it leads again, not on %d: this test proves nothing", at, before)
		}
		if after := <-e.begun; e.of(node.Status().ID) != after {
			t.Errorf("term %d began elsewhere", after)
		}
	})
}

// Between the barrier and the work nothing that was committed is missing: the new
// leader has applied it before its work begins.
func TestWorkBeginsBehindABarrier(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		type start struct {
			id      string
			applied []string
		}
		starts := make(chan start, 10)
		lead := func(_ *cluster.Node, id string) func(context.Context, uint64) {
			return func(ctx context.Context, _ uint64) {
				starts <- start{id, js.of(id).all()}
				<-ctx.Done()
			}
		}
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Lead: lead})
		first := <-starts
		for i := range 50 {
			c.Apply(fmt.Append(nil, i))
		}
		c.Crash(first.id)
		if next := <-starts; len(next.applied) < 50 {
			t.Errorf("%s leads with %d of 50 entries that were committed before", next.id, len(next.applied))
		}
	})
}

// Work that does not return is more dangerous than a dead process: past the grace
// the node exits, and it has begun no other term.
func TestWorkThatOutlivesItsTermEndsTheProcess(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		release := make(chan struct{})
		terms := make(chan string, 100)
		lead := func(_ *cluster.Node, id string) func(context.Context, uint64) {
			return func(ctx context.Context, _ uint64) {
				terms <- id
				<-ctx.Done()
				<-release // deaf to its context
			}
		}
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Lead: lead})
		stuck := <-terms
		c.Isolate(stuck)
		if err := c.WaitExit(stuck); !strings.Contains(err.Error(), "has not ended") {
			t.Errorf("exit: %v", err)
		}
		c.Network.Heal()
		time.Sleep(time.Minute)
		close(release)
		for len(terms) > 0 {
			if id := <-terms; id == stuck {
				t.Errorf("%s began another term with work still running", id)
			}
		}
	})
}

// Work that returns early is not begun again in the same term.
func TestWorkRunsOnceInATerm(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		began := make(chan uint64, 100)
		lead := func(*cluster.Node, string) func(context.Context, uint64) {
			return func(_ context.Context, term uint64) { began <- term }
		}
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Lead: lead})
		<-began
		time.Sleep(time.Minute)
		if len(began) != 0 {
			t.Errorf("the work of term %d began again", <-began)
		}
		leader := c.WaitLeader().Status().ID
		c.Crash(leader)
		<-began
	})
}

// Lead may come after the leadership.
func TestLeadAfterTheElection(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, Nodes: 1, FSM: js.make})
		leader := c.WaitLeader()
		synctest.Wait()
		began := make(chan uint64, 1)
		leader.Lead(func(_ context.Context, term uint64) { began <- term })
		if term := <-began; term != leader.Status().Term {
			t.Errorf("began in term %d, Raft is in %d", term, leader.Status().Term)
		}
	})
}

// A graceful stop costs the others no election timeout, and the leader's work ends
// before Close returns.
func TestCloseHandsOver(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		e := newEpochs(t)
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make, Lead: e.lead})
		<-e.begun
		for range 5 {
			leader := c.WaitLeader().Status().ID
			began := time.Now()
			c.Stop(leader)
			<-e.begun
			if took := time.Since(began); took >= cluster.DefaultElectionTimeout {
				t.Errorf("the next term began %s after the stop, an election takes %s", took, cluster.DefaultElectionTimeout)
			}
			c.Start(leader)
		}
	})
}

// The last voter has nobody to hand over to, and closes all the same; a second
// Close answers like the first.
func TestCloseAlone(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		n := c.WaitLeader()
		for _, id := range others(c, n.Status().ID) {
			c.Crash(id)
		}
		c.Stop(n.Status().ID)
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("second close: %v", err)
		}
		if _, _, err := n.Apply([]byte("late")).Wait(context.Background()); !errors.Is(err, cluster.ErrNotLeader) {
			t.Errorf("apply on a closed node: %v", err)
		}
		if err := n.Barrier(context.Background()); !errors.Is(err, cluster.ErrNotLeader) {
			t.Errorf("barrier on a closed node: %v", err)
		}
	})
}

// Every node hears of every change of the leader.
func TestLeaderChangesAreTold(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		first := c.WaitLeader().Status().ID
		n := c.Node(others(c, first)[0])
		changes, cancel := n.LeaderChanges()
		defer cancel()
		c.Crash(first)
		for leader, ok := n.Leader(); !ok || leader.ID == first; leader, ok = n.Leader() {
			select {
			case <-changes:
			case <-time.After(time.Minute):
				t.Fatal("no change was told")
			}
		}
	})
}
