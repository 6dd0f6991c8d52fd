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
// transaction. Without others the trees are small; with a million they are not.
func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 64, 1024} {
		for _, kept := range []int{0, 1_000_000} {
			b.Run(fmt.Sprintf("batch=%d/kept=%d", batch, kept), func(b *testing.B) { benchmarkApply(b, batch, kept) })
		}
	}
}

func benchmarkApply(b *testing.B, batch, kept int) {
	j := filled(b, kept)
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
	j.m.state.ripening.seal()
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
