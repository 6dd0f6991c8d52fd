package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Bounds of the room on a node's disk; see [Config].
const (
	// DefaultDiskHeadroom is what the transactions under way may still write, and
	// more: 131,072 decisions with the receipts of two branches each, at some 250
	// bytes in the log, are 32 MiB. That bbolt grows its file in steps of 16 MiB
	// costs nothing: the steps are holes until their pages are written. A snapshot
	// is a whole copy of the state, and no headroom is large enough for every one:
	// it is given up instead (see sparing).
	DefaultDiskHeadroom = 64 << 20
	// DefaultDiskReserve holds that much again where nobody else can take it.
	DefaultDiskReserve = 64 << 20

	reserveFile = "reserve"
	// lookInterval paces the looks at a disk on which nothing is written. Before
	// each write there is another.
	lookInterval = time.Second
	// snapshotStep is how much of a snapshot is written between two looks.
	snapshotStep = 1 << 20
)

// Disk is the room on the file system of a node's data directory.
type Disk struct {
	Free    int64 // bytes that the node may still write; 0 where that is not known
	Reserve int64 // bytes of its own that it would give up for decisions
	// Low asks for no new transactions: what is left is for the decisions, receipts
	// and epochs of those under way.
	Low bool
}

// Bounded is a [Storage] whose disk may fill up.
type Bounded interface {
	// Free is how many bytes may still be written.
	Free() (int64, error)
	// Reserved is how many bytes the reserve holds.
	Reserved() int64
	// Reserve makes the reserve hold so many bytes, all of them really taken from the
	// disk, or none at all and gives back what it held.
	Reserve(bytes int64) error
}

// errNoRoom ends a snapshot.
var errNoRoom = errors.New("the disk is nearly full, and what is left is for the log")

// space watches the room on the disk, and keeps a reserve: a file that it takes away
// once somebody fills the disk, so that the log can go on meanwhile.
//
// The room is what would be free with the reserve in its place. It is low from where
// it falls below the headroom until it is a quarter above it, so that a disk at the
// bound does not turn with every file. The reserve goes when the free bytes are down
// to half of the headroom, and is taken again once there is room for it.
//
// A nil space is that of a disk without bounds.
type space struct {
	// Set once by newSpace.
	on                Bounded
	headroom, reserve int64
	log               hclog.Logger

	left atomic.Int64 // free bytes at the last look
	low  atomic.Bool
	held atomic.Bool // the reserve is on the disk

	mu    sync.Mutex
	blind bool // guarded by mu: the last look failed, and that was logged
	bare  bool // guarded by mu: taking the reserve failed, and that was logged
}

func newSpace(on Bounded, cfg Config) *space {
	s := &space{on: on, headroom: cfg.DiskHeadroom, reserve: cfg.DiskReserve, log: cfg.Logger}
	s.held.Store(on.Reserved() == s.reserve)
	return s
}

// disk is what the last look found.
func (s *space) disk() Disk {
	if s == nil {
		return Disk{}
	}
	d := Disk{Free: s.left.Load(), Low: s.low.Load()}
	if s.held.Load() {
		d.Reserve = s.reserve
	}
	return d
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

// look measures, and takes the reserve where there is room for it.
func (s *space) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.measure()
	if s.held.Load() || s.left.Load()-s.reserve < s.enough() {
		return
	}
	err := s.on.Reserve(s.reserve)
	if err != nil {
		err = errors.Join(err, s.on.Reserve(0)) // what it has of it
	}
	if err != nil && !s.bare {
		s.log.Warn("no room can be reserved on the disk", "bytes", s.reserve, "error", err)
	}
	s.held.Store(err == nil)
	s.bare = err != nil
	s.measure()
}

// glance measures before a write. Where a look is going on it does nothing: to take
// the reserve may take a second where the file system has to write it.
func (s *space) glance() {
	if s == nil || !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	s.measure()
}

// measure gives the reserve up where that is due, and finds out whether the disk is
// low. It costs one system call where nothing has changed. s.mu must be held.
func (s *space) measure() {
	free, err := s.on.Free()
	if err != nil {
		if !s.blind {
			s.log.Warn("the room on the disk cannot be told", "error", err)
		}
		s.blind = true
		return
	}
	s.blind = false
	if s.held.Load() && free < s.floor() {
		free = s.release(free)
	}
	s.left.Store(free)
	room := free
	if !s.held.Load() {
		room -= s.reserve
	}
	switch {
	case room < s.headroom && !s.low.Swap(true):
		s.log.Warn("the disk is nearly full: this node as leader admits no new transactions", "free", free, "headroom", s.headroom)
	case room >= s.enough() && s.low.Swap(false):
		s.log.Info("the disk has room again", "free", free)
	}
}

// release takes the reserve away and returns what is free then. s.mu must be held.
func (s *space) release(free int64) int64 {
	if err := s.on.Reserve(0); err != nil {
		s.log.Error("the reserved room on the disk cannot be given up", "error", err)
		return free
	}
	s.held.Store(false)
	s.log.Warn("the disk is all but full: the node gives up the room that it had reserved for decisions", "free", free, "reserve", s.reserve)
	if now, err := s.on.Free(); err == nil {
		return now
	}
	return free
}

// floor is how far others, and this node's snapshots, may fill the disk before the
// reserve goes.
func (s *space) floor() int64 { return s.headroom / 2 }

// enough is the room at which the disk is no longer low.
func (s *space) enough() int64 { return s.headroom + s.headroom/4 }

// Free implements [Bounded].
func (f files) Free() (int64, error) { return freeBytes(f.dir) }

// Reserved implements [Bounded].
func (f files) Reserved() int64 {
	info, err := os.Stat(filepath.Join(f.dir, reserveFile))
	if err != nil {
		return 0
	}
	return info.Size()
}

// Reserve implements [Bounded]. A journaling file system has the blocks of a removed
// file back only once that is durable.
func (f files) Reserve(bytes int64) error {
	path := filepath.Join(f.dir, reserveFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if bytes == 0 {
		return syncDir(f.dir)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(allocate(file, bytes), file.Sync(), file.Close())
}

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
