package coordinator

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"time"

	"github.com/google/btree"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// downAfter consecutive failed deliveries, a participant counts as down: its lane
// then sends one call at a time, at the pace of the backoff, until one succeeds.
const downAfter = 8

// lane is the queue of one participant. A participant that is slow, or down,
// costs its own transactions time and everybody else nothing but the memory of
// what waits here: calls under way are bounded, and what waits has no goroutine
// (rule R14). All fields are guarded by term.mu.
type lane struct {
	t    *term // set once
	name string
	door *door // set once; has a lock of its own

	open *btree.BTreeG[txn.TxID] // transactions with a branch that is not yet ended here

	prepares  fifo
	preparing int  // calls under way
	pace      pace // of prepares

	deliveries schedule
	delivering int
	failures   int // consecutive

	started [2]roster // calls under way that have no goroutine: prepares, deliveries

	restUntil time.Time
	expedited time.Time // when all that waits was last brought forward
	timer     *time.Timer

	orphans int    // that the last scan found
	scanned moment // when it was

	meter      ParticipantMeter // set once
	complaints gate
}

// call is work for one branch.
type call struct {
	lane *lane
	d    *drive
	work txn.Work
	left time.Time // for the participant
	next time.Time // not before; deliveries only
	seq  uint64    // order of arrival among equals

	flight // where it has no goroutine
}

// laneDegree is that of the tree of a lane's open transactions: small, because most
// lanes are.
const laneDegree = 8

func newLane(t *term, name string) *lane {
	older := func(a, b txn.TxID) bool { return bytes.Compare(a[:], b[:]) < 0 }
	return &lane{
		t: t, name: name, door: &door{t: t, name: name}, open: btree.NewG(laneDegree, older),
		meter: t.cfg.Meter.Participant(name),
	}
}

// branch is what the participant is told. The horizon never passes a transaction
// that it is still owed: below it the participant may forget, and with the
// acknowledgement lost, what it remembers is the only proof of its commit.
func (l *lane) branch(id txn.TxID, number int, b txn.Branch) participants.Branch {
	horizon := l.t.view.Cluster().Horizon
	if oldest, ok := l.open.Min(); ok {
		horizon = min(horizon, oldest.Time())
	}
	return participants.Branch{
		Cluster: l.t.view.ClusterID(),
		TxID:    id,
		Number:  number,
		Epoch:   l.t.epoch,
		Horizon: horizon,
		Digest:  b.Digest,
		Payload: b.Payload,
	}
}

// recovers reports whether prepares may leave before staging is applied.
func (l *lane) recovers() bool { return l.door.recovers() }

// add queues work and starts what may start. mu is held.
func (l *lane) add(d *drive, w txn.Work) {
	c := &call{lane: l, d: d, work: w}
	if w.Kind == txn.PrepareBranch {
		l.prepares.push(c)
	} else {
		l.deliveries.push(c)
	}
	l.pump()
}

// pump starts calls until the bounds are reached or nothing is due. mu is held.
func (l *lane) pump() {
	for !l.t.ended && l.preparing < l.t.cfg.PreparesInFlight {
		c := l.prepares.pop()
		if c == nil {
			break
		}
		if !c.d.Wants(c.work) {
			continue
		}
		l.preparing++
		c.left = time.Now()
		c.d.track(c.work.Branch).asked(l.t.at(c.left))
		if !l.start(c) {
			l.call(c)
		}
	}
	l.pumpDeliveries()
}

func (l *lane) pumpDeliveries() {
	now := time.Now()
	for !l.t.ended && l.delivering < l.window() && !now.Before(l.restUntil) {
		c := l.deliveries.due(now)
		if c == nil {
			break
		}
		if !c.d.Wants(c.work) {
			continue
		}
		l.delivering++
		c.left = now
		c.d.track(c.work.Branch).leaves(l.t.at(now))
		failpoint("before-delivery")
		if !l.start(c) {
			l.call(c)
		}
	}
	l.setTimer(now)
}

// call has a call made on a goroutine of the term's. mu is held.
func (l *lane) call(c *call) {
	b := l.branchOf(c)
	if c.work.Kind == txn.PrepareBranch {
		ctx := l.t.underWay(c.d)
		l.t.crew.run(func() { l.prepare(ctx, c, b) })
		return
	}
	ctx := l.t.delivering.at(time.Now())
	l.t.crew.run(func() { l.deliver(ctx, c, b) })
}

// branchOf is what the participant is told by a call.
func (l *lane) branchOf(c *call) participants.Branch {
	b := l.branch(c.d.id, c.work.Branch, c.d.Branches()[c.work.Branch-1])
	b.Traceparent = c.d.traceparent(c.work.Kind, c.work.Branch)
	if c.work.Kind != txn.PrepareBranch {
		b.Payload = nil
	}
	return b
}

// window is how many deliveries may be under way at once.
func (l *lane) window() int {
	if l.failures >= downAfter {
		return 1
	}
	return l.t.cfg.DeliveriesInFlight
}

// setTimer wakes the lane when its next delivery is due, unless a call that comes
// back will do so first.
func (l *lane) setTimer(now time.Time) {
	l.stopTimer()
	if l.t.ended || l.deliveries.Len() == 0 || l.delivering >= l.window() {
		return
	}
	at := l.deliveries.calls[0].next
	if at.Before(l.restUntil) {
		at = l.restUntil
	}
	l.timer = time.AfterFunc(at.Sub(now), func() {
		l.t.mu.Lock()
		defer l.t.mu.Unlock()
		l.pumpDeliveries()
	})
}

// stopTimer stops the timer of what waits.
func (l *lane) stopTimer() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// prepare makes one call, on a goroutine of the term's.
func (l *lane) prepare(ctx context.Context, c *call, b participants.Branch) {
	var vote participants.Vote
	err := l.door.through(ctx, func(p participants.Participant) (err error) {
		if !p.Recovers() && !l.t.pass(ctx, &c.d.staged) { // it may be another one than when the prepare was queued
			return errUnstaged
		}
		vote, err = p.Prepare(ctx, b)
		return err
	})
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	l.answered(c, vote, err)
}

// answered takes a participant's answer to a prepare. mu is held.
func (l *lane) answered(c *call, vote participants.Vote, err error) {
	if err == nil && (vote.Kind < txn.VoteCommit || vote.Kind > txn.VoteAbort) {
		err = errors.New("the driver answered without a vote")
	}
	took := time.Since(c.left)
	l.pace.note(took)
	l.meter.Called(c.work.Kind, prepareResult(vote, err), took)
	l.t.voted(c.d, c.work.Branch, vote, err)
	l.preparing--
	l.pump()
}

// errUnstaged is the end of a prepare that waited for its staging in vain.
var errUnstaged = errors.New("the prepare has not left: its staging was not applied in time")

// deliver makes one call, on a goroutine of the term's.
func (l *lane) deliver(ctx context.Context, c *call, b participants.Branch) {
	err := l.door.through(ctx, func(p participants.Participant) error {
		if c.work.Kind == txn.CommitBranch {
			return p.Commit(ctx, b)
		}
		return p.Abort(ctx, b)
	})

	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	l.delivered(c, err)
}

// delivered takes a participant's answer to phase two. mu is held.
func (l *lane) delivered(c *call, err error) {
	l.delivering--
	if l.t.ended {
		return
	}
	var damage *participants.Heuristic
	took := time.Since(c.left)
	switch {
	case err == nil:
		l.succeeded()
		l.meter.Called(c.work.Kind, CallDone, took)
		l.t.acknowledged(c.d, c.work.Branch, txn.Done)
	case errors.As(err, &damage):
		l.succeeded()
		l.meter.Called(c.work.Kind, CallHeuristic, took)
		l.damaged(c, damage)
		l.t.acknowledged(c.d, c.work.Branch, damage.Receipt)
	default:
		l.meter.Called(c.work.Kind, CallFailed, took)
		l.failed(c, err)
	}
	l.pump()
}

// damaged tells people, by every way there is; the receipt tells the log.
func (l *lane) damaged(c *call, h *participants.Heuristic) {
	c.d.track(c.work.Branch).troubled().evidence = clip(h.Detail)
	l.t.logger.Error("a branch ended against the decision", "txid", c.d.id, "participant", l.name,
		"branch", c.work.Branch, "delivery", c.work.Kind, "receipt", h.Receipt, "evidence", h.Detail)
	if tell := l.t.cfg.OnDamage; tell != nil {
		tell(Damage{c.d.id, l.name, c.work.Branch, h.Receipt, h.Detail})
	}
}

// succeeded ends a time of being down: what waits is brought forward, once in a
// backoff's longest pause, so that a branch which always fails cannot use other
// branches' success to be tried without pause.
func (l *lane) succeeded() {
	wasDown := l.failures >= downAfter
	l.failures = 0
	l.restUntil = time.Time{}
	if now := time.Now(); wasDown && now.Sub(l.expedited) >= l.t.cfg.BackoffCap {
		l.expedited = now
		l.deliveries.expedite(now, l.t.at(now))
	}
}

// failed queues the call again. Delivery is never given up (rule R10).
func (l *lane) failed(c *call, err error) {
	k := c.d.track(c.work.Branch)
	now := time.Now()
	c.next = now.Add(l.t.backoff(int(k.attempts)))
	k.fails(clip(err.Error()), l.t.at(now), l.t.at(c.next))
	l.deliveries.push(c)
	l.failures++
	if l.failures >= downAfter {
		l.restUntil = now.Add(l.t.backoff(l.failures - downAfter))
	}
	if l.failures == 1 || l.failures == downAfter {
		l.t.logger.Warn("delivery failed, will be retried", "txid", c.d.id, "participant", l.name, "branch", c.work.Branch,
			"delivery", c.work.Kind, "attempt", k.attempts, "consecutive", l.failures, "waiting", l.deliveries.Len(), "error", err)
	}
}

// fifo is a queue without bound of its own: admission bounds what can be in it.
type fifo struct {
	calls []*call
	head  int
}

func (q *fifo) push(c *call) { q.calls = append(q.calls, c) }

func (q *fifo) len() int { return len(q.calls) - q.head }

func (q *fifo) pop() *call {
	if q.head == len(q.calls) {
		q.calls, q.head = q.calls[:0], 0
		return nil
	}
	c := q.calls[q.head]
	q.calls[q.head] = nil
	q.head++
	if q.head > 1024 && q.head*2 > len(q.calls) {
		q.calls, q.head = append([]*call(nil), q.calls[q.head:]...), 0
	}
	return c
}

// schedule orders deliveries by when they are due, then by arrival.
type schedule struct {
	calls []*call
	seq   uint64
}

func (s *schedule) push(c *call) {
	s.seq++
	c.seq = s.seq
	heap.Push(s, c)
}

// due takes the first call that may leave now, nil when there is none.
func (s *schedule) due(now time.Time) *call {
	if len(s.calls) == 0 || s.calls[0].next.After(now) {
		return nil
	}
	return heap.Pop(s).(*call)
}

// expedite makes everything due, in order of arrival.
func (s *schedule) expedite(now time.Time, m moment) {
	for _, c := range s.calls {
		c.next = now
		if x := c.d.track(c.work.Branch).trouble; x != nil {
			x.next = m
		}
	}
	heap.Init(s)
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (s *schedule) Len() int { return len(s.calls) }
func (s *schedule) Less(i, j int) bool {
	a, b := s.calls[i], s.calls[j]
	if !a.next.Equal(b.next) {
		return a.next.Before(b.next)
	}
	return a.seq < b.seq
}
func (s *schedule) Swap(i, j int) { s.calls[i], s.calls[j] = s.calls[j], s.calls[i] }
func (s *schedule) Push(x any)    { s.calls = append(s.calls, x.(*call)) }
func (s *schedule) Pop() any {
	last := len(s.calls) - 1
	c := s.calls[last]
	s.calls[last] = nil
	s.calls = s.calls[:last]
	return c
}
