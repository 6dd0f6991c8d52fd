package kv

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"

	"github.com/decree-tx/decree/participants"
)

// Store is an open file. It implements participants.Participant and
// participants.StatusReporter.
type Store struct {
	// Set once by Open.
	path     string
	db       *bbolt.DB
	log      hclog.Logger
	commitTx func(*bbolt.Tx) error // of a write transaction: (*bbolt.Tx).Commit
	waiting  chan *call
	stop     chan struct{} // closed by Close
	stopped  chan struct{} // closed by run when it has ended
	closing  sync.Once

	// Owned by run.
	locks    locks
	prepared int

	// visible is held to write while a transaction becomes durable, and to read
	// while a snapshot is taken. It guards failure, which only run writes.
	visible sync.RWMutex
	failure error
}

// Open opens the store in the file at path, and creates it where there is none;
// its directory must exist. It waits for the lock of the file as long as ctx
// allows, at most a quarter of a second, and then fails with ErrLocked. A file
// that is something else fails with ErrForeign, a broken one with ErrDamaged.
func Open(ctx context.Context, path string, log hclog.Logger) (*Store, error) {
	s, err := open(ctx, path, log)
	if err != nil {
		return nil, fmt.Errorf("open kv store %s: %w", path, err)
	}
	go s.run()
	return s, nil
}

// open makes a store that does not run yet.
func open(ctx context.Context, path string, log hclog.Logger) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	db, err := openFile(ctx, path, log)
	if err != nil {
		return nil, err
	}
	s := &Store{
		path:     path,
		db:       db,
		log:      log,
		commitTx: (*bbolt.Tx).Commit,
		waiting:  make(chan *call, maxWaiting),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	if err := guard(s.log, s.rebuild); err != nil {
		db.Close() //nolint:errcheck // the first error is the one to tell
		return nil, err
	}
	return s, nil
}

// rebuild makes the locks anew from the branches that are prepared in the file.
func (s *Store) rebuild() error {
	s.locks, s.prepared = locks{}, 0
	return s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(stagedBucket).ForEach(func(key, value []byte) error {
			b, err := parseBranchKey(key)
			if err != nil {
				return err
			}
			staged, err := decode[stage](key, value)
			if err != nil {
				return err
			}
			if err := s.hold(holderOf(b), staged); err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			return nil
		})
	})
}

func (s *Store) hold(h holder, staged stage) error {
	s.prepared++
	return s.locks.take(h, staged)
}

func (s *Store) unhold(h holder, staged stage) {
	s.prepared--
	s.locks.drop(h, staged)
}

// Prepare implements participants.Participant. What is wrong with a payload, an
// assumption that does not hold and a key that is held are all a no.
func (s *Store) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	if err := b.Validate(); err != nil {
		return participants.Vote{}, err
	}
	ops, malformed := parsePayload(b.Payload)
	var vote participants.Vote
	err := s.do(ctx, func(at *session) (err error) {
		vote, err = at.prepare(b, ops, malformed)
		return err
	})
	if err != nil {
		return participants.Vote{}, err // and vote is still the store's to write
	}
	return vote, nil
}

// Commit implements participants.Participant.
func (s *Store) Commit(ctx context.Context, b participants.Branch) error {
	return s.end(ctx, b, participants.Record.Commit)
}

// Abort implements participants.Participant.
func (s *Store) Abort(ctx context.Context, b participants.Branch) error {
	return s.end(ctx, b, participants.Record.Abort)
}

func (s *Store) end(ctx context.Context, b participants.Branch, decide decision) error {
	if err := b.Validate(); err != nil {
		return err
	}
	return s.do(ctx, func(at *session) error { return at.end(b, decide) })
}

// Recover implements participants.Participant. The list is in the order of
// txids, and no longer than the bound on prepared branches.
func (s *Store) Recover(ctx context.Context, cluster string) (list []participants.Branch, err error) {
	if len(cluster) > participants.MaxClusterID {
		return nil, nil // nobody of that name was ever admitted
	}
	err = s.Read(ctx, func(at Snapshot) error {
		prefix := clusterPrefix(cluster)
		c := at.tx.Bucket(stagedBucket).Cursor()
		for key, _ := c.Seek(prefix); bytes.HasPrefix(key, prefix); key, _ = c.Next() {
			b, err := parseBranchKey(key)
			if err != nil {
				return err
			}
			list = append(list, b)
		}
		return nil
	})
	return list, err
}

// Recovers implements participants.Participant: every prepared branch is in the
// file.
func (s *Store) Recovers() bool { return true }

// Status implements participants.StatusReporter. What it tells is durable.
func (s *Store) Status(ctx context.Context, b participants.Branch) (participants.Status, error) {
	if err := b.Validate(); err != nil {
		return participants.StatusUnknown, err
	}
	status := participants.StatusUnknown
	err := s.Read(ctx, func(at Snapshot) error {
		r, _, err := newSession(s, at.tx).recall(b)
		status = r.Status
		return err
	})
	return status, err
}

// Close ends the store and gives the file free. Calls that are waiting fail with
// ErrClosed; it waits for the one that is being carried out, and for snapshots.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.stop)
		<-s.stopped
		err = s.db.Close()
	})
	return err
}
