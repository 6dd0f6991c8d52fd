package coordinator

// One story for each way in which a small slip in this package would break a rule
// of the design and nothing else would notice: the other defences hide it. Each of
// these was seen to fail with that slip made.

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

var errBarred = errors.New("no barrier")

// bar makes barriers fail, as they do on a leader that has been replaced.
func (r *rig) bar(failing bool) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.barrier = nil
	if failing {
		r.log.barrier = func() error { return errBarred }
	}
}

// strike gives the first command of a type a fate.
func (r *rig) strike(is func(txn.Command) bool, f fate) {
	struck := false
	r.log.withFate(func(c txn.Command) fate {
		if struck || !is(c) {
			return fate{}
		}
		struck = true
		return f
	})
}

func isA[C txn.Command](c txn.Command) bool {
	_, ok := c.(C)
	return ok
}

// R1: another decision stands in the log already when the driver's own is
// applied. The client and the participants hear the first, and that only.
func TestAnotherDecisionWasFirst(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.withFate(func(c txn.Command) fate { // called with the log's lock held
			if d, ok := c.(txn.Decide); ok && d.Decision == txn.Commit {
				abort := txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonTimeout}}
				at := txn.At{Cluster: r.log.cluster, Index: r.log.index + 1}
				next, _, err := txn.Step(at, r.log.state[id], abort)
				if err != nil {
					t.Error(err)
				}
				r.log.state[id] = next
			}
			return fate{}
		})
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		r.wantCalls("a", id, prepareOp, abortOp)
		r.wantCalls("b", id, prepareOp, abortOp)
	})
}

// R2: an abort, whoever wants it, is told to nobody before its entry is applied: a
// leader that comes back could otherwise commit what a participant has given up.
func TestNoAbortBeforeItsEntryIsApplied(t *testing.T) {
	slow := func(r *rig) { // decisions take an hour of virtual time from now on
		r.log.mu.Lock()
		defer r.log.mu.Unlock()
		r.log.latency = time.Hour
	}
	for name, want := range map[string]func(r *rig, id txn.TxID){
		"a no": func(r *rig, id txn.TxID) {},
		"a timeout": func(r *rig, id txn.TxID) {
			time.Sleep(11 * time.Second) // past the transaction's ten
		},
		"the client": func(r *rig, id txn.TxID) {
			ctx, cancel := context.WithTimeout(background, time.Second)
			defer cancel()
			if _, err := r.c.Abort(ctx, id, "too slow", WaitDelivery); !errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("the abort was answered with %v before it was applied", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Config{PrepareTimeout: time.Hour}, func(r *rig) {
				id := r.id()
				vote := make(chan struct{})
				r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Hold: vote, Vote: participants.No("no")})
				w := r.submit(background, transfer(id, "a", "b"))
				time.Sleep(time.Second)
				slow(r)
				if name == "a no" {
					close(vote)
				}
				want(r, id)
				time.Sleep(time.Minute)
				if w.answered() {
					t.Errorf("answered %+v, %v before the abort was applied", w.result, w.err)
				}
				r.wantCalls("a", id, prepareOp)
				r.wantCalls("b", id, prepareOp)
				<-w.done
				r.mustDecide(w.result, w.err, txn.Abort)
				r.wantCalls("a", id, prepareOp, abortOp)
			})
		})
	}
}

// R2 and R6: the abort of a txid that the log does not know is answered once its
// tombstone is applied.
func TestAbortOfTheUnknownIsAnsweredOnceItIsApplied(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.log.latency = time.Hour
		id := r.id()
		ctx, cancel := context.WithTimeout(background, time.Minute)
		defer cancel()
		if _, err := r.c.Abort(ctx, id, "never mind", WaitDelivery); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("answered %v before the tombstone was applied", err)
		}
		res, err := r.c.Abort(background, id, "never mind", WaitDelivery)
		r.mustDecide(res, err, txn.Abort)
		if tx, ok := r.log.Transaction(id); !ok || tx.Decision() != txn.Abort {
			t.Error("answered abort without a tombstone")
		}
	})
}

// R3: a leader that has been replaced and has not noticed. Whatever it still
// proposes and sends carries its own epoch, though it has applied the entry of its
// successor's: the log refuses the one, the participants the other.
func TestDeposedLeaderKeepsItsOwnEpoch(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		preparing, committing := r.id(), r.id()
		vote := make(chan struct{})
		r.fakes["b"].Script(prepareOp, preparing, participanttest.Answer{Hold: vote})
		r.fakes["b"].Script(commitOp, committing, participanttest.Answer{Fate: participanttest.Dropped, Stay: true})
		undecided := r.submit(background, transfer(preparing, "a", "b"))
		s := transfer(committing, "b")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)

		time.Sleep(10 * r.log.latency) // the other one is staged by now too
		before := len(r.fakes["b"].Calls())
		r.bar(true)
		r.log.lead(r.epoch + 1)
		close(vote)
		<-undecided.done
		if !errors.Is(undecided.err, ErrOutcomeUnknown) {
			t.Errorf("the client was told %v", undecided.err)
		}
		time.Sleep(time.Minute)
		if tx := r.stored(preparing); tx.State != txn.Preparing {
			t.Errorf("the deposed leader's decision made it %s", tx.State)
		}
		r.wantCalls("a", preparing, prepareOp)
		after := r.fakes["b"].Calls()[before:]
		if len(after) == 0 {
			t.Error("no retry since: this test proves nothing")
		}
		for _, c := range after {
			if c.Op == commitOp && c.Branch.Epoch != r.epoch {
				t.Errorf("%s carries the successor's epoch", c)
			}
		}
		r.epoch++ // the rig's next term is the one after it
	})
}

// R3: a term has ended only when its last goroutine has, even one that is inside a
// call which is deaf to its context.
func TestTermWaitsForWhatIsDeaf(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		entered, release := make(chan struct{}), make(chan struct{})
		r.log.mu.Lock()
		r.log.barrier = func() error {
			close(entered)
			<-release
			return errBarred
		}
		r.log.mu.Unlock()
		orphan := r.branch(r.id(), 1)
		orphan.Epoch = r.epoch
		r.fakes["a"].Stage(orphan)
		select {
		case <-entered: // by the scan
		case <-time.After(time.Hour):
			r.t.Fatal("no scan passed a barrier: this test proves nothing")
		}
		r.cancel()
		synctest.Wait()
		if isClosed(r.ended) {
			t.Error("the term ended while its scan was under way")
		}
		close(release)
		<-r.ended
		r.bar(false)
		r.lead()
	})
}

// R5, of staging that was applied although its answer was lost: until a barrier
// has told what became of it, nothing more is proposed and nobody is called, not
// even for the prepare that was still waiting in its lane. Then it goes on.
func TestUnknownStagingStopsTheDriver(t *testing.T) {
	run(t, Config{PreparesInFlight: 1, ScanInterval: 24 * time.Hour}, func(r *rig) {
		first, id := r.id(), r.id()
		vote := make(chan struct{})
		r.fakes["b"].Script(prepareOp, first, participanttest.Answer{Hold: vote})
		w := r.submit(background, transfer(first, "b")) // fills the lane of b
		time.Sleep(time.Second)
		r.bar(true)
		r.strike(isA[txn.Stage], fate{err: ErrOutcomeUnknown})
		s := transfer(id, "a", "b")
		s.Timeout = time.Hour
		if _, err := r.run(background, s); !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		close(vote)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)
		decided := r.written("txn.Decide")
		time.Sleep(time.Minute)
		r.wantCalls("a", id, prepareOp)
		r.wantCalls("b", id)
		if got := r.written("txn.Decide"); got != decided {
			t.Errorf("%d decisions were proposed before the barrier", got-decided)
		}

		r.bar(false)
		time.Sleep(time.Minute)
		if tx := r.stored(id); tx.State != txn.Committed {
			t.Errorf("ended %s behind the barrier", tx.State)
		}
	})
}

// R5, of the seal of an interactive transaction: a leader that still leads goes on
// behind a barrier from what is applied, and needs nobody to ask again.
func TestUnknownSealGoesOnBehindABarrier(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		if _, err := r.c.Begin(background, id, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Enlist(background, id, txn.NewBranch("a", nil)); err != nil {
			t.Fatal(err)
		}
		r.strike(isA[txn.Prepare], fate{err: ErrOutcomeUnknown})
		if _, err := r.c.Commit(background, id, nil, WaitDelivery); !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Minute)
		if tx := r.stored(id); tx.State != txn.Committed {
			t.Errorf("%s, a minute after the seal was applied", tx.State)
		}
	})
}

// R5 and R10, of receipts: an entry whose fate is not known, or that is lost, is
// not what ends a transaction.
func TestUnknownReceiptsAreLoggedInTheEnd(t *testing.T) {
	for name, lost := range map[string]bool{"applied": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			run(t, Config{}, func(r *rig) {
				id := r.id()
				r.strike(isA[txn.Acknowledge], fate{lost: lost, err: ErrOutcomeUnknown})
				res, err := r.run(background, transfer(id, "a", "b"))
				r.mustDecide(res, err, txn.Commit)
				time.Sleep(time.Minute)
				if tx := r.stored(id); tx.State != txn.Committed {
					t.Errorf("the log says %s", tx.State)
				}
				if got := r.driven(); got != 0 {
					t.Errorf("%d transactions still driven", got)
				}
			})
		})
	}
}

// R5: the leadership ends while a call's entry is on its way, which may yet be
// applied. None of the calls is told that nothing happened.
func TestTermEndsWhileCallsAreInTheLog(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		open, fresh, unheardOf, undecided := r.id(), r.id(), r.id(), r.id()
		if _, err := r.c.Begin(background, open, time.Hour); err != nil {
			t.Fatal(err)
		}
		r.fakes["a"].Script(prepareOp, undecided, participanttest.Answer{Hold: make(chan struct{})}) // else the decision could share the first entry
		r.log.latency = time.Hour
		type call struct {
			name   string
			make   func() error
			answer chan error
		}
		calls := []*call{ // the first has the log to itself, the others wait for their turn
			{name: "submit", make: func() error { _, err := r.run(background, transfer(undecided, "a")); return err }},
			{name: "begin", make: func() error { _, err := r.c.Begin(background, fresh, 0); return err }},
			{name: "enlist", make: func() error { _, err := r.c.Enlist(background, open, txn.NewBranch("a", nil)); return err }},
			{name: "abort", make: func() error { _, err := r.c.Abort(background, unheardOf, "", WaitDelivery); return err }},
			{name: "inquire", make: func() error { _, err := r.c.Inquire(background, unheardOf); return err }},
		}
		for _, c := range calls {
			c.answer = make(chan error, 1)
			go func() { c.answer <- c.make() }()
			time.Sleep(2 * stagingHold) // an entry has left
			synctest.Wait()
		}
		time.Sleep(time.Hour + time.Minute) // past the barrier of the inquiry
		r.depose()
		for _, c := range calls {
			if err := <-c.answer; !errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrNotLeader) {
				t.Errorf("%s was told %v, want that the outcome is unknown", c.name, err)
			}
		}
		r.lead()
	})
}

// R6: an inquiry is answered behind a barrier: what a replaced leader has applied
// says nothing of what was decided since.
func TestInquiryNeedsABarrier(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		live, unknown := r.id(), r.id()
		vote := make(chan struct{})
		r.fakes["a"].Script(prepareOp, live, participanttest.Answer{Hold: vote})
		w := r.submit(background, transfer(live, "a"))
		synctest.Wait()
		r.bar(true)
		for _, id := range []txn.TxID{live, unknown} {
			if res, err := r.c.Inquire(background, id); !errors.Is(err, errBarred) {
				t.Errorf("without a barrier: %+v, %v", res, err)
			}
		}
		if _, known := r.log.Transaction(unknown); known {
			t.Error("a tombstone was written without a barrier")
		}
		r.bar(false)
		close(vote)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)
	})
}

// R6: the scan acts behind a barrier, and only on what the participant still lists
// after it.
func TestScanActsOnWhatBothListsHold(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		ended, orphan := r.id(), r.id()
		stray := func(id txn.TxID) participants.Branch {
			b := r.branch(id, 1)
			b.Epoch = r.epoch
			r.fakes["a"].Stage(b)
			return b
		}
		gone := stray(ended)
		stray(orphan)
		r.bar(true)
		time.Sleep(2 * r.c.cfg.ScanInterval)
		r.wantCalls("a", orphan)
		if got := r.written("txn.Presume"); got != 0 {
			t.Errorf("%d aborts were presumed without a barrier", got)
		}

		r.log.mu.Lock()
		r.log.barrier = func() error { // between the two lists
			r.fakes["a"].Lose(gone)
			return nil
		}
		r.log.mu.Unlock()
		time.Sleep(2 * r.c.cfg.ScanInterval)
		r.wantCalls("a", ended)
		if tx := r.stored(ended); tx != nil {
			t.Errorf("an abort was presumed of a branch that had ended: %s", tx.State)
		}
		r.wantCalls("a", orphan, abortOp)
	})
}

// R6: what this term drives is no orphan, however long its vote takes and whether
// or not its staging is applied yet.
func TestScanLeavesLiveTransactionsAlone(t *testing.T) {
	run(t, Config{PrepareTimeout: time.Hour}, func(r *rig) {
		id := r.id()
		vote := make(chan struct{})
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Hold: vote})
		r.log.latency = 2 * r.c.cfg.ScanInterval // of staging
		s := transfer(id, "a", "b")
		s.Timeout = time.Hour
		w := r.submit(background, s)
		time.Sleep(10 * r.c.cfg.ScanInterval)
		if scans := r.fakes["a"].Count(participanttest.Recover, participanttest.AnyTx); scans < 3 {
			t.Errorf("%d scans: this test proves nothing", scans)
		}
		if got := r.written("txn.Presume"); got != 0 {
			t.Errorf("%d aborts were presumed of a live transaction", got)
		}
		r.wantCalls("a", id, prepareOp)
		close(vote)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)
	})
}

// R1 and R6: an orphan of a transaction that is known hears its decision: the
// branch that belongs to a committed one is committed. Another one, which a
// refused content has left behind at the same participant, is aborted.
func TestOrphansOfACommittedTransaction(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Second)
		own, other := r.branch(id, 1), r.branch(id, 3)
		own.Epoch, other.Epoch = r.epoch, r.epoch
		r.fakes["a"].Lose(own) // by hand, and its prepare came once more
		r.fakes["a"].Stage(own)
		r.fakes["a"].Stage(other)
		time.Sleep(2 * r.c.cfg.ScanInterval)
		if s := r.fakes["a"].State(own); s != participants.StatusCommitted {
			t.Errorf("its own branch is %s", s)
		}
		if s := r.fakes["a"].State(other); s != participants.StatusAborted {
			t.Errorf("the other content's branch is %s", s)
		}
	})
}

// R4 and R8: a first submission prepared and was never staged. The same txid then
// comes with other content, which the log cannot know: the digest that travels with
// each prepare lets the participant refuse it.
func TestOtherContentWasLeftPrepared(t *testing.T) {
	run(t, Config{ScanInterval: 24 * time.Hour}, func(r *rig) {
		id := r.id()
		r.strike(isA[txn.Stage], fate{lost: true, err: ErrNotLeader})
		w := r.submit(background, transfer(id, "a", "b"))
		<-w.done
		if !errors.Is(w.err, ErrNotLeader) {
			t.Fatalf("got %v", w.err)
		}
		if s := r.fakes["a"].State(r.branch(id, 1)); s != participants.StatusPrepared {
			t.Fatalf("a holds the branch as %s: this test proves nothing", s)
		}
		other := transfer(id, "a")
		other.Branches[0] = txn.NewBranch("a", []byte("other work"))
		for _, c := range r.fakes["a"].Calls() {
			if c.Op == prepareOp && c.Branch.Digest != txn.NewBranch("a", c.Branch.Payload).Digest {
				t.Error("a prepare left without its digest")
			}
		}
		res, err := r.run(background, other)
		r.mustDecide(res, err, txn.Abort)
		if n := r.fakes["a"].Effects(r.branch(id, 1)); n != 0 {
			t.Error("the first content took effect under the second's name")
		}
	})
}
