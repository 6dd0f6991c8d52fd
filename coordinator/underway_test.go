package coordinator

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// R10 and R14: a delivery that hangs is tried again when its own patience is over,
// whatever patience there is with a prepare that left before it.
func TestPatienceIsThatOfThePhase(t *testing.T) {
	cfg := Config{PrepareTimeout: time.Hour, DeliveryTimeout: time.Second, MaxTimeout: time.Hour}
	run(t, cfg, func(r *rig) {
		vote, never := make(chan struct{}), make(chan struct{})
		held, hung := r.id(), r.id()
		r.fakes["a"].Script(prepareOp, held, participanttest.Answer{Hold: vote})
		r.fakes["a"].Script(commitOp, hung, participanttest.Answer{Hold: never})
		s := transfer(held, "a")
		s.Timeout = time.Hour
		waiting := r.submit(background, s)
		synctest.Wait()

		began := time.Now()
		res, err := r.run(background, transfer(hung, "a"))
		r.mustDecide(res, err, txn.Commit)
		if took := time.Since(began); !res.Delivered || took > 2*time.Second {
			t.Errorf("delivered, %t, after %s", res.Delivered, took)
		}
		close(vote)
		<-waiting.done
	})
}

// unleft is a driver whose participant holds the calls that were started, and lets
// none of them leave. Only prepares can be started.
type unleft struct {
	participants.Participant
	silent bool // its calls can be given up
	mu     sync.Mutex
	held   []participants.Listener // guarded by mu
}

func (u *unleft) Check([]byte) error { return nil }

func (u *unleft) Open(context.Context, participants.Registration, hclog.Logger) (participants.Participant, error) {
	return u, nil
}

func (u *unleft) Start(c participants.Call, to participants.Listener) (participants.Started, bool) {
	if c.Kind != txn.PrepareBranch {
		return nil, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = append(u.held, to)
	return u, true
}

// Cancel comes too late, unless it is silent: the listener is about to hear.
func (u *unleft) Cancel() bool { return u.silent }

func (u *unleft) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, to := range u.held {
		to.Ended(participants.Vote{}, participants.ErrNotStarted)
	}
	u.held = nil
}

// beginUnleft has c be such a participant, opened, and returns it.
func beginUnleft(r *rig) *unleft {
	u := &unleft{Participant: r.fakes["c"]}
	r.c.drivers["unleft"] = u
	r.log.mu.Lock()
	r.log.participants["c"] = participants.Registration{Name: "c", Driver: "unleft", Revision: 2}
	r.log.mu.Unlock()
	res, err := r.run(background, transfer(r.id(), "c")) // by a call, which opens it
	r.mustDecide(res, err, txn.Commit)
	return u
}

// R8: a prepare that has not left by the decision never leaves.
func TestNoPrepareLeavesAfterTheDecision(t *testing.T) {
	play(t, Config{}, false, func(d participants.Driver) participants.Driver { return d }, func(r *rig) {
		late, refused := beginUnleft(r), r.id()
		r.fakes["a"].Script(prepareOp, refused, participanttest.Answer{Vote: participants.No("no")})
		res, err := r.run(background, transfer(refused, "a", "c"))
		r.mustDecide(res, err, txn.Abort)
		late.release()
		r.wantIdle("c")
		r.wantCalls("c", refused, participanttest.Abort)
	})
}

// R14: a call that ends as patience with it is lost is counted once, and leaves when it
// turns out not to have left.
func TestPatienceIsLostWithWhatIsAboutToEnd(t *testing.T) {
	cfg := Config{PrepareTimeout: time.Second}
	play(t, cfg, false, func(d participants.Driver) participants.Driver { return d }, func(r *rig) {
		late, id := beginUnleft(r), r.id()
		waiting := r.submit(background, transfer(id, "c"))
		time.Sleep(cfg.PrepareTimeout)
		if waiting.answered() {
			t.Errorf("answered %v, %v before the call has ended", waiting.result, waiting.err)
		}
		late.release()
		<-waiting.done
		r.mustDecide(waiting.result, waiting.err, txn.Commit)
		r.wantIdle("c")
	})
}

// R14: calls that left together, to a participant that does not answer, are due together.
// They are given up some at a time, and others have their turn between.
func TestPatienceIsLostInTurns(t *testing.T) {
	cfg := Config{PrepareTimeout: time.Second}
	play(t, cfg, false, func(d participants.Driver) participants.Driver { return d }, func(r *rig) {
		beginUnleft(r).silent = true
		var waiting []*submission
		for range 2*givenUpAtOnce + 1 {
			waiting = append(waiting, r.submit(background, transfer(r.id(), "c")))
		}
		synctest.Wait()
		term := r.c.current()
		term.mu.Lock()
		calls := &term.lane("c").started[0]
		for _, want := range []int{2*givenUpAtOnce + 1, givenUpAtOnce + 1, 1} {
			if n := calls.len(); n != want {
				t.Errorf("%d calls are under way, want %d", n, want)
			}
			term.lane("c").losePatience(calls, time.Now().Add(cfg.PrepareTimeout))
		}
		term.mu.Unlock()
		for _, w := range waiting {
			<-w.done
			r.mustDecide(w.result, w.err, txn.Abort)
		}
	})
}

func (r *roster) len() (n int) {
	for c := r.first; c != nil; c = c.flight.next {
		n++
	}
	return n
}

// wantIdle checks that no prepare of a participant is under way, or counted so.
func (r *rig) wantIdle(name string) {
	r.t.Helper()
	synctest.Wait()
	t := r.c.current()
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.lane(name); l.preparing != 0 || l.started[0].first != nil {
		r.t.Errorf("%d prepares of %s are under way", l.preparing, name)
	}
}

// Whoever's patience ends while its submission is being started may leave at once, and
// has left when it does so again afterwards (rule R5).
func TestLeaveBesideStart(t *testing.T) {
	play(t, Config{}, true, func(d participants.Driver) participants.Driver { return d }, func(r *rig) {
		vote := make(chan struct{})
		r.fakes["a"].Script(prepareOp, participanttest.AnyTx, participanttest.Answer{Hold: vote, Stay: true})
		for range 20 {
			var f Following
			told, left := make(answers, 1), make(chan struct{})
			go func() {
				defer close(left)
				r.c.Leave(&f, context.Canceled)
			}()
			if err := r.c.Start(transfer(r.id(), "a"), &f, told); err != nil {
				t.Fatal(err)
			}
			<-left
			r.c.Leave(&f, context.Canceled)
			if a := <-told; !errors.Is(a.err, ErrOutcomeUnknown) {
				t.Errorf("told %v", a.err)
			}
		}
		close(vote)
		synctest.Wait()
	})
}
