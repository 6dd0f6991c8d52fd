// These tests prove, in virtual time and without a network, how long a call waits
// and what it says at the end: exactly as much as is known (rule R5), in time for
// its client to hear it, and within bounds (rule R14).
package transport

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
)

// offline makes a server that is never served; its observer runs until the test
// ends.
func offline(t *testing.T) *testNode {
	n := &testNode{coordinator: &fakeCoordinator{}, node: &fakeNode{id: "n1", world: &world{}}}
	n.Server = &Server{
		cfg:   Config{Coordinator: n.coordinator, Node: n.node},
		calls: make(chan struct{}, 2),
		link:  newPeerLink(n.node, 1<<20, Security{}),
	}
	n.observer = newObserver(n.node, n.coordinator.Leads, func(bool) {})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.observer.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return n
}

func local(f func(ctx context.Context) (int, error)) *errand[int] {
	return &errand[int]{txid: someTxID, budget: callBudget, local: f}
}

func TestWithoutALeaderNothingRanAndTheClientIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := offline(t)
		start := time.Now()
		_, err := route(t.Context(), n.Server, local(func(context.Context) (int, error) { t.Error("ran"); return 0, nil }))
		st := wantReason(t, err, codes.Unavailable, reasonNotLeader)
		if delayOf(st, err) <= 0 {
			t.Error("no RetryInfo")
		}
		if took := time.Since(start); took != callBudget {
			t.Errorf("waited %s, the bound is %s", took, callBudget)
		}
	})
}

// R5: once an attempt may have run, no later refusal makes the call definite.
func TestWhatMayHaveRunStaysUnknown(t *testing.T) {
	for _, last := range []error{coordinator.ErrNotLeader, &coordinator.BusyError{RetryAfter: time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			n := offline(t)
			n.coordinator.lead(true)
			attempts := 0
			_, err := route(t.Context(), n.Server, local(func(context.Context) (int, error) {
				if attempts++; attempts == 1 {
					return 0, coordinator.ErrOutcomeUnknown
				}
				return 0, last
			}))
			st := wantReason(t, err, codes.DeadlineExceeded, reasonOutcomeUnknown)
			if info, _ := infoOf(st); info.GetMetadata()["txid"] != someTxID {
				t.Error("the client can't ask again: the txid is missing")
			}
			if attempts < 10 {
				t.Errorf("%d attempts in %s", attempts, callBudget)
			}
		})
	}
}

func TestBusyGoesStraightToTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := offline(t)
		n.coordinator.lead(true)
		start := time.Now()
		_, err := route(t.Context(), n.Server, local(func(context.Context) (int, error) {
			return 0, &coordinator.BusyError{What: "full", RetryAfter: time.Second}
		}))
		wantReason(t, err, codes.ResourceExhausted, reasonBusy)
		if time.Since(start) != 0 {
			t.Error("it was kept waiting")
		}
	})
}

func TestCallWaitsForTheElectionAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := offline(t)
		time.AfterFunc(900*time.Millisecond, func() { n.node.believe("n1") }) // elected ...
		time.AfterFunc(920*time.Millisecond, func() { n.coordinator.lead(true) })
		start := time.Now()
		got, err := route(t.Context(), n.Server, local(func(context.Context) (int, error) { return 42, nil }))
		if err != nil || got != 42 {
			t.Fatal(got, err)
		}
		if took := time.Since(start); took > 920*time.Millisecond+settlePoll {
			t.Errorf("noticed after %s", took)
		}
	})
}

// A leader that was just elected refuses for the milliseconds that it needs to open
// its epoch. It is asked again soon, however long the election took.
func TestNewLeaderIsAskedAgainSoon(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			n := offline(t)
			elected := 5 * time.Second
			time.AfterFunc(elected, func() {
				n.node.believe("n1")
				n.coordinator.lead(true)
			})
			start, attempts := time.Now(), 0
			_, err := route(t.Context(), n.Server, local(func(context.Context) (int, error) {
				if attempts++; attempts <= 2 {
					return 0, cluster.ErrNotLeader
				}
				return 0, nil
			}))
			if took := time.Since(start) - elected; err != nil || took > settlePoll+3*retryBase {
				t.Errorf("answered %s after the election: %v", took, err)
			}
		})
	}
}

// A call that is passed on to a node which was elected and does not lead yet waits
// for that; one that comes to a node which was not is refused at once.
func TestPassedOnCallWaitsForTheEpoch(t *testing.T) {
	passedOn := func(t *testing.T, n *testNode) (time.Duration, error) {
		start := time.Now()
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(metadataHop, "1"))
		_, err := route(ctx, n.Server, local(func(context.Context) (int, error) { return 0, nil }))
		return time.Since(start), err
	}
	synctest.Test(t, func(t *testing.T) {
		n := offline(t)
		n.node.believe("n1")
		synctest.Wait()
		time.AfterFunc(40*time.Millisecond, func() { n.coordinator.lead(true) })
		if took, err := passedOn(t, n); err != nil || took > 40*time.Millisecond+settlePoll {
			t.Errorf("after %s: %v", took, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		n := offline(t)
		n.node.believe("n1")
		synctest.Wait()
		took, err := passedOn(t, n)
		wantReason(t, err, codes.Unavailable, reasonNotLeader)
		if took != electPatience {
			t.Errorf("a node that never leads was waited for %s", took)
		}
		time.AfterFunc(10*time.Millisecond, func() { n.node.believe("n2") })
		if took, err = passedOn(t, n); took != 10*time.Millisecond || err == nil {
			t.Errorf("another was elected, and it took %s: %v", took, err)
		}
		if took, err = passedOn(t, n); took != 0 || err == nil {
			t.Errorf("refused after %s: %v", took, err)
		}
	})
}

// R5: what may have run and can't be repeated is of unknown outcome.
func TestOnceIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := offline(t)
		n.coordinator.lead(true)
		attempts := 0
		e := local(func(context.Context) (int, error) {
			if attempts++; attempts == 1 {
				return 0, cluster.ErrNotLeader // certainly nothing was done
			}
			return 0, cluster.ErrUnknown
		})
		e.once = true
		_, err := route(t.Context(), n.Server, e)
		wantReason(t, err, codes.DeadlineExceeded, reasonOutcomeUnknown)
		if attempts != 2 {
			t.Errorf("%d attempts", attempts)
		}
	})
}

// What is decided in this node's state is final, whoever may be asked or not.
func TestAppliedDecisionAnswersWhenTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := offline(t)
		e := local(nil)
		e.settled = func() (int, bool) { return 7, true }
		if got, err := route(t.Context(), n.Server, e); err != nil || got != 7 {
			t.Fatal(got, err)
		}
	})
}

// The client's deadline comes before delivery ends: the answer leaves in time.
func TestAnswerLeavesBeforeTheDeadline(t *testing.T) {
	for _, patience := range []time.Duration{10 * time.Millisecond, 200 * time.Millisecond, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			n := offline(t)
			n.coordinator.lead(true)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := route(ctx, n.Server, local(func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return 1, nil // committed, delivery pending
			}))
			if err != nil || ctx.Err() != nil {
				t.Errorf("patience %s: %v, %v", patience, err, ctx.Err())
			}
		})
	}
}

// R14: calls at the door are bounded, and each that ends makes room.
func TestCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := offline(t)
		n.coordinator.lead(true)
		release := make(chan struct{})
		for range cap(n.calls) {
			go route(t.Context(), n.Server, local(func(context.Context) (int, error) { <-release; return 0, nil }))
		}
		synctest.Wait()
		_, err := route(t.Context(), n.Server, local(nil))
		if st := wantReason(t, err, codes.ResourceExhausted, reasonBusy); delayOf(st, err) <= 0 {
			t.Error("no RetryInfo")
		}
		close(release)
		synctest.Wait()
		if _, err := route(t.Context(), n.Server, local(func(context.Context) (int, error) { return 0, nil })); err != nil {
			t.Errorf("the door stayed shut: %v", err)
		}
	})
}
