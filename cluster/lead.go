package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// barrierRetry paces the barrier that opens a term, which fails while an earlier
// transfer of leadership is being given up.
const barrierRetry = 20 * time.Millisecond

// Lead sets the work of a leader. Call it once.
//
// lead runs in each term in which this node leads, on a goroutine of the node's,
// after a barrier in that term: everything that earlier leaders committed is
// applied here. ctx ends with the leadership. lead must return then; the next
// term's lead starts only after that, and past Config.LeadGrace the node exits,
// for work that outlives its term could act on the world beside its successor
// (rule R3). A lead that returns early is not called again in its term.
func (n *Node) Lead(lead func(ctx context.Context, term uint64)) { n.terms.lead <- lead }

// terms runs the leader's work, one term at a time.
type terms struct {
	n      *Node
	notify chan bool // from Raft: this node has begun or ceased to lead
	lead   chan func(context.Context, uint64)
	quit   chan struct{} // closed by stop
	once   sync.Once
	ended  chan struct{} // closed when run has returned
}

func newTerms(n *Node) *terms {
	return &terms{
		n: n, notify: make(chan bool, notifyBuffer), lead: make(chan func(context.Context, uint64), 1),
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
}

func (t *terms) begin() { go t.run() }

// abandon stands for begin where the node never started.
func (t *terms) abandon() { close(t.ended) }

// stop ends the term under way and lets no other begin.
func (t *terms) stop() { t.once.Do(func() { close(t.quit) }) }

// wait returns once the last term's work has ended, or the node has exited over
// it.
func (t *terms) wait() { <-t.ended }

// run reads every change of leadership, at once, and starts and ends terms.
func (t *terms) run() {
	defer close(t.ended)
	var (
		lead    func(context.Context, uint64)
		current *term // nil while no work runs
		due     bool  // this node leads, and the work has not begun
		quit    = t.quit
	)
	for {
		if due && current == nil && lead != nil {
			due = false
			current = t.start(lead)
		}
		select {
		case lead = <-t.lead:
		case due = <-t.notify:
			// Whatever the event says, the term of the running work is over.
			current.end(t.n.cfg.LeadGrace)
			t.n.changes.tell()
		case <-current.done():
			current.stopClock()
			current = nil
		case <-current.overdue():
			t.n.exit(fmt.Errorf("the work of a term has not ended %s after the leadership", t.n.cfg.LeadGrace))
			return
		case <-quit:
			quit, lead = nil, nil
			current.end(t.n.cfg.LeadGrace)
		}
		if quit == nil && current == nil {
			return
		}
	}
}

func (t *terms) start(lead func(context.Context, uint64)) *term {
	ctx, cancel := context.WithCancel(context.Background())
	c := &term{cancel: cancel, finished: make(chan struct{})}
	go func() {
		defer close(c.finished)
		defer cancel()
		if number, ok := t.n.openTerm(ctx); ok {
			t.n.log.Info("leading", "term", number)
			lead(ctx, number)
			t.n.log.Info("no longer leading", "term", number)
		}
	}()
	return c
}

// openTerm passes a barrier and returns the term it was passed in; false once ctx
// has ended.
func (n *Node) openTerm(ctx context.Context) (uint64, bool) {
	for ctx.Err() == nil {
		// The barrier's entry carries a term between these two readings, for terms
		// only grow: where they agree it is this one.
		before := n.raft.CurrentTerm()
		if n.Barrier(ctx) == nil && n.raft.CurrentTerm() == before && ctx.Err() == nil {
			return before, true
		}
		select {
		case <-time.After(barrierRetry):
		case <-ctx.Done():
		}
	}
	return 0, false
}

// term is one term's work. Its methods do nothing on nil.
type term struct {
	cancel   context.CancelFunc
	finished chan struct{} // closed when the work has returned
	grace    *time.Timer   // runs from the first end
}

// end ends the work's context and starts the clock for its return.
func (c *term) end(grace time.Duration) {
	if c == nil {
		return
	}
	c.cancel()
	if c.grace == nil {
		c.grace = time.NewTimer(grace)
	}
}

func (c *term) stopClock() {
	if c.grace != nil {
		c.grace.Stop()
	}
}

func (c *term) done() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.finished
}

func (c *term) overdue() <-chan time.Time {
	if c == nil || c.grace == nil {
		return nil
	}
	return c.grace.C
}

// leads reports whether Raft says that this node leads.
func (n *Node) leads() bool {
	r := n.running()
	return r != nil && n.ctx.Err() == nil && r.State() == raft.Leader
}

// running is Raft, nil before it has started.
func (n *Node) running() *raft.Raft {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.raft
}

// Leader is the leader that this node knows of, which may have been replaced
// already; false while it knows none.
func (n *Node) Leader() (Peer, bool) {
	r := n.running()
	if r == nil {
		return Peer{}, false
	}
	at, id := r.LeaderWithID()
	return Peer{ID: string(id), RaftAddress: string(at)}, id != ""
}

// leaderChanges tells subscribers that the leader has changed, or may have.
type leaderChanges struct {
	mu   sync.Mutex
	subs map[chan struct{}]struct{} // guarded by mu
}

// LeaderChanges returns a channel that receives after a change of the leader that
// this node knows of. Changes are merged: read it, then ask Leader. Call the
// function to unsubscribe; the channel is never closed.
func (n *Node) LeaderChanges() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	l := &n.changes
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subs == nil {
		l.subs = make(map[chan struct{}]struct{})
	}
	l.subs[c] = struct{}{}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs, c)
	}
}

func (l *leaderChanges) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.subs {
		select {
		case c <- struct{}{}:
		default: // it has not read the last one, and will see this one's result
		}
	}
}

// watch subscribes to Raft at once and returns the loop that passes changes on.
// Raft drops what does not fit the buffer: then a change is pending anyway.
func (l *leaderChanges) watch(n *Node) func() {
	seen := make(chan raft.Observation, notifyBuffer)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(observer)
	return func() {
		defer n.raft.DeregisterObserver(observer)
		for {
			select {
			case <-seen:
				l.tell()
			case <-n.ctx.Done():
				return
			}
		}
	}
}
