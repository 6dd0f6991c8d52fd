package coordinator

// What the orphan scan may touch, what it may not be kept from, and that a look into
// a participant ends with the term.

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// R1 and R7: a resource that is registered under two names lists, under each, what
// it holds prepared for the other. The scan under one name must not abort what is
// committed, and not yet delivered, under the other.
func TestScanUnderAnotherName(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.fakes["twin-of-a"] = r.fakes["a"]
		r.register("twin-of-a", 1)
		id := r.id()
		r.fakes["a"].Script(commitOp, id, participanttest.Answer{Fate: participanttest.Dropped, Stay: true})
		s := transfer(id, "a", "b")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(3 * r.c.cfg.ScanInterval)
		if n := r.fakes["a"].Count(abortOp, id); n != 0 {
			t.Errorf("the branch was aborted %d times after the commit", n)
		}
		r.fakes["a"].Unscript(commitOp, id)
		time.Sleep(time.Minute)
		if tx := r.stored(id); tx.State != txn.Committed || tx.Damage() != txn.ReceiptNone {
			t.Errorf("ended %s, damage %s", tx.State, tx.Damage())
		}
		delete(r.fakes, "twin-of-a")
		r.log.mu.Lock()
		delete(r.log.participants, "twin-of-a")
		r.log.mu.Unlock()
	})
}

// R10: an orphan that cannot be ended does not keep the others waiting.
func TestStuckOrphanHidesNone(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		const orphans = 4
		var ids [orphans]txn.TxID
		for i := range ids {
			ids[i] = r.id()
			b := r.branch(ids[i], 1)
			b.Epoch = r.epoch
			r.fakes["a"].Stage(b)
		}
		stuck := ids[:orphans-1]
		for _, id := range stuck {
			r.fakes["a"].Script(abortOp, id, participanttest.Answer{Fate: participanttest.Dropped, Stay: true})
		}
		time.Sleep(r.c.cfg.ScanInterval + time.Second)
		if s := r.fakes["a"].State(r.branch(ids[orphans-1], 1)); s != participants.StatusAborted {
			t.Errorf("the orphan that can be ended is %s", s)
		}
		for _, id := range stuck {
			r.fakes["a"].Unscript(abortOp, id)
		}
		time.Sleep(r.c.cfg.ScanInterval + time.Second)
		if held := r.fakes["a"].Held(); held != 0 {
			t.Errorf("%d orphans still prepared", held)
		}
	})
}

// R3: a check that a client asked for is a part of the term's work. It ends with
// the term, and none begins after it, which would hold the resource open for ever.
func TestCheckEndsWithItsTerm(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		time.Sleep(time.Second) // the first scan is over
		r.fakes["a"].Script(participanttest.Recover, participanttest.AnyTx, participanttest.Answer{Hold: make(chan struct{})})
		told := make(chan error, 1)
		go func() {
			_, err := r.c.Check(background, "a")
			told <- err
		}()
		synctest.Wait()
		old := r.c.current()
		start := time.Now()
		r.depose()
		if took := time.Since(start); took != 0 { // virtual
			t.Errorf("the term's end waited %s for a check", took)
		}
		if err := <-told; !errors.Is(err, ErrNotLeader) {
			t.Errorf("the check under way: %v", err)
		}
		if _, err := old.inspect(background, "never-opened"); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a check after the term: %v", err)
		}
		if err := old.lanes["a"].door.through(background, func(participants.Participant) error { return nil }); !errors.Is(err, errLocked) {
			t.Errorf("through the door of an ended term: %v", err)
		}
		r.lead()
	})
}

// A prepare that left before its leader fell is prepared anew when the client comes
// back: the scan leaves it the time for that, and what nobody claims is ended after.
// R10, R13: a participant that was away when it was scanned is scanned again soon, and
// not only with the next round.
func TestScanComesBackSoon(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		orphan := r.branch(r.id(), 1)
		orphan.Epoch = r.epoch
		r.fakes["a"].Stage(orphan)
		r.fakes["a"].Script(participanttest.Recover, participanttest.AnyTx, participanttest.Answer{Fate: participanttest.Dropped, Stay: true})
		time.Sleep(2*r.c.cfg.OrphanGrace + time.Second)
		r.fakes["a"].Unscript(participanttest.Recover, participanttest.AnyTx)
		scans := r.fakes["b"].Count(participanttest.Recover, participanttest.AnyTx)
		time.Sleep(r.c.cfg.OrphanGrace + time.Second)
		if s := r.fakes["a"].State(orphan); s != participants.StatusAborted {
			t.Errorf("%s after the participant came back the orphan is %s", r.c.cfg.OrphanGrace, s)
		}
		if n := r.fakes["b"].Count(participanttest.Recover, participanttest.AnyTx) - scans; n != 0 {
			t.Errorf("the others were scanned %d times more because of it", n)
		}
	})
}

func TestScanLeavesTimeForRetries(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		retried, abandoned := r.id(), r.id()
		for _, id := range []txn.TxID{retried, abandoned} {
			early := r.branch(id, 1)
			early.Epoch = r.epoch
			early.Digest = transfer(id, "a").Branches[0].Digest
			r.fakes["a"].Stage(early)
		}
		r.depose()
		r.lead()
		time.Sleep(r.c.cfg.OrphanGrace - time.Second)
		res, err := r.run(background, transfer(retried, "a"))
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(2 * time.Second)
		if s := r.fakes["a"].State(r.branch(abandoned, 1)); s != participants.StatusAborted {
			t.Errorf("the branch that nobody claimed is %s", s)
		}
	})
}
