package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// rebuildDir is where a directory's new content is made, in the directory itself:
	// it may be where a file system is mounted. Once it is whole and the old content is
	// out of the way it is rebuiltDir. While either is there no node starts.
	rebuildDir = "rebuild"
	rebuiltDir = "rebuilt"
	// replacedPrefix begins the name under which the old content is kept.
	replacedPrefix = "replaced-"
)

// ErrUnfinishedRebuild: a rebuild of the data directory was cut short.
var ErrUnfinishedRebuild = errors.New("the data directory is half rebuilt: repeat the command that was cut short, decree cluster recover also finishes it")

// NewLife is what a data directory begins again with: a cluster of one node, with a
// state that may be older than what other nodes of the cluster have told (rule R15).
type NewLife struct {
	ID          string   // of the node
	RaftAddress string   // that the others will dial
	LogStore    LogStore // default BoltDB
	// Term must be above all terms that the cluster has seen. The node leads in the next
	// one.
	Term uint64
	// Index is the last entry of the log that is in the state; more than 0.
	Index uint64
	State raft.FSM // asked for its Snapshot, and for nothing else
}

func (l NewLife) validate() error {
	problems := []error{checkID(l.ID), checkDialable(l.RaftAddress)}
	if l.LogStore != BoltDB && l.LogStore != WAL {
		problems = append(problems, fmt.Errorf("log store %q: want %s or %s", l.LogStore, BoltDB, WAL))
	}
	if l.Term == 0 || l.Index == 0 {
		problems = append(problems, fmt.Errorf("term %d and index %d: the state is that of a cluster that has never had a leader", l.Term, l.Index))
	}
	return errors.Join(problems...)
}

// Begin makes a data directory in which a node begins a new life. The directory must be
// empty or missing; it answers [ErrNotEmpty] where it is not, and [ErrDirInUse]. A crash
// leaves a directory in which no node starts, and which [OpenSurvivor] finishes where it
// was whole.
func Begin(dir string, life NewLife, log hclog.Logger) error {
	life.LogStore = orDefault(life.LogStore, BoltDB)
	if err := life.validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing is written
	names, err := content(dir)
	switch {
	case err != nil:
		return err
	case len(names) > 0:
		return fmt.Errorf("%w: %s holds %s: name an empty directory, or move what is there away", ErrNotEmpty, dir, names[0])
	}
	if err := peekRebuilt(dir); err != nil {
		return err
	}
	r := rebuild{dir: dir, log: log, on: machine}
	if err := r.make(life); err != nil {
		return err
	}
	return r.install()
}

// content is what a node of any time keeps in a directory.
func content(dir string) (names []string, err error) {
	for _, name := range kept {
		_, err := os.Lstat(filepath.Join(dir, name))
		switch {
		case err == nil:
			names = append(names, name)
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
	}
	return names, nil
}

// kept are the names of what a node keeps, its identity first: without it no node
// starts with the rest.
var kept = []string{identityFile, boltFile, boltMoved, walDir, walNew, snapshotDir}

// snapshotDir is where raft.FileSnapshotStore has its snapshots.
const snapshotDir = "snapshots"

// rebuild makes new content for a directory that this process has locked.
type rebuild struct {
	dir string
	log hclog.Logger
	on  *fileSystem

	segment int // as that of files
}

func (r rebuild) stage() string { return filepath.Join(r.dir, rebuildDir) }
func (r rebuild) whole() string { return filepath.Join(r.dir, rebuiltDir) }

// make writes the new content aside. It is complete once its identity is there, which
// comes last.
func (r rebuild) make(life NewLife) error {
	if err := r.on.remove(r.stage()); err != nil {
		return err
	}
	store, err := files{dir: r.stage(), log: life.LogStore, on: r.on, segment: r.segment}.Open(r.log)
	if err != nil {
		return err
	}
	err = writeLife(store, life)
	if err := errors.Join(err, store.Close()); err != nil {
		return fmt.Errorf("rebuild %s: %w", r.dir, err)
	}
	return errors.Join(r.on.syncDir(r.stage()), r.on.syncDir(r.dir))
}

func writeLife(store Store, life NewLife) error {
	if err := store.SetUint64(keyCurrentTerm, life.Term); err != nil {
		return err
	}
	members := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(life.ID), Address: raft.ServerAddress(life.RaftAddress),
	}}}
	_, peers := raft.NewInmemTransport(raft.ServerAddress(life.RaftAddress)) // for the old form of the members, which nobody reads
	sink, err := store.Snapshots().Create(raft.SnapshotVersionMax, life.Index, life.Term, members, life.Index, peers)
	if err != nil {
		return err
	}
	state, err := life.State.Snapshot()
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	defer state.Release()
	if err := state.Persist(sink); err != nil {
		return err
	}
	me := newIdentity(life.ID)
	me.Phase, me.Lineage = phaseMember, newLineage()
	raw, err := me.encode()
	if err != nil {
		return err
	}
	return store.PutIdentity(raw)
}

// complete reports whether all new content is made.
func (r rebuild) complete() bool { return exists(filepath.Join(r.stage(), identityFile)) }

// exists reports whether there is certainly something of that name.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// setAside moves the old content away, and returns where it is.
func (r rebuild) setAside() (string, error) {
	place := filepath.Join(r.dir, replacedPrefix+time.Now().UTC().Format("20060102T150405Z"))
	if err := r.on.mkdir(place); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return place, r.move(r.dir, place)
}

// install gives complete new content its place, in a directory that holds no other.
func (r rebuild) install() error {
	if err := errors.Join(r.on.rename(r.stage(), r.whole()), r.on.syncDir(r.dir)); err != nil {
		return err
	}
	return r.finish()
}

// finish is install from where the new content is all that counts.
func (r rebuild) finish() error {
	if err := r.move(r.whole(), r.dir); err != nil {
		return err
	}
	return errors.Join(r.on.remove(r.whole()), r.on.syncDir(r.dir))
}

// move moves what a node keeps from one directory to another. Into the directory itself
// the identity goes last, and out of it first.
func (r rebuild) move(from, to string) error {
	names := slices.Clone(kept)
	if to == r.dir {
		slices.Reverse(names)
	}
	for _, name := range names {
		err := r.on.rename(filepath.Join(from, name), filepath.Join(to, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return errors.Join(r.on.syncDir(to), r.on.syncDir(from))
}

// peekRebuild fails where a rebuild was cut short.
func peekRebuild(dir string) error {
	if exists(filepath.Join(dir, rebuildDir)) {
		return fmt.Errorf("%w (%s)", ErrUnfinishedRebuild, filepath.Join(dir, rebuildDir))
	}
	return peekRebuilt(dir)
}

// peekRebuilt fails where one was cut short that must be finished.
func peekRebuilt(dir string) error {
	if exists(filepath.Join(dir, rebuiltDir)) {
		return fmt.Errorf("%w (%s)", ErrUnfinishedRebuild, filepath.Join(dir, rebuiltDir))
	}
	return nil
}

// newLineage tells a cluster from what it was before it began again.
func newLineage() string {
	var b [incarnationBytes]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
