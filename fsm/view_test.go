package fsm

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// TestOpenYieldsTheUnfinishedOldestFirst holds R13's reading: what a new leader
// takes over, be it Active, Preparing or Committing, on a view that does not change
// while it is read.
func TestOpenYieldsTheUnfinishedOldestFirst(t *testing.T) {
	j := newJournal(t)
	stage := func(n int) txn.Stage {
		return txn.Stage{ID: idAt(j.now, n), Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second}
	}
	active := txn.Stage{ID: idAt(j.now, 2), Interactive: true, Timeout: time.Second}
	decided := txn.Decide{ID: idAt(j.now, 5), Decision: txn.Commit}
	j.must(stage(3), stage(1), stage(5), active, decided)
	j.finish(idAt(j.now, 4), txn.Done)
	var seen []txn.TxID
	j.m.Open(func(tx *txn.Transaction) bool {
		if len(seen) == 0 {
			j.must(stage(9)) // comes too late for this reader
		}
		seen = append(seen, tx.ID)
		return true
	})
	if want := []txn.TxID{idAt(j.now, 1), idAt(j.now, 2), idAt(j.now, 3), idAt(j.now, 5)}; !slices.Equal(seen, want) {
		t.Errorf("%v, want %v", seen, want)
	}
	n := 0
	j.m.Open(func(*txn.Transaction) bool { n++; return n < 2 })
	if n != 2 {
		t.Errorf("%d yielded after the reader stopped at 2", n)
	}
}

// TestListAgainstAModel pages through random states with random queries: the pages
// together are what the query selects, youngest first, each once.
func TestListAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := newJournal(t)
		for range rapid.IntRange(0, 40).Draw(t, "entries") {
			j.draw(t)
		}
		q := Query{
			Participant: rapid.SampledFrom([]string{"", "bank", "nobody"}).Draw(t, "participant"),
			Damaged:     rapid.Bool().Draw(t, "damaged"),
			Limit:       rapid.IntRange(1, 7).Draw(t, "limit"),
		}
		for _, s := range rapid.SliceOfN(rapid.IntRange(1, 6), 0, 3).Draw(t, "states") {
			q.States = append(q.States, txn.State(s))
		}
		var want []*txn.Transaction
		j.m.state.transactions.descend(greatestID(), func(i item) bool {
			if tx := i.transaction(nil); q.selects(tx) {
				want = append(want, tx)
			}
			return true
		})
		var got []*txn.Transaction
		for calls := 0; ; calls++ {
			page, next, more := j.m.List(q)
			got = append(got, page...)
			if len(page) > q.Limit || calls > len(want) {
				t.Fatalf("call %d: a page of %d", calls, len(page))
			}
			if !more {
				if next != (txn.TxID{}) {
					t.Fatalf("a cursor %s past the end", next)
				}
				break
			}
			if len(page) != q.Limit {
				t.Fatalf("a page of %d, and there is more", len(page))
			}
			q.Before = next
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("listed %d, want %d", len(got), len(want))
		}
	})
}

// TestSelects tells what each filter means, apart from the paging.
func TestSelects(t *testing.T) {
	tx := &txn.Transaction{State: txn.Committing, Branches: []txn.Branch{{Participant: "bank", Receipt: txn.HeuristicAbort}, {Participant: "shop"}}}
	for name, c := range map[string]struct {
		q    Query
		want bool
	}{
		"everything":          {Query{}, true},
		"its state":           {Query{States: []txn.State{txn.Active, txn.Committing}}, true},
		"other states":        {Query{States: []txn.State{txn.Active, txn.Committed}}, false},
		"its participant":     {Query{Participant: "shop"}, true},
		"another participant": {Query{Participant: "hotel"}, false},
		"damage":              {Query{Damaged: true}, true},
		"all of it":           {Query{States: []txn.State{txn.Committing}, Participant: "bank", Damaged: true}, true},
		"most of it":          {Query{States: []txn.State{txn.Aborted}, Participant: "bank", Damaged: true}, false},
	} {
		if got := c.q.selects(tx); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	tx.Branches[0].Receipt = txn.Done
	if (Query{Damaged: true}).selects(tx) {
		t.Error("undamaged, and listed as damaged")
	}
}

// TestOneListIsBounded holds R14: a query that finds nothing gives up after a bounded
// number of transactions, with a cursor that goes on; and a page has a bound, too.
func TestOneListIsBounded(t *testing.T) {
	j := newJournal(t)
	const n = scanLimit + 500
	for i := range n {
		tx := &txn.Transaction{ID: idAt(j.now, i), State: txn.Aborted}
		j.m.state.put(nil, tx)
	}
	page, next, more := j.m.List(Query{Participant: "nobody"})
	if len(page) != 0 || !more || next != idAt(j.now, 500) {
		t.Errorf("a page of %d, next %s, more %t", len(page), next, more)
	}
	if page, _, more = j.m.List(Query{Participant: "nobody", Before: next}); len(page) != 0 || more {
		t.Errorf("then a page of %d, more %t", len(page), more)
	}
	for limit, want := range map[int]int{-1: defaultPage, 0: defaultPage, 1 << 30: maxPage} {
		if page, _, _ := j.m.List(Query{Limit: limit}); len(page) != want {
			t.Errorf("limit %d: a page of %d", limit, len(page))
		}
	}
}
