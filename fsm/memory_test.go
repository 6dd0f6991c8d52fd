package fsm

import (
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm/txn"
)

// heap is what is in use after a collection: bytes and objects.
func heap() (bytes, objects int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), int(m.HeapObjects)
}

// TestMemoryOfATransaction holds R14 in figures: what a transaction of two branches
// and 100 bytes of payload each takes while it is open, and after it has finished, when
// a million may be kept; and what the garbage collector has to do for one that passes.
// Each bound is about a fifth above what was measured.
func TestMemoryOfATransaction(t *testing.T) {
	if raceDetector {
		t.Skip("its figures are those of the code without the race detector: make costs")
	}
	const finished, open, batch = 64_000, 12_800, 64
	j := newJournal(t)
	bytes, objects := heap()
	perTransaction := func(n int) (int, float64) {
		b, o := heap()
		b, o, bytes, objects = b-bytes, o-objects, b, o
		return b / n, float64(o) / float64(n)
	}

	allocations := 0.0
	for n := 0; n < finished; n += batch {
		j.now = j.now.Add(time.Millisecond)
		logs := j.transactions(t, n, batch)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		j.m.ApplyBatch(logs)
		runtime.ReadMemStats(&after)
		allocations += float64(after.Mallocs - before.Mallocs)
	}
	if got := allocations / finished; got > 15 {
		t.Errorf("%.1f allocations for a transaction's three commands", got)
	}
	b, o := perTransaction(finished)
	t.Logf("finished: %d bytes, %.2f objects, %.1f allocations", b, o, allocations/finished)
	if b > 345 || o > 0.2 {
		t.Errorf("a finished transaction takes %d bytes in %.2f objects", b, o)
	}

	for n := 0; n < open; n += batch {
		j.now = j.now.Add(time.Millisecond)
		j.m.Apply(j.transactions(t, finished+n, batch)[0])
		j.index += 2 // the two that are left out
	}
	b, o = perTransaction(open)
	t.Logf("open: %d bytes, %.2f objects", b, o)
	if b > 850 || o > 4 {
		t.Errorf("an open transaction takes %d bytes in %.2f objects", b, o)
	}
	if s := j.m.Stats(); s.Finished != finished || s.Unfinished != open {
		t.Errorf("%+v", s)
	}
}

// transactions makes the three entries of n transactions, unapplied.
func (j *journal) transactions(t testing.TB, first, n int) []*raft.Log {
	t.Helper()
	var stage, decide, acknowledge []Command
	for i := range n {
		id := idAt(j.now, first+i)
		stage = append(stage, txn.Stage{ID: id, Timeout: time.Second,
			Branches: []txn.Branch{txn.NewBranch("bank", make([]byte, 100)), txn.NewBranch("shop", make([]byte, 100))}})
		decide = append(decide, txn.Decide{ID: id, Decision: txn.Commit})
		acknowledge = append(acknowledge, txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}, {Branch: 2, Receipt: txn.Done}}})
	}
	var logs []*raft.Log
	for _, commands := range [][]Command{stage, decide, acknowledge} {
		data, err := Encode(Entry{Header: j.header(), Commands: commands})
		if err != nil {
			t.Fatal(err)
		}
		j.index++
		logs = append(logs, &raft.Log{Index: j.index, Term: j.term, Type: raft.LogCommand, Data: data})
	}
	return logs
}
