package coordinator

// The bounds at the door and in the lanes, each at its edge (R14): one more is
// refused or waits, and what ends makes room again.

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants/participanttest"
)

// wantBusy checks that a call was refused with a delay after which to try again.
func wantBusy(t testing.TB, what string, err error) {
	t.Helper()
	var busy *BusyError
	if !errors.As(err, &busy) || busy.RetryAfter <= 0 {
		t.Errorf("%s: got %v, want a BusyError with a delay", what, err)
	}
}

// briefly bounds calls that must be refused: one that is not would wait for ever.
func (r *rig) briefly() context.Context {
	ctx, cancel := context.WithTimeout(background, time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

// R14: transactions of both kinds count; to join one that is there costs nothing.
func TestUnfinishedTransactionsAreBounded(t *testing.T) {
	run(t, Config{MaxUnfinished: 2}, func(r *rig) {
		vote := make(chan struct{})
		r.fakes["a"].Script(prepareOp, participanttest.AnyTx, participanttest.Answer{Hold: vote, Stay: true})
		first, second := r.id(), r.id()
		w := r.submit(background, transfer(first, "a"))
		time.Sleep(time.Second)
		if _, err := r.c.Begin(background, second, time.Hour); err != nil {
			t.Fatal(err)
		}
		_, err := r.run(r.briefly(), transfer(r.id(), "b"))
		wantBusy(t, "a third, one-shot", err)
		_, err = r.c.Begin(r.briefly(), r.id(), time.Hour)
		wantBusy(t, "a third, interactive", err)
		if _, err := r.c.Begin(background, second, time.Hour); err != nil {
			t.Errorf("the second again: %v", err)
		}
		close(vote)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)
		time.Sleep(time.Second)
		res, err := r.run(r.briefly(), transfer(r.id(), "b"))
		r.mustDecide(res, err, txn.Commit)
	})
}

// R14: payloads of undecided transactions, those of staged branches as well as of
// enlisted ones, are given back at the decision.
func TestUndecidedPayloadsAreBounded(t *testing.T) {
	run(t, Config{MaxUndecidedBytes: 100}, func(r *rig) {
		big := func(id txn.TxID, name string) Submission {
			s := transfer(id, name)
			s.Branches[0] = txn.NewBranch(name, make([]byte, 60))
			return s
		}
		vote := make(chan struct{})
		held := r.id()
		r.fakes["a"].Script(prepareOp, held, participanttest.Answer{Hold: vote})
		w := r.submit(background, big(held, "a"))
		time.Sleep(time.Second)
		_, err := r.run(r.briefly(), big(r.id(), "b"))
		wantBusy(t, "too many bytes in all", err)
		close(vote)
		<-w.done
		for range 5 {
			res, err := r.run(r.briefly(), big(r.id(), "b"))
			r.mustDecide(res, err, txn.Commit)
		}
	})
}

// The hazard "disk full": while the door is shut, nothing new comes in, of either
// kind; what is inside is decided and delivered, and asked about again; and the door
// opens again.
func TestAShutDoorKeepsWhatIsInside(t *testing.T) {
	var full atomic.Bool
	admit := func() error {
		if full.Load() {
			return &BusyError{What: "the disk is nearly full", RetryAfter: time.Second}
		}
		return nil
	}
	run(t, Config{Admit: admit}, func(r *rig) {
		vote := make(chan struct{})
		inside, open := r.id(), r.id()
		r.fakes["a"].Script(prepareOp, inside, participanttest.Answer{Hold: vote})
		w := r.submit(background, transfer(inside, "a", "b"))
		if _, err := r.c.Begin(background, open, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Enlist(background, open, txn.NewBranch("a", nil)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		full.Store(true)

		_, err := r.run(r.briefly(), transfer(r.id(), "b"))
		wantBusy(t, "a new one", err)
		_, err = r.c.Begin(r.briefly(), r.id(), time.Hour)
		wantBusy(t, "a new interactive one", err)
		_, err = r.c.Enlist(r.briefly(), open, txn.NewBranch("b", nil))
		wantBusy(t, "a new branch", err)
		if _, err := r.c.Enlist(background, open, txn.NewBranch("a", nil)); err != nil {
			t.Errorf("a branch again: %v", err)
		}
		again := r.submit(background, transfer(inside, "a", "b"))
		close(vote)
		for _, of := range []*submission{w, again} {
			<-of.done
			r.mustDecide(of.result, of.err, txn.Commit)
		}
		res, err := r.c.Commit(background, open, nil, WaitDelivery)
		r.mustDecide(res, err, txn.Commit)
		res, err = r.c.Inquire(background, r.id())
		r.mustDecide(res, err, txn.Abort)

		full.Store(false)
		res, err = r.run(background, transfer(r.id(), "b"))
		r.mustDecide(res, err, txn.Commit)
	})
}

// R14: what is enlisted is held to the same bounds as what is submitted.
func TestEnlistingIsBounded(t *testing.T) {
	run(t, Config{MaxUnfinishedPerParticipant: 1, MaxTransactionBytes: 100}, func(r *rig) {
		first, second := r.id(), r.id()
		for _, id := range []txn.TxID{first, second} {
			if _, err := r.c.Begin(background, id, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.c.Enlist(background, first, txn.NewBranch("a", make([]byte, 60))); err != nil {
			t.Fatal(err)
		}
		_, err := r.c.Enlist(r.briefly(), second, txn.NewBranch("a", nil))
		wantBusy(t, "past the participant's quota", err)
		if _, err := r.c.Enlist(r.briefly(), first, txn.NewBranch("b", make([]byte, 60))); !errors.Is(err, ErrTooLarge) {
			t.Errorf("past the transaction's bytes: %v", err)
		}
		if tx := r.stored(first); len(tx.Branches) != 1 {
			t.Errorf("%d branches, want the one that was not refused", len(tx.Branches))
		}
		res, err := r.c.Commit(background, first, nil, WaitDelivery)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Second) // its receipt is logged in its own time
		if _, err := r.c.Enlist(background, second, txn.NewBranch("a", nil)); err != nil {
			t.Errorf("after the first has ended: %v", err)
		}
	})
}

// underWay counts the calls of op that a participant has not answered.
func underWay(f *participanttest.Fake, op participanttest.Op) (n int) {
	for _, c := range f.Calls() {
		if c.Op == op && !c.Ended {
			n++
		}
	}
	return n
}

// R14: prepares under way at one participant are bounded; the others wait their
// turn without a goroutine, and all are asked in the end.
func TestPreparesInFlightAreBounded(t *testing.T) {
	cfg := Config{PreparesInFlight: 3}
	run(t, cfg, func(r *rig) {
		r.fakes["a"].Script(prepareOp, participanttest.AnyTx, participanttest.Answer{Delay: time.Second / 4, Stay: true})
		var all []*submission
		for range 20 {
			all = append(all, r.submit(background, transfer(r.id(), "a")))
			all[len(all)-1].answered() // they share r.id
			if n := underWay(r.fakes["a"], prepareOp); n > cfg.PreparesInFlight {
				t.Fatalf("%d prepares under way, at most %d", n, cfg.PreparesInFlight)
			}
		}
		for _, w := range all {
			<-w.done
			r.mustDecide(w.result, w.err, txn.Commit)
		}
	})
}

// R8 and R14: a prepare that still waits for its turn when its transaction is decided
// never leaves.
func TestQueuedPrepareEndsWithTheDecision(t *testing.T) {
	run(t, Config{PreparesInFlight: 1}, func(r *rig) {
		first, second := r.id(), r.id()
		release := make(chan struct{})
		r.fakes["a"].Script(prepareOp, first, participanttest.Answer{Hold: release})
		w := r.submit(background, transfer(first, "a"))
		w.answered()
		s := transfer(second, "a", "b")
		s.Timeout = time.Second
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Abort)
		close(release)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)
		time.Sleep(time.Minute)
		r.wantCalls("a", second, abortOp)
		r.wantCalls("b", second, prepareOp, abortOp)
	})
}

// R14: a participant that is down is tried with one call at a time, though a crowd
// waits for it.
func TestDownParticipantIsTriedOneAtATime(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		down := participanttest.Answer{Fate: participanttest.Dropped, Delay: time.Second, Stay: true}
		r.fakes["a"].Script(commitOp, participanttest.AnyTx, down)
		for range 50 {
			s := transfer(r.id(), "a")
			s.Wait = WaitDecision
			res, err := r.run(background, s)
			r.mustDecide(res, err, txn.Commit)
		}
		time.Sleep(time.Minute)
		for range 100 {
			time.Sleep(time.Second / 2)
			if n := underWay(r.fakes["a"], commitOp); n > 1 {
				t.Fatalf("%d deliveries under way to a participant that is down", n)
			}
		}
		r.fakes["a"].Unscript(commitOp, participanttest.AnyTx)
		time.Sleep(time.Minute)
		if held := r.fakes["a"].Held(); held != 0 {
			t.Errorf("%d branches still prepared a minute after it came back", held)
		}
	})
}

// R14: a branch that always fails keeps its pace, though its neighbours' success
// tells its lane, again and again, that the participant is well.
func TestPoisonedBranchKeepsItsPace(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		poisoned := r.id()
		r.fakes["a"].Script(commitOp, poisoned, participanttest.Answer{Fate: participanttest.Dropped, Stay: true})
		s := transfer(poisoned, "a")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		const minutes = 10
		for range minutes * 60 {
			time.Sleep(time.Second)
			r.nextID = 0 // ids differ by their time
			res, err := r.run(background, transfer(r.id(), "a"))
			r.mustDecide(res, err, txn.Commit)
		}
		tries := r.fakes["a"].Count(commitOp, poisoned)
		perMinute := 2 * time.Minute / r.c.cfg.BackoffCap // full jitter: half the cap on average
		if most := 2*minutes*int(perMinute) + 20; tries > most {
			t.Errorf("%d tries in %d minutes, at most some %d", tries, minutes, most)
		}
	})
}
