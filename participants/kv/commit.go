package kv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"syscall"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// maxBatch bounds the calls of one commit: enough that the two fsyncs are
	// shared by all callers there are in practice, few enough that none waits for
	// more than some milliseconds of B+tree work.
	maxBatch = 512
	// maxWaiting bounds the calls that wait for their turn; more wait at the door,
	// where they still heed their contexts.
	maxWaiting = 1024
)

var (
	// ErrClosed answers calls on a store that is closed or about to be.
	ErrClosed = errors.New("the store is closed")
	// ErrFailed answers every call after a commit whose end is not known. The
	// store has to be opened anew, which reads what the disk really holds.
	ErrFailed = errors.New("an earlier write to the file failed, and the store must be opened anew")
)

// call is one piece of work that waits for the next commit.
type call struct {
	ctx  context.Context
	work func(*session) error
	err  error      // of the work
	done chan error // buffered: the caller may have gone
}

// do has work carried out by the store's own goroutine, together with all other
// work that is waiting, and returns once the result is durable. An error is the
// work's own, or ambiguous.
func (s *Store) do(ctx context.Context, work func(*session) error) error {
	c := &call{ctx: ctx, work: work, done: make(chan error, 1)}
	select {
	case s.waiting <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return ErrClosed
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopped:
		return ErrClosed
	}
}

// run is the store's goroutine: the only writer of the file and the only user of
// the locks. It ends when stop is closed.
func (s *Store) run() {
	defer close(s.stopped)
	for {
		select {
		case <-s.stop:
			return
		case first := <-s.waiting:
			s.settle(s.gather(first))
		}
	}
}

// gather takes all calls that are waiting. The callers of the last batch have
// just been answered, and yielding once lets them line up again: that halves the
// number of commits under load and costs a single caller nothing measurable.
func (s *Store) gather(first *call) []*call {
	batch := []*call{first}
	runtime.Gosched()
	for len(batch) < maxBatch {
		select {
		case c := <-s.waiting:
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

// settle carries out a batch and answers its calls.
func (s *Store) settle(batch []*call) {
	err := s.failure
	if err == nil {
		err = s.commit(batch)
	}
	for _, c := range batch {
		if err != nil {
			c.done <- err
		} else {
			c.done <- c.err
		}
	}
}

// commit carries out a batch in one bbolt transaction. An error means that no
// call of the batch has an answer.
func (s *Store) commit(batch []*call) error {
	syncing := false
	err := guard(s.log, func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // does nothing after Commit
		dirty, err := s.carryOut(tx, batch)
		if err != nil || !dirty {
			return err // nobody waits for the disk where nothing was written
		}
		syncing = true
		return s.publish(tx)
	})
	if err == nil {
		return nil
	}
	if !syncing || undone(err) {
		// The file is as it was; only the locks have run ahead of it.
		if reload := guard(s.log, s.rebuild); reload == nil {
			return err
		}
	}
	s.log.Error("the store answers no more until it is opened anew", "path", s.path, "error", err)
	return s.fail(err)
}

// carryOut does the work of a batch, and reports whether anything was written.
func (s *Store) carryOut(tx *bbolt.Tx, batch []*call) (dirty bool, err error) {
	at := newSession(s, tx)
	for _, c := range batch {
		if c.err = c.ctx.Err(); c.err != nil {
			continue // the caller has gone before its turn came
		}
		c.err = c.work(at)
		if at.broken != nil {
			return false, at.broken
		}
	}
	return at.dirty, nil
}

// publish makes a batch durable and then visible.
//
// The end of it is the moment at which votes become promises and decisions
// become facts. A crash just before it leaves nothing of the batch, and its
// callers without an answer; a crash just after it leaves all of it.
func (s *Store) publish(tx *bbolt.Tx) error {
	// bbolt shows a transaction to readers before its last fsync has returned. A
	// reader must not tell what a power loss could still undo.
	s.visible.Lock()
	defer s.visible.Unlock()
	return s.commitTx(tx)
}

// fail keeps the store from answering: whether the last batch is in the file is
// not known, nor whether the next read would show what the disk holds, for a
// failed fsync is not to be retried.
func (s *Store) fail(err error) error {
	s.visible.Lock()
	defer s.visible.Unlock()
	s.failure = fmt.Errorf("%w: %w", ErrFailed, err)
	return s.failure
}

// undone reports whether a failed commit certainly left the file as it was: its
// size limit was reached, or the disk had no room for a write that nothing
// refers to yet.
func undone(err error) bool {
	var path *fs.PathError
	return errors.Is(err, bolterrors.ErrMaxSizeReached) ||
		errors.As(err, &path) && path.Op == "write" && errors.Is(path.Err, syscall.ENOSPC)
}
