package fsm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// states reads n changes.
func states(t *testing.T, w *Watch, n int) (list []txn.State) {
	t.Helper()
	for range n {
		tx, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, tx.State)
	}
	return list
}

// nothing checks that a watch has nothing to tell.
func nothing(t *testing.T, w *Watch) {
	t.Helper()
	if tx, err := w.take(); tx != nil || err != nil {
		t.Errorf("%+v, %v", tx, err)
	}
}

// TestWatchTellsEachChangeOnce holds that a watcher sees the changes in the order
// of the log: of one transaction, or of all; and not what changed nothing.
func TestWatchTellsEachChangeOnce(t *testing.T) {
	j := newJournal(t)
	id, other := idAt(j.now, 1), idAt(j.now, 2)
	one, all := j.m.Watch(&id), j.m.Watch(nil)
	defer one.Close()
	defer all.Close()
	j.finish(other, txn.Done)
	j.finish(id, txn.Done)
	j.must(txn.Decide{ID: id, Decision: txn.Commit}) // nothing new

	if got := states(t, one, 3); got[0] != txn.Preparing || got[1] != txn.Committing || got[2] != txn.Committed {
		t.Errorf("of one: %v", got)
	}
	nothing(t, one)
	if tx, err := all.Next(t.Context()); err != nil || tx.ID != other {
		t.Errorf("of all: %+v, %v", tx, err)
	}
	states(t, all, 5)
	nothing(t, all)
}

// TestWatchIsSeenInTheState holds that a change which a watcher was told of can be
// read: the state comes first.
func TestWatchIsSeenInTheState(t *testing.T) {
	j := newJournal(t)
	w := j.m.Watch(nil)
	done := make(chan error, 1)
	go func() {
		for range 300 {
			tx, err := w.Next(context.Background())
			if err != nil {
				done <- err
				return
			}
			if now, ok := j.m.Transaction(tx.ID); !ok || now.State < tx.State {
				done <- errors.New("told of a change that is not there")
				return
			}
		}
		done <- nil
	}()
	for i := range 100 {
		j.finish(idAt(j.now, i), txn.Done)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestALaggardIsCutOff holds R14: apply never waits for a watcher. One that falls
// behind gets what it has room for, and then learns that it missed something.
func TestALaggardIsCutOff(t *testing.T) {
	j := newJournal(t)
	w := j.m.Watch(nil)
	for i := range maxBacklog/3 + 1 {
		j.finish(idAt(j.now, i), txn.Done)
	}
	if n := j.m.Stats().Watches; n != 0 {
		t.Errorf("%d watches", n)
	}
	states(t, w, maxBacklog)
	for range 2 {
		if tx, err := w.Next(t.Context()); !errors.Is(err, ErrLagged) {
			t.Errorf("%+v, %v", tx, err)
		}
	}
	w.Close()
	if _, err := w.Next(t.Context()); !errors.Is(err, ErrLagged) {
		t.Errorf("after Close: %v", err)
	}
}

// TestARestoreCutsOffWatches holds that a watcher never misses a change without
// learning of it: a snapshot skips some.
func TestARestoreCutsOffWatches(t *testing.T) {
	j := newJournal(t)
	id := idAt(j.now, 1)
	watches := []*Watch{j.m.Watch(nil), j.m.Watch(&id)}
	if err := restore(j.m, persist(t, j.m)); err != nil {
		t.Fatal(err)
	}
	for _, w := range watches {
		if _, err := w.Next(t.Context()); !errors.Is(err, ErrLagged) {
			t.Errorf("%v", err)
		}
		w.Close()
	}
	if n := j.m.Stats().Watches; n != 0 {
		t.Errorf("%d watches", n)
	}
}

// TestNextWaits holds that Next returns with a change, with the end of its context
// and with Close, whichever comes first.
func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(t)
		id := idAt(j.now, 1)
		w := j.m.Watch(&id)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		type answer struct {
			tx  *txn.Transaction
			err error
		}
		answers := make(chan answer)
		for range 2 {
			go func() {
				tx, err := w.Next(t.Context())
				answers <- answer{tx, err}
			}()
			synctest.Wait()
			if j.m.state.transaction(id) == nil {
				j.must(txn.Presume{ID: id})
				if a := <-answers; a.err != nil || a.tx.State != txn.Aborted {
					t.Errorf("%+v, %v", a.tx, a.err)
				}
				continue
			}
			w.Close()
			w.Close()
			if a := <-answers; !errors.Is(a.err, ErrWatchClosed) {
				t.Errorf("%+v, %v", a.tx, a.err)
			}
		}
		if len(j.m.feed.byID) != 0 {
			t.Error("a closed watch is remembered")
		}
	})
}

// TestWatchesAreBounded holds R14 for the number of watchers.
func TestWatchesAreBounded(t *testing.T) {
	m := newMachine(t)
	id := idAt(beginning, 1)
	var last *Watch
	for range maxWatches {
		last = m.Watch(&id)
	}
	refused := m.Watch(nil)
	if _, err := refused.Next(t.Context()); !errors.Is(err, ErrTooManyWatches) {
		t.Errorf("%v", err)
	}
	refused.Close()
	last.Close()
	next := m.Watch(nil)
	nothing(t, next)
	if n := m.Stats().Watches; n != maxWatches {
		t.Errorf("%d watches", n)
	}
}
