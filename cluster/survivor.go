package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Survivor is the data directory of a node that does not run, opened to begin a new life
// as a cluster of one. No node starts in it before Close.
type Survivor struct {
	ID      string
	Members []Peer // of the last configuration in its log, committed or not
	Term    uint64 // the last that it has seen
	// First and Last are the entries of its log; Last is that of its snapshot where it
	// has no other. Which of them the cluster had committed it can't know.
	First, Last uint64
	LastTerm    uint64 // of the last, once they were replayed

	dir   string
	kind  LogStore
	lock  *os.File // held once store is closed
	store Store
	log   hclog.Logger
}

// OpenSurvivor opens a data directory as a start of its node would, after it has read all
// of it. Errors: [ErrDirInUse] where the node runs, [ErrCorruptDir] where the log can't be
// read, [ErrDataLost] where there is none. A rebuild that was cut short after its new
// content was complete is finished, and answered with done.
func OpenSurvivor(dir string, log hclog.Logger) (s *Survivor, done bool, err error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, false, fmt.Errorf("data directory: %w", err)
	}
	if done, err := finish(dir, log); done || err != nil {
		return nil, done, err
	}
	f := files{dir: dir, log: WAL} // reads either
	is, err := f.state()
	if err != nil {
		return nil, false, err
	}
	s = &Survivor{dir: dir, kind: WAL, log: log}
	if is == holdsBolt {
		s.kind = BoltDB
	}
	f.log = s.kind
	remains, err := f.Inspect()
	if err != nil {
		return nil, false, err
	}
	if s.ID, err = survivorID(remains, dir); err != nil {
		return nil, false, err
	}
	if s.store, err = f.Open(log); err != nil {
		return nil, false, err
	}
	if err := s.look(); err != nil {
		return nil, false, errors.Join(err, s.Close())
	}
	return s, false, nil
}

// finish completes a rebuild that was cut short, or takes away what it had not made
// whole.
func finish(dir string, log hclog.Logger) (done bool, err error) {
	lock, err := lockDir(dir)
	if err != nil {
		return false, err
	}
	defer lock.Close() //nolint:errcheck // nothing is written
	return rebuild{dir: dir, log: log, on: machine}.finishOrForget()
}

// finishOrForget is finish, with the directory locked.
func (r rebuild) finishOrForget() (done bool, err error) {
	switch {
	case exists(r.whole()):
		return true, r.finish()
	case r.complete():
		if _, err := r.setAside(); err != nil {
			return false, err
		}
		return true, r.install()
	default:
		return false, r.on.remove(r.stage())
	}
}

func survivorID(remains Remains, place string) (string, error) {
	if remains.Identity == nil || !remains.Used {
		return "", fmt.Errorf("%w: %s is not the data directory of a node that has been a member", ErrDataLost, place)
	}
	me, err := readIdentity(remains.Identity, place)
	return me.ID, err
}

// look reads what the store says of itself.
func (s *Survivor) look() (err error) {
	defer explainPanic(s.dir, &err)()
	if s.Term, err = s.store.GetUint64(keyCurrentTerm); err != nil {
		return fmt.Errorf("term: %w", err)
	}
	if s.First, err = s.store.FirstIndex(); err != nil {
		return err
	}
	if s.Last, err = s.store.LastIndex(); err != nil {
		return err
	}
	snapshots, err := s.store.Snapshots().List()
	if err != nil {
		return err
	}
	if len(snapshots) > 0 {
		s.Last, s.Term = max(s.Last, snapshots[0].Index), max(s.Term, snapshots[0].Term)
		s.members(snapshots[0].Configuration)
	}
	return nil
}

func (s *Survivor) members(c raft.Configuration) {
	s.Members = nil
	for _, m := range c.Servers {
		s.Members = append(s.Members, Peer{ID: string(m.ID), RaftAddress: string(m.Address)})
	}
}

// Replay brings a state machine to the end of the log: the newest snapshot, and every
// entry after it, those too of which the node never learnt that they were committed. An
// error is ErrCorruptDir's where entries are missing. told, where it is not nil, hears
// of each entry's index.
func (s *Survivor) Replay(machine raft.FSM, told func(index uint64)) (err error) {
	defer explainPanic(s.dir, &err)()
	next, err := s.restore(machine)
	if err != nil {
		return err
	}
	for i := next; i <= s.Last; i++ {
		var entry raft.Log
		if err := s.store.GetLog(i, &entry); err != nil {
			return fmt.Errorf("%w: %s: entry %d of %d: %w", ErrCorruptDir, s.dir, i, s.Last, err)
		}
		switch entry.Type {
		case raft.LogCommand:
			machine.Apply(&entry)
		case raft.LogConfiguration:
			s.members(raft.DecodeConfiguration(entry.Data))
		}
		s.Term, s.LastTerm = max(s.Term, entry.Term), entry.Term
		if told != nil {
			told(i)
		}
	}
	return nil
}

// restore takes the newest snapshot that can be read, and returns the first entry after
// it.
func (s *Survivor) restore(machine raft.FSM) (next uint64, err error) {
	list, err := s.store.Snapshots().List()
	if err != nil {
		return 0, err
	}
	var problems []error
	for _, meta := range list {
		var from io.ReadCloser
		if _, from, err = s.store.Snapshots().Open(meta.ID); err == nil {
			err = machine.Restore(from)
		}
		if err == nil {
			s.LastTerm = meta.Term
			return meta.Index + 1, nil
		}
		problems = append(problems, fmt.Errorf("snapshot %s: %w", meta.ID, err))
	}
	if len(problems) > 0 {
		return 0, fmt.Errorf("%w: %s: %w", ErrCorruptDir, s.dir, errors.Join(problems...))
	}
	return 1, nil
}

// Begin replaces the directory's content by a new life's, and returns where the old one
// is kept. The life's log store is the one that is there.
func (s *Survivor) Begin(life NewLife) (replaced string, err error) {
	life.LogStore = s.kind
	if err := life.validate(); err != nil {
		return "", err
	}
	if life.Term <= s.Term {
		return "", fmt.Errorf("term %d: the node has seen %d", life.Term, s.Term)
	}
	if err := s.keepLockOnly(); err != nil {
		return "", err
	}
	r := rebuild{dir: s.dir, log: s.log, on: machine}
	if err := r.make(life); err != nil {
		return "", err
	}
	if replaced, err = r.setAside(); err != nil {
		return replaced, err
	}
	return replaced, r.install()
}

// keepLockOnly closes the store, which holds the lock, and takes the lock again. No node
// can have written in between: one that started would have it now.
func (s *Survivor) keepLockOnly() (err error) {
	if s.store == nil {
		return nil
	}
	err = s.store.Close()
	s.store = nil
	if err != nil {
		return err
	}
	s.lock, err = lockDir(s.dir)
	return err
}

// Close lets a node start in the directory.
func (s *Survivor) Close() error {
	var problems []error
	if s.store != nil {
		problems = append(problems, s.store.Close())
	}
	if s.lock != nil {
		problems = append(problems, s.lock.Close())
	}
	s.store, s.lock = nil, nil
	return errors.Join(problems...)
}
