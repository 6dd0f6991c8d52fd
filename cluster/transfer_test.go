package cluster

// A leader that refuses every entry because of a transfer that never ends must not
// stay in office (upstream #696).

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

var stuck = classify(raft.ErrLeadershipTransferInProgress, 0)

func watching(probe func() error) (*transferWatch, <-chan error, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	exits := make(chan error, 1)
	w := &transferWatch{
		probe: probe, every: time.Second, limit: 20 * time.Second, exit: func(err error) { exits <- err }, ctx: ctx,
	}
	return w, exits, func() { cancel(); w.wait() }
}

func TestTransferThatNeverEndsEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, exits, end := watching(func() error { return stuck })
		defer end()
		began := time.Now()
		w.refused(stuck)
		w.refused(stuck) // one probe at a time
		if err := <-exits; !strings.Contains(err.Error(), "transfer is in progress") {
			t.Errorf("exit: %v", err)
		}
		if took := time.Since(began); took < 20*time.Second || took > 22*time.Second {
			t.Errorf("after %s, want the limit of 20 s", took)
		}
	})
}

// Many transfers in a row, each refusing for a while, are not one that is stuck.
func TestTransfersThatEndAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, then := range []error{nil, classify(raft.ErrNotLeader, 0), classify(raft.ErrLeadershipLost, 7)} {
			refusals := 0
			w, exits, end := watching(func() error {
				if refusals++; refusals%10 == 0 {
					return then
				}
				return stuck
			})
			for range 10 {
				w.look()
				time.Sleep(15 * time.Second)
			}
			end()
			select {
			case err := <-exits:
				t.Errorf("exit after transfers that ended with %v: %v", then, err)
			default:
			}
		}
	})
}

// The two classes of errors: what counts as definite is exactly what Raft answers
// before it appends (rule R5).
func TestErrorClasses(t *testing.T) {
	for _, c := range []struct {
		err      error
		index    uint64
		definite bool
	}{
		{raft.ErrNotLeader, 0, true},
		{raft.ErrLeadershipTransferInProgress, 0, true},
		{raft.ErrEnqueueTimeout, 0, true},
		{raft.ErrRaftShutdown, 0, true},
		{raft.ErrRaftShutdown, 7, false},
		{raft.ErrLeadershipLost, 7, false},
		{raft.ErrLeadershipLost, 0, false},
		{raft.ErrAbortedByRestore, 7, false},
		{errors.New("input/output error"), 7, false},
		{errors.New("input/output error"), 0, false},
		{fmt.Errorf("wrapped: %w", raft.ErrNotLeader), 0, true},
	} {
		got := classify(c.err, c.index)
		if errors.Is(got, ErrNotLeader) != c.definite || errors.Is(got, ErrUnknown) == c.definite || !errors.Is(got, c.err) {
			t.Errorf("%v with index %d: %v, definite is %v", c.err, c.index, got, c.definite)
		}
	}
	if err := classify(nil, 7); err != nil {
		t.Errorf("no error: %v", err)
	}
}
