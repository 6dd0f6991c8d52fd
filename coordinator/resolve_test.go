package coordinator

// What an operator's word does: nothing is delivered to a resolved branch any more, by this
// leader or the next; those who wait for delivery are told; and a participant that comes
// back holding the branch is told the decision, unless the word was against it.

import (
	"errors"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// stuckAtB runs a transaction whose commit b never acknowledges.
func stuckAtB(r *rig) (id txn.TxID, waiting *submission) {
	id = r.id()
	r.fakes["b"].Script(commitOp, id, participanttest.Answer{Fate: participanttest.Dropped, Err: errors.New("connection refused"), Stay: true})
	waiting = r.submit(background, transfer(id, "a", "b"))
	time.Sleep(3 * time.Second) // some attempts, and the receipt of a
	return id, waiting
}

// R10: only the word ends the delivery.
func TestResolvedBranchIsLeftAlone(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.fakes["b"].Mute(true) // or the orphan scan would tell it the decision
		id, waiting := stuckAtB(r)
		if waiting.answered() {
			t.Fatal("delivered, and b never answered")
		}
		if _, err := r.c.Resolve(background, txn.Resolve{ID: r.id(), Branch: 1, As: txn.Commit}); !errors.Is(err, txn.ErrUnknown) {
			t.Error(err)
		}
		tx, err := r.c.Resolve(background, txn.Resolve{ID: id, Branch: 2, As: txn.Commit})
		if err != nil || tx.State != txn.Committed || tx.Damage() != txn.ReceiptNone {
			t.Fatalf("%+v, %v", tx, err)
		}
		time.Sleep(time.Second)
		if !waiting.answered() {
			t.Error("the client still waits for b")
		}
		if n := r.driven(); n != 0 {
			t.Errorf("%d transactions are driven on", n)
		}
		tries := r.fakes["b"].Count(commitOp, id)
		r.depose()
		r.lead()
		time.Sleep(10 * time.Minute)
		if n := r.fakes["b"].Count(commitOp, id); tries == 0 || n > tries+1 { // one may have been under way
			t.Errorf("%d commits sent after the word, %d before", n-tries, tries)
		}
		if _, err := r.c.Resolve(background, txn.Resolve{ID: id, Branch: 2, As: txn.Abort}); !errors.Is(err, txn.ErrResolved) {
			t.Errorf("another word: %v", err)
		}
		if _, err := r.c.Resolve(background, txn.Resolve{ID: id, Branch: 1, As: txn.Commit}); !errors.Is(err, txn.ErrSettled) {
			t.Errorf("a branch that is done: %v", err)
		}
	})
}

// A branch of a transaction that goes on elsewhere: the rest is delivered, and the resolved
// one is not told again meanwhile.
func TestResolvedBesideAnotherThatIsStuck(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		down := participanttest.Answer{Fate: participanttest.Dropped, Err: errors.New("connection refused"), Stay: true}
		r.fakes["a"].Script(commitOp, id, down)
		r.fakes["b"].Script(commitOp, id, down)
		r.submit(background, transfer(id, "a", "b"))
		time.Sleep(3 * time.Second)
		tx, err := r.c.Resolve(background, txn.Resolve{ID: id, Branch: 2, As: txn.Abort})
		if err != nil || tx.State != txn.Committing {
			t.Fatalf("%+v, %v", tx, err)
		}
		time.Sleep(time.Second)
		told, asked := r.fakes["b"].Count(commitOp, id), r.fakes["a"].Count(commitOp, id)
		time.Sleep(10 * time.Minute)
		if n := r.fakes["b"].Count(commitOp, id); n != told {
			t.Errorf("b was told %d times more", n-told)
		}
		if r.fakes["a"].Count(commitOp, id) == asked {
			t.Error("a is not tried any more")
		}
		r.fakes["a"].Unscript(commitOp, id)
		time.Sleep(10 * time.Minute)
		if tx := r.stored(id); tx.State != txn.Committed || tx.Damage() != txn.HeuristicAbort || tx.Troubled() {
			t.Errorf("%+v", tx)
		}
		r.fakes["b"].Unscript(commitOp, id)
		time.Sleep(10 * time.Minute) // it is back, and holds the branch prepared
		if s := r.fakes["b"].State(r.branch(id, 2)); s != participants.StatusPrepared {
			t.Errorf("b was told something, against an operator's word: it is %s", s)
		}
		r.fakes["b"].Abort(background, r.branch(id, 2)) // what is left to a person
	})
}

// One that comes back after all hears the decision, where the operator said the same.
func TestParticipantReturnsAfterItWasGivenUp(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id, _ := stuckAtB(r)
		if _, err := r.c.Resolve(background, txn.Resolve{ID: id, Branch: 2, As: txn.Commit}); err != nil {
			t.Fatal(err)
		}
		r.fakes["b"].Unscript(commitOp, id)
		time.Sleep(10 * time.Minute)
		if s := r.fakes["b"].State(r.branch(id, 2)); s != participants.StatusCommitted {
			t.Errorf("the branch that b held is %s", s)
		}
	})
}

// The evidence is what the participant says now.
func TestExamine(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id, _ := stuckAtB(r)
		for branch, want := range map[int]participants.Status{1: participants.StatusCommitted, 2: participants.StatusPrepared} {
			tx, found, err := r.c.Examine(background, id, branch)
			if err != nil || tx.ID != id || found.Status != want || found.Err != nil {
				t.Errorf("branch %d: %+v, %v, want %s", branch, found, err, want)
			}
		}
		if _, _, err := r.c.Examine(background, id, 3); !errors.Is(err, txn.ErrNoSuchBranch) {
			t.Error(err)
		}
		if _, _, err := r.c.Examine(background, r.id(), 1); !errors.Is(err, txn.ErrUnknown) {
			t.Error(err)
		}
		if _, err := r.c.Resolve(background, txn.Resolve{ID: id, Branch: 2, As: txn.Commit}); err != nil {
			t.Fatal(err)
		}
		r.fakes["b"].Unscript(commitOp, id)
	})
}
