package coordinator

// What is bounded, refused at the door, and kept from spreading (R10, R14).

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// R14: a participant that never answers costs no goroutine for each transaction
// that waits for it, is refused past its quota, and slows nobody else down.
func TestDeadParticipantIsBounded(t *testing.T) {
	const waiting = 2000
	cfg := Config{MaxUnfinishedPerParticipant: waiting, DefaultTimeout: time.Hour, PreparesInFlight: 32, DeliveriesInFlight: 16}
	run(t, cfg, func(r *rig) {
		down := participanttest.Answer{Hold: make(chan struct{}), Stay: true}
		r.fakes["b"].Script(commitOp, participanttest.AnyTx, down)
		before := runtime.NumGoroutine()
		for i := range waiting {
			s := transfer(idAt(time.Now(), 0), "b")
			s.ID[14], s.ID[15], s.ID[13] = byte(i), byte(i>>8), 1
			s.Wait = WaitDecision
			res, err := r.run(background, s)
			r.mustDecide(res, err, txn.Commit)
		}
		synctest.Wait()
		if grown := runtime.NumGoroutine() - before; grown > cfg.DeliveriesInFlight+8 {
			t.Errorf("%d more goroutines for %d waiting transactions", grown, waiting)
		}
		_, err := r.run(r.briefly(), transfer(r.id(), "a", "b"))
		wantBusy(t, "past the quota", err)
		start := time.Now()
		res, err := r.run(background, transfer(r.id(), "a", "c"))
		r.mustDecide(res, err, txn.Commit)
		if took := time.Since(start); took > 2*r.log.latency { // virtual: staging and decision
			t.Errorf("a transaction elsewhere took %s", took)
		}

		r.fakes["b"].Unscript(commitOp, participanttest.AnyTx)
		time.Sleep(time.Hour)
		if held := r.fakes["b"].Held(); held != 0 {
			t.Errorf("%d branches still prepared an hour after b came back", held)
		}
	})
}

// R14: a branch that alone fails does not hold up its neighbours at the same
// participant.
func TestPoisonedBranchDelaysNobody(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		poisoned := r.id()
		r.fakes["a"].Script(commitOp, poisoned, participanttest.Answer{Fate: participanttest.Dropped, Err: errors.New("disk sector"), Stay: true})
		s := transfer(poisoned, "a")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Minute)
		for range 50 {
			start := time.Now()
			res, err := r.run(background, transfer(r.id(), "a", "b"))
			r.mustDecide(res, err, txn.Commit)
			if took := time.Since(start); !res.Delivered || took > r.c.cfg.BackoffCap {
				t.Fatalf("a neighbour took %s, delivered %t", took, res.Delivered)
			}
		}
	})
}

// R4 and R14: bad input is refused before anything leaves this node, and leaves nothing
// behind.
func TestRefusals(t *testing.T) {
	run(t, Config{MaxPayload: 100, MaxTransactionBytes: 150}, func(r *rig) {
		ok := func() Submission { return transfer(r.id(), "a", "b") }
		payload := func(s Submission, i, n int) Submission {
			s.Branches[i] = txn.NewBranch(s.Branches[i].Participant, make([]byte, n))
			return s
		}
		for name, c := range map[string]struct {
			s    Submission
			want error
		}{
			"empty":               {Submission{ID: r.id()}, txn.ErrEmpty},
			"unknown participant": {transfer(r.id(), "a", "nobody"), ErrUnknownParticipant},
			"duplicate branch":    {transfer(r.id(), "a", "a"), txn.ErrDuplicateBranch},
			"payload":             {payload(ok(), 0, 101), ErrTooLarge},
			"payloads in all":     {payload(payload(ok(), 0, 90), 1, 90), ErrTooLarge},
			"malformed id":        {transfer(txn.TxID{}, "a"), txn.ErrMalformedTxID},
			"id from the future":  {transfer(idAt(time.Now().Add(6*time.Minute), 1), "a"), txn.ErrFuture},
			"negative timeout":    {Submission{ID: r.id(), Branches: ok().Branches, Timeout: -1}, ErrInvalid},
			"absurd timeout":      {Submission{ID: r.id(), Branches: ok().Branches, Timeout: 1000 * time.Hour}, ErrInvalid},
		} {
			if _, err := r.run(background, c.s); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
			if _, known := r.log.Transaction(c.s.ID); known {
				t.Errorf("%s: left a transaction behind", name)
			}
			r.wantCalls("a", c.s.ID)
		}
		if got := r.driven(); got != 0 {
			t.Errorf("%d transactions left behind", got)
		}
	})
}

// The cost that the design sets: one staging, one decision, and one receipt for
// the whole transaction.
func TestCommandsPerTransaction(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		const n = 20
		for range n {
			res, err := r.run(background, transfer(r.id(), "a", "b", "c"))
			r.mustDecide(res, err, txn.Commit)
		}
		time.Sleep(time.Second)
		for _, command := range []string{"txn.Stage", "txn.Decide", "txn.Acknowledge"} {
			if got := r.written(command); got != n {
				t.Errorf("%d commands of %s for %d transactions", got, command, n)
			}
		}
	})
}

// A changed registration is opened anew, once the calls under way are done; a
// deleted one is closed.
func TestRegistrationsChange(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		res, err := r.run(background, transfer(r.id(), "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		r.register("a", 2)
		res, err = r.run(background, transfer(r.id(), "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if got := r.revision("a"); got != 2 {
			t.Errorf("a is open at revision %d", got)
		}
		r.log.mu.Lock()
		delete(r.log.participants, "c")
		r.log.mu.Unlock()
		time.Sleep(2 * r.c.cfg.ScanInterval)
		r.c.current().mu.Lock()
		_, kept := r.c.current().lanes["c"]
		r.c.current().mu.Unlock()
		if kept {
			t.Error("a deleted participant keeps its lane")
		}
		if _, err := r.c.Check(background, "c"); !errors.Is(err, ErrUnknownParticipant) {
			t.Errorf("check of a deleted participant: %v", err)
		}
		r.fakes["b"].Stage(participants.Branch{Cluster: r.log.ClusterID(), TxID: r.id(), Number: 1, Epoch: r.epoch})
		if got, err := r.c.Check(background, "b"); err != nil || got.Prepared != 1 || !got.Recovers {
			t.Errorf("check: %+v, %v", got, err)
		}
	})
}

// R10 and R11: the horizon that a participant is told never passes a branch that
// it is owed, or it could forget the proof that it committed before the
// acknowledgement arrives. Other participants are not held back.
func TestHorizonWaitsForWhatIsOwed(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		stuck := r.id()
		lost := participanttest.Answer{Err: errors.New("answer lost"), Stay: true} // carried out, every time
		r.fakes["b"].Script(commitOp, stuck, lost)
		s := transfer(stuck, "a", "b")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Hour)
		horizon := txn.Time(time.Now().Add(-time.Minute).UnixNano())
		r.log.mu.Lock()
		r.log.cluster.Horizon = horizon
		r.log.mu.Unlock()

		res, err = r.run(background, transfer(r.id(), "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		for _, c := range r.fakes["b"].Calls() {
			if c.Branch.Horizon > stuck.Time() {
				t.Errorf("b, which is owed a branch of %s, was told the horizon %s", stuck.Time().Std(), c.Branch.Horizon.Std())
			}
		}
		var told txn.Time
		for _, c := range r.fakes["a"].Calls() {
			told = max(told, c.Branch.Horizon)
		}
		if told != horizon {
			t.Errorf("a was told the horizon %s, want %s", told.Std(), horizon.Std())
		}
		r.fakes["b"].Unscript(commitOp, stuck)
		time.Sleep(time.Minute)
		if tx := r.stored(stuck); tx.State != txn.Committed || tx.Damage() != txn.ReceiptNone {
			t.Errorf("ended %s, damage %s", tx.State, tx.Damage())
		}
	})
}

// R10 and R11: while a commit keeps failing, nobody who submits the txid is told
// that it is delivered; the decision is told in time for the client's deadline.
func TestNotDeliveredBeforeEveryBranchAcknowledged(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(commitOp, id, participanttest.Answer{Fate: participanttest.Dropped, Err: errors.New("down"), Stay: true})
		for range 3 {
			ctx, cancel := context.WithTimeout(background, 5*time.Second)
			res, err := r.run(ctx, transfer(id, "a", "b"))
			cancel()
			r.mustDecide(res, err, txn.Commit)
			if res.Delivered {
				t.Fatal("told delivered while a branch had not acknowledged")
			}
		}
		time.Sleep(time.Hour)
		if tx := r.stored(id); tx.State != txn.Committing || tx.Branches[0].Receipt != txn.Done || tx.Branches[1].Receipt != txn.ReceiptNone {
			t.Errorf("the log has %s, receipts %v %v", tx.State, tx.Branches[0].Receipt, tx.Branches[1].Receipt)
		}
		d := r.c.Deliveries(id)
		if d[1].Attempts < 100 || d[1].LastError == "" {
			t.Errorf("an hour of retries is told as %+v", d[1])
		}
		tries := r.fakes["b"].Count(commitOp, id)
		if most := 3600*2/10 + 200; tries > most { // full jitter: half the cap on average
			t.Errorf("%d tries in an hour: no backoff", tries)
		}
		r.fakes["b"].Unscript(commitOp, id)
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if !res.Delivered {
			t.Error("not delivered after b came back")
		}
	})
}

// R11: a retry is answered with the recorded outcome even where a participant has
// been deleted since.
func TestRetryAfterItsParticipantIsGone(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Second)
		r.log.mu.Lock()
		delete(r.log.participants, "b")
		r.log.mu.Unlock()
		res, err = r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if _, err := r.run(background, transfer(r.id(), "a", "b")); !errors.Is(err, ErrUnknownParticipant) {
			t.Errorf("a new transaction: %v", err)
		}
	})
}
