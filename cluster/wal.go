package cluster

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

const (
	// segmentSize is where a file of the wal ends, but for the append that reaches
	// it. A new one costs some five fsyncs, so a thousand full entries share them;
	// and what is compacted away is given back in pieces of this size.
	segmentSize = 16 << 20
	// segmentSlack is what is allocated beyond that: room for the last append and the
	// index, both of which may come when nobody has a free byte left.
	segmentSlack = 4 << 20
	// maxAppend bounds an append, but for an entry that is larger alone, so that it
	// fits into the slack. A follower that catches up is sent more at once.
	maxAppend = segmentSlack / 2
)

// walStore is hashicorp/raft-wal as a node's log and vote. What it adds is told in
// DESIGN.md.
type walStore struct {
	*wal.WAL
	meta      *walMeta
	snapshots raft.SnapshotStore // nil: no entries are there yet
}

// openWAL opens the wal in a directory that exists, after it has repaired what a
// crash left.
func (f files) openWAL(dir string, log hclog.Logger) (_ *walStore, err error) {
	defer explainPanic(dir, &err)()
	on := f.segments()
	on.dir = dir
	meta := &walMeta{on: on}
	if err := meta.repair(dir); err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	w, err := wal.Open(dir,
		wal.WithMetaStore(meta), wal.WithSegmentFiler(segment.NewFiler(dir, on)),
		wal.WithSegmentSize(on.size), wal.WithLogger(log.Named("wal")))
	if err != nil {
		return nil, errors.Join(explainWAL(dir, err), meta.Close())
	}
	return &walStore{WAL: w, meta: meta}, nil
}

func (f files) segmentSize() int {
	if f.segment == 0 {
		return segmentSize
	}
	return f.segment
}

// explainWAL says what an error of the library means here.
func explainWAL(dir string, err error) error {
	if errors.Is(err, wal.ErrCorrupt) {
		return fmt.Errorf("%w: %s: %w", ErrCorruptDir, dir, err)
	}
	return err
}

// IsMonotonic keeps Raft from deleting the whole log whenever it has installed a
// snapshot: one that arrives late, a second time, would cost entries that were
// acknowledged after the first. See append.
func (w *walStore) IsMonotonic() bool { return false }

// GetLog implements [raft.LogStore]. The library goes on answering with an entry that
// was deleted from the beginning of the file that it appends to.
func (w *walStore) GetLog(index uint64, l *raft.Log) error {
	first, err := w.FirstIndex()
	if err != nil {
		return err
	}
	if index < first {
		return raft.ErrLogNotFound
	}
	return w.WAL.GetLog(index, l)
}

// StoreLog implements [raft.LogStore].
func (w *walStore) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore]. What it stores before a crash may be the
// beginning of ls.
func (w *walStore) StoreLogs(ls []*raft.Log) error {
	if len(ls) == 0 {
		return nil
	}
	if err := w.makeGap(ls[0].Index); err != nil {
		return err
	}
	for len(ls) > 0 {
		n, size := 0, 0
		for n < len(ls) && (n == 0 || size+entrySize(ls[n]) <= maxAppend) {
			size += entrySize(ls[n])
			n++
		}
		if err := w.WAL.StoreLogs(ls[:n]); err != nil {
			return w.meta.explain(err)
		}
		ls = ls[n:]
	}
	return nil
}

// entrySize is an entry in the file, or a little more.
func entrySize(l *raft.Log) int { return len(l.Data) + len(l.Extensions) + 64 }

// makeGap deletes the log where the next entry does not follow on it. Raft appends
// with a gap once it has installed a snapshot, which stands for all that is before
// the gap, and bbolt's store takes it so; a wal holds no gap.
func (w *walStore) makeGap(next uint64) error {
	last, err := w.LastIndex()
	if err != nil || last == 0 || next <= last+1 {
		return err
	}
	if err := w.covered(next - 1); err != nil {
		return err
	}
	first, err := w.FirstIndex()
	if err != nil {
		return err
	}
	return w.DeleteRange(first, last)
}

// covered fails where no snapshot stands for the log up to an index.
func (w *walStore) covered(index uint64) error {
	if w.snapshots == nil {
		return nil
	}
	list, err := w.snapshots.List()
	if err != nil {
		return err
	}
	if len(list) == 0 || list[0].Index < index {
		return fmt.Errorf("an entry after %d, which neither the log nor a snapshot has", index)
	}
	return nil
}

// DeleteRange implements [raft.LogStore].
func (w *walStore) DeleteRange(from, to uint64) error {
	return w.meta.explain(w.WAL.DeleteRange(from, to))
}

// walMeta holds which files are the wal's, with the vote.
type walMeta struct {
	metadb.BoltMetaDB
	on segments

	mu     sync.Mutex
	failed error // guarded by mu: of the first write that failed; there is no other after it
}

// CommitState implements [types.MetaStore]. The file that entries go to next is there
// before the wal knows of it, so that a file that is not there is always a loss.
func (m *walMeta) CommitState(s types.PersistentState) error {
	return m.write(func() error {
		if n := len(s.Segments); n > 0 && s.Segments[n-1].SealTime.IsZero() {
			if err := m.on.make(segment.FileName(s.Segments[n-1])); err != nil {
				return err
			}
		}
		if err := m.BoltMetaDB.CommitState(s); err != nil {
			return err
		}
		for _, info := range s.Segments {
			if !info.SealTime.IsZero() {
				m.on.trim(segment.FileName(info))
			}
		}
		return nil
	})
}

// SetStable implements [types.MetaStore].
func (m *walMeta) SetStable(key, value []byte) error {
	return m.write(func() error { return m.BoltMetaDB.SetStable(key, value) })
}

// write takes one write at a time, and none once one has failed: the wal itself only
// logs it where a file can't be followed by the next.
func (m *walMeta) write(do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == nil {
		m.failed = do()
	}
	return m.failed
}

// explain adds why a file has no successor.
func (m *walMeta) explain(err error) error {
	if err == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil && !errors.Is(err, m.failed) {
		return fmt.Errorf("%w: %w", err, m.failed)
	}
	return err
}
