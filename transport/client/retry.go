package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/decree-tx/decree/transport/api/decree/submitmany"
)

const (
	// retryBase and retryCap bound the pause before the next attempt, full jitter.
	// A failover takes about a second, which the servers wait out themselves; the
	// cap matters only while nothing can be reached.
	retryBase = 20 * time.Millisecond
	retryCap  = time.Second
	// readRounds is how many attempts a read gives each endpoint before it says
	// that nobody answers. Only reads give up before their context ends: nothing
	// hangs on them.
	readRounds = 2
)

// mode says when a call may be sent again.
type mode uint8

const (
	idempotent mode = iota // on its txid or name: again until ctx ends
	once                   // again only while it has certainly not been carried out
	read                   // again, but not for long
)

// call is one request and what is known of its attempts.
type call struct {
	mode mode
	txid string // empty where it is not about a transaction

	ran bool  // an attempt may have been carried out
	err error // of the last attempt
}

// do sends until there is a definite answer or ctx ends, each time to another
// endpoint than the one that failed. Afterwards k.ran tells whether an attempt
// that brought no answer may have been carried out.
func do[A any](ctx context.Context, c *Client, k *call, send func(ctx context.Context, conn *grpc.ClientConn) (A, error)) (A, error) {
	return pursue(ctx, c, k, func(ctx context.Context, at choice) (A, error) {
		return attempt(ctx, at.endpoint, at.reign, send)
	})
}

// pursue is do, with attempts of whatever kind.
func pursue[A any](ctx context.Context, c *Client, k *call, try func(ctx context.Context, at choice) (A, error)) (A, error) {
	var none A
	var avoid *endpoint
	for n := 0; ; n++ {
		at := c.endpoints.pick(avoid)
		if k.mode == once {
			at.reign = nil // nothing would send it to the next leader; and it may be what ends this reign
		}
		answer, err := try(ctx, at)
		if err == nil {
			return answer, nil
		}
		again, after := k.judge(err)
		switch {
		case !again:
			return none, k.err
		case c.endpoints.life.Err() != nil, // the client was closed
			k.mode == read && n >= readRounds*len(c.endpoints.all),
			!pause(ctx, n, after, at.news):
			return none, k.giveUp(ctx)
		}
		if avoid = at.endpoint; isClosed(at.news) && k.mode != read {
			avoid, n = nil, -1 // what came before says nothing about the new leader
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// attempt sends once. An attempt at a leader is cut when another node leads, for
// the old one may hang: the call is then sent again, to the new.
func attempt[A any](ctx context.Context, e *endpoint, reign context.Context, send func(ctx context.Context, conn *grpc.ClientConn) (A, error)) (A, error) {
	if reign != nil {
		var cut context.CancelCauseFunc
		ctx, cut = context.WithCancelCause(ctx)
		defer cut(nil)
		defer context.AfterFunc(reign, func() { cut(errDeposed) })()
	}
	if err := e.ready(ctx); err != nil {
		var none A
		return none, err
	}
	return send(ctx, e.conn)
}

// judge records an attempt's error and tells whether to try again, and after how
// long at least.
func (k *call) judge(err error) (again bool, after time.Duration) {
	var unreachable *unreachableError
	var broken *submitmany.BrokenError
	switch {
	case errors.As(err, &unreachable):
		k.err = &Error{Reason: ErrUnavailable, Message: err.Error()}
		return true, 0
	case errors.As(err, &broken):
		k.err = fromBroken(broken)
		k.ran = k.ran || broken.Sent
		return true, 0
	}
	answer := fromStatus(err)
	k.err = answer
	switch answer.fate() {
	case refused:
		return false, 0
	case mayHaveRun:
		k.ran = true
		return k.mode != once, answer.RetryAfter
	default:
		return true, answer.RetryAfter
	}
}

// giveUp is the error of a call whose time is over.
func (k *call) giveUp(ctx context.Context) error {
	err := k.err
	if cause := ctx.Err(); cause != nil {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	if k.ran && k.txid != "" && k.mode == idempotent {
		return &UnknownError{TxID: k.txid, Err: err}
	}
	return err
}

// pause waits before attempt n+1, or until there is a new leader; false when ctx
// ends first.
func pause(ctx context.Context, n int, atLeast time.Duration, newLeader <-chan struct{}) bool {
	t := time.NewTimer(atLeast + jitter(n, retryBase, retryCap))
	defer t.Stop()
	select {
	case <-t.C:
	case <-newLeader:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// jitter is full jitter: uniform up to an exponentially growing bound.
func jitter(n int, base, most time.Duration) time.Duration {
	bound := most
	if n < 30 { // beyond, the shift could overflow
		bound = min(most, base<<n)
	}
	return rand.N(bound)
}
