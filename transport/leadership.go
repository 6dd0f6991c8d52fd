package transport

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/decree-tx/decree/cluster"
)

const (
	// leaderPoll is how often leadership is looked at although nothing was heard:
	// notifications are coalesced, and the coordinator has none.
	leaderPoll = 100 * time.Millisecond
	// settlePoll takes its place while Raft's view and the coordinator's differ,
	// between an election and the epoch that it opens, which is a matter of
	// milliseconds.
	settlePoll = 5 * time.Millisecond
)

// errDeposed cuts a call to a leader that has been replaced.
var errDeposed = errors.New("another node leads now")

// leadership is who leads, as one node sees it at one moment.
type leadership struct {
	leader  cluster.Peer    // zero while none is known
	leads   bool            // this node drives transactions
	changed chan struct{}   // closed once there is a newer view
	reign   context.Context // ends once another node than leader leads
}

// observer keeps the latest view of who leads.
type observer struct {
	// set once by newObserver
	node     Node
	self     string // this node's id
	leads    func() bool
	onChange func(leads bool) // called by run alone

	mu     sync.Mutex
	now    leadership         // guarded by mu
	last   cluster.Peer       // guarded by mu; the last leader that was known
	depose context.CancelFunc // guarded by mu; ends now.reign, which is last's
}

func newObserver(node Node, leads func() bool, onChange func(bool)) *observer {
	o := &observer{node: node, self: node.Status().ID, leads: leads, onChange: onChange}
	o.now.changed = make(chan struct{})
	o.now.reign, o.depose = context.WithCancel(context.Background())
	return o
}

// view is the latest one.
func (o *observer) view() leadership {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

// run follows the leadership until ctx ends.
func (o *observer) run(ctx context.Context) {
	changes, stop := o.node.LeaderChanges()
	defer stop()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.depose()
	}()
	for {
		timer := time.NewTimer(o.look())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changes:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look takes a new view and says when to look again.
func (o *observer) look() time.Duration {
	leader, known := o.node.Leader()
	if !known {
		leader = cluster.Peer{}
	}
	leads := o.leads()
	if o.update(leader, leads) {
		o.onChange(leads)
	}
	if leads != (known && leader.ID == o.self) {
		return settlePoll
	}
	return leaderPoll
}

// update reports whether the view differs from the last one. Calls to the old
// leader are cut only once another is known: until then it may answer them.
func (o *observer) update(leader cluster.Peer, leads bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if leader == o.now.leader && leads == o.now.leads {
		return false
	}
	next := leadership{leader: leader, leads: leads, changed: make(chan struct{}), reign: o.now.reign}
	if leader != (cluster.Peer{}) && leader != o.last {
		o.depose()
		next.reign, o.depose = context.WithCancel(context.Background())
		o.last = leader
	}
	close(o.now.changed)
	o.now = next
	return true
}
