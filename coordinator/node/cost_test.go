package node

// What a transaction may cost: figures that do not depend on how fast the machine is.
// BenchmarkSubmit has the others.

import (
	"runtime"
	"testing"
)

// Bounds of what one two-branch transaction costs its leader, from Submit to the last
// receipt, with participants that answer at once: some 10 % above what it is.
const (
	mostAllocations = 80
	mostBytes       = 9000
)

// A leader's allocations are most of what it does beside system calls. The node is
// alone in its cluster, so that all of them are its own.
func TestTransactionAllocates(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates too")
	}
	leader := startBench(t, 1, true)
	const clients, n = 64, 5000
	submit(t, leader, clients, n)
	awaitDelivered(t, leader)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	submit(t, leader, clients, n)
	awaitDelivered(t, leader)
	runtime.ReadMemStats(&after)
	allocations, bytes := (after.Mallocs-before.Mallocs)/n, (after.TotalAlloc-before.TotalAlloc)/n
	t.Logf("%d allocations and %d bytes a transaction", allocations, bytes)
	if allocations > mostAllocations || bytes > mostBytes {
		t.Errorf("a transaction takes %d allocations and %d bytes, want at most %d and %d", allocations, bytes, mostAllocations, mostBytes)
	}
}

// Transactions that run at the same time share their log entries: under load one takes
// a small part of an entry, where alone it takes two.
func TestTransactionsShareEntries(t *testing.T) {
	leader := startBench(t, 3, true)
	const clients, n = 64, 3200
	before := leader.Machine.Stats().Entries
	submit(t, leader, clients, n)
	awaitDelivered(t, leader)
	if share := float64(leader.Machine.Stats().Entries-before) / n; share > 0.2 {
		t.Errorf("%.3f entries a transaction, want at most 0.2", share)
	}
}
