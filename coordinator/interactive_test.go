package coordinator

// Transactions that a client builds up step by step, asks about, or takes back
// (R6).

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// R1 and R11: each step repeated gives the same answer, and the decision stands.
func TestInteractive(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		tx, err := r.c.Begin(background, id, time.Minute)
		if err != nil || tx.State != txn.Active {
			t.Fatalf("begin: %v %v", tx, err)
		}
		if _, err := r.c.Begin(background, id, time.Minute); err != nil {
			t.Errorf("begin again: %v", err)
		}
		for range 2 {
			if tx, err = r.c.Enlist(background, id, txn.NewBranch("a", []byte("x"))); err != nil || tx.Branch("a") != 1 {
				t.Fatalf("enlist: %v %v", tx, err)
			}
		}
		if _, err = r.c.Enlist(background, id, txn.NewBranch("a", []byte("y"))); !errors.Is(err, txn.ErrDuplicateBranch) {
			t.Errorf("enlist other content: %v", err)
		}
		external := txn.NewBranch("b", nil)
		external.External = true
		if _, err = r.c.Enlist(background, id, external); err != nil {
			t.Fatal(err)
		}
		staged := r.branch(id, 2)
		staged.Epoch = r.epoch
		r.fakes["b"].Stage(staged)
		res, err := r.c.Commit(background, id, []txn.BranchVote{{Branch: 2, Vote: txn.VoteCommit}}, WaitDelivery)
		r.mustDecide(res, err, txn.Commit)
		r.wantCalls("a", id, prepareOp, commitOp)
		r.wantCalls("b", id, commitOp)

		res, err = r.c.Commit(background, id, nil, WaitDelivery)
		r.mustDecide(res, err, txn.Commit)
		if _, err = r.c.Enlist(background, id, txn.NewBranch("c", nil)); !errors.Is(err, txn.ErrSealed) {
			t.Errorf("enlist after commit: %v", err)
		}
		if _, err = r.c.Begin(background, id, time.Minute); !errors.Is(err, ErrCommitted) {
			t.Errorf("begin after commit: %v", err)
		}
		if _, err = r.c.Abort(background, id, "", WaitDelivery); !errors.Is(err, ErrCommitted) {
			t.Errorf("abort after commit: %v", err)
		}
	})
}

// R1: an abort, the client's or that of time, stands against a later commit.
func TestInteractiveEnds(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		empty := r.id()
		if _, err := r.c.Begin(background, empty, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Commit(background, empty, nil, WaitDelivery); !errors.Is(err, txn.ErrEmpty) {
			t.Errorf("commit of nothing: %v", err)
		}
		res, err := r.c.Abort(background, empty, "changed my mind", WaitDelivery)
		r.mustDecide(res, err, txn.Abort)
		if _, err := r.c.Commit(background, empty, nil, WaitDelivery); !errors.Is(err, ErrAborted) {
			t.Errorf("commit after abort: %v", err)
		}
		if _, err := r.c.Begin(background, empty, time.Minute); !errors.Is(err, ErrAborted) {
			t.Errorf("begin after abort: %v", err)
		}

		idle := r.id()
		if _, err := r.c.Begin(background, idle, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Enlist(background, idle, txn.NewBranch("a", nil)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if tx := r.stored(idle); tx.State != txn.Aborted || tx.Reason.Code != txn.ReasonTimeout {
			t.Errorf("an idle transaction is %s, %s", tx.State, tx.Reason)
		}
		r.wantCalls("a", idle, abortOp)
		if _, err := r.c.Commit(background, r.id(), nil, WaitDelivery); !errors.Is(err, txn.ErrUnknown) {
			t.Errorf("commit of what never began: %v", err)
		}
	})
}

// R6: an inquiry about an unknown txid writes its abort first; a submission that
// comes later is answered with it. An inquiry about a live one changes nothing.
func TestInquiry(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		res, err := r.c.Inquire(background, id)
		r.mustDecide(res, err, txn.Abort)
		if tx, ok := r.log.Transaction(id); !ok || tx.State != txn.Aborted {
			t.Error("answered abort without writing it")
		}
		res, err = r.run(background, transfer(id, "a"))
		r.mustDecide(res, err, txn.Abort)
		r.wantCalls("a", id)

		live := r.id()
		release := make(chan struct{})
		r.fakes["a"].Script(prepareOp, live, participanttest.Answer{Hold: release})
		w := r.submit(background, transfer(live, "a"))
		synctest.Wait()
		res, err = r.c.Inquire(background, live)
		r.mustDecide(res, err, txn.Undecided)
		close(release)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)
	})
}

// R1 and R6: a client's abort that overtakes everything leaves a tombstone; one that comes
// while votes are out aborts what is live.
func TestClientAbort(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		first := r.id()
		res, err := r.c.Abort(background, first, "never mind", WaitDelivery)
		r.mustDecide(res, err, txn.Abort)
		res, err = r.run(background, transfer(first, "a"))
		r.mustDecide(res, err, txn.Abort)

		second := r.id()
		r.fakes["a"].Script(prepareOp, second, participanttest.Answer{Hold: make(chan struct{})})
		w := r.submit(background, transfer(second, "a", "b"))
		synctest.Wait()
		res, err = r.c.Abort(background, second, "too slow", WaitDelivery)
		r.mustDecide(res, err, txn.Abort)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Abort)
	})
}

// R4: an abort that was proposed for an unknown txid while its staging was on the way
// must still reach the branches.
func TestAbortMeetsStagingInTheLog(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.latency = time.Second
		aborted := make(chan struct{})
		go func() {
			defer close(aborted)
			if _, err := r.c.Abort(background, id, "", WaitDelivery); err != nil {
				t.Errorf("abort: %v", err)
			}
		}()
		synctest.Wait()
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		<-aborted
		time.Sleep(time.Minute)
		for name, n := range map[string]int{"a": 1, "b": 2} {
			if s := r.fakes[name].State(r.branch(id, n)); s != participants.StatusAborted {
				t.Errorf("%s holds the branch as %s", name, s)
			}
		}
	})
}
