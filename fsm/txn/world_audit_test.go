package txn_test

// What must be so once everything has come to rest.

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// audit holds that every transaction is finished (R10), that its branches, and no
// others, have carried out its decision once (R1, R11), and that nothing is left
// prepared anywhere (R6, R8, R13).
func (w *world) audit() {
	if len(w.open) > 0 {
		id := w.open[0]
		w.violate("R10: %d transactions are not finished, among them %s, which is %s: %v",
			len(w.open), w.name(id), w.states[id].State, txn.Pending(w.states[id]))
	}
	for _, id := range w.allKnown() {
		tx := w.truth(id)
		if tx == nil || !tx.State.Decided() {
			continue // lost before its decision, and nobody holds any of it
		}
		if tx.Decision() == txn.Commit {
			w.stats.committed++
		} else {
			w.stats.aborted++
		}
		if tx.Damage() != txn.ReceiptNone {
			w.stats.damaged++
		}
		for i := range tx.Branches {
			w.carriedOut(tx, i+1)
		}
	}
	for _, r := range w.resources {
		r.audit()
	}
}

// allKnown are the txids that the log has ever known, in order.
func (w *world) allKnown() []txn.TxID {
	known := maps.Clone(w.last)
	maps.Copy(known, w.lost)
	return slices.SortedFunc(maps.Keys(known), func(a, b txn.TxID) int { return bytes.Compare(a[:], b[:]) })
}

// carriedOut holds that a branch has done what was decided, on the content that was
// decided about, or shows the damage. What a participant has forgotten, it has
// forgotten by right.
func (w *world) carriedOut(tx *txn.Transaction, number int) {
	b := tx.Branches[number-1]
	r := w.resource(b.Participant)
	k := branchID{tx.ID, number}
	want := participants.StatusAborted
	if tx.Decision() == txn.Commit {
		want = participants.StatusCommitted
	}
	record := r.records[k]
	switch {
	case w.confused(tx.ID):
	case record.Status == participants.StatusUnknown && want == participants.StatusAborted && w.lost[tx.ID] != nil: // nobody was left to tell it
	case b.Receipt.Heuristic(), b.Vote == txn.VoteReadOnly && tx.Decision() == txn.Commit:
	case record.Status == participants.StatusUnknown && r.fence.Expired(tx.ID):
		if tx.Decision() == txn.Commit && r.effects[k] != 1 {
			w.violate("R1: %s is %s, and branch %d at %s took effect %d times", w.name(tx.ID), tx.State, number, r.name, r.effects[k])
		}
	case record.Status != want || want == participants.StatusCommitted && record.Digest != b.Digest:
		w.violate("R1: %s is %s, and branch %d at %s is %s", w.name(tx.ID), tx.State, number, r.name, record.Status)
	}
}

// audit holds that a participant holds nothing prepared, and has committed what was
// to be committed, once.
func (r *resource) audit() {
	for _, k := range r.held {
		if r.w.last[k.txid] == nil && k.txid.Time() < r.w.cluster.Horizon || r.w.confused(k.txid) {
			r.w.stats.left++ // nobody may presume an id that may have been forgotten, or tell whose content this is
			continue
		}
		r.w.violate("R13: %s still holds branch %d of %s prepared, which is %s", r.name, k.number, r.w.name(k.txid), stateOf(r.w.last[k.txid]))
	}
	done := make([]branchID, 0, len(r.effects))
	for k := range r.effects {
		done = append(done, k)
	}
	slices.SortFunc(done, func(a, b branchID) int {
		return cmp.Or(bytes.Compare(a.txid[:], b.txid[:]), cmp.Compare(a.number, b.number))
	})
	for _, k := range done {
		tx := r.w.truth(k.txid)
		if r.meddled[k] || r.w.confused(k.txid) {
			continue
		}
		decided := tx != nil && tx.Decision() == txn.Commit && tx.Branch(r.name) == k.number
		if decided {
			b := tx.Branches[k.number-1]
			decided = b.Vote != txn.VoteReadOnly && b.Digest == r.took[k]
		}
		if r.effects[k] != 1 || !decided {
			r.w.violate("R11: branch %d of %s took effect %d times at %s; the transaction is %s",
				k.number, r.w.name(k.txid), r.effects[k], r.name, stateOf(tx))
		}
	}
}
