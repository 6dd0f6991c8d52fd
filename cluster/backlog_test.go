package cluster

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// countingLog is a log in memory that can fail, and remembers what was deleted.
type countingLog struct {
	*raft.InmemStore
	reads   int
	deletes [][2]uint64
	fail    int // the deletion that fails, from 1
}

var errDisk = errors.New("the disk is broken")

func (l *countingLog) GetLog(index uint64, to *raft.Log) error {
	l.reads++
	return l.InmemStore.GetLog(index, to)
}

func (l *countingLog) DeleteRange(from, to uint64) error {
	if len(l.deletes)+1 == l.fail {
		return errDisk
	}
	l.deletes = append(l.deletes, [2]uint64{from, to})
	return l.InmemStore.DeleteRange(from, to)
}

func newCountingCache(keep, limit int64, entries uint64) (*logCache, *countingLog) {
	inner := &countingLog{InmemStore: raft.NewInmemStore()}
	b := newBacklog(Config{TrailingBytes: keep, SnapshotBytes: limit, TrailingLogs: entries})
	return &logCache{LogStore: inner, backlog: b}, inner
}

// fill appends entries of a size, from an index to another.
func (c *logCache) fill(t *testing.T, from, to uint64, size int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := c.StoreLog(&raft.Log{Index: i, Term: 1, Data: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *logCache) read(t *testing.T, index uint64) *raft.Log {
	t.Helper()
	var l raft.Log
	if err := c.GetLog(index, &l); err != nil || l.Index != index {
		t.Fatalf("entry %d reads as %d: %v", index, l.Index, err)
	}
	return &l
}

// TestTheCacheIsBoundedInBytes holds R14: a thousand small entries are within reach,
// and of large ones no more than fit.
func TestTheCacheIsBoundedInBytes(t *testing.T) {
	c, inner := newCountingCache(1<<40, 1<<40, 4096)
	c.fill(t, 1, 3000, 100)
	if c.next-c.first != cachedEntries || c.bytes != 100*cachedEntries {
		t.Errorf("%d entries of %d bytes", c.next-c.first, c.bytes)
	}
	const large = 1 << 20
	c.fill(t, 3001, 3100, large)
	if c.next-c.first != cachedBytes/large || c.bytes != cachedBytes {
		t.Errorf("%d entries of %d bytes", c.next-c.first, c.bytes)
	}
	for i := c.first; i < c.next; i++ {
		c.read(t, i)
	}
	if inner.reads != 0 {
		t.Errorf("%d of what is cached was read from the disk", inner.reads)
	}
	if c.read(t, c.first-1); inner.reads != 1 {
		t.Errorf("what is not cached was read %d times", inner.reads)
	}
	c.fill(t, 3101, 3101, cachedBytes+1)
	if c.first != c.next || c.bytes != 0 {
		t.Errorf("an entry that is larger than the cache is in it: %d bytes", c.bytes)
	}
}

// TestTheCacheHoldsNoAnswers holds R14: a leader's entry is a part of Raft's future,
// and with it the state machine's answer, and the cache lets go of both.
func TestTheCacheHoldsNoAnswers(t *testing.T) {
	type future struct {
		log raft.Log
		_   [1 << 10]byte // the answer
	}
	c, _ := newCountingCache(1<<40, 1<<40, 4096)
	f := &future{log: raft.Log{Index: 1, Term: 1}}
	if err := c.StoreLog(&f.log); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	runtime.AddCleanup(f, func(struct{}) { close(gone) }, struct{}{})
	f = nil
	c.LogStore = nil // the one in memory holds it too
	for n := 0; ; n++ {
		runtime.GC()
		select {
		case <-gone:
			c.read(t, 1)
			return
		case <-time.After(time.Millisecond): // cleanups run beside us
		}
		if n == 5000 {
			t.Fatal("the future is still in memory")
		}
	}
}

// TestTheCacheFollowsTheLog holds that nothing is served which the log no longer
// holds: after a conflict with a leader's log, behind a snapshot, and after a jump.
func TestTheCacheFollowsTheLog(t *testing.T) {
	c, _ := newCountingCache(1<<40, 1<<40, 4096)
	c.fill(t, 1, 100, 1)
	if err := c.DeleteRange(90, 100); err != nil {
		t.Fatal(err)
	}
	if err := c.StoreLog(&raft.Log{Index: 90, Term: 2}); err != nil {
		t.Fatal(err)
	}
	if l := c.read(t, 90); l.Term != 2 {
		t.Errorf("an entry of term %d after its replacement", l.Term)
	}
	if err := c.GetLog(91, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("a deleted entry: %v", err)
	}
	if err := c.DeleteRange(1, 50); err != nil {
		t.Fatal(err)
	}
	if err := c.GetLog(50, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry behind the snapshot: %v", err)
	}
	c.fill(t, 500, 510, 1) // a snapshot came instead of what lies between
	if c.first != 500 || c.next != 511 || c.bytes != 11 {
		t.Errorf("%d to %d, %d bytes", c.first, c.next, c.bytes)
	}
}

// TestTheLogIsCutInSteps holds that entries need not wait for a long log to be cut:
// behind a snapshot it goes in steps, oldest first, and a conflict's end goes whole,
// for a crash between two steps would leave a hole.
func TestTheLogIsCutInSteps(t *testing.T) {
	c, inner := newCountingCache(1<<40, 1<<40, 4096)
	c.fill(t, 1, 2000, 1)
	if err := c.DeleteRange(1, 1200); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteRange(1201, 2000); err != nil {
		t.Fatal(err)
	}
	want := [][2]uint64{{1, 512}, {513, 1024}, {1025, 1200}, {1201, 2000}}
	if len(inner.deletes) != len(want) {
		t.Fatalf("%v, want %v", inner.deletes, want)
	}
	for i := range want {
		if inner.deletes[i] != want[i] {
			t.Errorf("%v, want %v", inner.deletes, want)
		}
	}
	c.fill(t, 2001, 4000, 1)
	inner.deletes, inner.fail = nil, 2
	if err := c.DeleteRange(2001, 3900); !errors.Is(err, errDisk) || len(inner.deletes) != 1 {
		t.Errorf("a step failed: %v, and %v was deleted", err, inner.deletes)
	}
}

// TestTrailingIsBoundedInBytes holds R14 for the disk: behind a snapshot stay so many
// entries as fit, at least some, and no more than the configuration's.
func TestTrailingIsBoundedInBytes(t *testing.T) {
	for name, c := range map[string]struct {
		size, n int
		want    uint64
	}{
		"small entries":        {10, 10_000, 4096},
		"as many as fit":       {1000, 10_000, 1000},
		"large ones":           {1 << 20, 200, leastTrailing},
		"fewer than there are": {10, 70, 70},
		"none":                 {0, 0, leastTrailing},
	} {
		cache, _ := newCountingCache(1_000_000, 1<<40, 4096)
		cache.fill(t, 1, uint64(c.n), c.size)
		if got := cache.backlog.cut(); got != c.want {
			t.Errorf("%s: %d entries stay, want %d", name, got, c.want)
		}
	}
	few, _ := newCountingCache(1, 1<<40, 16)
	few.fill(t, 1, 100, 1000)
	if got := few.backlog.cut(); got != 16 {
		t.Errorf("%d stay of the 16 that the configuration allows", got)
	}
}

// TestASnapshotIsDueForTheBytes holds that the log which a restart replays is bounded
// in bytes, also where it was there before.
func TestASnapshotIsDueForTheBytes(t *testing.T) {
	due := func(c *logCache) bool {
		select {
		case <-c.backlog.due:
			return true
		default:
			return false
		}
	}
	c, inner := newCountingCache(100, 1000, 4096)
	if c.fill(t, 1, 7, 100); due(c) {
		t.Error("due before three quarters of the bytes were there")
	}
	if c.fill(t, 8, 10, 100); !due(c) {
		t.Error("not due with the bytes there")
	}
	c.fill(t, 11, 11, 100)
	c.backlog.cut()
	if due(c) {
		t.Error("due as a snapshot begins")
	}
	if c.fill(t, 12, 18, 100); due(c) {
		t.Error("due for bytes before the snapshot")
	}
	restarted := &logCache{LogStore: inner, backlog: newBacklog(Config{TrailingBytes: 100, SnapshotBytes: 1000, TrailingLogs: 4096})}
	for range 3 { // Raft reads them more than once
		for i := uint64(12); i <= 18; i++ {
			restarted.read(t, i)
		}
	}
	if due(restarted) {
		t.Error("entries were counted more than once")
	}
	if restarted.fill(t, 19, 21, 100); !due(restarted) {
		t.Error("what was there before does not count")
	}
}
