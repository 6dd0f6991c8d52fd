package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// What a directory holds of logs is read off these names. Whichever of the states is
// in force, and the step from one to the next, is one rename:
//
//	boltFile                 bbolt's log (a walNew beside it is rubbish)
//	boltMoved and walNew     the log is the wal's, under the wrong name
//	walDir                   the wal's log (a boltMoved beside it is rubbish)
//
// A program that knows of no wal takes boltFile for the log as long as it is there,
// and finds none afterwards: there are never two logs in force.
const (
	boltFile  = "raft.db"
	boltMoved = "raft.db.moved"
	walDir    = "wal"
	walNew    = "wal.new"
)

// holding is the log that is in force in a directory.
type holding int

const (
	holdsNothing holding = iota
	holdsBolt
	holdsMoved // the move is decided, and not finished
	holdsWAL
)

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// state tells which log is in force.
func (f files) state() (holding, error) {
	there := make(map[string]bool)
	for _, name := range []string{boltFile, boltMoved, walDir, walNew} {
		_, err := os.Lstat(f.path(name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return holdsNothing, err
		}
		there[name] = err == nil
	}
	switch {
	case there[boltFile] && (there[walDir] || there[boltMoved]):
		return holdsNothing, fmt.Errorf("%w: %s holds two logs, %s and one in %s or %s", ErrCorruptDir, f.dir, boltFile, walDir, boltMoved)
	case there[boltFile]:
		return holdsBolt, nil
	case there[walDir]:
		return holdsWAL, nil
	case there[boltMoved] && there[walNew]:
		return holdsMoved, nil
	case there[boltMoved]:
		return holdsNothing, fmt.Errorf("%w: the log in %s was moved from %s, and %s is gone", ErrCorruptDir, f.dir, boltFile, walNew)
	default:
		return holdsNothing, nil
	}
}

// mayRead refuses the way back.
func (f files) mayRead(is holding) error {
	if f.log == WAL || is == holdsNothing || is == holdsBolt {
		return nil
	}
	return fmt.Errorf("%w: the log in %s is a wal, which log store %s does not read, and there is no way back; "+
		"choose log store %s, or remove the node and add one with a new id and an empty directory", ErrLogStore, f.dir, BoltDB, WAL)
}

// openLog opens the log that is in force, makes one where there is none, and moves
// bbolt's where it is to be a wal. Whatever a crash left half done it completes or
// takes away first. The directory is locked.
func (f files) openLog(snapshots raft.SnapshotStore, log hclog.Logger) (logAndVote, error) {
	is, err := f.state()
	if err == nil {
		err = f.mayRead(is)
	}
	if err != nil {
		return nil, err
	}
	on := f.system()
	if is == holdsNothing || is == holdsBolt {
		if err := on.remove(f.path(walNew)); err != nil {
			return nil, err
		}
	}
	if f.log != WAL {
		return openBolt(f.path(boltFile))
	}
	switch is {
	case holdsNothing:
		err = f.makeWAL(func(*walStore) error { return nil }, log)
	case holdsBolt:
		err = f.moveToWAL(snapshots, log)
	}
	if err == nil {
		err = f.finishMove()
	}
	if err != nil {
		return nil, err
	}
	w, err := f.openWAL(f.path(walDir), log)
	if err != nil {
		return nil, err
	}
	w.snapshots = snapshots
	return w, nil
}

// makeWAL makes a wal under the name that counts for nothing, has it filled, and
// makes it durable there.
func (f files) makeWAL(fill func(*walStore) error, log hclog.Logger) error {
	on, dir := f.system(), f.path(walNew)
	if err := on.mkdir(dir); err != nil {
		return err
	}
	w, err := f.openWAL(dir, log)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(w), w.Close()); err != nil {
		return err
	}
	return errors.Join(on.syncDir(dir), on.syncDir(f.dir))
}

// moveToWAL copies bbolt's log and vote into a wal, and decides for it. Until the
// rename nothing has happened; from then on the wal is in force, whatever becomes of
// the process, and finishMove does the rest.
func (f files) moveToWAL(snapshots raft.SnapshotStore, log hclog.Logger) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("move the log in %s to a wal: %w", f.dir, err)
		}
	}()
	path := f.path(boltFile)
	defer explainPanic(path, &err)()
	if err := checkStableKeys(path); err != nil {
		return err
	}
	bolt, err := openBolt(path)
	if err != nil {
		return err
	}
	defer bolt.Close() //nolint:errcheck // it was only read
	from, to, err := keptRun(bolt, snapshots)
	if err != nil {
		return err
	}
	log.Info("moving the log to a wal, for good", "dir", f.dir, "first", from, "last", to)
	on := f.system()
	err = f.makeWAL(func(w *walStore) error { return copyLog(w, bolt, from, to) }, log)
	if err == nil {
		err = f.compareCopy(bolt, from, to, log)
	}
	if err != nil {
		return errors.Join(err, on.remove(f.path(walNew)))
	}
	// The commit point. A crash before it is durable leaves bbolt's log in force, and
	// the next start begins anew; one after it finds the wal in force.
	return errors.Join(on.rename(path, f.path(boltMoved)), on.syncDir(f.dir))
}

// finishMove gives a complete wal its name, and takes away what it replaces.
func (f files) finishMove() error {
	on := f.system()
	if _, err := os.Lstat(f.path(walDir)); errors.Is(err, os.ErrNotExist) {
		if err := on.rename(f.path(walNew), f.path(walDir)); err != nil {
			return err
		}
		if err := on.syncDir(f.dir); err != nil {
			return err
		}
	}
	for _, name := range []string{walNew, boltMoved} {
		if err := on.remove(f.path(name)); err != nil {
			return err
		}
	}
	return nil
}

// compareCopy opens the copy as a later start would, and holds it against the
// original.
func (f files) compareCopy(bolt *raftboltdb.BoltStore, from, to uint64, log hclog.Logger) error {
	if _, err := inspectWAL(f.path(walNew)); err != nil {
		return err
	}
	w, err := f.openWAL(f.path(walNew), log)
	if err != nil {
		return err
	}
	return errors.Join(sameLog(bolt, w, from, to), w.Close())
}

// Raft's keys in a stable store.
var (
	keyCurrentTerm  = []byte("CurrentTerm")
	keyLastVoteTerm = []byte("LastVoteTerm")
	keyLastVoteCand = []byte("LastVoteCand")
)

// checkStableKeys refuses keys that copyLog does not copy. bbolt's store and the wal's
// write numbers differently, so that a key's type has to be known.
func checkStableKeys(path string) error {
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return err // never used
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return explainOpen(path, err)
	}
	defer db.Close() //nolint:errcheck // it was only read
	return db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("conf"))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, _ []byte) error {
			for _, known := range [][]byte{keyCurrentTerm, keyLastVoteTerm, keyLastVoteCand} {
				if bytes.Equal(k, known) {
					return nil
				}
			}
			return fmt.Errorf("%w: %s holds a value %q that this program does not know", ErrCorruptDir, path, k)
		})
	})
}

// keptRun is the part of bbolt's log that a wal can hold: up to its end, without a
// gap. What lies before a gap is of before a snapshot that was installed, and that
// snapshot stands for it. Both are 0 where the log is empty.
func keptRun(bolt *raftboltdb.BoltStore, snapshots raft.SnapshotStore) (from, to uint64, err error) {
	first, err := bolt.FirstIndex()
	if err != nil {
		return 0, 0, err
	}
	if to, err = bolt.LastIndex(); err != nil || to == 0 {
		return 0, 0, err
	}
	var entry raft.Log
	for from = to; from > first; from-- {
		err := bolt.GetLog(from-1, &entry)
		if errors.Is(err, raft.ErrLogNotFound) {
			break
		}
		if err != nil {
			return 0, 0, fmt.Errorf("entry %d: %w", from-1, err)
		}
	}
	if from == first {
		return from, to, nil
	}
	list, err := snapshots.List()
	if err != nil {
		return 0, 0, err
	}
	if len(list) == 0 || list[0].Index < from-1 {
		return 0, 0, fmt.Errorf("%w: the log lacks entry %d, and no snapshot has it", ErrCorruptDir, from-1)
	}
	return from, to, nil
}

// copyBytes bounds what is copied at once.
const copyBytes = 1 << 20

// copyLog copies term, vote and entries.
func copyLog(w logAndVote, bolt *raftboltdb.BoltStore, from, to uint64) error {
	if err := copyVote(w, bolt); err != nil || to == 0 {
		return err
	}
	var batch []*raft.Log
	size := 0
	for i := from; i <= to; i++ {
		entry := new(raft.Log)
		if err := bolt.GetLog(i, entry); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		batch, size = append(batch, entry), size+len(entry.Data)+len(entry.Extensions)
		if size < copyBytes && i < to {
			continue
		}
		if err := w.StoreLogs(batch); err != nil {
			return err
		}
		batch, size = nil, 0
	}
	return nil
}

func copyVote(w raft.StableStore, bolt *raftboltdb.BoltStore) error {
	for _, key := range [][]byte{keyCurrentTerm, keyLastVoteTerm} {
		raw, err := bolt.Get(key)
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err == nil && len(raw) != 8 {
			err = fmt.Errorf("%w: %s is no number", ErrCorruptDir, key)
		}
		if err != nil {
			return err
		}
		value, err := bolt.GetUint64(key)
		if err != nil {
			return err
		}
		if err := w.SetUint64(key, value); err != nil {
			return err
		}
	}
	candidate, err := bolt.Get(keyLastVoteCand)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.Set(keyLastVoteCand, candidate)
}

// errCopyDiffers is a defect, of this program or of the disk: the log stays where it
// was.
var errCopyDiffers = errors.New("the copy differs from the log")

// sameLog compares term, vote and every entry.
func sameLog(bolt *raftboltdb.BoltStore, w logAndVote, from, to uint64) error {
	for _, key := range [][]byte{keyCurrentTerm, keyLastVoteTerm} {
		want, err := bolt.GetUint64(key)
		if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return err
		}
		if got, err := w.GetUint64(key); err != nil || got != want {
			return fmt.Errorf("%w: %s is %d, and was %d (%w)", errCopyDiffers, key, got, want, err)
		}
	}
	want, err := bolt.Get(keyLastVoteCand)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	if got, err := w.Get(keyLastVoteCand); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("%w: the vote is for %q, and was for %q (%w)", errCopyDiffers, got, want, err)
	}
	first, err := w.FirstIndex()
	if err != nil {
		return err
	}
	last, err := w.LastIndex()
	if err != nil {
		return err
	}
	if first != from || last != to {
		return fmt.Errorf("%w: it has the entries %d to %d, not %d to %d", errCopyDiffers, first, last, from, to)
	}
	return sameEntries(bolt, w, from, to)
}

func sameEntries(a, b raft.LogStore, from, to uint64) error {
	for i := from; i <= to && i > 0; i++ {
		var x, y raft.Log
		if err := errors.Join(a.GetLog(i, &x), b.GetLog(i, &y)); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if x.Index != y.Index || x.Term != y.Term || x.Type != y.Type || !bytes.Equal(x.Data, y.Data) ||
			!bytes.Equal(x.Extensions, y.Extensions) || !x.AppendedAt.Equal(y.AppendedAt) {
			return fmt.Errorf("%w: entry %d", errCopyDiffers, i)
		}
	}
	return nil
}
