package fsm

import (
	"cmp"
	"slices"

	"github.com/google/btree"

	"github.com/decree-tx/decree/fsm/txn"
)

// ripe orders finished transactions by when the horizon will have passed both
// their id and their end. An id may be ahead of cluster time by txn.MaxSkew, so
// the end alone would not do: one such id would hold up all that finished later.
type ripe struct {
	at    txn.Time
	index uint64 // of the entry that finished it
	id    txn.TxID
}

func ripeOf(t *txn.Transaction) ripe {
	return ripe{at: max(t.Finished.At, t.ID.Time()), index: t.Finished.Index, id: t.ID}
}

func compareRipe(a, b ripe) int {
	if c := cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.index, b.index)); c != 0 || a.id == b.id {
		return c
	}
	if lessID(a.id, b.id) {
		return -1
	}
	return 1
}

// ripens reports whether retention may end t one day.
func ripens(t *txn.Transaction) bool {
	return t.State.Finished() && !t.Troubled()
}

// ripening is what retention will end, first what is ripe first. Nearly all become
// ripe in the order in which their entries come, and are never taken back: those
// wait in a queue, which takes half of a tree's memory and less time. The others are
// in a tree.
type ripening struct {
	fresh []ripe   // of the entry that is being applied, or of a snapshot
	queue [][]ripe // in order, in chunks; none is empty
	n     int      // in fresh and queue
	late  *btree.BTreeG[ripe]
}

// ripeChunk is how many wait in one piece of memory, of 32 bytes each.
const ripeChunk = 1024

func newRipening() ripening {
	return ripening{late: btree.NewG(degree, func(a, b ripe) bool { return compareRipe(a, b) < 0 })}
}

// late ones have an id that is ahead of their end, or may be owed something again: an
// abort of unknown content takes over branches.
func late(t *txn.Transaction) bool { return t.ID.Time() > t.Finished.At || t.Tombstone() }

// add takes a transaction that ripens; seal must follow.
func (r *ripening) add(t *txn.Transaction) {
	if late(t) {
		r.late.ReplaceOrInsert(ripeOf(t))
		return
	}
	r.fresh = append(r.fresh, ripeOf(t))
	r.n++
}

// remove takes a tombstone out again; there are no others that are.
func (r *ripening) remove(t *txn.Transaction) { r.late.Delete(ripeOf(t)) }

// seal orders what was added. It comes after what was there: it finished in a later
// entry, at no earlier time, unless a snapshot's clock was ahead of its own header.
func (r *ripening) seal() {
	if len(r.fresh) == 0 {
		return
	}
	slices.SortFunc(r.fresh, compareRipe)
	for _, one := range r.fresh {
		last := len(r.queue) - 1
		if last >= 0 && compareRipe(one, r.queue[last][len(r.queue[last])-1]) < 0 {
			r.late.ReplaceOrInsert(one)
			r.n--
			continue
		}
		if last < 0 || len(r.queue[last]) == ripeChunk {
			r.queue = append(r.queue, make([]ripe, 0, ripeChunk))
			last++
		}
		r.queue[last] = append(r.queue[last], one)
	}
	if r.fresh = r.fresh[:0]; cap(r.fresh) > ripeChunk {
		r.fresh = nil // a snapshot's
	}
}

func (r *ripening) len() int { return r.n + r.late.Len() }

// first is what is ripe first. What is not sealed does not count.
func (r *ripening) first() (ripe, bool) {
	one, ok := r.late.Min()
	if len(r.queue) > 0 && (!ok || compareRipe(r.queue[0][0], one) < 0) {
		return r.queue[0][0], true
	}
	return one, ok
}

// pop removes what first returned.
func (r *ripening) pop(one ripe) {
	if len(r.queue) == 0 || r.queue[0][0] != one {
		r.late.Delete(one)
		return
	}
	r.n--
	if r.queue[0] = r.queue[0][1:]; len(r.queue[0]) == 0 {
		r.queue[0] = nil
		r.queue = r.queue[1:]
	}
}
