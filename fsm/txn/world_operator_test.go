package txn_test

// The simulator's operator, who does what the guide says (cmd/decree/OPERATIONS.md): after
// a restore decides what only a person may, by what participants prove and clients were
// told; and takes note of damage. Now and then it is a hasty one, or there are two.

import (
	"slices"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// shift is how often an operator looks.
const shift = 200 * time.Millisecond

func (w *world) operate() {
	w.after(shift/2+w.upTo(shift), w.operate)
	if w.leader == nil {
		return
	}
	for _, id := range w.unresolved() {
		if word := w.word(id); word != txn.Undecided {
			w.leader.arbitrate(id, word)
		}
	}
	for _, p := range w.plans {
		tx := w.states[p.id]
		switch {
		case tx == nil || w.leader == nil:
		case tx.Troubled() && w.rng.IntN(2) == 0:
			w.takeNote(tx)
		case w.lost[p.id] == nil && w.chance(5): // the wrong txid
			w.leader.arbitrate(p.id, txn.Commit+txn.Decision(w.rng.IntN(2)))
		}
	}
}

// unresolved is what decree tx unresolved lists. What a participant holds that has no
// list is told by its own people.
func (w *world) unresolved() (list []txn.TxID) {
	for _, id := range w.open {
		if w.cluster.Held(w.states[id]) {
			list = append(list, id)
		}
	}
	for _, r := range w.resources {
		for _, k := range r.held {
			tx := w.states[k.txid]
			beyond := tx == nil && (w.cluster.Lost(k.txid) || k.txid.Time() < w.cluster.Horizon)
			unreached := !r.lists && tx != nil && tx.Tombstone()
			if (beyond || unreached) && !slices.Contains(list, k.txid) {
				list = append(list, k.txid)
			}
		}
	}
	return list
}

// word is the operator's decision: what a client was told, else what is proven, else what
// harms nobody, once nothing from before the restore can arrive any more. Undecided
// waits. Clients come first because of a branch that only read: where an operator's commit
// reached it, it looks aborted after the next restore.
func (w *world) word(id txn.TxID) txn.Decision {
	tx, proven, told := w.states[id], w.proven(id), w.heard[id]
	switch {
	case tx != nil && tx.State.Decided():
		return tx.Decision() // once more, for a participant that was not reached
	case told != txn.Undecided:
		return told
	case proven != txn.Undecided:
		return proven
	case w.now < w.restored.Add(belatedMost+callTimeout):
		return txn.Undecided
	case tx != nil && tx.State == txn.Preparing && w.allPrepared(tx) && w.rng.IntN(2) == 0:
		return txn.Commit
	default:
		return txn.Abort
	}
}

// proven is coordinator.Unresolved.Decided, and holds that it is right. Where a branch has
// committed and another was aborted, which proves nothing there, this operator takes the
// word of the one that committed: nobody commits by himself (rule R7).
func (w *world) proven(id txn.TxID) txn.Decision {
	proven := txn.Undecided
	for _, k := range w.asked(id) {
		switch k.at.records[k.branchID].Status {
		case participants.StatusCommitted:
			w.mayProve(k, txn.Commit)
			return txn.Commit
		case participants.StatusAborted:
			w.mayProve(k, txn.Abort)
			proven = txn.Abort
		}
	}
	return proven
}

// place is a branch at its participant.
type place struct {
	branchID
	at *resource
}

// asked are the branches of which an operator asks the participants: those that are
// known, or all that there may be.
func (w *world) asked(id txn.TxID) (list []place) {
	tx := w.states[id]
	for _, r := range w.resources {
		number := 0
		if tx != nil {
			number = tx.Branch(r.name)
		}
		for n := 1; n <= resources; n++ {
			if n == number || number == 0 && (tx == nil || tx.State != txn.Preparing) {
				list = append(list, place{branchID{id, n}, r})
			}
		}
	}
	return list
}

// mayProve holds that a participant's evidence is true of the decision that was lost. That
// a branch only read is lost, too, and an operator's commit closes it as aborted.
func (w *world) mayProve(k place, d txn.Decision) {
	was := w.lost[k.txid]
	committed := was != nil && was.Decision() == txn.Commit
	switch {
	case w.disputed[k.txid], d == txn.Abort && committed && w.onlyRead(k.branchID):
	case (d == txn.Commit) != committed && (d == txn.Commit || committed):
		w.violate("R15: %s shows a %s of %s, which was %s before the restore", k.at.name, d, w.name(k.txid), stateOf(was))
	}
}

func (w *world) allPrepared(tx *txn.Transaction) bool {
	for i, b := range tx.Branches {
		if record := w.resource(b.Participant).records[branchID{tx.ID, i + 1}]; record != (participants.Record{Status: participants.StatusPrepared, Digest: b.Digest}) {
			return false
		}
	}
	return true
}

// takeNote is decree tx resolve of the first damaged branch, with the word of one
// operator or of two.
func (w *world) takeNote(tx *txn.Transaction) {
	n := slices.IndexFunc(tx.Branches, func(b txn.Branch) bool { return b.Receipt.Heuristic() && b.Resolved == txn.Undecided })
	for range 1 + w.rng.IntN(2) {
		w.leader.request(txn.Resolve{ID: tx.ID, Branch: n + 1, As: txn.Commit + txn.Decision(w.rng.IntN(2))}, func(answer) {})
	}
}

// arbitrate is Coordinator.Arbitrate.
func (l *leader) arbitrate(id txn.TxID, d txn.Decision) {
	l.request(txn.Arbitrate{ID: id, Decision: d}, func(a answer) {
		if a.err != nil || l.over() {
			return
		}
		l.lookup(id) // drives what is owed from here on
		if a.tx.Tombstone() {
			l.endReported(id) // and the scan comes to those that list
		}
	})
}

// endReported ends what participants that cannot list report of a transaction whose
// branches the log does not know.
func (l *leader) endReported(id txn.TxID) {
	for _, r := range l.w.resources {
		for n := 1; n <= resources && !r.lists; n++ {
			if k := (branchID{id, n}); r.records[k].Status == participants.StatusPrepared {
				l.endOrphan(r, k)
			}
		}
	}
}
