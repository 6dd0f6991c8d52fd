package callmany

import (
	"context"
	"sync"
	"time"
)

// callContext is the context of one call. A timer and a place among the children of
// the stream's context cost more than the rest of a call that is quick, and such a
// call never waits for its end. So there is no more to it than a time, until somebody
// asks for what only a real context can do.
type callContext struct {
	stream   context.Context
	deadline time.Time // zero: none of its own

	mu     sync.Mutex
	over   bool // cancel was called
	real   context.Context
	cancel context.CancelFunc // of real
}

// Deadline implements context.Context. A stream has none.
func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} { return c.become().Done() }

// Value implements context.Context. Contexts find those they descend from by it.
func (c *callContext) Value(key any) any { return c.become().Value(key) }

// Err implements context.Context.
func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.real != nil:
		return c.real.Err()
	case c.over:
		return context.Canceled
	case c.stream.Err() != nil:
		return c.stream.Err()
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// end ends the context, if nothing has yet.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.real != nil {
		c.cancel()
	}
}

func (c *callContext) become() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		if c.deadline.IsZero() {
			c.real, c.cancel = context.WithCancel(c.stream)
		} else {
			c.real, c.cancel = context.WithDeadline(c.stream, c.deadline)
		}
		if c.over {
			c.cancel()
		}
	}
	return c.real
}
