package cluster

import (
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// leastTrailing stays behind a snapshot however large the entries are: a follower
	// some messages behind must not be sent the whole state for them.
	leastTrailing = 64
	// cachedEntries and cachedBytes keep what followers fetch within reach of memory:
	// entries are seldom larger than some KiB, but they may be.
	cachedEntries = 1024
	cachedBytes   = 32 << 20
	// deletedAtOnce is how much of the log one write removes behind a snapshot. While
	// the disk does that, it takes no new entry.
	deletedAtOnce = 512
)

// backlog weighs the log. Raft counts entries, but one may hold thousands of
// commands or one: what a restart replays and what the disk keeps are a matter of
// bytes.
type backlog struct {
	// Set once by newBacklog.
	limit   int64         // a snapshot is due at so many bytes since the last, at most
	keep    int64         // bytes that stay behind a snapshot, at most
	entries uint64        // entries that do, at most
	due     chan struct{} // holds a token while a snapshot is due

	mu    sync.Mutex
	sizes []int // guarded by mu: of the last entries, by index
	last  uint64
	since int64 // guarded by mu: bytes after the last snapshot
	next  int64 // guarded by mu: how many make one due
}

func newBacklog(cfg Config) *backlog {
	b := &backlog{
		limit: cfg.SnapshotBytes, keep: cfg.TrailingBytes, entries: cfg.TrailingLogs,
		due: make(chan struct{}, 1), sizes: make([]int, cfg.TrailingLogs),
	}
	b.draw()
	return b
}

// draw sets when the next snapshot is due: up to a quarter early, because all nodes
// have the same log, and all of them writing at once would be felt. b.mu must be held.
func (b *backlog) draw() { b.next = b.limit - rand.Int64N(b.limit/4+1) }

// grow notes entries that were appended.
func (b *backlog) grow(ls ...*raft.Log) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range ls {
		b.add(l)
	}
}

// found notes an entry that is in the log from before.
func (b *backlog) found(l *raft.Log) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.Index > b.last {
		b.add(l)
	}
}

// add counts an entry. b.mu must be held.
func (b *backlog) add(l *raft.Log) {
	b.last = l.Index
	b.sizes[l.Index%b.entries] = len(l.Data)
	if b.since += int64(len(l.Data)); b.since < b.next {
		return
	}
	select {
	case b.due <- struct{}{}:
	default:
	}
}

// cut begins to count anew, as a snapshot begins, and returns how many entries are
// to stay behind it.
func (b *backlog) cut() (trailing uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = 0
	b.draw()
	select {
	case <-b.due:
	default:
	}
	kept := int64(0)
	for trailing < min(b.entries, b.last) {
		kept += int64(b.sizes[(b.last-trailing)%b.entries])
		if kept > b.keep && trailing >= leastTrailing {
			break
		}
		trailing++
	}
	return max(trailing, min(leastTrailing, b.entries))
}

// watchBacklog takes a snapshot whenever one is due for the bytes, beside those that
// Raft takes for the entries.
func (n *Node) watchBacklog() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.backlog.due:
		}
		_, _, err := n.propose(func() raft.Future { return n.raft.Snapshot() }).Wait(n.ctx)
		if err != nil && n.ctx.Err() == nil && !errors.Is(err, ErrNotLeader) { // that is how closing reads
			n.log.Warn("a snapshot was due, and could not be taken", "error", err)
		}
	}
}

// trail tells Raft how many entries stay behind the snapshot that begins.
func (n *Node) trail() {
	trailing := n.backlog.cut()
	n.mu.Lock()
	r := n.raft
	n.mu.Unlock()
	if r == nil {
		return // it is being opened
	}
	err := n.reconfigure(r, func(c *raft.ReloadableConfig) { c.TrailingLogs = trailing })
	if err != nil {
		n.log.Warn("the log behind the snapshot is not bounded by its bytes", "error", err)
	}
}

// reconfigure changes what Raft can be told while it runs. It is told all of it at a
// time, so that two who change something must not do so at once.
func (n *Node) reconfigure(r *raft.Raft, change func(*raft.ReloadableConfig)) error {
	n.reconfiguring.Lock()
	defer n.reconfiguring.Unlock()
	c := r.ReloadableConfig()
	before := c
	if change(&c); c == before {
		return nil
	}
	return r.ReloadConfig(c)
}

// logCache is Raft's log with its last entries in memory, like raft.LogCache, but
// bounded in bytes too.
type logCache struct {
	raft.LogStore
	backlog *backlog

	mu          sync.RWMutex
	ring        [cachedEntries]*raft.Log // guarded by mu: by index
	first, next uint64                   // guarded by mu: the indices in ring; equal where there are none
	bytes       int                      // guarded by mu
}

// IsMonotonic implements [raft.MonotonicLogStore] for a store that does.
func (c *logCache) IsMonotonic() bool {
	store, ok := c.LogStore.(raft.MonotonicLogStore)
	return ok && store.IsMonotonic()
}

// GetLog implements [raft.LogStore].
func (c *logCache) GetLog(index uint64, l *raft.Log) error {
	c.mu.RLock()
	cached := c.ring[index%cachedEntries]
	hit := c.first <= index && index < c.next
	c.mu.RUnlock()
	if hit {
		*l = *cached
		return nil
	}
	if err := c.LogStore.GetLog(index, l); err != nil {
		return err
	}
	c.backlog.found(l)
	return nil
}

// StoreLog implements [raft.LogStore].
func (c *logCache) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (c *logCache) StoreLogs(ls []*raft.Log) error {
	if err := c.LogStore.StoreLogs(ls); err != nil {
		return err
	}
	c.backlog.grow(ls...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range ls {
		if l.Index != c.next {
			c.forget(c.next)
			c.first, c.next = l.Index, l.Index
		}
		if c.next-c.first == cachedEntries {
			c.forget(c.first + 1)
		}
		// A copy: a leader's entry is a part of Raft's future, which holds the state
		// machine's answer too, several times as large as the entry.
		own := *l
		c.ring[l.Index%cachedEntries] = &own
		c.bytes += len(l.Data)
		c.next++
		for c.bytes > cachedBytes && c.first < c.next {
			c.forget(c.first + 1)
		}
	}
	return nil
}

// forget drops what lies before an index. c.mu must be held.
func (c *logCache) forget(before uint64) {
	for ; c.first < min(before, c.next); c.first++ {
		place := &c.ring[c.first%cachedEntries]
		c.bytes -= len((*place).Data)
		*place = nil
	}
}

// DeleteRange implements [raft.LogStore]. Behind a snapshot it goes in steps, from
// the oldest on, so that a crash on the way leaves a log without a hole. What ends
// with the last entry is no such thing: it goes at once.
func (c *logCache) DeleteRange(from, to uint64) error {
	c.mu.Lock()
	if from <= c.first {
		c.forget(to + 1)
	} else if from < c.next {
		c.forget(c.next) // what conflicts with a leader's; rare
	}
	c.mu.Unlock()
	oldest, err := c.FirstIndex()
	if err != nil {
		return err
	}
	newest, err := c.LastIndex()
	if err != nil {
		return err
	}
	for from == oldest && to < newest && to-from >= deletedAtOnce {
		next := from + deletedAtOnce
		if err := c.LogStore.DeleteRange(from, next-1); err != nil {
			return err
		}
		from, oldest = next, next
	}
	return c.LogStore.DeleteRange(from, to)
}
