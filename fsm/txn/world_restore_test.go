package txn_test

// The simulator's disasters (rule R15). In a perilous world a copy of the state is saved
// now and then, and now and then every node is lost and the cluster begins again from
// the copy, as "decree snapshot restore" has it. What that has lost the judge remembers,
// and nobody else: the participants have done what they have done, clients have been
// told what they were told, and messages from before still arrive. Or it begins again
// from what a node has that led and was cut off, as "decree cluster recover" has it.

import (
	"maps"
	"slices"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

const (
	saveInterval = 300 * time.Millisecond
	lifespan     = time.Second           // of a perilous cluster, at most
	restoreSkew  = 20 * time.Millisecond // what a restore allows clients' clocks
)

// backup is the replicated state at one entry, with what the judge knew of it.
type backup struct {
	cluster      txn.Cluster
	index        uint64
	states, last map[txn.TxID]*txn.Transaction
	open         []txn.TxID
}

func (w *world) copyState() backup {
	return backup{w.cluster, w.index, maps.Clone(w.states), maps.Clone(w.last), slices.Clone(w.open)}
}

// save is decree snapshot save.
func (w *world) save() {
	if w.calm {
		return
	}
	if w.opened != 0 {
		w.saved = append(w.saved, w.copyState())
		w.say("--- the state is saved, as of entry %d", w.index)
	}
	w.after(w.upTo(saveInterval), w.save)
}

// perish loses every node, and begins again from one of the last copies.
func (w *world) perish() {
	switch {
	case w.calm:
		return
	case len(w.saved) == 0:
		w.after(saveInterval, w.perish)
		return
	}
	w.after(lifespan/4+w.upTo(lifespan), w.perish)
	w.say("--- every node is lost")
	nodes := w.deposed
	if w.leader != nil {
		nodes = append(nodes, w.leader)
		w.leader, w.armed = nil, ""
		w.after(w.short(), w.elect) // else there is an election to come
	}
	w.deposed, w.arrivals = nil, nil
	for _, l := range nodes {
		l.dead = true
	}
	for _, l := range nodes {
		l.hangUp()
	}
	i := max(0, len(w.saved)-1-w.rng.IntN(3))
	w.restore(w.saved[i])
	w.saved = w.saved[:i+1] // what was saved later is of a life that is over
}

// survivor is the state of the node that led, by a log whose last entries others may
// overrule: decree cluster recover takes back what they decide.
func (w *world) survivor(l *leader) backup {
	b := w.copyState()
	proven := b.index
	for _, e := range l.flying {
		b.index++
		cluster, err := b.cluster.Admit(e.header)
		if err != nil {
			w.violate("R3: a leader has proposed an entry of another's epoch: %v", err)
		}
		b.cluster = cluster
		for _, p := range e.proposals {
			id := p.command.Transaction()
			if next, _, err := txn.Step(txn.At{Cluster: cluster, Index: b.index}, b.states[id], p.command); err == nil {
				b.states[id] = next
			}
		}
	}
	b.open = nil
	for id, tx := range b.states {
		if tx.Decided.Index > proven {
			tx = tx.InDoubt()
		}
		b.keep(id, tx)
	}
	slices.SortFunc(b.open, func(x, y txn.TxID) int { return slices.Compare(x[:], y[:]) })
	return b
}

func (b *backup) keep(id txn.TxID, tx *txn.Transaction) {
	if tx == nil {
		delete(b.states, id)
		delete(b.last, id)
		return
	}
	b.states[id], b.last[id] = tx, tx
	if !tx.State.Finished() {
		b.open = append(b.open, id)
	}
}

// restore has the cluster begin again from a copy.
func (w *world) restore(b backup) {
	w.stats.restores++
	for id, tx := range w.last {
		w.lose(tx, b.last[id])
	}
	for id, tx := range b.states {
		if !tx.State.Decided() && w.lost[id] == nil {
			w.lost[id] = tx // of entries that nobody ever committed
		}
	}
	w.cluster, w.index, w.states, w.last, w.open = w.reopen(b.cluster), b.index, maps.Clone(b.states), maps.Clone(b.last), slices.Clone(b.open)
	w.term, w.opened, w.restored = w.cluster.Epoch, w.cluster.Epoch, w.now
	w.say("--- restored as of entry %d, in epoch %d: %d unfinished", w.index, w.term, len(w.open))
}

// reopen gives the state a new life, in the epoch that decree snapshot restore takes: the
// time in milliseconds. A hasty operator tries the one that the copy is of.
func (w *world) reopen(c txn.Cluster) txn.Cluster {
	until := w.now.Add(restoreSkew)
	if w.chance(200) {
		if hasty, err := c.Reopen(txn.Restored{Epoch: c.Epoch, Until: until}); err == nil {
			return hasty
		}
	}
	again, err := c.Reopen(txn.Restored{Epoch: max(uint64(w.now)/1e6, c.Epoch+1), Until: until})
	if err != nil {
		w.violate("R15: nothing can be restored: %v", err)
	}
	return again
}

// lose has the judge remember a transaction that the copy does not have, or not decided:
// by its content and decision, where it had them.
func (w *world) lose(tx, copied *txn.Transaction) {
	if copied != nil && copied.State.Decided() {
		if copied.Decision() != tx.Decision() {
			w.violate("R15: %s comes back as %s, and was %s", w.name(tx.ID), copied.State, tx.State)
		}
		return
	}
	if was := w.lost[tx.ID]; was == nil || !was.State.Decided() {
		w.lost[tx.ID] = tx
	}
	if tx.State.Decided() {
		w.stats.lost++
	}
}

// mayFollow holds what a restored cluster may do about a transaction that it has lost, or
// has undecided since before: nothing, until an operator decides. An operator decides
// nothing else, and does not contradict what anybody has seen.
func (w *world) mayFollow(prev, next *txn.Transaction, c txn.Command) {
	id := next.ID
	was, inDoubt := w.lost[id]
	if _, staged := c.(txn.Stage); staged && prev == nil && inDoubt {
		w.violate("R11: %s is run again after a restore, and was %s before", w.name(id), was.State)
	}
	if !next.State.Decided() || prev != nil && prev.State.Decided() {
		return
	}
	_, word := c.(txn.Arbitrate)
	unknown := prev == nil && id.Time() <= max(w.cluster.Restored.Until, w.cluster.Horizon)
	switch {
	case !word && inDoubt:
		w.violate("R15: a %T decides %s, which was %s before a restore", c, w.name(id), was.State)
	case !word:
		return
	case !inDoubt && !unknown:
		w.violate("R15: an operator decides %s, of which nothing is lost: it was %s", w.name(id), stateOf(prev))
	case inDoubt && was.State.Decided() && was.Decision() == next.Decision():
		return // and the judge still knows the content
	case inDoubt && w.seen(was) && !w.disputed[id]:
		w.violate("R15: an operator decides %s of %s, and somebody has seen that it was %s", next.Decision(), w.name(id), was.State)
	}
	w.stats.words++
	w.lost[id] = next
}

// seen reports whether anybody has seen a decision: a client, or a participant that did
// what it says.
func (w *world) seen(tx *txn.Transaction) bool {
	if w.heard[tx.ID] != txn.Undecided {
		return true
	}
	return tx.Decision() == txn.Commit && slices.ContainsFunc(w.resources, func(r *resource) bool {
		return r.effects[branchID{tx.ID, tx.Branch(r.name)}] > 0
	})
}

// truth is what became of a transaction: as the log has it, or as it was where the log
// has nothing but its decision, or has forgotten it.
func (w *world) truth(id txn.TxID) *txn.Transaction {
	tx, was := w.last[id], w.lost[id]
	if was != nil && was.State.Decided() && (tx == nil || tx.Tombstone() && tx.Decision() == was.Decision()) {
		return was
	}
	return tx
}

// confused reports whether a txid was used with several contents, and lost: what is left
// of them at the participants cannot be told apart.
func (w *world) confused(id txn.TxID) bool { return w.disputed[id] && w.lost[id] != nil }

// mayMiss reports whether damage is no more than what a restore makes of what is lost: a
// commit reaches a branch that only read, which is lost.
func (w *world) mayMiss(k branchID, damage *participants.Heuristic) bool {
	return w.confused(k.txid) || damage.Receipt == txn.HeuristicAbort && w.onlyRead(k)
}

// onlyRead reports whether a branch had nothing to commit by a decision that was lost.
func (w *world) onlyRead(k branchID) bool {
	was := w.lost[k.txid]
	return was != nil && was.Decision() == txn.Commit && k.number <= len(was.Branches) && was.Branches[k.number-1].Vote == txn.VoteReadOnly
}
