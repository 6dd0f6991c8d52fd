package fsm

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// TestRipeningIsInOrder holds that what finished comes out as it becomes ripe, on a
// node that applied every entry and on one that restored a snapshot alike (R12):
// whatever waits where, ids ahead of their time and tombstones among them, some of
// which are taken out again.
func TestRipeningIsInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		live, restored := newRipening(), newRipening()
		var want []ripe
		now := beginning
		for index := range rapid.IntRange(1, 12).Draw(t, "entries") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "pause")) * time.Millisecond)
			for i := range rapid.IntRange(0, rapid.SampledFrom([]int{2, 2 * ripeChunk}).Draw(t, "most")).Draw(t, "finished") {
				age := time.Duration((i*7919)%13-1) * time.Millisecond
				tx := &txn.Transaction{
					ID: idAt(now.Add(-age), index*ripeChunk*2+(i*31)%ripeChunk*2), State: txn.Committed,
					Fingerprint: txn.Fingerprint{1}, Finished: txn.Stamp{Index: uint64(index + 1), At: now},
				}
				if i%11 == 0 {
					tx.Fingerprint = txn.Fingerprint{}
				}
				live.add(tx)
				if tx.Tombstone() && i%2 == 0 {
					live.remove(tx)
					continue
				}
				restored.add(tx)
				want = append(want, ripeOf(tx))
			}
			live.seal()
		}
		restored.seal()
		slices.SortFunc(want, compareRipe)
		want = slices.Compact(want)
		for n, one := range want {
			for _, r := range []*ripening{&live, &restored} {
				if got, ok := r.first(); !ok || got != one || r.len() != len(want)-n {
					t.Fatalf("number %d of %d: %+v, want %+v, %d left", n+1, len(want), got, one, r.len())
				}
				r.pop(one)
			}
		}
		for _, r := range []*ripening{&live, &restored} {
			if got, ok := r.first(); ok || r.len() != 0 {
				t.Fatalf("at the end there is %+v, %d left", got, r.len())
			}
		}
	})
}

// TestRipeningSurvivesAClock holds that what finished at a time before the one before
// it, which only a wrong snapshot can say, still goes when it is ripe.
func TestRipeningSurvivesAClock(t *testing.T) {
	r := newRipening()
	for n, at := range []txn.Time{beginning.Add(time.Hour), beginning} {
		r.add(&txn.Transaction{ID: idAt(at, n), State: txn.Committed, Fingerprint: txn.Fingerprint{1}, Finished: txn.Stamp{Index: uint64(n + 1), At: at}})
		r.seal()
	}
	if got, ok := r.first(); !ok || got.at != beginning || r.len() != 2 {
		t.Errorf("%+v is first of %d", got, r.len())
	}
}
