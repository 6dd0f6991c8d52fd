package coordinator

// That the term's books come out even and stay within their bounds, and that nothing
// turns in circles, however a transaction or the term ends.

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants/participanttest"
)

// wantEmptyBooks checks that the term holds nothing for transactions that are over.
func (r *rig) wantEmptyBooks() {
	r.t.Helper()
	synctest.Wait()
	t := r.c.current()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.live) != 0 || t.bytes != 0 || t.asked != 0 || len(t.receipts) != 0 || len(t.stopped) != 0 {
		r.t.Errorf("the books hold %d transactions, %d bytes, %d commands, %d receipts, %d stopped",
			len(t.live), t.bytes, t.asked, len(t.receipts), len(t.stopped))
	}
	for name, l := range t.lanes {
		if l.open.Len() != 0 || l.preparing != 0 || l.delivering != 0 {
			r.t.Errorf("the lane of %s holds %d transactions, %d prepares, %d deliveries", name, l.open.Len(), l.preparing, l.delivering)
		}
	}
}

// An abort of an unknown txid is applied before a staging that had no prepare leave:
// the submission ends at once, and no quota is lost.
func TestTombstoneBeforeStagingWithoutPrepares(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.fakes["a"].Mute(true)
		r.log.latency = time.Second
		id := r.id()
		aborted := make(chan struct{})
		go func() {
			defer close(aborted)
			if _, err := r.c.Abort(background, id, "", WaitDelivery); err != nil {
				t.Errorf("abort: %v", err)
			}
		}()
		synctest.Wait()
		w := r.submit(background, transfer(id, "a", "b"))
		time.Sleep(time.Minute)
		if !w.answered() {
			t.Fatal("the submission is not answered")
		}
		r.mustDecide(w.result, w.err, txn.Abort)
		if !w.result.Delivered {
			t.Error("nothing was prepared, and yet something is to be delivered")
		}
		<-aborted
		r.wantCalls("a", id)
		r.wantEmptyBooks()
	})
}

// A begin that is refused by the state machine, because its id expired on the way,
// ends there: no branch has prepared, and nothing is owed.
func TestBeginRefused(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		decides := 0
		r.log.withFate(func(c txn.Command) fate {
			if _, ok := c.(txn.Decide); ok {
				decides++
			}
			return fate{lost: true, err: txn.ErrExpired}
		})
		if _, err := r.c.Begin(background, r.id(), time.Minute); !errors.Is(err, txn.ErrExpired) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Minute)
		if decides != 0 {
			t.Errorf("%d decisions proposed", decides)
		}
		r.wantEmptyBooks()
	})
}

// R5: where staging a begin has failed, the client's next attempt begins it.
func TestUnknownBeginCanBeRepeated(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		struck := false
		r.log.withFate(func(c txn.Command) fate {
			if _, ok := c.(txn.Stage); ok && !struck {
				struck = true
				return fate{lost: true, err: ErrOutcomeUnknown}
			}
			return fate{}
		})
		if _, err := r.c.Begin(background, id, time.Minute); !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Second)
		if tx, err := r.c.Begin(background, id, time.Minute); err != nil || tx.State != txn.Active {
			t.Errorf("begun again: %v, %v", tx, err)
		}
	})
}

// A log that refuses a decision over and over is not asked without pause.
func TestRefusedDecisionIsPaced(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		decides := 0
		r.log.withFate(func(c txn.Command) fate {
			if _, ok := c.(txn.Decide); ok {
				decides++
				return fate{lost: true, err: errors.New("refused")}
			}
			return fate{}
		})
		if _, err := r.run(background, transfer(r.id(), "a", "b")); !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if most := 10 * 60; decides < 2 || decides > most {
			t.Errorf("%d decisions proposed in ten minutes, want some and at most %d", decides, most)
		}
		r.log.withFate(nil)
		time.Sleep(time.Minute)
		r.wantEmptyBooks()
	})
}

// R5: a transaction that is stopped proposes nothing more, receipts that came
// meanwhile included. The transaction ends all the same.
func TestStoppedTransactionLogsNoReceipts(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		release := make(chan struct{})
		r.fakes["b"].Script(commitOp, id, participanttest.Answer{Hold: release})
		acknowledgements := 0
		r.log.withFate(func(c txn.Command) fate {
			if _, ok := c.(txn.Acknowledge); !ok {
				return fate{}
			}
			acknowledgements++
			return fate{lost: true, err: ErrOutcomeUnknown}
		})
		r.log.barrier = func() error { return errors.New("no barrier yet") }
		s := transfer(id, "a", "b")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)

		r.log.mu.Lock()
		r.log.latency = 10 * time.Millisecond
		r.log.mu.Unlock()
		// a's receipt is logged alone after a while; b's comes while that is on its way.
		for r.asked(func(t *term) bool { return len(t.receipts) > 0 }) {
			time.Sleep(time.Millisecond)
		}
		close(release)
		time.Sleep(time.Minute)
		synctest.Wait()
		if acknowledgements != 1 {
			t.Errorf("%d acknowledgements proposed, want the first alone", acknowledgements)
		}
		r.log.withFate(nil)
		r.log.mu.Lock()
		r.log.barrier = nil
		r.log.mu.Unlock()
		time.Sleep(time.Minute)
		if tx := r.stored(id); tx.State != txn.Committed {
			t.Errorf("ended %s", tx.State)
		}
		r.wantEmptyBooks()
	})
}

// asked puts a question to the term.
func (r *rig) asked(question func(*term) bool) bool {
	synctest.Wait()
	t := r.c.current()
	t.mu.Lock()
	defer t.mu.Unlock()
	return question(t)
}

// R14: payloads of enlisted branches count against the bound too, from the moment
// in which they are on their way.
func TestEnlistedPayloadsAreBounded(t *testing.T) {
	run(t, Config{MaxUndecidedBytes: 1000}, func(r *rig) {
		one, two := r.id(), r.id()
		for _, id := range []txn.TxID{one, two} {
			if _, err := r.c.Begin(background, id, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		big := make([]byte, 600)
		r.log.latency = time.Second
		done := make(chan error, 1)
		go func() {
			_, err := r.c.Enlist(background, one, txn.NewBranch("a", big))
			done <- err
		}()
		synctest.Wait()
		var busy *BusyError
		if _, err := r.c.Enlist(background, two, txn.NewBranch("a", big)); !errors.As(err, &busy) {
			t.Errorf("while the other is on its way: %v", err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Enlist(background, two, txn.NewBranch("a", big)); !errors.As(err, &busy) {
			t.Errorf("while the other is undecided: %v", err)
		}
		if _, err := r.c.Abort(background, one, "", WaitDelivery); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Enlist(background, two, txn.NewBranch("a", big)); err != nil {
			t.Errorf("after the other's end: %v", err)
		}
		time.Sleep(2 * time.Minute) // two runs out of time
		r.wantEmptyBooks()
	})
}

// An abort of what was refused for its size carries no payloads, or it would be
// refused as well.
func TestRefusedStagingIsAbortedWithoutPayloads(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.withFate(func(c txn.Command) fate {
			switch c := c.(type) {
			case txn.Stage:
				return fate{lost: true, err: ErrTooLarge}
			case txn.Decide:
				if payloadBytes(c.Branches) > 0 {
					t.Error("the abort carries payloads")
				}
			}
			return fate{}
		})
		if _, err := r.run(background, transfer(id, "a", "b")); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Minute)
		if tx := r.stored(id); tx == nil || tx.State != txn.Aborted {
			t.Errorf("the log has %+v", tx)
		}
		r.wantEmptyBooks()
	})
}

// R3: an enlisting that meets the end of the term leaves its books alone.
func TestEnlistAfterTheTerm(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		if _, err := r.c.Begin(background, id, time.Minute); err != nil {
			t.Fatal(err)
		}
		old := r.c.current()
		d, _, err := old.findFor(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		r.depose()
		lanes := len(old.lanes)
		r.register("d", 1)
		if _, err := old.enlist(background, d, txn.NewBranch("d", nil)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("enlist: %v", err)
		}
		if len(old.lanes) != lanes {
			t.Error("the ended term has another lane")
		}
		r.log.mu.Lock()
		delete(r.log.participants, "d")
		r.log.mu.Unlock()
		r.lead()
	})
}

// R4: whether a participant can list what it holds prepared is asked once more when
// the prepare leaves: the registration may have changed while it was queued.
func TestQueuedPrepareWaitsForStagingWhereItMust(t *testing.T) {
	run(t, Config{PreparesInFlight: 1}, func(r *rig) {
		r.log.latency = time.Second
		first, second := r.id(), r.id()
		release := make(chan struct{})
		r.fakes["a"].Script(prepareOp, first, participanttest.Answer{Hold: release})
		one := r.submit(background, transfer(first, "a"))
		time.Sleep(5 * time.Second)
		two := r.submit(background, transfer(second, "a"))
		synctest.Wait()
		r.fakes["a"].Mute(true) // and now it is one that cannot list
		close(release)
		synctest.Wait()
		if tx := r.stored(second); tx != nil {
			t.Fatal("staged already: this test proves nothing")
		}
		r.wantCalls("a", second)
		<-one.done
		<-two.done
		r.mustDecide(two.result, two.err, txn.Commit)
	})
}

// R14: commands of callers that have gone are bounded while the log stalls.
func TestCallersComeAndGo(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.log.latency = time.Hour
		gone, cancel := context.WithCancel(background)
		cancel()
		term := r.c.current()
		id := r.id()
		for i := range maxAsked {
			if _, err := term.propose(gone, txn.Presume{ID: id}); !errors.Is(err, ErrOutcomeUnknown) {
				t.Fatalf("command %d: %v", i+1, err)
			}
		}
		var busy *BusyError
		if _, err := term.propose(gone, txn.Presume{ID: id}); !errors.As(err, &busy) {
			t.Errorf("past the bound: %v", err)
		}
		time.Sleep(3 * time.Hour)
		r.wantEmptyBooks()
	})
}
