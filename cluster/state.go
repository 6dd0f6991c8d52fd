package cluster

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// state stands between Raft and the state machine. It notes which configuration
// is committed, which Raft does not tell: its GetConfiguration answers with the
// latest, which may yet be taken back.
type state struct {
	inner raft.FSM
	batch raft.BatchingFSM // inner, if it takes batches
	disk  *disk
	begun func() // told as a snapshot begins, before the state machine is asked

	inHand atomic.Uint64 // the first entry that is being applied; 0 while none is

	mu        sync.Mutex
	committed raft.Configuration // guarded by mu
	index     uint64             // guarded by mu: of committed
}

func newState(inner raft.FSM, d *disk, begun func()) *state {
	s := &state{inner: inner, disk: d, begun: begun}
	s.batch, _ = inner.(raft.BatchingFSM)
	return s
}

// Apply is not called by Raft, which prefers ApplyBatch.
func (s *state) Apply(l *raft.Log) any { return s.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch hands entries on. Configuration entries reach a state machine that
// takes batches, and only that.
func (s *state) ApplyBatch(ls []*raft.Log) []any {
	for _, l := range ls {
		if l.Type == raft.LogConfiguration {
			s.note(raft.DecodeConfiguration(l.Data), l.Index)
		}
	}
	s.inHand.Store(ls[0].Index)
	defer s.inHand.Store(0)
	if s.batch != nil {
		return s.batch.ApplyBatch(ls)
	}
	answers := make([]any, len(ls))
	for i, l := range ls {
		if l.Type == raft.LogCommand {
			answers[i] = s.inner.Apply(l)
		}
	}
	return answers
}

// lag counts the committed entries that are not applied. Raft's own index says what it
// has handed over, which is as good while nothing is being applied.
func (s *state) lag(r *raft.Raft) uint64 {
	applied := r.AppliedIndex()
	if first := s.inHand.Load(); first > 0 {
		applied = min(applied, first-1)
	}
	return max(r.CommitIndex(), applied) - applied
}

// Snapshot is where the log's weight is taken: what comes after it is not in it.
func (s *state) Snapshot() (raft.FSMSnapshot, error) {
	s.begun()
	return s.inner.Snapshot()
}

// Restore takes the configuration from the snapshot that is being restored: the
// newest one.
func (s *state) Restore(r io.ReadCloser) error {
	if err := s.inner.Restore(r); err != nil {
		return err
	}
	s.note(s.disk.snapshotMembers())
	return nil
}

func (s *state) note(c raft.Configuration, index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index > s.index {
		s.committed, s.index = c, index
	}
}

// committedHas reports whether a node is in the committed configuration.
func (s *state) committedHas(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.committed.Servers, func(m raft.Server) bool { return string(m.ID) == id })
}
