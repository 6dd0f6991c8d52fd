package client

import (
	"context"
	"slices"
	"time"
)

// Policy says how Run repeats an aborted transaction. The zero Policy makes three
// attempts and repeats what may have been bad luck: a participant that did not
// answer, a timeout, a leader that was replaced before the transaction was known.
type Policy struct {
	// Attempts in all; 0 means 3.
	Attempts int
	// Retry tells which aborts are worth another attempt; nil means
	// OnCodes(AbortUnavailable, AbortTimeout, AbortPresumed, AbortRefused). A no vote
	// is not among them: add AbortVote where a no is a conflict that passes, such as
	// a lock.
	Retry func(AbortReason) bool
	// Base and Cap bound the pause before the next attempt, which is random up to
	// Base doubled each time. 0 means 50ms and 2s.
	Base, Cap time.Duration
}

// OnCodes retries aborts with one of the codes.
func OnCodes(retry ...AbortCode) func(AbortReason) bool {
	return func(why AbortReason) bool { return slices.Contains(retry, why.Code) }
}

func (p Policy) withDefaults() Policy {
	if p.Attempts == 0 {
		p.Attempts = 3
	}
	if p.Retry == nil {
		p.Retry = OnCodes(AbortUnavailable, AbortTimeout, AbortPresumed, AbortRefused)
	}
	if p.Base <= 0 {
		p.Base = 50 * time.Millisecond
	}
	if p.Cap <= 0 {
		p.Cap = 2 * time.Second
	}
	return p
}

// Run submits what build makes, and builds and submits it again where it was
// aborted for a reason that the policy retries. Each attempt is a transaction of
// its own under a new txid, so that build may read fresh state; a TxID that it
// sets is ignored.
//
// The error is nil only if an attempt committed, without damage. It is
// [Result.Err] of the last attempt otherwise, or Submit's. An outcome that is not
// known is never followed by another attempt: the first may yet commit.
func (c *Client) Run(ctx context.Context, p Policy, build func() Transaction) (Result, error) {
	p = p.withDefaults()
	for n := 0; ; n++ {
		t := build()
		t.TxID = ""
		r, err := c.Submit(ctx, t)
		switch {
		case err != nil:
			return r, err
		case r.Outcome != Aborted, n+1 >= p.Attempts, !p.Retry(r.Reason):
			return r, r.Err()
		}
		sleep(ctx, jitter(n, p.Base, p.Cap))
		if ctx.Err() != nil {
			return r, r.Err()
		}
	}
}
