package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// drive is one transaction on its way through one epoch. All fields but the
// channels' ends are guarded by term.mu.
//
// A drive that meets an unknown outcome is stopped: it proposes nothing more and
// calls nobody, and a new drive takes the transaction up from its applied state
// once a barrier has told what that is (rule R5).
type drive struct {
	id       txn.TxID
	print    txn.Fingerprint // of the content; zero for a tombstone
	branches []txn.Branch    // as proposed or as last applied
	bytes    int             // payload bytes held in the term's books

	tx        *txn.Transaction // as last applied here; nil until staged
	ballot    txn.Ballot
	left      bool // prepares left, or may have, before staging was applied
	proposing bool // a decision is on its way through the log
	halted    bool // stopped, see above
	failure   error

	deadline *time.Timer
	cancels  []context.CancelFunc // of the prepares under way; called at the decision

	asked    []txn.WorkKind // by branch: the work last given to its lane
	heard    []txn.Receipt  // by branch: phase two's answers, logged or not
	progress []Delivery     // by branch: for people
	heardAt  time.Time      // when the first receipt that is not logged was heard

	staged    chan struct{} // closed when staging is applied
	decided   chan struct{} // closed when the decision is applied
	delivered chan struct{} // closed when every branch has acknowledged
	failed    chan struct{} // closed after failure is set; nothing is closed after it
}

func newDrive(id txn.TxID, branches []txn.Branch, print txn.Fingerprint) *drive {
	d := &drive{
		id:        id,
		print:     print,
		branches:  branches,
		bytes:     payloadBytes(branches),
		ballot:    txn.NewBallot(branches),
		staged:    make(chan struct{}),
		decided:   make(chan struct{}),
		delivered: make(chan struct{}),
		failed:    make(chan struct{}),
	}
	d.makeRoom()
	return d
}

// makeRoom keeps what is kept by branch as long as the branches.
func (d *drive) makeRoom() {
	n := min(len(d.heard), len(d.branches))
	d.asked, d.heard, d.progress = d.asked[:n], d.heard[:n], d.progress[:n]
	for len(d.heard) < len(d.branches) {
		d.asked = append(d.asked, 0)
		d.heard = append(d.heard, txn.ReceiptNone)
		d.progress = append(d.progress, Delivery{Branch: len(d.progress) + 1})
	}
}

// stage proposes the staging entry of a new transaction. Its prepares leave at
// once where every branch's driver can list what it holds prepared, and once
// staging is applied otherwise (rule R4). mu is held.
func (t *term) stage(d *drive, s txn.Stage) {
	t.setDeadline(d, s.Timeout)
	t.log.Propose(t.epoch, s, func(tx *txn.Transaction, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.onStaged(d, tx, err)
	})
	if d.left = len(s.Branches) > 0 && t.allRecover(s.Branches); !d.left {
		return
	}
	for i := range d.branches {
		t.perform(d, txn.Work{Kind: txn.PrepareBranch, Branch: i + 1})
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

func (t *term) onStaged(d *drive, tx *txn.Transaction, err error) {
	switch {
	case t.ended || d.halted:
	case errors.Is(err, ErrOutcomeUnknown):
		t.halt(d)
	case errors.Is(err, ErrNotLeader):
		t.fail(d, err) // certainly not staged; what prepared meanwhile is the orphan scan's to find
	case err != nil:
		t.refused(d, err)
	case tx.Tombstone() && d.left:
		t.refused(d, nil)
	default:
		t.advance(d, tx)
	}
}

// refused ends a transaction that the state machine would not stage. Where
// prepares have left, their abort is logged and delivered (rule R4). why is nil
// when the transaction turned out to be aborted already, which is an answer.
func (t *term) refused(d *drive, why error) {
	if why != nil {
		t.signalFailure(d, why)
	}
	if !d.left || errors.Is(why, txn.ErrContentMismatch) {
		d.halted = true
		t.release(d)
		return
	}
	reason := txn.Reason{Code: txn.ReasonRefused, Detail: "refused after prepares had left"}
	t.decide(d, txn.Decide{Decision: txn.Abort, Reason: reason, Branches: withoutPayloads(d.branches)})
}

// withoutPayloads copies branches as an abort needs them. With their payloads,
// which may be what staging was refused for, the abort could be refused too.
func withoutPayloads(branches []txn.Branch) []txn.Branch {
	bare := append([]txn.Branch(nil), branches...)
	for i := range bare {
		bare[i].Payload = nil
	}
	return bare
}

// resume drives a transaction from its applied state: at the beginning of a term,
// and after an unknown outcome. mu is held.
func (t *term) resume(tx *txn.Transaction) *drive {
	d := newDrive(tx.ID, tx.Branches, tx.Fingerprint)
	t.register(d)
	if !tx.State.Decided() {
		left := tx.Deadline().Sub(t.log.Now())
		if left <= 0 {
			d.ballot.Withdraw(timeIsUp)
		}
		t.setDeadline(d, left)
	}
	t.advance(d, tx)
	return d
}

// advance takes over a newly applied state and carries out what is still owed to
// it. It is the one path of live work and recovery (rule R13): what was given to a
// lane before is not given twice. mu is held.
func (t *term) advance(d *drive, tx *txn.Transaction) {
	if d.tx != nil && precedes(tx, d.tx) {
		return // a barrier has shown this drive a later state already
	}
	t.absorb(d, tx)
	t.consider(d)
	for _, w := range txn.Pending(tx) {
		t.perform(d, w)
	}
}

// perform gives work to the branch's lane, unless the lane has it, or a prepare
// could not change the decision any more.
func (t *term) perform(d *drive, w txn.Work) {
	if w.Branch == 0 || d.asked[w.Branch-1] == w.Kind || w.Kind == txn.PrepareBranch && d.proposing {
		return
	}
	d.asked[w.Branch-1] = w.Kind
	b := d.branches[w.Branch-1]
	t.lane(b.Participant).add(d, w)
}

// absorb notes a newly applied state and tells those who wait for it.
func (t *term) absorb(d *drive, tx *txn.Transaction) {
	sealed := d.tx != nil && d.tx.State == txn.Active && tx.State == txn.Preparing
	t.adopt(d, tx.Branches)
	d.tx = tx
	if sealed {
		d.ballot = txn.NewBallot(tx.Branches)
	}
	d.ballot.Stage()
	if !isClosed(d.staged) {
		failpoint("after-stage")
		close(d.staged)
	}
	if !tx.State.Decided() {
		return
	}
	for i, b := range tx.Branches {
		if b.Owed() {
			continue
		}
		if d.heard[i] == txn.ReceiptNone {
			d.heard[i] = max(b.Receipt, txn.Done)
		}
		t.lane(b.Participant).open.Delete(d.id) // its quota and horizon are for what it is owed
	}
	if !isClosed(d.decided) {
		d.stopTimers()
		t.releaseBytes(d)
		failpoint("after-decision")
		close(d.decided)
	}
	d.checkDelivered()
	if tx.State.Finished() {
		failpoint("after-receipts")
		t.release(d)
	}
}

// adopt follows the branches of the applied state in the term's books: they grow
// while a transaction is Active, and a tombstone that came before staging has none.
func (t *term) adopt(d *drive, branches []txn.Branch) {
	both := min(len(d.branches), len(branches))
	for _, b := range d.branches[both:] {
		t.lane(b.Participant).open.Delete(d.id)
	}
	for _, b := range branches[both:] {
		t.lane(b.Participant).open.ReplaceOrInsert(d.id)
		d.bytes += len(b.Payload)
		t.bytes += len(b.Payload)
	}
	d.branches = branches
	d.makeRoom()
}

// consider proposes the decision as soon as the ballot has one. Until staging is
// applied it has none, and after the decision none is needed.
func (t *term) consider(d *drive) {
	if d.halted || d.proposing || d.tx == nil || d.tx.State.Decided() {
		return
	}
	verdict, ok := d.ballot.Verdict()
	if !ok {
		return
	}
	if verdict.Decision == txn.Commit {
		failpoint("after-votes")
	}
	t.decide(d, verdict)
}

// decide proposes a decision. What becomes of it is read from the state machine's
// answer, which may be another decision that was first (rule R1).
func (t *term) decide(d *drive, c txn.Decide) {
	d.proposing = true
	c.ID = d.id
	t.log.Propose(t.epoch, c, func(tx *txn.Transaction, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		switch {
		case t.ended || d.halted:
		case err != nil:
			t.troubled(d, c, err)
		default:
			d.proposing = false
			t.advance(d, tx)
		}
	})
}

// checkDelivered tells those who wait once every branch has answered, and once the
// damage among the answers is replicated: a client that was told of delivery must
// have been told of that too, and it reads damage from the applied state.
func (d *drive) checkDelivered() {
	if d.tx == nil || !d.tx.State.Decided() || isClosed(d.delivered) || !d.allHeard() {
		return
	}
	for i, r := range d.heard {
		if r.Heuristic() && d.tx.Branches[i].Owed() {
			return
		}
	}
	close(d.delivered)
}

// allHeard reports whether every branch has answered.
func (d *drive) allHeard() bool { return !slices.Contains(d.heard, txn.ReceiptNone) }

// troubled handles a proposal about a staged transaction that was not applied.
// Even a definite refusal leaves the outcome to the next leader, so to the client
// it is unknown.
func (t *term) troubled(d *drive, c txn.Command, err error) {
	if !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrNotLeader) {
		t.logger.Error("the state machine refused a command", "txid", d.id, "command", fmt.Sprintf("%T", c), "error", err)
	}
	t.halt(d)
}

var timeIsUp = txn.Reason{Code: txn.ReasonTimeout, Detail: "the transaction's time ran out"}

// setDeadline aborts the transaction when its time is up, unless it is decided.
func (t *term) setDeadline(d *drive, left time.Duration) {
	d.deadline = time.AfterFunc(max(left, 0), func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.ended || d.halted {
			return
		}
		d.ballot.Withdraw(timeIsUp)
		t.consider(d)
	})
}

// voted takes a branch's answer to prepare. An error is ambiguous and counts as a
// no; the abort that follows fences the branch.
func (t *term) voted(d *drive, number int, v participants.Vote, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || d.halted || isClosed(d.decided) {
		return
	}
	why := txn.Reason{Code: txn.ReasonVote, Branch: number, Detail: clip(v.Reason)}
	if err != nil {
		v = participants.Vote{Kind: txn.VoteAbort}
		why = txn.Reason{Code: txn.ReasonUnavailable, Branch: number, Detail: clip(err.Error())}
		t.logger.Warn("prepare failed", "txid", d.id, "participant", d.branches[number-1].Participant, "branch", number, "error", err)
	}
	d.progress[number-1].Vote = v.Kind
	d.ballot.Cast(number, v.Kind, why)
	failpoint("after-prepare")
	t.consider(d)
}

// halt stops a drive whose outcome is not known and has the term find out
// (rule R5). mu is held.
func (t *term) halt(d *drive) {
	d.halted = true
	t.signalFailure(d, ErrOutcomeUnknown)
	d.stopTimers()
	delete(t.receipts, d)
	t.stopped = append(t.stopped, d)
	if !t.settling {
		t.settling = true
		t.work.Go(t.settleStopped)
	}
}

// settleStopped passes a barrier, after which the applied state holds whatever
// became of the halted drives' proposals, and drives their transactions on from
// there. Where the leadership is over, the barrier fails until the term ends. It
// pauses after each round, so that a drive which stops at once again costs little.
func (t *term) settleStopped() {
	for attempt := 0; ; attempt++ {
		t.mu.Lock()
		batch := t.stopped // those that halt from now on need another barrier
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
	for _, d := range batch {
		if t.ended || t.live[d.id] != d {
			continue
		}
		t.release(d)
		tx, ok := t.view.Transaction(d.id)
		unstaged := !ok && d.tx == nil || ok && tx.Tombstone() && len(tx.Branches) == 0
		switch {
		case d.left && unstaged:
			t.cleanUp(d)
		case ok && !tx.State.Finished():
			t.resume(tx)
		}
	}
}

// cleanUp aborts a transaction whose staging certainly failed after prepares had
// left, in a drive of its own.
func (t *term) cleanUp(old *drive) {
	d := newDrive(old.id, old.branches, old.print)
	d.left = true
	t.register(d)
	t.refused(d, nil)
}

// fail ends a drive for good: its waiters get err, and the term forgets it.
func (t *term) fail(d *drive, err error) {
	d.halted = true
	t.signalFailure(d, err)
	t.release(d)
}

func (t *term) signalFailure(d *drive, err error) {
	if !isClosed(d.failed) {
		d.failure = err
		close(d.failed)
	}
}

// stopTimers ends what belongs to the undecided part of a transaction's life.
func (d *drive) stopTimers() {
	if d.deadline != nil {
		d.deadline.Stop()
	}
	for _, cancel := range d.cancels {
		cancel()
	}
	d.cancels = nil
}

// precedes reports whether a is an earlier state of b's transaction. Branches are
// only ever added, states only move on, and receipts only accumulate; a tombstone
// that adopts branches goes from Aborted to Aborting, and gains them.
func precedes(a, b *txn.Transaction) bool {
	switch {
	case len(a.Branches) != len(b.Branches):
		return len(a.Branches) < len(b.Branches)
	case a.State != b.State:
		return a.State < b.State
	default:
		return owed(a) > owed(b)
	}
}

func owed(t *txn.Transaction) int {
	n := 0
	for _, b := range t.Branches {
		if b.Owed() {
			n++
		}
	}
	return n
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
