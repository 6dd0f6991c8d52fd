package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
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
)

// files is the [Storage] in a directory: node.json, a bbolt file for log and vote,
// and a directory a snapshot.
type files struct{ dir string }

func (f files) String() string { return f.dir }

// Inspect implements [Storage].
func (f files) Inspect() (Remains, error) {
	raw, err := os.ReadFile(filepath.Join(f.dir, identityFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Remains{}, err
	}
	used, err := inspectLog(filepath.Join(f.dir, logFile))
	return Remains{Identity: raw, Used: used}, err
}

// Open implements [Storage].
func (f files) Open(log hclog.Logger) (Store, error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	bolt, err := openLog(filepath.Join(f.dir, logFile))
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(f.dir, keptSnapshots, log.Named("snapshot"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("snapshots: %w", err), bolt.Close())
	}
	return &openFiles{BoltStore: bolt, dir: f.dir, snapshots: snapshots}, nil
}

// openFiles is the directory while this process holds it.
type openFiles struct {
	*raftboltdb.BoltStore
	dir       string
	snapshots *raft.FileSnapshotStore
}

// Snapshots implements [Store].
func (o *openFiles) Snapshots() raft.SnapshotStore { return o.snapshots }

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
// whether it holds anything; a file that is not there does not. Opened for writing,
// bbolt scans the file for free pages on a goroutine of its own, and a page that it
// can't read would end the process without a word of which file it was.
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
