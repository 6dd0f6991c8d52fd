package cluster

// Concurrent barriers share rounds, one at a time, and a caller never joins a round
// that began before its call: it would miss what was committed in between.

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// R6: whom a shared barrier answers, it answers for a moment after the call.
func TestBarriersShareRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds atomic.Int64
		pass := make(chan error)
		b := barriers{pass: func() error { rounds.Add(1); return <-pass }}
		var wg sync.WaitGroup
		call := func(want error) {
			wg.Go(func() {
				if err := b.wait(context.Background()); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			})
		}
		first, second := errors.New("first round"), errors.New("second round")
		call(first)
		synctest.Wait() // its round is under way
		for range 100 {
			call(second)
		}
		synctest.Wait()
		if got := rounds.Load(); got != 1 {
			t.Fatalf("%d rounds at a time", got)
		}
		pass <- first
		pass <- second
		wg.Wait()
		if got := rounds.Load(); got != 2 {
			t.Errorf("%d rounds for one caller and a hundred behind it, want 2", got)
		}
		b.close()
		if err := b.wait(context.Background()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("after close: %v", err)
		}
	})
}

// A caller that gives up leaves the round to the others.
func TestBarrierCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pass := make(chan error)
		b := barriers{pass: func() error { return <-pass }}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.wait(ctx); !errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want ErrUnknown and the context's error", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		pass <- nil
		b.close()
	})
}
