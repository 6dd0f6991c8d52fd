package node

// That the writer answers every proposal exactly once, its end included.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

func TestWriterAnswersWhatWaitsAtItsEnd(t *testing.T) {
	w := newWriter(nil, fsm.New(fsm.Options{})) // it never leads, and so never asks its member
	const waiting = maxEntryCommands + 1
	var mu sync.Mutex
	answers := map[int]int{}
	var all sync.WaitGroup
	proposalOf := func(n int) proposal {
		all.Add(1)
		return proposal{command: txn.Presume{ID: newID()}, done: func(_ fsm.Result, err error) {
			if !errors.Is(err, coordinator.ErrNotLeader) {
				t.Errorf("proposal %d: %v", n, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if answers[n]++; answers[n] == 1 {
				all.Done()
			}
		}}
	}
	w.mu.Lock()
	for n := range waiting { // more than one entry's worth, of which the writer has not heard
		w.queue = append(w.queue, proposalOf(n))
	}
	w.mu.Unlock()
	w.close()
	w.propose(proposalOf(waiting)) // and one that comes after the end
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	for n, times := range answers {
		if times != 1 {
			t.Errorf("proposal %d was answered %d times", n, times)
		}
	}
}

// What fits one entry leaves the queue, and what does not stays.
func TestWriterTakesWhatFitsAnEntry(t *testing.T) {
	w := newWriter(nil, fsm.New(fsm.Options{}))
	w.close()
	w.closed = false // nobody else takes from it now
	half := txn.NewBranch("a", make([]byte, maxEntryBytes/2))
	for range 3 {
		w.propose(proposal{command: txn.Enlist{ID: newID(), Branch: half}})
	}
	for _, want := range []int{1, 1, 1, 0} {
		if got := len(w.take()); got != want {
			t.Errorf("took %d proposals, want %d", got, want)
		}
	}
	for range maxEntryCommands + 2 {
		w.propose(proposal{command: txn.Presume{ID: newID()}})
	}
	for _, want := range []int{maxEntryCommands, 2, 0} {
		if got := len(w.take()); got != want {
			t.Errorf("took %d proposals, want %d", got, want)
		}
	}
	if w.queue != nil {
		t.Error("the empty queue holds on to what was answered")
	}
}

// R3: what was proposed in another epoch than that of the entry is refused for
// certain, whichever of the two is the older, and its neighbours go on.
func TestWriterRefusesAnotherEpoch(t *testing.T) {
	w := newWriter(nil, fsm.New(fsm.Options{}))
	defer w.close()
	refused := map[uint64]error{}
	var batch []proposal
	for _, epoch := range []uint64{6, 7, 8, 7} {
		batch = append(batch, proposal{epoch: epoch, done: func(_ fsm.Result, err error) { refused[epoch] = err }})
	}
	kept := w.current(batch, 7)
	if len(kept) != 2 || kept[0].epoch != 7 || kept[1].epoch != 7 {
		t.Errorf("kept %d proposals, want the two of epoch 7", len(kept))
	}
	for _, epoch := range []uint64{6, 8} {
		if err := refused[epoch]; !errors.Is(err, coordinator.ErrNotLeader) {
			t.Errorf("a proposal of epoch %d: %v", epoch, err)
		}
	}
	if err, answered := refused[7]; answered {
		t.Errorf("a proposal of this epoch was answered with %v", err)
	}
}

// R3: an entry of an epoch that is over is refused as a whole, and each of its
// commands is told so.
func TestEntryOfAnEndedEpochIsAnswered(t *testing.T) {
	x := newTrio(t, nil)
	w := x.leader(nil).writer
	answers := make(chan error, 2)
	done := func(_ fsm.Result, err error) { answers <- err }
	w.mu.Lock()
	now := w.term
	w.term-- // as if it had not noticed
	for range 2 {
		w.queue = append(w.queue, proposal{epoch: w.term, command: txn.Presume{ID: newID()}, done: done})
	}
	w.mu.Unlock()
	w.wake <- struct{}{}
	for range 2 {
		select {
		case err := <-answers:
			if !errors.Is(err, coordinator.ErrNotLeader) && !errors.Is(err, coordinator.ErrOutcomeUnknown) {
				t.Errorf("a command of an epoch that is over: %v", err)
			}
		case <-x.ctx().Done():
			t.Fatal("a command of an epoch that is over is not answered")
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.term == now-1 {
		w.term = now
	}
}

// R12: a command that no node could apply is refused before it reaches the log, and
// the commands that wait beside it are carried out.
func TestBadCommandIsRefusedAlone(t *testing.T) {
	x := newTrio(t, nil)
	good, bad := errors.New("not answered"), errors.New("not answered")
	x.await("an epoch that lasts", func() bool {
		w := x.leader(nil).writer
		var answered sync.WaitGroup
		answered.Add(3)
		answer := func(to *error) func(fsm.Result, error) {
			return func(_ fsm.Result, err error) { *to = err; answered.Done() }
		}
		var other error
		w.mu.Lock() // so that one entry takes all three
		w.queue = append(w.queue,
			proposal{epoch: w.term, command: txn.Presume{ID: newID()}, done: answer(&other)},
			proposal{epoch: w.term, command: txn.Enlist{ID: newID()}, done: answer(&bad)}, // names no participant
			proposal{epoch: w.term, command: txn.Presume{ID: newID()}, done: answer(&good)},
		)
		w.mu.Unlock()
		w.wake <- struct{}{}
		answered.Wait()
		good = errors.Join(other, good)
		return !errors.Is(good, coordinator.ErrNotLeader) && !errors.Is(good, coordinator.ErrOutcomeUnknown)
	})
	if good != nil {
		t.Errorf("its neighbours: %v", good)
	}
	if !errors.Is(bad, coordinator.ErrInvalid) {
		t.Errorf("the bad command: %v", bad)
	}
}

// R5: only what the member calls definite is definite, and an entry that was
// refused as a whole, which changed nothing.
func TestErrorsOfTheMemberKeepTheirClass(t *testing.T) {
	for _, c := range []struct{ err, want, never error }{
		{cluster.ErrNotLeader, coordinator.ErrNotLeader, coordinator.ErrOutcomeUnknown},
		{txn.ErrStaleEpoch, coordinator.ErrNotLeader, coordinator.ErrOutcomeUnknown},
		{cluster.ErrUnknown, coordinator.ErrOutcomeUnknown, coordinator.ErrNotLeader},
		{context.DeadlineExceeded, coordinator.ErrOutcomeUnknown, coordinator.ErrNotLeader},
		{errors.New("what nobody thought of"), coordinator.ErrOutcomeUnknown, coordinator.ErrNotLeader},
	} {
		got := classify(fmt.Errorf("wrapped: %w", c.err))
		if !errors.Is(got, c.want) || errors.Is(got, c.never) || !errors.Is(got, c.err) {
			t.Errorf("%v became %v, want %v", c.err, got, c.want)
		}
	}
	if err := classify(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}

// R5: the leader's messages arrive and no answer does, so it loses its office with
// a staging entry on its way, which its successor applies. Nobody was told that
// nothing had happened.
func TestStagingOfALostLeaderIsNotDefinite(t *testing.T) {
	x := newTrio(t, nil)
	id := newID()
	old := x.leader(nil)
	self := old.cfg.Cluster.ID
	for _, other := range x.net.IDs() {
		if other != self {
			x.net.Network.Cut(other, self)
		}
	}
	_, told := old.Coordinator.Submit(x.ctx(), transfer(id))
	x.leader(old)
	x.net.Network.Heal()
	x.submit(transfer(newID())) // behind whatever was on its way
	_, known := x.leader(nil).Machine.Transaction(id)
	switch {
	case known && !errors.Is(told, coordinator.ErrOutcomeUnknown):
		t.Errorf("told %v of a transaction that was staged", told)
	case !known:
		t.Logf("it was not staged, and told %v", told) // a busy machine: the leader fell before
	}
	if r := x.submit(transfer(id)); r.Decision() != txn.Commit {
		t.Errorf("%s: %s", r.Decision(), r.Transaction.Reason)
	}
	x.sameOutcome(id)
	x.effects(id, 1)
}

// R11: within an epoch cluster time goes on from where the epoch began, by the
// monotonic clock; what the wall says then is nobody's business.
func TestClusterTimeGoesOnFromItsEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(nil, fsm.New(fsm.Options{}))
		defer w.close()
		const began = txn.Time(1000 * time.Second) // long ago by any wall clock
		w.open(context.Background(), 7, began)
		time.Sleep(time.Hour)
		if now := w.Now(); now != began.Add(time.Hour) {
			t.Errorf("an hour later it is %s later", now.Sub(began))
		}
	})
}

// R11 and R14: the horizon moves on by itself while nobody asks for anything, so
// what is over is forgotten one day.
func TestHorizonMovesOnByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrio(t, nil)
		before := x.leader(nil).Machine.Cluster().Horizon
		time.Sleep(3 * retentionInterval)
		x.await("a later horizon", func() bool {
			return x.leader(nil).Machine.Cluster().Horizon >= before.Add(retentionInterval)
		})
	})
}
