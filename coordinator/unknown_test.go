package coordinator

// A log that answers late, not at all, or after the leader has gone: what stops,
// what is asked again, and what the next term does (R3, R5, R13).

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants/participanttest"
)

// R5: when the fate of a decision is unknown, the driver stops: the client learns
// Unknown, nobody is told anything, and after a barrier the applied state decides.
func TestUnknownDecision(t *testing.T) {
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprintf("applied=%t", applied), func(t *testing.T) {
			run(t, Config{}, func(r *rig) {
				id := r.id()
				struck := false
				r.log.withFate(func(c txn.Command) fate {
					if _, decide := c.(txn.Decide); decide && !struck {
						struck = true
						return fate{lost: !applied, err: ErrOutcomeUnknown}
					}
					return fate{}
				})
				barred := errors.New("no barrier yet")
				r.log.barrier = func() error { return barred }

				_, err := r.run(background, transfer(id, "a", "b"))
				if !errors.Is(err, ErrOutcomeUnknown) {
					t.Fatalf("got %v", err)
				}
				time.Sleep(time.Minute)
				r.wantCalls("a", id, prepareOp)
				r.wantCalls("b", id, prepareOp)

				r.log.mu.Lock()
				r.log.barrier = nil
				r.log.mu.Unlock()
				time.Sleep(time.Minute)
				tx := r.stored(id)
				want := txn.Committed
				if !applied {
					want = txn.Aborted // its time ran out behind the barrier
				}
				if tx.State != want {
					t.Errorf("ended %s, want %s", tx.State, want)
				}
			})
		})
	}
}

// R5, of staging: after the barrier shows that nothing was staged, the branches
// that prepared are aborted through the log.
func TestUnknownStagingIsCleanedUp(t *testing.T) {
	run(t, Config{ScanInterval: 24 * time.Hour}, func(r *rig) { // not by the scan
		id := r.id()
		r.log.withFate(func(c txn.Command) fate {
			if _, stage := c.(txn.Stage); stage {
				return fate{lost: true, err: ErrOutcomeUnknown}
			}
			return fate{}
		})
		_, err := r.run(background, transfer(id, "a", "b"))
		if !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Minute)
		r.wantCalls("a", id, prepareOp, abortOp)
		if tx := r.stored(id); tx == nil || tx.State != txn.Aborted {
			t.Errorf("the log has %+v", tx)
		}
		r.log.withFate(nil)
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
	})
}

// R13: a new term prepares again what was preparing, and delivers what was
// decided.
func TestNewTermGoesOn(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		preparing, committing := r.id(), r.id()
		r.fakes["b"].Script(prepareOp, preparing, participanttest.Answer{Hold: make(chan struct{})})
		r.fakes["b"].Script(commitOp, committing, participanttest.Answer{Hold: make(chan struct{})})
		first := r.submit(background, transfer(preparing, "a", "b"))
		second := r.submit(background, transfer(committing, "a", "b"))
		time.Sleep(2 * time.Second)
		r.depose()
		if !first.answered() || !errors.Is(first.err, ErrOutcomeUnknown) {
			t.Errorf("the undecided one was answered %v", first.err)
		}
		if !second.answered() || second.err != nil || second.result.Decision() != txn.Commit || second.result.Delivered {
			t.Errorf("the decided one was answered %+v, %v", second.result, second.err)
		}
		r.lead()
		res, err := r.run(background, transfer(preparing, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		res, err = r.run(background, transfer(committing, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if !res.Delivered {
			t.Error("not delivered in the new term")
		}
		for _, c := range r.fakes["b"].Calls() {
			if c.Branch.TxID == committing && c.Op == prepareOp && c.Branch.Epoch == 2 {
				t.Error("a decided transaction was prepared again")
			}
		}
	})
}

// R13: a new term goes on although no client comes back, and with what is left of the
// transaction's time.
func TestNewTermNeedsNoClient(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		willing, late := r.id(), r.id()
		for _, id := range []txn.TxID{willing, late} {
			r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Hold: make(chan struct{})})
			r.submit(background, transfer(id, "a", "b"))
		}
		time.Sleep(6 * time.Second) // of 10
		r.depose()
		r.fakes["b"].Script(prepareOp, late, participanttest.Answer{Hold: make(chan struct{})})
		r.lead()
		time.Sleep(3 * time.Second)
		if tx := r.stored(willing); tx.State != txn.Committed {
			t.Errorf("the new term left it %s", tx.State)
		}
		if tx := r.stored(late); tx.State != txn.Preparing {
			t.Errorf("within its time it is %s", tx.State)
		}
		time.Sleep(2 * time.Second)
		if tx := r.stored(late); tx.State != txn.Aborted || tx.Reason.Code != txn.ReasonTimeout {
			t.Errorf("past its time it is %s: %s", tx.State, tx.Reason)
		}
	})
}

// R3, R8: whatever a participant is told carries the epoch of the term that tells it,
// orphans' end included, so that its fence can refuse the terms before.
func TestMessagesCarryTheirEpoch(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.depose()
		r.lead()
		r.fakes["a"].Stage(r.branch(r.id(), 1)) // nobody drives it
		res, err := r.run(background, transfer(r.id(), "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(2 * time.Minute) // past a scan
		told := map[participanttest.Op]int{}
		for _, f := range r.fakes {
			for _, c := range f.Calls() {
				if c.Op == participanttest.Recover {
					continue
				}
				told[c.Op]++
				if c.Branch.Epoch != 2 {
					t.Errorf("in epoch 2 a branch was told to %s in epoch %d", c.Op, c.Branch.Epoch)
				}
			}
		}
		if told[prepareOp] != 2 || told[commitOp] != 2 || told[abortOp] != 1 {
			t.Errorf("told %v", told)
		}
	})
}

// R3: after its term a coordinator refuses, and nothing of the term is left.
func TestNotLeading(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.depose()
		id := r.id()
		if _, err := r.run(background, transfer(id, "a")); !errors.Is(err, ErrNotLeader) {
			t.Errorf("submit: %v", err)
		}
		if _, err := r.c.Inquire(background, id); !errors.Is(err, ErrNotLeader) {
			t.Errorf("inquire: %v", err)
		}
		if r.c.Leads() {
			t.Error("leads")
		}
		r.lead()
	})
}

// R5: a definite refusal of staging is told as such: nothing was written, ask the
// leader.
func TestStagingOnADeposedLeader(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.withFate(func(txn.Command) fate { return fate{lost: true, err: ErrNotLeader} })
		_, err := r.run(background, transfer(id, "a"))
		if !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		if _, err := r.c.Begin(background, r.id(), 0); !errors.Is(err, ErrNotLeader) {
			t.Errorf("begin: %v", err)
		}
		if got := r.driven(); got != 0 {
			t.Errorf("%d transactions still driven", got)
		}
	})
}

// R5: a client that goes away is told nothing definite, and leaves its transaction to run on.
func TestClientGoesAway(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		release := make(chan struct{})
		r.fakes["a"].Script(prepareOp, id, participanttest.Answer{Hold: release})
		ctx, cancel := context.WithCancel(background)
		w := r.submit(ctx, transfer(id, "a", "b"))
		synctest.Wait()
		cancel()
		if !w.answered() || !errors.Is(w.err, ErrOutcomeUnknown) {
			t.Fatalf("answered %v", w.err)
		}
		close(release)
		time.Sleep(time.Second)
		if tx := r.stored(id); tx.State != txn.Committed {
			t.Errorf("ended %s", tx.State)
		}
	})
}

// R13: an interactive transaction survives its leader while it is Active, with
// what is left of its time.
func TestInteractiveSurvivesItsLeader(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		kept, idle := r.id(), r.id()
		for _, id := range []txn.TxID{kept, idle} {
			if _, err := r.c.Begin(background, id, time.Minute); err != nil {
				t.Fatal(err)
			}
			if _, err := r.c.Enlist(background, id, txn.NewBranch("a", nil)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Second)
		r.depose()
		r.lead()
		if _, err := r.c.Enlist(background, kept, txn.NewBranch("b", nil)); err != nil {
			t.Fatal(err)
		}
		res, err := r.c.Commit(background, kept, nil, WaitDelivery)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(15 * time.Second)
		if tx := r.stored(idle); tx.State != txn.Aborted {
			t.Errorf("the idle one is %s past its time", tx.State)
		}
	})
}
