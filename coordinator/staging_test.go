package coordinator

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// R4: where votes come at once, staging and commit leave together, in this order, and
// the decision is applied with the first entry.
func TestStagingAndCommitShareAnEntry(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.log.latency = time.Second
		r.learnPace("a", "b")
		var log []string
		r.log.withFate(func(c txn.Command) fate {
			switch c := c.(type) {
			case txn.Stage:
				log = append(log, "stage")
			case txn.Decide:
				log = append(log, c.Decision.String())
			}
			return fate{}
		})
		began := time.Now()
		s := transfer(r.id(), "a", "b")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		if took := time.Since(began); took != r.log.latency {
			t.Errorf("decided after %s, want one entry's %s", took, r.log.latency)
		}
		if !slices.Equal(log, []string{"stage", "commit"}) {
			t.Errorf("the log has %v", log)
		}
	})
}

// learnPace has one transaction pass, so that the term knows how long an entry takes.
func (r *rig) learnPace(participants ...string) {
	res, err := r.run(background, transfer(r.id(), participants...))
	r.mustDecide(res, err, txn.Commit)
}

// A staging is held for as long as an entry takes, within a bound, or until the votes are in.
func TestStagingIsHeldForAnEntry(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ entry, vote, leaves time.Duration }{
		{1 * ms, 2 * ms, 1 * ms},
		{4 * ms, 2 * ms, 2 * ms},
		{100 * ms, 8 * ms, stagingHold},
	} {
		run(t, Config{}, func(r *rig) {
			r.log.latency = c.entry
			r.learnPace("a")
			id := r.id()
			r.fakes["a"].Script(prepareOp, id, participanttest.Answer{Delay: c.vote})
			res, err := r.run(background, transfer(id, "a"))
			r.mustDecide(res, err, txn.Commit)
			tl := r.timeline(id)
			wantAt(t, "staging", tl.Begun, tl.Staging, c.leaves)
		})
	}
}

// A staging is held for its hold at most, and not at all for one that voted no, nor
// where votes have been slow.
func TestStagingIsHeldBriefly(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.learnPace("a", "b")
		before := r.written("txn.Stage")
		silent, refused, slow := r.id(), r.id(), r.id()
		vote := make(chan struct{})
		r.fakes["a"].Script(prepareOp, silent, participanttest.Answer{Hold: vote})
		waiting := r.submit(background, transfer(silent, "a", "b"))
		synctest.Wait()
		if n := r.written("txn.Stage") - before; n != 0 {
			t.Errorf("%d stagings written at once", n)
		}
		time.Sleep(stagingHold + r.log.latency)
		if tx := r.stored(silent); tx == nil || tx.State != txn.Preparing {
			t.Errorf("after the hold the log has %+v", tx)
		}

		r.fakes["b"].Script(prepareOp, refused, participanttest.Answer{Vote: participants.No("no")})
		r.fakes["a"].Script(prepareOp, refused, participanttest.Answer{Hold: vote})
		began := time.Now()
		res, err := r.run(background, transfer(refused, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		if took := time.Since(began); took >= stagingHold+2*r.log.latency {
			t.Errorf("the abort took %s", took)
		}

		time.Sleep(time.Second)
		close(vote) // a's pace is a second's part by now
		<-waiting.done
		r.fakes["a"].Script(prepareOp, slow, participanttest.Answer{Delay: stagingHold})
		late := r.submit(background, transfer(slow, "a", "b"))
		time.Sleep(r.log.latency)
		if tx := r.stored(slow); tx == nil {
			t.Error("held for votes that are known to be slow")
		}
		<-late.done
	})
}

// R14: a prepare that is under way when its transaction is decided gives its place in
// the lane to the next one, whether its participant ever answers or not.
func TestDecisionFreesThePlacesOfPrepares(t *testing.T) {
	run(t, Config{PreparesInFlight: 1, PrepareTimeout: time.Hour}, func(r *rig) {
		stuck, next := r.id(), r.id()
		r.fakes["a"].Script(prepareOp, stuck, participanttest.Answer{Hold: make(chan struct{})})
		r.fakes["b"].Script(prepareOp, stuck, participanttest.Answer{Vote: participants.No("no")})
		res, err := r.run(background, transfer(stuck, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		began := time.Now()
		res, err = r.run(background, transfer(next, "a"))
		r.mustDecide(res, err, txn.Commit)
		if took := time.Since(began); took > time.Second {
			t.Errorf("the next one waited %s", took)
		}
	})
}
