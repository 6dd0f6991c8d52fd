package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// drive is a txn.Drive with what it needs in the world: a deadline, people who
// wait, a place in the term's books. What is to be done is the txn.Drive's to say.
// All fields but the channels' ends are guarded by term.mu.
type drive struct {
	*txn.Drive
	id    txn.TxID
	known *txn.Transaction // the state that the books and the waiters have caught up with

	booked []txn.Branch // the branches in the term's books
	bytes  int          // payload bytes in them

	held      txn.Command // the staging, while it waits for the votes; see holdStaging
	holding   *time.Timer // lets it go
	deadline  *time.Timer
	preparing context.Context    // of its prepares that have a goroutine; nil before the first leaves
	cancel    context.CancelFunc // ends it, at the decision; nil with it
	prepares  []*call            // those without a goroutine, that have ended or not
	chronicle chronicle          // for people
	trace     Trace              // nil where there is none
	heardAt   time.Time          // when the first receipt that is not logged was heard
	sealed    moment             // when the application was through with an interactive one

	failure   error     // why no further milestone will be reached
	staged    milestone // staging is applied
	decided   milestone // the decision is applied
	delivered milestone // a client may be told of delivery
	followers followers // those who have no goroutine to wait with
}

func newDrive(id txn.TxID, core *txn.Drive) *drive { return &drive{Drive: core, id: id} }

// begin drives a new transaction. Its prepares leave at once where every branch's
// driver can list what it holds prepared, and once staging is applied otherwise
// (rule R4). mu is held.
func (t *term) begin(s txn.Stage, traceparent string) *drive {
	core, acts := txn.Open(s, t.allRecover(s.Branches))
	d := newDrive(s.ID, core)
	d.chronicle.begun = t.moment()
	t.trace(d, traceparent)
	t.register(d)
	t.setDeadline(d, s.Timeout)
	t.holdStaging(d, &acts)
	t.carry(d, acts, nil)
	return d
}

// stagingHold is how long a staging waits for votes at most: what an entry takes, lately,
// and no more than this. Votes that take longer than an entry have nothing to share with
// it, and while commands queue for milliseconds every entry is shared anyway.
const stagingHold = 5 * time.Millisecond

// holdStaging keeps a staging back where its prepares have left and their votes will
// come before its entry could return: staging and commit then share an entry, at the
// cost of one replicated write in the place of two. Whatever else comes first, a no or
// the end of the hold, lets it go. Should the leader fall meanwhile, the prepared
// branches are orphans, as they are while the entry is on its way (rule R4). mu is held.
func (t *term) holdStaging(d *drive, a *txn.Acts) {
	hold := min(time.Duration(t.entries), stagingHold)
	if len(a.Calls) == 0 || t.slowestPrepare(d.Branches()) >= hold {
		return
	}
	d.held, a.Propose = a.Propose, nil
	d.holding = time.AfterFunc(hold, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.ended {
			t.stage(d)
		}
	})
}

// slowestPrepare is the pace of the participant that takes longest to vote, of those
// that have branches here.
func (t *term) slowestPrepare(branches []txn.Branch) time.Duration {
	var slowest pace
	for _, b := range branches {
		slowest = max(slowest, t.lane(b.Participant).pace)
	}
	return time.Duration(slowest)
}

// noteStaging keeps the time of a staging that was applied, and the pace of entries.
func (t *term) noteStaging(d *drive) {
	c := &d.chronicle
	c.staged.pass(t.moment())
	if c.staging != 0 {
		t.entries.note(time.Duration(c.staged - c.staging))
	}
}

// stage lets go of a staging that is held. mu is held.
func (t *term) stage(d *drive) {
	if c := d.held; c != nil {
		d.holding.Stop()
		d.held, d.holding = nil, nil
		t.write(d, c)
	}
}

func (t *term) allRecover(branches []txn.Branch) bool {
	for _, b := range branches {
		if !t.lane(b.Participant).recovers() {
			return false
		}
	}
	return true
}

// resume drives a transaction from its applied state: at the beginning of a term,
// and one that was applied by a call. mu is held.
func (t *term) resume(tx *txn.Transaction) *drive {
	now := t.log.Now()
	core, acts := txn.Resume(tx, now)
	d := newDrive(tx.ID, core)
	d.chronicle.begun, d.chronicle.takenOver = t.moment(), tx.Staged.Epoch != t.epoch
	t.takeUp(d, now, acts)
	return d
}

// takeUp enters a drive that began from an applied state.
func (t *term) takeUp(d *drive, now txn.Time, acts txn.Acts) {
	t.register(d)
	if tx := d.Transaction(); tx != nil && !tx.State.Decided() {
		t.setDeadline(d, tx.Deadline().Sub(now))
	}
	t.carry(d, acts, nil)
}

// carry carries out what an event made due; err is the error that came with the
// event. It is the only way from a drive into the world. mu is held.
func (t *term) carry(d *drive, a txn.Acts, err error) {
	t.catchUp(d)
	if a.Refused {
		d.fail(err)
	}
	if a.Propose != nil {
		t.stage(d) // it comes first in the log
		t.write(d, a.Propose)
	}
	for _, w := range a.Calls {
		t.lane(d.Branches()[w.Branch-1].Participant).add(d, w)
	}
	switch a.End {
	case txn.Settle:
		t.halt(d)
	case txn.Release:
		t.remember(d)
		t.release(d)
	}
}

// write proposes a command of a drive's.
func (t *term) write(d *drive, c txn.Command) {
	switch c := c.(type) {
	case txn.Stage:
		d.chronicle.staging = t.moment()
	case txn.Decide:
		d.chronicle.deciding = t.moment()
		if c.Decision == txn.Commit {
			failpoint("after-votes")
		}
	case txn.Acknowledge:
		failpoint("before-receipts")
	}
	t.log.Propose(t.epoch, c, func(tx *txn.Transaction, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.ended {
			return
		}
		acts := d.Answered(c, fateOf(err), tx, err)
		if acts.End == txn.Settle && fateOf(err) == txn.Refused {
			t.logger.Error("the state machine refused a command", "txid", d.id, "command", fmt.Sprintf("%T", c), "error", err)
		}
		t.carry(d, acts, err)
	})
}

// fateOf classifies the log's answer.
func fateOf(err error) txn.Fate {
	switch {
	case err == nil:
		return txn.Applied
	case errors.Is(err, ErrOutcomeUnknown):
		return txn.Unclear
	case errors.Is(err, ErrNotLeader):
		return txn.Unwritten
	default:
		return txn.Refused
	}
}

// catchUp brings the books and those who wait up to the state that was last
// applied.
func (t *term) catchUp(d *drive) {
	tx := d.Transaction()
	if tx == nil || tx == d.known {
		return
	}
	t.noteSeal(d, tx)
	d.known = tx
	t.rebook(d)
	if !d.staged.reached {
		failpoint("after-stage")
		d.staged.reach()
		if tx.Staged.Epoch == t.epoch {
			t.noteStaging(d)
		}
	}
	if !tx.State.Decided() {
		return
	}
	for _, b := range tx.Branches {
		if !b.Owed() {
			t.lane(b.Participant).open.Delete(d.id) // its quota and horizon are for what it is owed
		}
	}
	if !d.decided.reached {
		d.stopTimers()
		t.releaseBytes(d)
		failpoint("after-decision")
		d.decided.reach()
		t.noteDecision(d, tx)
		d.followers.tell()
	}
	t.tellDelivered(d)
	if tx.State.Finished() {
		failpoint("after-receipts")
	}
}

// rebook follows the branches of the applied state in the term's books.
func (t *term) rebook(d *drive) {
	branches := d.Branches()
	both := min(len(d.booked), len(branches))
	for _, b := range d.booked[both:] {
		t.lane(b.Participant).open.Delete(d.id)
	}
	for _, b := range branches[both:] {
		t.lane(b.Participant).open.ReplaceOrInsert(d.id)
		d.bytes += len(b.Payload)
		t.bytes += len(b.Payload)
	}
	d.booked = branches
	d.chronicle.follow(len(branches))
}

func (t *term) tellDelivered(d *drive) {
	if d.Delivered() && !d.delivered.reached {
		t.noteDelivery(d)
		d.delivered.reach()
		d.followers.tell()
	}
}

// fail answers those who wait with an error.
func (d *drive) fail(err error) {
	if d.failure != nil {
		return
	}
	d.failure = err
	for _, m := range []*milestone{&d.staged, &d.decided, &d.delivered} {
		m.wake()
	}
	d.followers.tell()
}

// underWay is the context of the drive's prepares: one that ends makes the decision
// an abort, so that it ends them all. mu is held.
func (t *term) underWay(d *drive) context.Context {
	if d.preparing == nil {
		d.preparing, d.cancel = context.WithTimeout(t.ctx, t.cfg.PrepareTimeout)
	}
	return d.preparing
}

// setDeadline aborts the transaction when its time is up, unless it is decided.
func (t *term) setDeadline(d *drive, left time.Duration) {
	d.deadline = time.AfterFunc(max(left, 0), func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.ended {
			t.carry(d, d.Withdraw(txn.TimeIsUp), nil)
		}
	})
}

// voted takes a branch's answer to prepare. An error is ambiguous and counts as a
// no; the abort that follows fences the branch. mu is held.
func (t *term) voted(d *drive, number int, v participants.Vote, err error) {
	if t.ended || !d.Wants(txn.Work{Kind: txn.PrepareBranch, Branch: number}) {
		return
	}
	why := txn.Reason{Code: txn.ReasonVote, Branch: number, Detail: clip(v.Reason)}
	if err != nil {
		v = participants.Vote{Kind: txn.VoteAbort}
		why = txn.Reason{Code: txn.ReasonUnavailable, Branch: number, Detail: clip(err.Error())}
		t.tellPrepareFailed(d, number, err)
	}
	d.track(number).votes(v.Kind, why.Detail, t.moment())
	acts := d.Voted(number, v.Kind, why)
	if v.Kind == txn.VoteAbort {
		t.stage(d)
	}
	failpoint("after-prepare")
	t.carry(d, acts, nil)
}

// halt takes a drive that stopped out of the way, and has the term find out what
// became of its transaction (rule R5). mu is held.
func (t *term) halt(d *drive) {
	d.fail(ErrOutcomeUnknown)
	d.stopTimers()
	delete(t.receipts, d)
	t.stopped = append(t.stopped, d)
	if !t.settling {
		t.settling = true
		t.work.Go(t.settleStopped)
	}
}

// settleStopped passes a barrier, after which the applied state holds whatever
// became of the stopped drives' proposals, and drives their transactions on from
// there. Where the leadership is over, the barrier fails until the term ends. It
// pauses after each round, so that a drive which stops at once again costs little.
func (t *term) settleStopped() {
	for attempt := 0; ; attempt++ {
		t.mu.Lock()
		batch := t.stopped // those that stop from now on need another barrier
		t.stopped = nil
		t.settling = len(batch) > 0
		t.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		if err := t.log.Barrier(t.ctx); err != nil {
			t.mu.Lock()
			t.stopped = append(t.stopped, batch...)
			t.mu.Unlock()
		} else {
			t.settle(batch)
		}
		if !sleep(t.ctx, t.backoff(attempt)) {
			return
		}
	}
}

func (t *term) settle(batch []*drive) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, old := range batch {
		if t.ended || t.live[old.id] != old {
			continue
		}
		t.release(old)
		tx, ok := t.view.Transaction(old.id)
		if !ok {
			tx = nil
		}
		now := t.log.Now()
		if core, acts := old.Settled(tx, now); core != nil {
			d := newDrive(old.id, core)
			d.trace = old.trace
			d.chronicle.goOn(&old.chronicle, core.Decided())
			t.takeUp(d, now, acts)
		} else {
			t.remember(old)
		}
	}
}

// stopTimers ends what belongs to the undecided part of a transaction's life.
func (d *drive) stopTimers() {
	if d.deadline != nil {
		d.deadline.Stop()
	}
	if d.cancel != nil {
		d.cancel()
	}
	for _, c := range d.prepares {
		if c.cancel() {
			c.lane.preparing--
			c.lane.meter.Called(c.work.Kind, CallGivenUp, time.Since(c.left))
			c.lane.pump()
		}
	}
	d.prepares = nil
}
