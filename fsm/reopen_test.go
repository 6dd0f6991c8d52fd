package fsm

// R15: a state that begins again says so in its snapshot, in the same bytes from every
// node, and presumes nothing of what it may have lost; an operator's decisions of that
// are kept like any others.

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// reopened is a journal that began again, with one transaction held.
func reopened(t tester) (j *journal, held txn.TxID) {
	t.Helper()
	j = newJournal(t)
	held = idAt(j.now, 1)
	j.must(txn.Stage{ID: held, Branches: []txn.Branch{txn.NewBranch("bank", []byte("work"))}, Timeout: time.Second})
	j.term = 1000
	if err := j.m.Reopen(txn.Restored{Epoch: 1000, Until: j.now.Add(txn.MaxSkew)}); err != nil {
		t.Fatalf("reopen: %v", err)
	}
	j.lead()
	return j, held
}

func TestAReopenedStatePresumesNothing(t *testing.T) {
	j, held := reopened(t)
	lost := idAt(j.now.Add(time.Minute), 2)
	work := []txn.Branch{txn.NewBranch("bank", nil)}
	for _, c := range []txn.Command{
		txn.Presume{ID: lost},
		txn.Stage{ID: lost, Branches: work, Timeout: time.Second},
		txn.Decide{ID: lost, Decision: txn.Abort, Reason: txn.TimeIsUp},
		txn.Decide{ID: lost, Decision: txn.Abort, Reason: txn.TimeIsUp, Branches: work},
		txn.Decide{ID: held, Decision: txn.Commit},
		txn.Decide{ID: held, Decision: txn.Abort, Reason: txn.TimeIsUp},
	} {
		if r := j.apply(c)[0]; !errors.Is(r.Err, txn.ErrLost) {
			t.Errorf("%T: %v", c, r.Err)
		}
	}
	if r := j.apply(txn.Arbitrate{ID: idAt(j.now.Add(txn.MaxSkew+time.Second), 3), Decision: txn.Commit})[0]; !errors.Is(r.Err, txn.ErrNotLost) {
		t.Errorf("a transaction of after the restore: %v", r.Err)
	}
	j.must(txn.Arbitrate{ID: lost, Decision: txn.Commit}, txn.Arbitrate{ID: held, Decision: txn.Abort, Detail: "ann"})

	again := newMachine(t)
	if err := restore(again, persist(t, j.m)); err != nil {
		t.Fatal(err)
	}
	checkIndices(t, again)
	if again.Cluster() != j.m.Cluster() || again.Level() != LevelRestore {
		t.Errorf("restored %+v at level %d", again.Cluster(), again.Level())
	}
	tx, ok := again.Transaction(lost)
	if !ok || tx.State != txn.Committed || !tx.Tombstone() {
		t.Errorf("an operator's commit came back as %+v", tx)
	}
	if tx, _ := again.Transaction(held); tx.State != txn.Aborting || tx.Reason != (txn.Reason{Code: txn.ReasonOperator, Detail: "ann"}) {
		t.Errorf("an operator's abort came back as %+v", tx)
	}
}

// TestReopenRefuses leaves the state as it was.
func TestReopenRefuses(t *testing.T) {
	if err := newMachine(t).Reopen(txn.Restored{Epoch: 2, Until: beginning}); !errors.Is(err, ErrNoCluster) {
		t.Errorf("without a cluster: %v", err)
	}
	j := newJournal(t)
	before := persist(t, j.m)
	for _, r := range []txn.Restored{{Epoch: 1, Until: j.now}, {Epoch: 2, Until: j.now - 1}} {
		if err := j.m.Reopen(r); err == nil {
			t.Errorf("reopened with %+v", r)
		}
	}
	if !bytes.Equal(before, persist(t, j.m)) || j.m.Level() != LevelFirst {
		t.Error("the state has changed")
	}
}

// TestReopenedHeaderIsKept holds the bytes of a header of level 3.
func TestReopenedHeaderIsKept(t *testing.T) {
	j, _ := reopened(t)
	const want = "0000002d0a2b08031209636c75737465722d3118e907208080a8b1e39fe7cb173003380450e8075880f0bafcc0a8e7cb17"
	if got := hex.EncodeToString(persist(t, j.m)[:49]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestWrongRestoresAreRefused breaks the header's fields in each way.
func TestWrongRestoresAreRefused(t *testing.T) {
	j, _ := reopened(t)
	for name, how := range map[string]func(*fsmpb.Header){
		"a level without restores": func(h *fsmpb.Header) { h.Version = uint32(LevelRaise) },
		"no epoch":                 func(h *fsmpb.Header) { h.RestoredEpoch = 0 },
		"an epoch to come":         func(h *fsmpb.Header) { h.RestoredEpoch = h.Epoch + 1 },
		"no time":                  func(h *fsmpb.Header) { h.RestoredUntil = 0 },
		"no such time":             func(h *fsmpb.Header) { h.RestoredUntil = int64(maxTime) + 1 },
	} {
		list := records(t, persist(t, j.m))
		how(list[0].GetHeader())
		if err := restore(newMachine(t), join(list)); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

// TestReopenSurvivesSnapshots is TestRestoreAndReplayEqualsFullReplay for a state that
// begins again: what comes after a snapshot has the same effect with it and without.
func TestReopenSurvivesSnapshots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := newJournal(t)
		for range rapid.IntRange(1, 20).Draw(t, "entries") {
			j.drawOrReopen(t)
		}
		m := newMachine(t)
		if err := restore(m, persist(t, j.m)); err != nil {
			t.Fatal(err)
		}
		checkIndices(t, m)
		before := len(j.logs)
		for range rapid.IntRange(1, 10).Draw(t, "more entries") {
			j.draw(t)
		}
		for _, l := range j.logs[before:] {
			m.Apply(l)
		}
		checkIndices(t, m)
		if !bytes.Equal(persist(t, m), persist(t, j.m)) {
			t.Fatal("the state after a snapshot differs")
		}
	})
}

// R15: decisions of entries of which nobody knows whether they were committed are taken
// back, those before them stand, and nothing but the decision is lost.
func TestDecisionsOfTheLastEntriesAreTakenBack(t *testing.T) {
	j := newJournal(t)
	work := []txn.Branch{txn.NewBranch("bank", []byte("work"))}
	stands, doubtful, seated, unknown := idAt(j.now, 1), idAt(j.now, 2), idAt(j.now, 3), idAt(j.now, 4)
	j.finish(stands, txn.Done)
	j.must(txn.Stage{ID: doubtful, Branches: work, Timeout: time.Second}, txn.Stage{ID: seated, Interactive: true, Timeout: time.Second})
	j.must(txn.Enlist{ID: seated, Branch: work[0]})
	proven := j.m.AppliedIndex()
	j.must(txn.Decide{ID: doubtful, Decision: txn.Commit}, txn.Decide{ID: seated, Decision: txn.Abort, Reason: txn.TimeIsUp}, txn.Presume{ID: unknown})
	j.must(txn.Acknowledge{ID: doubtful, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.HeuristicAbort}}})
	before := persist(t, j.m)
	if n := j.m.Doubt(j.m.AppliedIndex()); n != 0 || !bytes.Equal(before, persist(t, j.m)) {
		t.Errorf("%d decisions are taken back of none", n)
	}
	if n := j.m.Doubt(proven); n != 3 {
		t.Errorf("%d decisions are taken back, want 3", n)
	}
	checkIndices(t, j.m)
	if err := j.m.Reopen(txn.Restored{Epoch: 1000, Until: j.now.Add(txn.MaxSkew)}); err != nil {
		t.Fatal(err)
	}
	again := newMachine(t)
	if err := restore(again, persist(t, j.m)); err != nil {
		t.Fatal(err)
	}
	if tx, _ := again.Transaction(stands); tx.State != txn.Committed {
		t.Errorf("what stands is %s", tx.State)
	}
	if _, known := again.Transaction(unknown); known {
		t.Error("a presumption of the last entries is kept")
	}
	for _, id := range []txn.TxID{doubtful, seated} {
		tx, _ := again.Transaction(id)
		if !again.Cluster().Held(tx) || len(tx.Branches) != 1 || tx.Damage() != txn.ReceiptNone {
			t.Errorf("in doubt: %+v", tx)
		}
	}
}
