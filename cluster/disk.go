package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	logFile = "raft.db"
	// keptSnapshots: the newest, and one behind it in case it can't be read.
	keptSnapshots = 2
	// lockTimeout is how long to wait for another process to let go of the
	// directory: one that is just ending, not one that runs.
	lockTimeout = time.Second
	// cachedEntries keeps what followers fetch within reach of memory.
	cachedEntries = 1024
)

// disk is everything that a node keeps: its identity, its log and vote, its
// snapshots. Holding it open excludes other processes.
type disk struct {
	dir       string
	bolt      *raftboltdb.BoltStore
	snapshots *raft.FileSnapshotStore

	mu sync.Mutex
	me identity // guarded by mu
}

// openDisk opens a node's data directory, and creates it on first use. What it
// refuses it leaves as it was.
func openDisk(cfg Config) (*disk, error) {
	me, err := readIdentity(cfg.Dir, cfg.ID)
	fresh := errors.Is(err, os.ErrNotExist)
	if err != nil && !fresh {
		return nil, err
	}
	path := filepath.Join(cfg.Dir, logFile)
	used, err := inspectLog(path)
	if err != nil {
		return nil, err
	}
	if err := mayOpen(me, fresh, used, path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	bolt, err := openLog(path)
	if err != nil {
		return nil, err
	}
	d := &disk{dir: cfg.Dir, bolt: bolt, me: me}
	if err := d.prepare(cfg, fresh); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return d, nil
}

// mayOpen holds the identity against what the log file holds, before anything is
// opened for writing: a log that is gone must not be replaced by an empty one.
func mayOpen(me identity, fresh, used bool, path string) error {
	switch {
	case me.Phase == phaseRemoved:
		return fmt.Errorf("%w: node %s needs an empty data directory to be added again", ErrRemoved, me.ID)
	case fresh && used:
		return fmt.Errorf("%w: %s is there, but %s is not", ErrCorruptDir, path, identityFile)
	case me.Phase == phaseEmpty && used:
		return fmt.Errorf("%w: %s holds something, but %s says that it was never used", ErrCorruptDir, path, identityFile)
	case me.Phase == phaseMember && !used:
		return lost(me.ID, path)
	}
	return nil
}

func lost(id, path string) error {
	return fmt.Errorf("%w: node %s was a member, but %s holds nothing; remove the node, and add one with a new id and an empty directory",
		ErrDataLost, id, path)
}

// openLog opens the file that holds log and vote. Every write is synced.
func openLog(path string) (_ *raftboltdb.BoltStore, err error) {
	defer explainPanic(path, &err)()
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockTimeout,
			// The free list is found again by a scan at the start; writing it
			// with every entry costs more than the entry.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if err != nil {
		return nil, explainOpen(path, err)
	}
	return bolt, nil
}

// inspectLog reads every page of the file, without a way to change it, and reports
// whether it holds anything; a file that is not there does not. Opened for writing, bbolt scans the file for free pages on a goroutine of its
// own, and a page that it can't read would end the process without a word of which
// file it was.
func inspectLog(path string) (used bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Size() == 0:
		return false, nil
	}
	defer explainPanic(path, &err)()
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return false, explainOpen(path, err)
	}
	defer db.Close()
	if info, err = os.Stat(path); err != nil { // another process may have written until now
		return false, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() { // perhaps pages are missing that nothing uses now
			return fmt.Errorf("%w: %s: %d bytes are there, of %d", ErrCorruptDir, path, info.Size(), tx.Size())
		}
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error {
				used = true
				return nil
			})
		})
	})
	return used, err
}

// explainOpen says what an error of bbolt.Open means here. What is not the
// operating system's is about the file's content.
func explainOpen(path string, err error) error {
	var system *fs.PathError
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%w: %s is locked", ErrDirInUse, path)
	case errors.As(err, &system):
		return err
	default:
		return fmt.Errorf("%w: %s: %w", ErrCorruptDir, path, err)
	}
}

// explainPanic turns a panic over a broken file into ErrCorruptDir: bbolt and
// NewRaft panic on pages and entries that they can't read, and a file that is
// shorter than it says faults in memory. Defer what it returns.
func explainPanic(path string, err *error) func() {
	faults := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(faults)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%w: %s: %v", ErrCorruptDir, path, r)
		}
	}
}

// prepare completes what a crash left half done, and marks a new disk.
func (d *disk) prepare(cfg Config, fresh bool) (err error) {
	defer explainPanic(filepath.Join(d.dir, logFile), &err)()
	d.snapshots, err = raft.NewFileSnapshotStoreWithLogger(d.dir, keptSnapshots, cfg.Logger.Named("snapshot"))
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	switch {
	case fresh:
		return d.become(newIdentity(cfg.ID))
	case d.me.Phase == phaseAgreed:
		return d.finishFounding()
	case d.me.Phase == phaseAdmitted:
		return d.noteFirstWrite()
	}
	return nil
}

// finishFounding looks how far a crashed bootstrap came. Raft was not started yet,
// so this disk has promised nothing, and a term without an entry is taken back to
// let the bootstrap be repeated.
func (d *disk) finishFounding() error {
	last, err := d.bolt.LastIndex()
	switch {
	case err != nil:
		return err
	case last > 0:
		return d.advance(phaseMember)
	default:
		return d.bolt.SetUint64([]byte("CurrentTerm"), 0)
	}
}

// noteFirstWrite completes a crash between Raft's first write and the note of it.
func (d *disk) noteFirstWrite() error {
	used, err := raft.HasExistingState(d.bolt, d.bolt, d.snapshots)
	if err != nil || !used {
		return err
	}
	return d.advance(phaseMember)
}

// identity is the disk's identity as it is on disk.
func (d *disk) identity() identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.me
}

// become makes an identity durable.
func (d *disk) become(me identity) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.store(me)
}

// advance moves to a later phase, durably. It costs nothing where the disk has
// come as far, or further.
func (d *disk) advance(to phase) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.me.Phase.order() >= to.order() {
		return nil
	}
	me := d.me
	me.Phase = to
	return d.store(me)
}

// store makes an identity durable; it is visible only then. d.mu must be held.
func (d *disk) store(me identity) error {
	if err := me.write(d.dir); err != nil {
		return err
	}
	d.me = me
	return nil
}

// found bootstraps Raft with the founders and no one else. The founders must be
// on disk already: a crash in between repeats this with the same ones.
func (d *disk) found(conf *raft.Config, trans raft.Transport) error {
	var configuration raft.Configuration
	for _, f := range d.identity().Founders {
		configuration.Servers = append(configuration.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(f.ID), Address: raft.ServerAddress(f.RaftAddress),
		})
	}
	if err := raft.BootstrapCluster(conf, d.bolt, d.bolt, d.snapshots, trans, configuration); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return d.advance(phaseMember)
}

// snapshotMembers is the configuration in the newest snapshot, empty without one.
func (d *disk) snapshotMembers() (raft.Configuration, uint64) {
	list, err := d.snapshots.List()
	if err != nil || len(list) == 0 {
		return raft.Configuration{}, 0
	}
	return list[0].Configuration, list[0].ConfigurationIndex
}

func (d *disk) close() error { return d.bolt.Close() }

// logStore is what Raft writes through: the guarded file behind a cache.
func (d *disk) logStore(g *guard) (raft.LogStore, error) { return raft.NewLogCache(cachedEntries, g) }
