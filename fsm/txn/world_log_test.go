package txn_test

// The simulator's Raft: one log, elections, and what a leader learns of its entries
// when it falls.

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// What the log answers where the state machine does not.
var (
	errNotLeader = errors.New("not the leader")
	errUnknown   = errors.New("outcome unknown")
)

func fateOf(err error) txn.Fate {
	switch err { //nolint:errorlint // the world returns them bare
	case nil:
		return txn.Applied
	case errUnknown:
		return txn.Unclear
	case errNotLeader:
		return txn.Unwritten
	default:
		return txn.Refused
	}
}

// proposal is a command and who waits for its answer.
type proposal struct {
	command txn.Command
	done    func(tx *txn.Transaction, err error)
}

// entry is one of the log's.
type entry struct {
	header    txn.Header
	proposals []proposal
	dropped   bool // never committed
	answered  bool // its leader knows what it will ever know
	tell      func()
}

// commit applies an entry, which every node does alike, and returns the answers.
func (w *world) commit(e *entry) (states []*txn.Transaction, errs []error) {
	w.index++
	cluster, err := w.cluster.Admit(e.header)
	switch {
	case err != nil:
		w.say("entry %d of epoch %d is refused: %v", w.index, e.header.Epoch, err)
	case e.header.Epoch != w.opened:
		w.violate("R3: an entry of epoch %d is taken in epoch %d", e.header.Epoch, w.opened)
	default:
		w.cluster = cluster
	}
	at := txn.At{Cluster: w.cluster, Index: w.index}
	for _, p := range e.proposals {
		if err != nil {
			states, errs = append(states, nil), append(errs, errNotLeader) // the epoch is over: nothing was written
			continue
		}
		tx, stepErr := w.apply(at, p.command)
		states, errs = append(states, tx), append(errs, stepErr)
	}
	w.collect()
	return states, errs
}

// collect forgets the finished transactions that lie before the horizon, but for
// damaged ones.
func (w *world) collect() {
	if w.cluster.Horizon == 0 {
		return
	}
	for id, tx := range w.states {
		if tx.State.Finished() && !tx.Troubled() && max(tx.Finished.At, id.Time()) < w.cluster.Horizon {
			delete(w.states, id)
			w.stats.forgotten++
		}
	}
}

// errRefused is what the state machine around the core refuses a new branch for: its
// participant is not registered, or the transaction grows too large.
var errRefused = errors.New("unknown participant")

// apply carries out one command, and holds what is true of every step.
func (w *world) apply(at txn.At, c txn.Command) (*txn.Transaction, error) {
	id := c.Transaction()
	prev := w.states[id]
	next, _, err := txn.Step(at, prev, c)
	if _, staging := c.(txn.Stage); staging && err == nil && next != prev && w.chance(10) {
		w.stats.refused++
		err = errRefused
	}
	if err != nil {
		w.say("entry %d: %T of %s is refused: %v", at.Index, c, w.name(id), err)
		return prev, err
	}
	if next == prev {
		return prev, nil
	}
	w.say("entry %d: %s %s -> %s", at.Index, w.name(id), stateOf(prev), next.State)
	if problem := next.Check(); problem != nil {
		w.violate("no such state: %s of %s: %v", next.State, w.name(id), problem)
	}
	if prev != nil && prev.State.Decided() && next.Decision() != prev.Decision() {
		w.violate("R1: %s was decided %s and became %s", w.name(id), prev.Decision(), next.Decision())
	}
	if prev != nil {
		for i, b := range prev.Branches {
			if b.Resolved != txn.Undecided && b.Resolved != next.Branches[i].Resolved {
				w.violate("R10: an operator has said %s of branch %d of %s, and that has become %s", b.Resolved, i+1, w.name(id), next.Branches[i].Resolved)
			}
		}
	}
	w.mayFollow(prev, next, c)
	w.put(prev, next)
	return next, nil
}

func stateOf(tx *txn.Transaction) string {
	if tx == nil {
		return "unknown"
	}
	return tx.State.String()
}

func (w *world) put(prev, next *txn.Transaction) {
	w.states[next.ID], w.last[next.ID] = next, next
	was, is := prev != nil && !prev.State.Finished(), !next.State.Finished()
	if was == is {
		return
	}
	place, _ := slices.BinarySearchFunc(w.open, next.ID, func(a, b txn.TxID) int { return slices.Compare(a[:], b[:]) })
	if is {
		w.open = slices.Insert(w.open, place, next.ID)
	} else {
		w.open = slices.Delete(w.open, place, place+1)
	}
}

// steps are the moments at which a leader may fall, besides any other.
var steps = []string{
	"a prepare leaves", "a branch has prepared", "a vote is heard", "staging is applied", "the decision is proposed",
	"the decision is applied", "a delivery leaves", "a delivery is heard", "receipts are proposed", "the epoch is opened",
}

// at marks a step of the protocol: the leader falls here if that was arranged.
func (w *world) at(l *leader, step string) {
	if w.armed == step && w.leader == l {
		w.armed = ""
		w.after(0, func() { w.fall(step) }) // before any other event, but for those of this moment
	}
}

// planFall arranges for the leader's end: at a step, or at some moment.
func (w *world) planFall() {
	if w.calm {
		return
	}
	if w.rng.IntN(3) > 0 {
		w.armed = steps[w.rng.IntN(len(steps))]
		return
	}
	w.after(w.upTo(120*time.Millisecond), func() { w.fall("any moment") })
}

// fall ends the leadership of whoever leads, in one of four ways: the process
// crashes; it is cut off, or sleeps, and does not know; its leadership is transferred,
// and it knows at once; it loses its leadership and is told a moment later.
func (w *world) fall(step string) {
	l := w.leader
	if l == nil || w.calm {
		return
	}
	w.stats.falls[step]++
	w.leader = nil
	survivors := w.rng.IntN(len(l.flying) + 1)
	for _, e := range l.flying[survivors:] {
		e.dropped = true
	}
	w.arrivals = slices.Clone(l.flying[:survivors])
	if w.perilous && len(l.flying) > 0 {
		w.saved = append(w.saved, w.survivor(l))
	}
	l.states, l.cluster = maps.Clone(w.states), w.cluster // what it has applied; it goes on from there, if it goes on
	switch w.rng.IntN(4) {
	case 0:
		w.say("--- epoch %d crashes (%s), %d of %d entries in flight survive", l.epoch, step, survivors, len(l.flying))
		l.dead = true
		l.hangUp()
	case 1:
		w.say("--- epoch %d hands over (%s), %d of %d entries in flight survive", l.epoch, step, survivors, len(l.flying))
		l.notice()
	default:
		w.say("--- epoch %d is cut off (%s), %d of %d entries in flight survive", l.epoch, step, survivors, len(l.flying))
		w.deposed = append(w.deposed, l)
		for _, e := range l.flying {
			if w.chance(700) {
				w.after(w.short(), func() { l.answer(e, nil, nil) })
			}
		}
		w.after(w.upTo(2*patience), l.notice)
	}
	w.after(w.short(), w.elect)
}

// elect makes the next leader: it passes its barrier, which applies what the one
// before got committed, opens its epoch, and takes over.
func (w *world) elect() {
	w.term += 1 + uint64(w.rng.IntN(2))
	for _, e := range w.arrivals {
		w.commit(e)
	}
	w.arrivals = nil
	if w.chance(50) {
		w.say("--- term %d ends before its epoch is opened", w.term)
		w.after(w.short(), w.elect)
		return
	}
	wall := w.now
	if !w.forgetful && !w.perilous && w.chance(100) { // clocks are assumed to differ by less than the retention, or a restore's skew
		wall = wall.Add(time.Duration(w.rng.Int64N(int64(2*time.Hour))) - time.Hour)
	}
	cluster, err := w.cluster.Lead(txn.Header{Epoch: w.term, Time: max(wall, w.cluster.Now)})
	if err != nil {
		w.violate("R3: term %d may not open its epoch: %v", w.term, err)
	}
	w.index++
	w.cluster, w.opened = cluster, w.term
	w.stats.failovers++
	w.say("--- epoch %d is opened, %d unfinished", w.term, len(w.open))
	l := newLeader(w)
	w.leader = l
	if w.armed == "" {
		w.planFall()
	}
	w.at(l, "the epoch is opened")
	l.takeOver()
	w.after(20*think, func() { // a step that does not come must not keep it up for ever
		if w.leader == l && w.armed != "" {
			w.armed = ""
			w.fall("any moment")
		}
	})
}

// write queues a command for a leader's next entry.
func (l *leader) write(c txn.Command, done func(*txn.Transaction, error)) {
	l.queue = append(l.queue, proposal{c, done})
	l.pump()
}

// pump sends entries, two at a time at most, with what waits or a part of that.
func (l *leader) pump() {
	for len(l.unanswered) < 2 && len(l.queue) > 0 && !l.dead {
		l.send()
	}
}

func (l *leader) send() {
	n := 1 + l.w.rng.IntN(len(l.queue))
	e := &entry{header: txn.Header{Epoch: l.epoch, Time: l.clock()}, proposals: l.queue[:n:n]}
	if l.w.forgetful {
		e.header.Horizon = l.clock().Add(-shortRetention)
	}
	l.queue = l.queue[n:]
	l.unanswered = append(l.unanswered, e)
	if l.w.often(5, 100) { // Raft's queue is full: it was not taken, and the leader leads on
		l.w.stats.bounced++
		l.w.after(l.w.short(), func() { l.bounce(e) })
		return
	}
	if l.w.leader != l {
		l.sendInVain(e)
		return
	}
	l.flying = append(l.flying, e)
	l.lands = max(l.lands, l.w.now).Add(l.w.short())
	l.w.after(l.lands.Sub(l.w.now), func() { l.land(e) })
	if l.w.chance(5) { // the proposal times out, and its entry is committed all the same
		l.w.after(l.w.upTo(time.Millisecond), func() { l.answer(e, nil, nil) })
	}
}

// land commits a leader's entry, unless it has fallen meanwhile: then the election
// has judged it.
func (l *leader) land(e *entry) {
	if l.w.leader != l {
		return
	}
	l.flying = l.flying[1:]
	states, errs := l.w.commit(e)
	if l.w.chance(5) { // applied, but the answer is lost
		states, errs = nil, nil
	}
	l.answer(e, states, errs)
}

// answer tells an entry's proposers; without states, that nobody knows.
func (l *leader) answer(e *entry, states []*txn.Transaction, errs []error) {
	if e.answered || l.dead {
		return
	}
	e.answered = true
	e.tell = func() {
		for i, p := range e.proposals {
			if states == nil {
				p.done(nil, errUnknown)
			} else {
				p.done(states[i], errs[i])
			}
		}
	}
	l.tell()
}

// bounce tells an entry's proposers that it certainly was not written.
func (l *leader) bounce(e *entry) {
	e.answered = true
	e.tell = func() {
		for _, p := range e.proposals {
			p.done(nil, errNotLeader)
		}
	}
	l.tell()
}

// tell answers what there is an answer to, in log order, and goes on.
func (l *leader) tell() {
	for !l.dead && len(l.unanswered) > 0 && l.unanswered[0].answered {
		first := l.unanswered[0]
		l.unanswered = l.unanswered[1:]
		first.tell()
	}
	l.pump()
}

// sendInVain is what a deposed leader's entry comes to: nobody ever commits it, and
// the leader learns that its outcome is unknown, or nothing. Or it ends up in the log
// after all, under the term of the leader that is (upstream #695).
func (l *leader) sendInVain(e *entry) {
	w := l.w
	switch {
	case w.leader != nil && w.chance(300):
		w.stats.misplaced++
		w.after(w.short(), func() {
			if w.leader == nil || l.dead {
				return
			}
			states, errs := w.commit(e)
			l.answer(e, states, errs)
		})
	case w.chance(700):
		w.after(w.short(), func() { l.answer(e, nil, nil) })
	}
}
