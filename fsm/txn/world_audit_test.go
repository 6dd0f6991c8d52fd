package txn_test

// What must be so once everything has come to rest.

import (
	"bytes"
	"cmp"
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
	ids := make([]txn.TxID, 0, len(w.states))
	for id := range w.states {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b txn.TxID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range ids {
		tx := w.states[id]
		if tx.Decision() == txn.Commit {
			w.stats.committed++
		} else {
			w.stats.aborted++
		}
		for i, b := range tx.Branches {
			w.carriedOut(tx, i+1, b)
		}
	}
	for _, r := range w.resources {
		r.audit()
	}
}

// carriedOut holds that a branch has done what was decided, on the content that was
// decided about.
func (w *world) carriedOut(tx *txn.Transaction, number int, b txn.Branch) {
	r := w.resource(b.Participant)
	k := branchID{tx.ID, number}
	record := r.records[k]
	switch {
	case b.Vote == txn.VoteReadOnly && tx.Decision() == txn.Commit:
	case tx.Decision() == txn.Commit && (record.Status != participants.StatusCommitted || record.Digest != b.Digest),
		tx.Decision() == txn.Abort && record.Status != participants.StatusAborted:
		w.violate("R1: %s is %s, and branch %d at %s is %s", w.name(tx.ID), tx.State, number, r.name, record.Status)
	}
}

// audit holds that a participant holds nothing prepared, and has committed what was
// to be committed, once.
func (r *resource) audit() {
	if len(r.held) > 0 {
		k := r.held[0]
		r.w.violate("R13: %s still holds %d branches prepared, among them branch %d of %s, which is %s",
			r.name, len(r.held), k.number, r.w.name(k.txid), stateOf(r.w.states[k.txid]))
	}
	done := make([]branchID, 0, len(r.effects))
	for k := range r.effects {
		done = append(done, k)
	}
	slices.SortFunc(done, func(a, b branchID) int {
		return cmp.Or(bytes.Compare(a.txid[:], b.txid[:]), cmp.Compare(a.number, b.number))
	})
	for _, k := range done {
		tx := r.w.states[k.txid]
		if r.effects[k] != 1 || tx == nil || tx.Decision() != txn.Commit || tx.Branch(r.name) != k.number {
			r.w.violate("R11: branch %d of %s took effect %d times at %s; the transaction is %s",
				k.number, r.w.name(k.txid), r.effects[k], r.name, stateOf(tx))
		}
	}
}
