package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Bounds of the room on a node's disk; see [Config].
const (
	// DefaultDiskHeadroom keeps a full disk away: somebody has to notice, and make
	// room. A snapshot is a whole copy of the state, and no headroom is large enough
	// for every one: it is given up instead (see sparing).
	DefaultDiskHeadroom = 64 << 20
	// DefaultDiskReserve is what the transactions under way may still write:
	// 131,072 decisions with the receipts of two branches each, at some 250 bytes in
	// the log, are 32 MiB; and bbolt grows its file by 16 MiB, into the reserve.
	DefaultDiskReserve = 64 << 20

	// lookInterval paces the looks at a disk on which nothing is written. Before
	// each write there is another.
	lookInterval = time.Second
	// snapshotStep is how much of a snapshot is written between two looks.
	snapshotStep = 1 << 20
)

// Disk is the room on the file system of a node's data directory.
type Disk struct {
	Free    int64 // bytes that anybody may still write; 0 where that is not known
	Reserve int64 // bytes that only the node's log may
	// Low asks for no new transactions: what is left is for the decisions, receipts
	// and epochs of those under way.
	Low bool
}

// Bounded is a [Storage] whose disk may fill up.
type Bounded interface {
	// Free is how many bytes anybody may still write.
	Free() (int64, error)
	// Reserved is how many bytes the log can grow by whoever fills the disk.
	Reserved() (int64, error)
	// Reserve makes that so many at least. Its error wraps errors.ErrUnsupported where
	// the disk knows no such thing.
	Reserve(bytes int64) error
}

// errNoRoom ends a snapshot.
var errNoRoom = errors.New("the disk is nearly full, and what is left is for the log")

// space watches the room on the disk, and reserves some for the log.
//
// The disk is low from where the free bytes fall below the headroom until they are a
// quarter above it, so that a disk at the bound does not turn with every file. What
// is reserved is taken only while the disk is far from low, and is the log's from then
// on.
//
// A nil space is that of a disk without bounds.
type space struct {
	// Set once by newSpace.
	on                Bounded
	headroom, reserve int64
	log               hclog.Logger

	// What the last look found.
	free, reserved atomic.Int64
	low            atomic.Bool

	mu    sync.Mutex
	blind bool // guarded by mu: the last look failed, and that was logged
	bare  bool // guarded by mu: reserving failed, and that was logged
}

func newSpace(on Bounded, cfg Config) *space {
	return &space{on: on, headroom: cfg.DiskHeadroom, reserve: cfg.DiskReserve, log: cfg.Logger}
}

// disk is what the last look found.
func (s *space) disk() Disk {
	if s == nil {
		return Disk{}
	}
	return Disk{Free: s.free.Load(), Reserve: s.reserved.Load(), Low: s.low.Load()}
}

// run looks at the disk until ctx ends, and calls then after each look.
func (s *space) run(ctx context.Context, then func()) {
	every := time.NewTicker(lookInterval)
	defer every.Stop()
	for {
		s.look()
		then()
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// look measures, reserves what is missing where that leaves enough, and opens the
// door again.
func (s *space) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.measure()
	if err == nil {
		err = s.topUp()
	}
	if err != nil {
		if !s.blind {
			s.log.Warn("the room on the disk cannot be told", "error", err)
		}
		s.blind = true
		return
	}
	s.blind = false
	if s.free.Load() >= s.enough() && s.low.Swap(false) {
		s.log.Info("the disk has room again", "free", s.free.Load())
	}
}

// topUp reserves for the log what it has used up. s.mu must be held.
func (s *space) topUp() error {
	has, err := s.on.Reserved()
	if err != nil {
		return err
	}
	s.reserved.Store(min(has, s.reserve))
	missing := s.reserve - has
	if missing <= 0 || s.free.Load()-missing < s.enough() {
		return nil
	}
	if err := s.on.Reserve(s.reserve); err != nil {
		if !s.bare {
			s.log.Warn("no room can be reserved on the disk", "bytes", s.reserve, "error", err)
		}
		s.bare = true
		return nil // the headroom is there all the same
	}
	s.bare = false
	if has, err = s.on.Reserved(); err == nil {
		s.reserved.Store(min(has, s.reserve))
	}
	return s.measure()
}

// glance measures before a write; where a look is going on, that one does. Its error
// is told by the next look.
func (s *space) glance() {
	if s == nil || !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	_ = s.measure()
}

// measure finds out whether the disk is low. It is one system call. s.mu must be held.
func (s *space) measure() error {
	free, err := s.on.Free()
	if err != nil {
		return err
	}
	s.free.Store(free)
	if free < s.headroom && !s.low.Swap(true) {
		s.log.Warn("the disk is nearly full: this node as leader admits no new transactions",
			"free", free, "headroom", s.headroom, "reserve", s.reserved.Load())
	}
	return nil
}

// floor is how far this node's own snapshots may fill the disk.
func (s *space) floor() int64 { return s.headroom / 2 }

// enough is where the disk is no longer low.
func (s *space) enough() int64 { return s.headroom + s.headroom/4 }

// sparing is a snapshot store that leaves the lower half of the headroom to the log.
// A snapshot that is given up costs nothing but the log entries that it would have
// replaced; Raft says so and tries again later. A decision that finds no room costs
// the node.
type sparing struct {
	raft.SnapshotStore
	space *space
}

// Create implements [raft.SnapshotStore].
func (s sparing) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &sparingSink{SnapshotSink: sink, space: s.space, since: snapshotStep}, nil
}

type sparingSink struct {
	raft.SnapshotSink
	space *space
	since int // bytes since the last look; the first write looks
}

// Write implements [raft.SnapshotSink].
func (s *sparingSink) Write(p []byte) (int, error) {
	if s.since >= snapshotStep {
		s.since = 0
		if free, err := s.space.on.Free(); err == nil && free < s.space.floor() {
			return 0, fmt.Errorf("%w (%d bytes are free)", errNoRoom, free)
		}
	}
	s.since += len(p)
	return s.SnapshotSink.Write(p)
}
