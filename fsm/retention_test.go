package fsm

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// collectTo moves the horizon and collects.
func (j *journal) collectTo(horizon txn.Time, limit int) int {
	j.t.Helper()
	h := j.header()
	h.Horizon = horizon
	out := j.write(h, Collect{Limit: limit})
	if out.Err != nil || out.Results[0].Err != nil {
		j.t.Fatalf("collect: %+v", out)
	}
	return out.Results[0].Collected
}

// TestRetentionKeepsWhatMatters holds R10 and R11 against each other: collected is
// what is finished, undamaged, and lies before the horizon with both its id and its
// end. Afterwards the id is expired, and is not run again.
func TestRetentionKeepsWhatMatters(t *testing.T) {
	j := newJournal(t)
	second := func(n int) txn.Time { return beginning.Add(time.Duration(n) * time.Second) }
	stage := func(id txn.TxID) txn.Stage {
		return txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second}
	}
	old, damaged, unfinished, endedLate := idAt(second(1), 1), idAt(second(2), 2), idAt(second(3), 3), idAt(second(4), 4)
	ahead, young := idAt(second(200), 5), idAt(second(100), 6)
	j.now = second(10)
	j.finish(old, txn.Done)
	j.finish(damaged, txn.HeuristicAbort)
	j.must(stage(unfinished), stage(endedLate))
	j.finish(ahead, txn.Done)
	j.now = second(100)
	j.finish(young, txn.Done)
	j.must(txn.Decide{ID: endedLate, Decision: txn.Commit},
		txn.Acknowledge{ID: endedLate, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}}})

	if n := j.collectTo(second(10), 100); n != 0 {
		t.Errorf("%d collected at the very horizon", n)
	}
	if n := j.collectTo(second(50), 100); n != 1 {
		t.Errorf("%d collected, want only the old one", n)
	}
	if _, ok := j.m.Transaction(old); ok {
		t.Error("the old one is still known")
	}
	for _, id := range []txn.TxID{damaged, unfinished, endedLate, ahead, young} {
		if _, ok := j.m.Transaction(id); !ok {
			t.Errorf("%s was collected", id)
		}
	}
	if r := j.apply(stage(old))[0]; r.Err == nil {
		t.Error("an id that was collected ran again")
	}
	j.now = second(300)
	if n := j.collectTo(second(250), 100); n != 3 {
		t.Errorf("%d collected, want all that finished without damage", n)
	}
	if s := j.m.Stats(); s.Retained != 2 || s.Unfinished != 1 || s.Damaged != 1 || s.Finished != 0 || s.Oldest != 0 {
		t.Errorf("%+v", s)
	}
	last := idAt(j.now, 9)
	j.finish(last, txn.Done)
	if s := j.m.Stats(); s.Finished != 1 || s.Oldest != j.now {
		t.Errorf("%+v", s)
	}
}

// TestAnIDAheadHoldsUpNoOther holds that a client's clock which runs ahead delays
// the collection of its own transaction and of no other (R11, R14).
func TestAnIDAheadHoldsUpNoOther(t *testing.T) {
	j := newJournal(t)
	j.finish(idAt(j.now.Add(txn.MaxSkew), 1), txn.Done)
	for i := range 10 {
		j.finish(idAt(j.now, 2+i), txn.Done)
	}
	j.now = j.now.Add(time.Minute)
	if n := j.collectTo(j.now, 100); n != 10 {
		t.Errorf("%d collected, want 10", n)
	}
}

// TestCollectIsBounded holds R14: no more than the limit at once, oldest first.
func TestCollectIsBounded(t *testing.T) {
	j := newJournal(t)
	var ids []txn.TxID
	for i := range 10 {
		j.now = j.now.Add(time.Second)
		ids = append(ids, idAt(j.now, i))
		j.finish(ids[i], txn.Done)
	}
	j.now = j.now.Add(time.Hour)
	for left := 10; left > 0; {
		n := j.collectTo(j.now, 4)
		if n != min(4, left) {
			t.Fatalf("%d collected of %d", n, left)
		}
		left -= n
		if got := j.m.Stats().Retained; got != left {
			t.Fatalf("%d left, want %d", got, left)
		}
		if left > 0 {
			if _, ok := j.m.Transaction(ids[10-left]); !ok {
				t.Fatalf("number %d went before an older one", 10-left)
			}
		}
	}
}

// TestAnAbortThatTakesOverBranchesIsNotCollected holds R4 and R10 together: a
// tombstone that was finished is owed deliveries again, and must leave retention.
func TestAnAbortThatTakesOverBranchesIsNotCollected(t *testing.T) {
	j := newJournal(t)
	id := idAt(j.now, 1)
	j.must(txn.Presume{ID: id})
	j.must(txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonRefused}, Branches: []txn.Branch{txn.NewBranch("bank", nil)}})
	j.now = j.now.Add(time.Hour)
	if n := j.collectTo(j.now, 10); n != 0 {
		t.Error("an unfinished transaction was collected")
	}
	j.must(txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}}})
	j.now = j.now.Add(time.Hour)
	if n := j.collectTo(j.now, 10); n != 1 {
		t.Error("it was finished again, and not collected")
	}
}

// TestCollectAgainstAModel compares retention with its definition on random logs:
// nothing unfinished goes, and nothing that a retry may ask for (R10, R11).
func TestCollectAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := newJournal(t)
		for range rapid.IntRange(5, 30).Draw(t, "entries") {
			j.draw(t)
		}
		horizon := max(j.m.Cluster().Horizon, j.now.Add(-time.Duration(rapid.Int64Range(0, int64(5*time.Minute)).Draw(t, "retention"))))
		var want []txn.TxID
		j.m.state.transactions.ascend(func(i item) bool {
			tx := i.transaction(nil)
			if tx.State.Finished() && !tx.Troubled() && i.id.Time() < horizon && tx.Finished.At < horizon {
				want = append(want, i.id)
			}
			return true
		})
		before := j.m.Stats().Retained
		limit := rapid.IntRange(1, 10).Draw(t, "limit")
		n := j.collectTo(horizon, limit)
		if n != min(limit, len(want)) || j.m.Stats().Retained != before-n {
			t.Fatalf("%d collected with limit %d, want %d", n, limit, len(want))
		}
		j.collectTo(horizon, MaxCollect)
		j.m.state.transactions.ascend(func(i item) bool {
			if slices.Contains(want, i.id) {
				t.Fatalf("%s was not collected", i.id)
			}
			return true
		})
		if got := j.m.Stats().Retained; got != before-len(want) {
			t.Fatalf("%d left of %d, want %d fewer", got, before, len(want))
		}
		checkIndices(t, j.m)
	})
}
