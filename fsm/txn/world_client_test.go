package txn_test

// The simulator's clients: one-shot and interactive transactions, some submitted by
// two clients at once, with the same content or not, some aborted or asked about
// meanwhile. A client that does not know the outcome asks again with the same txid.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// plan is one client's way through one transaction.
type plan struct {
	w        *world
	id       txn.TxID
	branches []txn.Branch
	timeout  time.Duration
	until    milestone
	// Of an interactive transaction: how far it has come. An external branch is
	// prepared by the application itself once it is enlisted.
	interactive bool
	begun       bool
	enlisted    int
	tries       int
}

// nextPlan begins a transaction, and after it the next.
func (w *world) nextPlan() {
	if w.calm {
		return
	}
	w.stats.transactions++
	p := w.newPlan()
	w.plans = append(w.plans, p)
	w.after(0, p.call)
	w.after(think+w.upTo(think), w.nextPlan)
	if w.often(100, 400) { // a twin, perhaps with other content
		twin := *p
		if twin.interactive = false; w.often(300, 700) || p.interactive {
			twin.branches = w.otherContent(p.branches)
			w.disputed[p.id] = true
		}
		w.plans = append(w.plans, &twin)
		w.after(w.upTo(think), twin.call)
	}
	if w.chance(80) {
		w.after(w.upTo(think), func() { w.interfere(p.id, (*leader).abort) })
	}
	if w.chance(80) {
		w.after(w.upTo(2*think), func() { w.interfere(p.id, (*leader).inquire) })
	}
	if w.meddled && w.chance(200) {
		r := w.resources[w.rng.IntN(resources)]
		w.after(w.upTo(2*think), r.meddle)
	}
}

func (w *world) newPlan() *plan {
	n := w.stats.transactions
	made := w.now
	if w.perilous { // by a clock that is ahead, as far as a restore allows for
		made = made.Add(time.Duration(w.rng.Int64N(int64(restoreSkew))))
	}
	id := idAt(made, uint64(n))
	w.names[id] = fmt.Sprint("t", n)
	p := &plan{
		w: w, id: id, branches: w.newBranches(), interactive: w.chance(200),
		timeout: 20*time.Millisecond + w.upTo(5*patience), until: untilDecided + milestone(w.rng.IntN(2)),
	}
	for i := range p.branches {
		p.branches[i].External = p.interactive && w.chance(400)
	}
	return p
}

func (w *world) newBranches() []txn.Branch {
	var list []txn.Branch
	for _, i := range w.rng.Perm(resources)[:1+w.rng.IntN(resources)] {
		list = append(list, txn.NewBranch(w.resources[i].name, []byte{byte(w.rng.IntN(256))}))
	}
	return list
}

// otherContent is for the same participants, or for others.
func (w *world) otherContent(than []txn.Branch) []txn.Branch {
	if w.chance(500) {
		return w.newBranches()
	}
	var list []txn.Branch
	for _, b := range than {
		list = append(list, txn.NewBranch(b.Participant, []byte{byte(w.rng.IntN(256)), 1}))
	}
	return list
}

// idAt makes an id of a time, unlike any other.
func idAt(at txn.Time, n uint64) (id txn.TxID) {
	binary.BigEndian.PutUint64(id[:8], uint64(at/1e6)<<16|0x7000)
	binary.BigEndian.PutUint64(id[8:], 1<<63|n)
	return id
}

// anyLeader is who a client believes to lead: now and then one that does not any
// more.
func (w *world) anyLeader() *leader {
	if n := len(w.deposed); n > 0 && w.chance(200) {
		return w.deposed[w.rng.IntN(n)]
	}
	return w.leader
}

// call makes one call, and others until the matter is settled.
func (p *plan) call() {
	w := p.w
	l := w.anyLeader()
	if l == nil {
		w.after(w.upTo(think), p.call)
		return
	}
	p.tries++
	settled := false
	hear := func(a answer) {
		if settled {
			return
		}
		settled = true
		if a.err == nil && w.chance(20) {
			a = answer{err: errUnknown} // the answer is lost
		}
		p.hear(a)
	}
	w.after(patience, func() { hear(answer{err: errUnknown}) })
	switch {
	case !p.interactive:
		l.submit(txn.Stage{ID: p.id, Branches: p.branches, Timeout: p.timeout}, p.until, hear)
	case !p.begun:
		l.submit(txn.Stage{ID: p.id, Interactive: true, Timeout: p.timeout}, untilStaged, hear)
	case p.enlisted < len(p.branches):
		l.enlist(p.id, p.branches[p.enlisted], hear)
	default:
		l.seal(p.id, p.votes(), p.until, hear)
	}
}

// hear takes an answer: what is definite ends a step, what is not repeats it.
func (p *plan) hear(a answer) {
	w := p.w
	switch {
	case errors.Is(a.err, txn.ErrLost): // a person has to decide
		w.after(shift, p.call)
		return
	case errors.Is(a.err, errUnknown) || errors.Is(a.err, errNotLeader):
		w.stats.unknown++
		if p.tries < 30 || w.calm {
			w.after(w.upTo(think), p.call)
		}
		return
	case a.err != nil:
		w.say("%s: its client is told: %v", w.name(p.id), a.err)
		return
	case p.interactive && !a.tx.State.Decided():
		p.goOn(a.tx)
		return
	}
	w.told(p.id, a)
}

// goOn is an interactive client's next step after one that is replicated.
func (p *plan) goOn(tx *txn.Transaction) {
	if !p.begun {
		p.begun = true
	} else if p.enlisted < len(p.branches) {
		b := p.branches[p.enlisted]
		p.enlisted++
		if n := tx.Branch(b.Participant); n != 0 && b.External {
			p.stageItself(n, b)
		}
	}
	p.w.after(p.w.short(), p.call)
}

// stageItself is an application's work on its own branch, prepared with the helper:
// as a prepare of the epoch that enlisted it.
func (p *plan) stageItself(number int, b txn.Branch) {
	r := p.w.resource(b.Participant)
	k := branchID{p.id, number}
	if _, known := r.records[k].Prepare(r.fence, participants.Branch{TxID: p.id, Digest: b.Digest}); !known {
		r.remember(k, participants.Record{Status: participants.StatusPrepared, Digest: b.Digest})
		p.w.say("%s: the application has prepared branch=%d of %s itself", r.name, number, p.w.name(p.id))
	}
}

// votes are those of the external branches: yes where the application has prepared
// its content, and that stands.
func (p *plan) votes() []txn.BranchVote {
	tx := p.w.states[p.id]
	if tx == nil {
		return nil
	}
	var votes []txn.BranchVote
	for i, b := range tx.Branches {
		if !b.External {
			continue
		}
		v := txn.VoteAbort
		record := p.w.resource(b.Participant).records[branchID{p.id, i + 1}]
		if record.Status == participants.StatusPrepared && record.Digest == b.Digest {
			v = txn.VoteCommit
		}
		votes = append(votes, txn.BranchVote{Branch: i + 1, Vote: v})
	}
	return votes
}

// interfere has somebody else abort a transaction, or ask for it.
func (w *world) interfere(id txn.TxID, how func(*leader, txn.TxID, func(answer))) {
	if l := w.anyLeader(); l != nil {
		how(l, id, func(a answer) {
			if a.err == nil && a.tx.State.Decided() {
				w.told(id, a)
			}
		})
	}
}

// told holds that what somebody is told stands (rules R1, R2 and R5), and that
// nobody hears of delivery before every branch has carried out the decision, or of
// the damage together with it.
func (w *world) told(id txn.TxID, a answer) {
	w.stats.answers++
	tx := w.last[id]
	w.say("%s: somebody is told %s, delivered %t", w.name(id), a.tx.Decision(), a.delivered)
	if tx == nil || tx.Decision() != a.tx.Decision() || a.tx.Decision() == txn.Undecided {
		w.violate("R2: of %s somebody was told %s, and the log says %s", w.name(id), a.tx.Decision(), stateOf(tx))
	}
	if before := w.heard[id]; before != txn.Undecided && before != a.tx.Decision() {
		w.violate("R15: of %s somebody was told %s, and was told %s before", w.name(id), a.tx.Decision(), before)
	}
	w.heard[id] = a.tx.Decision()
	if !a.delivered {
		return
	}
	for i := range a.tx.Branches {
		w.carriedOut(a.tx, i+1)
	}
}

// submit is Coordinator.Submit, and Begin.
func (l *leader) submit(s txn.Stage, until milestone, tell func(answer)) {
	print := txn.ContentFingerprint(s.Interactive, s.Branches)
	d, known := l.lookup(s.ID)
	switch {
	case l.over():
		tell(answer{err: errNotLeader})
	case l.inDoubt(known):
		tell(answer{err: txn.ErrLost})
	case d != nil && !d.Same(print), known != nil && !known.Tombstone() && known.Fingerprint != print:
		tell(answer{err: errMismatch})
	case d != nil:
		d.await(until, tell)
	case known != nil:
		tell(answer{tx: known, delivered: known.State.Finished()})
	default:
		c := l.w.cluster
		c.Now = max(c.Now, l.clock())
		if err := c.CheckID(s.ID); err != nil {
			tell(answer{err: err})
			return
		}
		l.begin(s).await(until, tell)
	}
}

// enlist is Coordinator.Enlist.
func (l *leader) enlist(id txn.TxID, b txn.Branch, tell func(answer)) {
	l.staged(id, tell, func(*drive, *txn.Transaction) {
		l.request(txn.Enlist{ID: id, Branch: b}, tell)
	})
}

// seal is Coordinator.Commit.
func (l *leader) seal(id txn.TxID, votes []txn.BranchVote, until milestone, tell func(answer)) {
	l.staged(id, tell, func(d *drive, tx *txn.Transaction) {
		if tx.State != txn.Active {
			d.await(until, tell)
			return
		}
		l.request(txn.Prepare{ID: id, Votes: votes}, func(a answer) {
			switch d := l.find(id); {
			case a.err != nil:
				tell(a)
			case d != nil:
				d.await(until, tell)
			default:
				tell(answer{tx: a.tx, delivered: a.tx.State.Finished()})
			}
		})
	})
}

// staged goes on with a transaction that is driven and staged.
func (l *leader) staged(id txn.TxID, tell func(answer), then func(*drive, *txn.Transaction)) {
	d, known := l.lookup(id)
	switch {
	case l.over():
		tell(answer{err: errNotLeader})
	case l.inDoubt(known), d == nil && known == nil && l.w.cluster.Lost(id):
		tell(answer{err: txn.ErrLost})
	case d != nil:
		d.await(untilStaged, func(a answer) {
			if a.err != nil {
				tell(a)
				return
			}
			then(d, a.tx)
		})
	case known != nil:
		tell(answer{tx: known, delivered: true})
	default:
		tell(answer{err: txn.ErrUnknown})
	}
}

// request proposes a caller's command and tells what came of it; nothing, where the
// leader goes first, but that it is not known.
func (l *leader) request(c txn.Command, tell func(answer)) {
	l.inquests = append(l.inquests, func() { tell(answer{err: errUnknown}) })
	l.command(c, func(tx *txn.Transaction, err error) {
		tell(answer{tx: tx, err: err, delivered: err == nil && tx.State.Finished()})
	})
}

// abort is Coordinator.Abort.
func (l *leader) abort(id txn.TxID, tell func(answer)) {
	why := txn.Reason{Code: txn.ReasonClient}
	d, known := l.lookup(id)
	switch {
	case l.over(), l.inDoubt(known):
	case d != nil:
		l.carry(d, d.Withdraw(why), nil)
		d.await(untilDecided, tell)
	case known != nil:
		tell(answer{tx: known, delivered: true})
	default:
		l.request(txn.Decide{ID: id, Decision: txn.Abort, Reason: why}, tell)
	}
}

// inquire is Coordinator.Inquire.
func (l *leader) inquire(id txn.TxID, tell func(answer)) {
	l.barrier(func() {
		switch d, known := l.lookup(id); {
		case l.inDoubt(known):
		case known != nil:
			tell(answer{tx: known, delivered: true})
		case d != nil:
			d.await(untilStaged, tell)
		default:
			l.request(txn.Presume{ID: id}, tell)
		}
	})
}
