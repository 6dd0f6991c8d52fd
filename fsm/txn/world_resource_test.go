package txn_test

// The simulator's participants, and the network to them. A participant remembers
// what package participants says that every participant has to, durably; messages
// are lost, doubled and late.

import (
	"cmp"
	"errors"
	"slices"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// clusterID is the one cluster's.
const clusterID = "c"

type branchID struct {
	txid   txn.TxID
	number int
}

// resource is a participant.
type resource struct {
	w       *world
	name    string
	lists   bool
	fence   participants.Fence
	records map[branchID]participants.Record
	held    []branchID // prepared, in order
	effects map[branchID]int
	took    map[branchID]txn.Digest // the content that took effect
	meddled map[branchID]bool       // ended by hand
}

func newResource(w *world, name string) *resource {
	return &resource{
		w: w, name: name, lists: w.rng.IntN(4) > 0,
		records: map[branchID]participants.Record{}, effects: map[branchID]int{}, took: map[branchID]txn.Digest{}, meddled: map[branchID]bool{},
	}
}

func (w *world) resource(name string) *resource {
	i := slices.IndexFunc(w.resources, func(r *resource) bool { return r.name == name })
	return w.resources[i]
}

var errCut = errors.New("cut")

// send carries a call to a participant and its answer back. Either may be lost, late
// or doubled. back is called at most once.
func (w *world) send(r *resource, op txn.WorkKind, b participants.Branch, back func(participants.Vote, error)) {
	if w.chance(20) {
		return
	}
	delay := w.short()
	if w.often(10, 200) {
		w.stats.late++
		delay = w.late()
	}
	w.after(delay, func() {
		vote, err := r.handle(op, b)
		if w.chance(20) {
			return
		}
		w.after(w.short(), func() { back(vote, err) })
	})
	if w.chance(15) {
		w.after(w.late(), func() { r.handle(op, b) })
	}
}

// handle carries out a call that has arrived.
func (r *resource) handle(op txn.WorkKind, b participants.Branch) (vote participants.Vote, err error) {
	fence, err := r.fence.Admit(b)
	if err != nil {
		if b.Epoch == r.w.cluster.Epoch {
			r.w.violate("R15: %s refuses epoch %d, in which the cluster is: it has heard of %d", r.name, b.Epoch, r.fence.Epoch)
		}
		return vote, err
	}
	if fence.Horizon > r.fence.Horizon {
		r.forget(fence)
	}
	r.fence = fence
	k := branchID{b.TxID, b.Number}
	before := r.records[k]
	switch op {
	case txn.PrepareBranch:
		vote = r.prepare(k, b)
	case txn.CommitBranch:
		var after participants.Record
		if after, err = before.Commit(fence, b); before.Status == participants.StatusPrepared {
			r.effects[k]++
			r.took[k] = before.Digest
		}
		r.remember(k, after)
	case txn.AbortBranch:
		var after participants.Record
		after, err = before.Abort(fence, b)
		r.remember(k, after)
	}
	if after := r.records[k].Status; after != before.Status {
		r.w.say("%s: %s branch=%d %s -> %s", r.name, r.w.name(b.TxID), b.Number, before.Status, after)
	}
	if damage, ok := errors.AsType[*participants.Heuristic](err); ok && !r.meddled[k] && !r.w.mayMiss(k, damage) {
		r.w.violate("R9: nobody meddled, and %s of %s ended in damage: %s", r.name, r.w.name(b.TxID), damage.Detail)
	}
	return vote, err
}

// forget drops what lies before the horizon and is not prepared (rule R11).
func (r *resource) forget(f participants.Fence) {
	for k, record := range r.records {
		if f.Expired(k.txid) && record.Status != participants.StatusPrepared {
			delete(r.records, k)
		}
	}
}

// meddle ends a prepared branch by hand, as an operator of the resource might: rolled
// back without a trace, or committed.
func (r *resource) meddle() {
	if len(r.held) == 0 {
		return
	}
	k := r.held[r.w.rng.IntN(len(r.held))]
	r.meddled[k] = true
	record := participants.Record{}
	if r.w.rng.IntN(2) == 0 {
		record = participants.Record{Status: participants.StatusCommitted, Digest: r.records[k].Digest}
		r.effects[k]++
	}
	r.w.say("%s: an operator ends branch=%d of %s by hand, which is %s now", r.name, k.number, r.w.name(k.txid), record.Status)
	r.set(k, record)
}

func (r *resource) prepare(k branchID, b participants.Branch) participants.Vote {
	if v, known := r.records[k].Prepare(r.fence, b); known {
		return v
	}
	switch {
	case b.Digest[0] < 16, r.w.contested && b.Digest[0] < 64: // it only reads, whenever it is asked, and nothing of it is kept
		return participants.ReadOnly()
	case r.w.rng.IntN(20) == 0:
		v := participants.No("there is not enough")
		r.remember(k, participants.Refused(v))
		return v
	default:
		r.remember(k, b.Prepared())
		return participants.Yes()
	}
}

func (r *resource) remember(k branchID, after participants.Record) {
	if after.Status != participants.StatusUnknown {
		r.set(k, after)
	}
}

func (r *resource) set(k branchID, after participants.Record) {
	before := r.records[k]
	r.records[k] = after
	was, is := before.Status == participants.StatusPrepared, after.Status == participants.StatusPrepared
	if was == is {
		return
	}
	place, _ := slices.BinarySearchFunc(r.held, k, func(a, b branchID) int {
		return cmp.Or(slices.Compare(a.txid[:], b.txid[:]), cmp.Compare(a.number, b.number))
	})
	if is {
		r.held = slices.Insert(r.held, place, k)
	} else {
		r.held = slices.Delete(r.held, place, place+1)
	}
}
