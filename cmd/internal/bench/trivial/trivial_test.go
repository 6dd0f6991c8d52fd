package trivial

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// What is proven here: the payload's first byte is the vote, and lateness and silence
// end with the caller's patience.

func TestVotes(t *testing.T) {
	for payload, want := range map[string]txn.Vote{
		"": txn.VoteCommit, "commit": txn.VoteCommit, "no": txn.VoteAbort, "read": txn.VoteReadOnly,
	} {
		v, err := Participant{}.Prepare(t.Context(), participants.Branch{Payload: []byte(payload)})
		if err != nil || v.Kind != want {
			t.Errorf("payload %q: %v, %v, want %v", payload, v.Kind, err, want)
		}
	}
}

func TestLatenessAndSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := Participant{PrepareDelay: 5 * time.Second}
		if v, err := p.Prepare(t.Context(), participants.Branch{}); err != nil || v.Kind != txn.VoteCommit || time.Since(start) != p.PrepareDelay {
			t.Errorf("%v, %v after %s", v.Kind, err, time.Since(start))
		}
		patience, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Prepare(patience, participants.Branch{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller who gave up heard %v", err)
		}
		if err := (Participant{Silent: true}).Commit(patience, participants.Branch{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the silent one said %v", err)
		}
		if err := p.Abort(t.Context(), participants.Branch{}); err != nil {
			t.Errorf("an abort is not late: %v", err)
		}
	})
}
