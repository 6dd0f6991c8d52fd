package coordinator

// What is proven here: a leader's timeline of a transaction has each event at the moment
// at which it happened, in cluster time; it says what happened before the leader and was
// not seen; and it is kept, for the latest transactions, after their end and after the
// leader's.

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// timeline is the only one that there is.
func (r *rig) timeline(id txn.TxID) Timeline {
	r.t.Helper()
	synctest.Wait()
	all := r.c.Timelines(id)
	if len(all) != 1 {
		r.t.Fatalf("%d timelines, want 1", len(all))
	}
	return all[0]
}

// wantAt checks how long after the beginning something happened; a negative duration
// says that it did not.
func wantAt(t testing.TB, what string, begun, got txn.Time, after time.Duration) {
	t.Helper()
	switch {
	case after < 0 && got != 0:
		t.Errorf("%s at %s, want never", what, got.Sub(begun))
	case after >= 0 && got == 0:
		t.Errorf("%s never, want at %s", what, after)
	case after >= 0 && got.Sub(begun) != after:
		t.Errorf("%s at %s, want at %s", what, got.Sub(begun), after)
	}
}

const never = time.Duration(-1)

// The log of the tests takes a millisecond for an entry.
func TestTimelineOfACommit(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		const ms = time.Millisecond
		r.learnPace("a", "b")
		id := r.id()
		r.fakes["a"].Script(prepareOp, id, participanttest.Answer{Delay: 3 * time.Millisecond})
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Delay: 5 * time.Millisecond})
		r.fakes["b"].Script(commitOp, id, participanttest.Answer{Delay: 2 * time.Millisecond})
		time.Sleep(time.Second)
		begun := r.log.Now()
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Second)

		tl := r.timeline(id)
		if tl.Epoch != 1 || tl.TakenOver || tl.AsOf != 0 {
			t.Errorf("got epoch %d, taken over %t, as of %d", tl.Epoch, tl.TakenOver, tl.AsOf)
		}
		if since := tl.Since.Sub(begun); since != -time.Second-ms {
			t.Errorf("the term began %s from it", since)
		}
		wantAt(t, "begun", begun, tl.Begun, 0)
		wantAt(t, "staging", begun, tl.Staging, ms)
		wantAt(t, "staged", begun, tl.Staged, 2*ms)
		wantAt(t, "deciding", begun, tl.Deciding, 5*ms)
		wantAt(t, "decided", begun, tl.Decided, 6*ms)
		wantAt(t, "delivered", begun, tl.Delivered, 8*ms)
		for i, want := range []struct{ voted, answered time.Duration }{{3 * ms, 6 * ms}, {5 * ms, 8 * ms}} {
			b := tl.Branches[i]
			wantAt(t, "prepared", begun, b.Prepared, 0)
			wantAt(t, "voted", begun, b.Voted, want.voted)
			wantAt(t, "first sent", begun, b.FirstSent, 6*ms)
			wantAt(t, "last sent", begun, b.LastSent, 6*ms)
			wantAt(t, "answered", begun, b.Answered, want.answered)
			wantAt(t, "next", begun, b.Next, never)
			if b.Branch != i+1 || b.Vote != txn.VoteCommit || b.Receipt != txn.Done || b.Prepares != 1 || b.Attempts != 1 || b.LastError != "" || b.Failed != nil {
				t.Errorf("branch %d: %+v", i+1, b)
			}
		}
	})
}

func TestTimelineOfRetries(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		down := participanttest.Answer{Fate: participanttest.Dropped, Err: errors.New("down"), Delay: time.Millisecond}
		for i := range maxTries + 2 {
			down.Err = fmt.Errorf("down %d", i+1)
			r.fakes["b"].Script(commitOp, id, down)
		}
		down.Stay, down.Err = true, errors.New("still down")
		r.fakes["b"].Script(commitOp, id, down)
		begun := r.log.Now()
		s := transfer(id, "a", "b")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		decided := r.log.Now()
		time.Sleep(5 * time.Minute)

		tl := r.timeline(id)
		if tl.AsOf != r.log.Now() || tl.Delivered != 0 {
			t.Errorf("as of %s, delivered at %d", tl.AsOf.Sub(r.log.Now()), tl.Delivered)
		}
		b := tl.Branches[1]
		wantAt(t, "first sent", begun, b.FirstSent, decided.Sub(begun))
		if b.Attempts < maxTries || b.LastError != "still down" || b.Answered != 0 || len(b.Failed) != maxTries {
			t.Errorf("after five minutes of retries: %+v", b)
		}
		if b.Next <= tl.AsOf || b.Next.Sub(tl.AsOf) > 10*time.Second {
			t.Errorf("the next try is in %s", b.Next.Sub(tl.AsOf))
		}
		last := b.Failed[maxTries-1]
		if last.Sent != b.LastSent || last.Failed <= last.Sent && last.Failed.Sub(last.Sent) != 0 {
			t.Errorf("the last try left at %s and failed %s later; the last sent %s", last.Sent.Sub(begun), last.Failed.Sub(last.Sent), b.LastSent.Sub(begun))
		}
		for i := 1; i < maxTries; i++ {
			if b.Failed[i].Sent <= b.Failed[i-1].Failed {
				t.Errorf("try %d left before the one before had failed: %+v", i, b.Failed)
			}
		}

		r.fakes["b"].Unscript(commitOp, id)
		before := b.Next
		time.Sleep(time.Minute)
		b = r.timeline(id).Branches[1]
		wantAt(t, "the try that succeeded", before, b.LastSent, 0)
		wantAt(t, "answered", before, b.Answered, 0)
		wantAt(t, "next", before, b.Next, never)
		if b.LastError != "still down" || b.Receipt != txn.Done {
			t.Errorf("after its end: %+v", b)
		}
	})
}

func TestTimelineOfAnAbort(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		no := participants.Vote{Kind: txn.VoteAbort, Reason: "not enough"}
		r.fakes["a"].Script(prepareOp, id, participanttest.Answer{Vote: no, Delay: 2 * time.Millisecond})
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Delay: time.Minute})
		begun := r.log.Now()
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		time.Sleep(time.Minute)
		tl := r.timeline(id)
		a, b := tl.Branches[0], tl.Branches[1]
		wantAt(t, "a's vote", begun, a.Voted, 2*time.Millisecond)
		wantAt(t, "b's vote", begun, b.Voted, never)
		wantAt(t, "deciding", begun, tl.Deciding, 2*time.Millisecond)
		if a.Vote != txn.VoteAbort || a.VoteDetail != "not enough" || b.Vote != txn.VoteNone {
			t.Errorf("votes: %+v and %+v", a, b)
		}
	})
}

// The next leader tells what it has seen, and that there was more before it; the one
// before still tells what it had seen.
func TestTimelineAfterFailover(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(commitOp, id, participanttest.Answer{Fate: participanttest.Dropped, Err: errors.New("down"), Stay: true})
		s := transfer(id, "a", "b")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Minute)
		r.depose()
		r.fakes["b"].Unscript(commitOp, id)
		taken := r.log.Now()
		r.lead()
		time.Sleep(time.Minute)
		all := r.c.Timelines(id)
		if len(all) != 2 {
			t.Fatalf("%d timelines, want one of each leader", len(all))
		}
		first, second := all[0], all[1]
		if first.Epoch != 1 || first.TakenOver || first.Decided == 0 || first.Branches[1].Attempts < 2 || first.AsOf != 0 {
			t.Errorf("the first leader tells %+v", first)
		}
		wantAt(t, "taken over", taken, second.Begun, 0)
		wantAt(t, "since", taken, second.Since, 0)
		if second.Epoch != 2 || !second.TakenOver {
			t.Errorf("the second leader tells %+v", second)
		}
		for what, at := range map[string]txn.Time{
			"staging": second.Staging, "staged": second.Staged, "deciding": second.Deciding, "decided": second.Decided,
			"prepared": second.Branches[1].Prepared, "voted": second.Branches[1].Voted,
		} {
			wantAt(t, what, taken, at, never)
		}
		wantAt(t, "b's delivery", taken, second.Branches[1].FirstSent, 0)
		wantAt(t, "b's receipt", taken, second.Branches[1].Answered, 0)
	})
}

// The drive that goes on after an unknown outcome goes on with the timeline.
func TestTimelineAfterAnUnknownOutcome(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		lost := false
		r.log.withFate(func(c txn.Command) fate {
			if _, ok := c.(txn.Decide); !ok || lost {
				return fate{}
			}
			lost = true
			return fate{lost: true, err: ErrOutcomeUnknown}
		})
		begun := r.log.Now()
		if _, err := r.run(background, transfer(id, "a", "b")); !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Second)
		tl := r.timeline(id)
		wantAt(t, "begun", begun, tl.Begun, 0)
		b := tl.Branches[0]
		wantAt(t, "prepared", begun, b.Prepared, 0)
		if b.Prepares != 2 || b.Voted.Sub(begun) == 0 || tl.TakenOver || tl.Decided == 0 {
			t.Errorf("got %+v", tl)
		}
	})
}

// R14: what is kept is bounded, and trouble outlives the ordinary.
func TestAnnalsAreBounded(t *testing.T) {
	var a annals
	id := func(n int) txn.TxID { return txn.TxID{byte(n >> 16), byte(n >> 8), byte(n)} }
	ill := chronicle{tracks: []track{{trouble: &trouble{lastError: "down"}}}}
	a.record(id(1<<20), reign{epoch: 1}, &ill)
	for n := range recentChronicles + 10 {
		a.record(id(n), reign{epoch: 1}, &chronicle{})
	}
	if n := len(a.recent.ids) + len(a.recent.kept); n != 2*recentChronicles {
		t.Errorf("%d are kept, want %d", n/2, recentChronicles)
	}
	for n, want := range map[int]int{0: 0, 9: 0, 10: 1, recentChronicles + 9: 1, 1 << 20: 1} {
		if got := len(a.find(id(n))); got != want {
			t.Errorf("%d timelines of number %d, want %d", got, n, want)
		}
	}
}
