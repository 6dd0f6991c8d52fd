package callmany

// These tests prove that a call's context behaves as one of the context package's
// whenever it is asked, although it is made of one only when it has to be.

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

type keyed struct{}

func TestCallContext(t *testing.T) {
	for name, c := range map[string]struct {
		patience time.Duration
		end      func(cut context.CancelFunc, c *callContext)
		err      error
	}{
		"deadline":       {time.Minute, func(context.CancelFunc, *callContext) { time.Sleep(time.Minute) }, context.DeadlineExceeded},
		"cancelled":      {time.Minute, func(_ context.CancelFunc, c *callContext) { c.end() }, context.Canceled},
		"stream is over": {time.Minute, func(cut context.CancelFunc, _ *callContext) { cut() }, context.Canceled},
		"no deadline":    {0, func(_ context.CancelFunc, c *callContext) { time.Sleep(24 * time.Hour); c.end() }, context.Canceled},
	} {
		for asked, ask := range map[string]func(context.Context){
			"never":  func(context.Context) {},
			"Done":   func(c context.Context) { c.Done() },
			"Value":  func(c context.Context) { c.Value(keyed{}) },
			"a link": func(c context.Context) { context.AfterFunc(c, func() {}) },
		} {
			t.Run(name+"/asked before: "+asked, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					stream, cut := context.WithCancel(context.WithValue(t.Context(), keyed{}, "value"))
					defer cut()
					ctx := &callContext{stream: stream}
					if c.patience > 0 {
						ctx.deadline = time.Now().Add(c.patience)
					}
					defer ctx.end()
					ask(ctx)
					if at, ok := ctx.Deadline(); ok != (c.patience > 0) || ok && time.Until(at) != c.patience {
						t.Errorf("deadline %s, %v", at, ok)
					}
					if err := ctx.Err(); err != nil {
						t.Errorf("over before its end: %v", err)
					}
					c.end(cut, ctx)
					synctest.Wait()
					if err := ctx.Err(); !errors.Is(err, c.err) {
						t.Errorf("ended with %v, want %v", err, c.err)
					}
					<-ctx.Done()
					if err := ctx.Err(); !errors.Is(err, c.err) {
						t.Errorf("after Done it has ended with %v, want %v", err, c.err)
					}
					if err := context.Cause(ctx); !errors.Is(err, c.err) {
						t.Errorf("cause %v, want %v", err, c.err)
					}
					if ctx.Value(keyed{}) != "value" {
						t.Error("the stream's values are not its own")
					}
					child, cancel := context.WithCancel(ctx)
					defer cancel()
					<-child.Done()
				})
			})
		}
	}
}

// unasked is a handler that must not be asked.
type unasked struct{ t *testing.T }

func (u unasked) Prepare(context.Context, *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
	u.t.Error("the handler was asked to prepare")
	return nil, nil
}
func (u unasked) Commit(context.Context, *participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
	u.t.Error("the handler was asked to commit")
	return nil, nil
}
func (u unasked) Abort(context.Context, *participantv1.AbortRequest) (*participantv1.AbortResponse, error) {
	u.t.Error("the handler was asked to abort")
	return nil, nil
}

// A call whose caller has gone before its turn came is answered, and not carried out.
func TestGoneBeforeItsTurn(t *testing.T) {
	c := &call{
		Call: &participantv1.Call{Sequence: 7, Prepare: &participantv1.PrepareRequest{}},
		ctx:  callContext{stream: t.Context()},
	}
	c.ctx.end()
	if a := c.carryOut(unasked{t}); a.GetSequence() != 7 || codes.Code(a.GetError().GetCode()) != codes.Canceled {
		t.Errorf("answered %v", a)
	}
}

// The queue keeps its order and its bounds whatever comes and goes.
func TestQueue(t *testing.T) {
	var q queue
	in, out := uint64(0), uint64(0)
	for round := range 1000 {
		for range 1 + round%7 {
			q.push(&call{Call: &participantv1.Call{Sequence: in}})
			in++
		}
		for range min(q.len(), 1+round*3%11) {
			if n := q.pop().GetSequence(); n != out {
				t.Fatalf("%d came out, want %d", n, out)
			}
			out++
		}
		if q.len() != int(in-out) {
			t.Fatalf("length %d, want %d", q.len(), in-out)
		}
	}
	if cap(q.calls) > 64 {
		t.Errorf("room for %d calls, where a few wait at a time", cap(q.calls))
	}
}
