package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// LogStore is what holds a node's log, term and vote, in its directory.
type LogStore string

const (
	// BoltDB is one bbolt file.
	BoltDB LogStore = "boltdb"
	// WAL is a directory of files that are appended to, with a small bbolt file beside
	// them. A directory with a bbolt log is moved to it when it is opened, and there is
	// no way back.
	WAL LogStore = "wal"
)

// keptSnapshots: the newest, and one behind it in case it can't be read.
const keptSnapshots = 2

// files is the [Storage] in a directory: node.json, the log with the vote, and a
// directory a snapshot.
type files struct {
	dir string
	log LogStore
	on  *fileSystem // nil: the machine's
	// segment is the size at which a file of the wal ends; zero is segmentSize.
	segment int
}

func (f files) String() string { return f.dir }

// Inspect implements [Storage].
func (f files) Inspect() (Remains, error) {
	if err := errors.Join(peekLock(f.dir), peekRebuild(f.dir)); err != nil {
		return Remains{}, err
	}
	raw, err := os.ReadFile(filepath.Join(f.dir, identityFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Remains{}, err
	}
	used, err := f.inspectLog()
	return Remains{Identity: raw, Used: used}, err
}

// inspectLog reads the log that is in force, whichever it is.
func (f files) inspectLog() (used bool, err error) {
	is, err := f.state()
	if err == nil {
		err = f.mayRead(is)
	}
	if err != nil {
		return false, err
	}
	switch is {
	case holdsBolt:
		return inspectBolt(f.path(boltFile))
	case holdsMoved:
		return inspectWAL(f.path(walNew))
	case holdsWAL:
		return inspectWAL(f.path(walDir))
	default:
		return false, nil
	}
}

// Open implements [Storage].
func (f files) Open(log hclog.Logger) (_ Store, err error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock, err := lockDir(f.dir)
	if err != nil {
		return nil, err
	}
	o := &openFiles{dir: f.dir, lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	if o.snapshots, err = raft.NewFileSnapshotStoreWithLogger(f.dir, keptSnapshots, log.Named("snapshot")); err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	o.logAndVote, err = f.openLog(o.snapshots, log)
	if err != nil {
		return nil, err
	}
	return o, nil
}

// logAndVote is what a log store is to a node.
type logAndVote interface {
	stores
	Close() error
}

// openFiles is the directory while this process holds it.
type openFiles struct {
	logAndVote
	dir       string
	lock      *os.File
	snapshots *raft.FileSnapshotStore
}

// Snapshots implements [Store].
func (o *openFiles) Snapshots() raft.SnapshotStore { return o.snapshots }

// Close implements [Store].
func (o *openFiles) Close() error {
	var err error
	if o.logAndVote != nil {
		err = o.logAndVote.Close()
	}
	return errors.Join(err, o.lock.Close())
}

// PutIdentity implements [Store].
func (o *openFiles) PutIdentity(raw []byte) error {
	path := filepath.Join(o.dir, identityFile)
	if err := writeSynced(path+".new", raw); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(os.Rename(path+".new", path), syncDir(o.dir)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openBolt opens the file that holds log and vote. Every write is synced.
func openBolt(path string) (_ *raftboltdb.BoltStore, err error) {
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

// inspectBolt reads every page of the file, without a way to change it, and reports
// whether it holds anything; a file that is not there does not. Opened for writing,
// bbolt scans the file for free pages on a goroutine of its own, and a page that it
// can't read would end the process without a word of which file it was.
func inspectBolt(path string) (used bool, err error) {
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
