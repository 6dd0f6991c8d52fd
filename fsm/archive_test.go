package fsm

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// bulky is a finished transaction whose record is large: some eighty fill a block.
func bulky(n int) *txn.Transaction {
	stamp := txn.Stamp{Index: 1, Epoch: 1, At: beginning}
	return &txn.Transaction{
		ID: idAt(beginning, n), State: txn.Aborted, Fingerprint: txn.Fingerprint{1}, Staged: stamp, Decided: stamp, Finished: stamp,
		Reason: txn.Reason{Code: txn.ReasonVote, Detail: strings.Repeat("x", txn.MaxReasonDetail)},
	}
}

// TestRecordsGoWithTheirBlocks holds R14: what retention ends gives its memory back,
// all but the blocks in which something is still kept; and what is kept reads as it
// was written, there and in every clone, whatever went since.
func TestRecordsGoWithTheirBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := archive{catalogue: newCatalogue()}
		n := rapid.IntRange(1, 1500).Draw(t, "transactions")
		straggler := rapid.IntRange(1, 400).Draw(t, "one that stays in so many")
		behind := rapid.IntRange(0, 500).Draw(t, "kept")
		gone := func(i, next int) bool { return i < next-behind && i%straggler != 0 }
		var clone catalogue
		cloned := rapid.IntRange(0, n-1).Draw(t, "cloned at")
		for i := range n {
			if i == cloned {
				clone = a.clone()
			}
			a.put(nil, bulky(i))
			if old := i - behind; old >= 0 && gone(old, i+1) {
				a.drop(bulky(old).ID)
			}
		}
		check := func(c *catalogue, next int) (want int) {
			for i := range next {
				tx := c.get(bulky(i).ID).transaction(nil)
				if (tx == nil) != gone(i, next) || tx != nil && !reflect.DeepEqual(tx, bulky(i)) {
					t.Fatalf("number %d of %d reads as %+v", i, next, tx)
				}
				if tx != nil {
					want++
				}
			}
			if c.len() != want {
				t.Fatalf("%d are kept, want %d", c.len(), want)
			}
			return want
		}
		check(&a.catalogue, n)
		check(&clone, cloned)

		records := 0
		for i, b := range a.blocks {
			records += b.n
			if last := i == len(a.blocks)-1; !last && (b.text == "") != (b.n == 0) {
				t.Fatalf("block %d of %d has %d bytes with %d records", i, len(a.blocks), len(b.text), b.n)
			}
		}
		if records != a.len() {
			t.Fatalf("the blocks count %d records of %d", records, a.len())
		}
		a.drop(idAt(beginning, n)) // not known
		for i := range n {
			a.drop(bulky(i).ID)
		}
		if len(a.blocks) != 1 || a.len() != 0 {
			t.Fatalf("%d blocks are left with %d records", len(a.blocks), a.len())
		}
		check(&clone, cloned)
	})
}

// TestEverythingIsVisitedInOrder holds that what lives and what is kept are one
// sequence to those who read it, upwards and downwards, and that they may stop.
func TestEverythingIsVisitedInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := archive{catalogue: newCatalogue()}
		n := rapid.IntRange(0, 60).Draw(t, "transactions")
		for i := range n {
			tx := bulky(i)
			if rapid.Bool().Draw(t, "lives") {
				tx.State = txn.Aborting
			}
			a.put(nil, tx)
		}
		stop := rapid.IntRange(1, 70).Draw(t, "stop after")
		var up, down []int
		number := func(i item) int { return int(i.id[15]) }
		a.ascend(func(i item) bool {
			up = append(up, number(i))
			return len(up) < stop
		})
		from := rapid.IntRange(0, 70).Draw(t, "from")
		a.descend(idAt(beginning, from), func(i item) bool {
			down = append(down, number(i))
			return len(down) < stop
		})
		if len(up) != min(n, stop) || len(down) != min(n, from+1, stop) {
			t.Fatalf("%d upwards and %d downwards from %d, of %d, stopping after %d", len(up), len(down), from, n, stop)
		}
		for i := range up {
			if up[i] != i {
				t.Fatalf("upwards %v", up)
			}
		}
		for i := range down {
			if down[i] != min(from, n-1)-i {
				t.Fatalf("downwards %v from %d", down, from)
			}
		}
	})
}
