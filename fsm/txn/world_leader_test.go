package txn_test

// The simulator's leader: what package coordinator is around a txn.Drive, without
// its queues' bounds and its goroutines. Each decision is the drive's.

import (
	"errors"
	"slices"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// leader is one term's.
type leader struct {
	w     *world
	epoch uint64
	since txn.Time // when the epoch was opened,
	base  txn.Time // and cluster time then
	// states is what a leader that was deposed has applied; one that leads has
	// applied everything.
	states  map[txn.TxID]*txn.Transaction
	cluster txn.Cluster

	dead  bool // crashed: nothing happens any more
	ended bool // it knows that its term is over

	queue      []proposal
	unanswered []*entry // on their way, in log order
	flying     []*entry // proposed and not committed, in order
	lands      txn.Time // when the last of them will be

	drives   []*drive // all that it drives, in order of their beginning
	stopped  []*drive
	held     []*txn.Transaction // in doubt since before a restore
	settling bool
	inquests []func() // of callers that nobody answers if the leader goes
}

// drive is a txn.Drive with those who wait for it.
type drive struct {
	*txn.Drive
	id       txn.TxID
	known    *txn.Transaction
	failure  error
	waiters  []waiter
	tries    int
	heardAt  txn.Time
	flushing bool
}

// answer is what a caller is told.
type answer struct {
	tx        *txn.Transaction
	delivered bool
	err       error
}

// milestone is how far a caller follows a transaction.
type milestone uint8

const (
	untilStaged milestone = iota
	untilDecided
	untilDelivered
)

type waiter struct {
	until milestone
	tell  func(answer)
}

func newLeader(w *world) *leader {
	return &leader{w: w, epoch: w.cluster.Epoch, since: w.now, base: w.cluster.Now}
}

func (l *leader) clock() txn.Time { return l.base.Add(l.w.now.Sub(l.since)) }

func (l *leader) view(id txn.TxID) *txn.Transaction {
	if l.states != nil {
		return l.states[id]
	}
	return l.w.states[id]
}

// horizon is what a participant may be told: never past a transaction that it is
// still owed, for below it the participant forgets.
func (l *leader) horizon(r *resource) txn.Time {
	h := l.w.cluster.Horizon
	if l.states != nil {
		h = l.cluster.Horizon
	}
	for _, d := range l.drives {
		if l.owes(d, r) {
			h = min(h, d.id.Time())
		}
	}
	for _, tx := range l.held {
		if tx.Branch(r.name) != 0 && l.inDoubt(l.view(tx.ID)) {
			h = min(h, tx.ID.Time())
		}
	}
	return h
}

func (l *leader) owes(d *drive, r *resource) bool {
	for _, b := range d.Branches() {
		if b.Participant == r.name {
			return !d.Decided() || b.Owed()
		}
	}
	return false
}

func (l *leader) over() bool { return l.dead || l.ended }

// takeOver drives on whatever is unfinished (rule R13).
func (l *leader) takeOver() {
	for _, id := range slices.Clone(l.w.open) {
		if tx := l.w.states[id]; l.inDoubt(tx) {
			l.held = append(l.held, tx)
		} else {
			l.resume(tx)
		}
	}
	for _, r := range l.w.resources {
		if r.lists {
			l.w.after(orphanGrace+l.w.short(), func() { l.scan(r) })
		}
	}
}

// notice ends a leader that learns that its term is over: whoever waits is told what
// is known.
func (l *leader) notice() {
	if l.over() {
		return
	}
	l.ended = true
	l.w.deposed = slices.DeleteFunc(l.w.deposed, func(o *leader) bool { return o == l })
	l.w.say("--- epoch %d knows that it is over", l.epoch)
	l.hangUp()
}

// hangUp ends everybody's wait. Those who called a process that crashed see their
// connection cut, which says no more than that.
func (l *leader) hangUp() {
	for _, d := range l.drives {
		waiters := d.waiters
		d.waiters = nil
		for _, a := range waiters {
			a.tell(answer{err: errUnknown})
		}
	}
	for _, tell := range l.inquests {
		tell()
	}
	l.inquests = nil
}

func (l *leader) find(id txn.TxID) *drive {
	for _, d := range l.drives {
		if d.id == id {
			return d
		}
	}
	return nil
}

// lookup finds a transaction that is driven, or else finished or in doubt, or neither.
func (l *leader) lookup(id txn.TxID) (*drive, *txn.Transaction) {
	if d := l.find(id); d != nil {
		return d, nil
	}
	tx := l.view(id)
	if tx == nil || tx.State.Finished() || l.inDoubt(tx) {
		return nil, tx
	}
	return l.resume(tx), nil
}

// inDoubt reports whether only an operator may decide a transaction that is known.
func (l *leader) inDoubt(tx *txn.Transaction) bool { return tx != nil && l.w.cluster.Held(tx) }

func (l *leader) resume(tx *txn.Transaction) *drive {
	core, acts := txn.Resume(tx, l.clock())
	return l.takeUp(tx.ID, core, acts)
}

func (l *leader) takeUp(id txn.TxID, core *txn.Drive, acts txn.Acts) *drive {
	d := &drive{Drive: core, id: id}
	l.drives = append(l.drives, d)
	if tx := d.Transaction(); tx != nil && !tx.State.Decided() {
		l.setDeadline(d, tx.Deadline().Sub(l.clock()))
	}
	l.carry(d, acts, nil)
	return d
}

func (l *leader) begin(s txn.Stage) *drive {
	early := !slices.ContainsFunc(s.Branches, func(b txn.Branch) bool { return !l.w.resource(b.Participant).lists })
	core, acts := txn.Open(s, early)
	d := &drive{Drive: core, id: s.ID}
	l.drives = append(l.drives, d)
	l.setDeadline(d, s.Timeout)
	l.carry(d, acts, nil)
	return d
}

func (l *leader) setDeadline(d *drive, left time.Duration) {
	l.w.after(max(left, 0), func() {
		if !l.over() {
			l.carry(d, d.Withdraw(txn.TimeIsUp), nil)
		}
	})
}

// carry carries out what an event made due.
func (l *leader) carry(d *drive, a txn.Acts, err error) {
	l.catchUp(d)
	if a.Refused {
		d.fail(err)
	}
	if a.Propose != nil {
		l.propose(d, a.Propose)
	}
	for _, call := range a.Calls {
		l.ask(d, call, l.w.upTo(time.Millisecond))
	}
	switch a.End {
	case txn.Settle:
		l.halt(d)
	case txn.Release:
		l.release(d)
	}
}

func (l *leader) propose(d *drive, c txn.Command) {
	switch c.(type) {
	case txn.Decide:
		l.w.at(l, "the decision is proposed")
	case txn.Acknowledge:
		l.w.at(l, "receipts are proposed")
	}
	l.write(c, func(tx *txn.Transaction, err error) {
		if !l.over() {
			l.carry(d, d.Answered(c, fateOf(err), tx, err), err)
		}
	})
}

// command proposes something about a transaction that may be driven.
func (l *leader) command(c txn.Command, done func(*txn.Transaction, error)) {
	l.write(c, func(tx *txn.Transaction, err error) {
		if l.over() {
			return
		}
		if d := l.find(c.Transaction()); d != nil {
			l.carry(d, d.Noticed(fateOf(err), tx), err)
		}
		done(tx, err)
	})
}

// catchUp tells those who wait what is applied.
func (l *leader) catchUp(d *drive) {
	tx := d.Transaction()
	if tx == nil || tx == d.known {
		return
	}
	if d.known == nil {
		l.w.at(l, "staging is applied")
	}
	if tx.State.Decided() && (d.known == nil || !d.known.State.Decided()) {
		l.w.at(l, "the decision is applied")
	}
	d.known = tx
	d.tell()
}

// tell answers whoever waits for no more than what is so by now.
func (d *drive) tell() {
	waiters := d.waiters
	d.waiters = nil // an answer may bring the next question
	for _, a := range waiters {
		switch {
		case d.reached(a.until):
			a.tell(answer{tx: d.Transaction(), delivered: d.Delivered()})
		case d.failure != nil && !d.Decided():
			a.tell(answer{err: d.failure})
		default:
			d.waiters = append(d.waiters, a)
		}
	}
}

func (d *drive) reached(m milestone) bool {
	switch m {
	case untilStaged:
		return d.Transaction() != nil
	case untilDecided:
		return d.Decided()
	default:
		return d.Delivered()
	}
}

func (d *drive) await(until milestone, tell func(answer)) {
	d.waiters = append(d.waiters, waiter{until, tell})
	d.tell()
}

func (d *drive) fail(err error) {
	if d.failure == nil {
		d.failure = err
		d.tell()
	}
}

func (l *leader) release(d *drive) {
	l.drives = slices.DeleteFunc(l.drives, func(o *drive) bool { return o == d })
}

// halt has the leader find out, behind a barrier, what became of a drive's
// transaction (rule R5).
func (l *leader) halt(d *drive) {
	d.fail(errUnknown)
	l.stopped = append(l.stopped, d)
	if !l.settling {
		l.settling = true
		l.barrier(l.settle)
	}
}

// barrier calls then once everything that was committed before is applied, if the
// leader still leads by then.
func (l *leader) barrier(then func()) {
	l.w.after(l.w.short(), func() {
		if l.w.leader == l {
			then()
		}
	})
}

func (l *leader) settle() {
	l.settling = false
	batch := l.stopped
	l.stopped = nil
	for _, old := range batch {
		if l.find(old.id) != old {
			continue
		}
		l.release(old)
		if core, acts := old.Settled(l.view(old.id), l.clock()); core != nil {
			l.takeUp(old.id, core, acts)
		}
	}
}

// branch is what a participant is told.
func (l *leader) branch(r *resource, id txn.TxID, number int, digest txn.Digest) participants.Branch {
	return participants.Branch{Cluster: clusterID, TxID: id, Number: number, Epoch: l.epoch, Digest: digest, Horizon: l.horizon(r)}
}

// ask sends work to its branch after it has waited in a queue, while it is wanted.
func (l *leader) ask(d *drive, call txn.Work, wait time.Duration) {
	l.w.after(wait, func() {
		b := d.Branches()
		if l.over() || !d.Wants(call) || call.Branch > len(b) {
			return
		}
		r := l.w.resource(b[call.Branch-1].Participant)
		switch {
		case call.Kind != txn.PrepareBranch:
			l.deliver(d, r, call)
		case d.Transaction() == nil && !r.lists: // follows its staging (rule R4)
			l.ask(d, call, l.w.short())
		default:
			l.prepare(d, r, call)
		}
	})
}

func (l *leader) prepare(d *drive, r *resource, call txn.Work) {
	w := l.w
	w.at(l, "a prepare leaves")
	if d.Transaction() == nil && !r.lists {
		w.violate("R4: a prepare of %s left before staging, to %s which cannot list", w.name(d.id), r.name)
	}
	answered := false
	voted := func(vote participants.Vote, err error) {
		if answered || l.over() {
			return
		}
		answered = true
		w.at(l, "a vote is heard")
		kind, why := vote.Kind, txn.Reason{Code: txn.ReasonVote, Branch: call.Branch, Detail: vote.Reason}
		if err != nil {
			kind, why = txn.VoteAbort, txn.Reason{Code: txn.ReasonUnavailable, Branch: call.Branch, Detail: err.Error()}
		}
		l.carry(d, d.Voted(call.Branch, kind, why), nil)
	}
	b := l.branch(r, d.id, call.Branch, d.Branches()[call.Branch-1].Digest)
	w.send(r, call.Kind, b, voted)
	w.at(l, "a branch has prepared")
	w.after(callTimeout, func() { voted(participants.Vote{}, errCut) })
}

// deliver tells a branch the decision, again and again until it answers (rule R10).
func (l *leader) deliver(d *drive, r *resource, call txn.Work) {
	w := l.w
	w.at(l, "a delivery leaves")
	w.mayLeave(d.id, call.Kind, r, call.Branch)
	answered := false
	heard := func(_ participants.Vote, err error) {
		if answered || l.over() {
			return
		}
		answered = true
		if damage, ok := errors.AsType[*participants.Heuristic](err); ok {
			l.acknowledge(d, call.Branch, damage.Receipt)
			return
		}
		if err != nil {
			d.tries++
			l.ask(d, call, w.upTo(min(backoffCap, time.Millisecond<<min(d.tries, 10))))
			return
		}
		w.at(l, "a delivery is heard")
		l.acknowledge(d, call.Branch, txn.Done)
	}
	w.send(r, call.Kind, l.branch(r, d.id, call.Branch, txn.Digest{}), heard)
	w.after(callTimeout, func() { heard(participants.Vote{}, errCut) })
}

// mayLeave holds that a delivery tells an applied decision (rule R2). To a branch
// that is not the transaction's, left by a submission with other content, a commit
// means an abort.
func (w *world) mayLeave(id txn.TxID, kind txn.WorkKind, r *resource, number int) {
	tx := w.last[id]
	if tx == nil || !tx.State.Decided() {
		w.violate("R2: %s of %s leaves, which is %s", kind, w.name(id), stateOf(tx))
	}
	want := txn.AbortBranch
	own := tx.Branch(r.name) == number && tx.Branches[number-1].Vote != txn.VoteReadOnly
	if tx.Decision() == txn.Commit && (own || tx.Tombstone()) {
		want = txn.CommitBranch
	}
	if kind != want {
		w.violate("R2: %s of branch %d of %s leaves to %s, which is %s", kind, number, w.name(id), r.name, tx.State)
	}
}

func (l *leader) acknowledge(d *drive, branch int, receipt txn.Receipt) {
	if !d.Heard(branch, receipt) {
		return
	}
	if d.heardAt == 0 {
		d.heardAt = l.w.now
	}
	d.tell()
	l.scheduleFlush(d)
}

func (l *leader) scheduleFlush(d *drive) {
	if d.flushing {
		return
	}
	d.flushing = true
	l.w.after(receiptDelay, func() {
		d.flushing = false
		switch {
		case l.over() || d.Stopped():
		case d.AllHeard() || l.w.now.Sub(d.heardAt) >= partialAfter:
			d.heardAt = 0
			l.propose(d, d.Receipts())
		default:
			l.scheduleFlush(d)
		}
	})
}

// scan ends orphaned branches at a participant: list, barrier, list again.
func (l *leader) scan(r *resource) {
	if l.over() {
		return
	}
	l.w.after(scanInterval, func() { l.scan(r) })
	first := slices.Clone(r.held)
	if len(first) == 0 || l.w.chance(50) {
		return
	}
	l.barrier(func() {
		suspects := slices.DeleteFunc(first, func(b branchID) bool {
			d := l.find(b.txid)
			return d != nil && d.Drives(r.name, b.number)
		})
		l.w.after(l.w.short(), func() {
			for _, b := range suspects {
				if slices.Contains(r.held, b) && !l.over() {
					l.endOrphan(r, b)
				}
			}
		})
	})
}

// endOrphan tells a branch its transaction's decision, after the abort was presumed
// of one that the log does not know (rule R6).
func (l *leader) endOrphan(r *resource, b branchID) {
	end := func(tx *txn.Transaction, err error) {
		if l.over() || err != nil {
			return
		}
		kind := txn.Orphan(tx, r.name, b.number)
		if kind == 0 {
			return
		}
		l.w.say("epoch %d ends the orphaned branch %d of %s at %s: %s", l.epoch, b.number, l.w.name(b.txid), r.name, kind)
		l.w.mayLeave(b.txid, kind, r, b.number)
		l.w.send(r, kind, l.branch(r, b.txid, b.number, txn.Digest{}), func(participants.Vote, error) {})
	}
	if tx := l.view(b.txid); tx != nil {
		end(tx, nil)
		return
	}
	l.command(txn.Presume{ID: b.txid}, end)
}

var errMismatch = errors.New("the txid was used with other content")
