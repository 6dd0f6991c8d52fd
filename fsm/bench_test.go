package fsm

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm/txn"
)

// BenchmarkApply applies whole transactions of two branches, batch of them in each
// entry: one entry stages, one decides, one acknowledges. An operation is one
// transaction.
func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			j := newJournal(b)
			logs := make([]*raft.Log, 0, 3*(b.N/batch+1))
			for n := 0; n < b.N; n += batch {
				j.now = j.now.Add(time.Millisecond)
				logs = append(logs, j.transactions(b, n, batch)...)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, l := range logs {
				if out := j.m.Apply(l).(Applied); out.Err != nil {
					b.Fatal(out.Err)
				}
			}
			b.StopTimer()
			if got := j.m.Stats(); got.Unfinished != 0 || got.Retained < b.N {
				b.Fatalf("%+v", got)
			}
		})
	}
}

// transactions makes the three entries of n transactions, unapplied.
func (j *journal) transactions(b *testing.B, first, n int) []*raft.Log {
	b.Helper()
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
			b.Fatal(err)
		}
		j.index++
		logs = append(logs, &raft.Log{Index: j.index, Term: j.term, Type: raft.LogCommand, Data: data})
	}
	return logs
}

// filled is a machine that holds n finished transactions.
func filled(b *testing.B, n int) *journal {
	b.Helper()
	j := newJournal(b)
	for i := range n {
		at := beginning.Add(time.Duration(i) * time.Millisecond)
		stamp := txn.Stamp{Index: uint64(i + 1), Epoch: 1, At: at}
		j.m.state.put(nil, &txn.Transaction{
			ID: idAt(at, i), State: txn.Committed, Fingerprint: txn.Fingerprint{1}, Timeout: time.Second,
			Branches: []txn.Branch{{Participant: "bank", Receipt: txn.Done}, {Participant: "shop", Receipt: txn.Done}},
			Staged:   stamp, Decided: stamp, Finished: stamp,
		})
	}
	j.now = beginning.Add(time.Duration(n) * time.Millisecond)
	return j
}

// BenchmarkSnapshotStall is how long Snapshot holds up apply with a million
// transactions, and what it costs the first entry after it.
func BenchmarkSnapshotStall(b *testing.B) {
	j := filled(b, 1_000_000)
	var stall, entry time.Duration
	b.ResetTimer()
	for n := range b.N {
		b.StopTimer()
		j.now = j.now.Add(time.Millisecond)
		logs := j.transactions(b, n, 64)
		b.StartTimer()
		start := time.Now()
		taken, err := j.m.Snapshot()
		stall += time.Since(start)
		if err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		j.m.Apply(logs[0])
		entry += time.Since(start)
		taken.Release()
	}
	b.ReportMetric(float64(stall.Nanoseconds())/float64(b.N), "ns/stall")
	b.ReportMetric(float64(entry.Nanoseconds())/float64(b.N), "ns/next-entry")
}

// BenchmarkPersist writes a million transactions, beside apply; BenchmarkRestore
// reads them, while the node waits.
func BenchmarkPersist(b *testing.B) {
	s := filled(b, 1_000_000).m.state.snapshot()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := s.write(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRestore(b *testing.B) {
	data := persist(b, filled(b, 1_000_000).m)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := restore(New(Options{}), data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	j := newJournal(b)
	var e Entry
	e.Header = j.header()
	for i := range 64 {
		e.Commands = append(e.Commands, txn.Stage{ID: idAt(j.now, i), Timeout: time.Second,
			Branches: []txn.Branch{txn.NewBranch("bank", make([]byte, 100)), txn.NewBranch("shop", make([]byte, 100))}})
	}
	b.ReportAllocs()
	for range b.N {
		if _, err := Encode(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTransaction(b *testing.B) {
	j := filled(b, 1_000_000)
	id := idAt(beginning.Add(500_000*time.Millisecond), 500_000)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, ok := j.m.Transaction(id); !ok {
			b.Fatal("not found")
		}
	}
}
