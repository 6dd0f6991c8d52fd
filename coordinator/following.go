package coordinator

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/decree-tx/decree/fsm/txn"
)

// Following is a client that hears of a transaction's outcome and has no goroutine
// that waits for it: thousands may wait where a participant does not answer. Give
// Start a zero Following for each call; it may be used again once the listener has
// heard.
type Following struct {
	t atomic.Pointer[term] // set once a call, by Start, with what follows; nil before

	// Set once a call.
	d    *drive
	wait Wait
	to   Listener

	// Guarded by term.mu: its place among the drive's.
	follows    bool
	prev, next *Following
}

// Listener hears the answer to a Start.
type Listener interface {
	// Answered is told what Submit would have returned, and must neither block nor call
	// the coordinator: locks are held.
	Answered(Result, error)
}

// Start is Submit that does not wait. Where the error is nil the listener hears the
// answer, once, perhaps before Start returns. Any error is definite: nothing has left
// this node.
func (c *Coordinator) Start(s Submission, f *Following, to Listener) error {
	t := c.current()
	if t == nil { // before the checks, which a follower's older state could fail
		return ErrNotLeader
	}
	if err := c.checkSubmission(&s); err != nil {
		return err
	}
	d, known, err := t.admit(txn.Stage{ID: s.ID, Branches: s.Branches, Timeout: s.Timeout, Owner: s.Owner}, s.Traceparent)
	switch {
	case err != nil:
		return err
	case known != nil:
		to.Answered(finished(known), nil)
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.d, f.wait, f.to = d, s.Wait, to
	f.t.Store(t)
	if !f.answer() {
		d.followers.add(f)
	}
	return nil
}

// Leave is the end of a Submit's context, which cause says: the listener hears at
// once, unless it has heard, and the transaction goes on. Where Start may not have
// returned yet this may come too early and do nothing: then call it again after.
func (c *Coordinator) Leave(f *Following, cause error) {
	t := f.t.Load()
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !f.follows {
		return
	}
	f.d.followers.remove(f)
	if f.d.decided.reached {
		f.to.Answered(Result{Transaction: f.d.Transaction()}, nil)
	} else {
		f.to.Answered(Result{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, cause))
	}
}

// answer tells the listener what there is to be told, if that is all: see term.await.
// mu is held.
func (f *Following) answer() bool {
	d := f.d
	t := f.t.Load()
	over := d.failure != nil || t.ended
	switch {
	case d.decided.reached && (f.wait == WaitDecision || d.delivered.reached || over):
		f.to.Answered(Result{Transaction: d.Transaction(), Delivered: d.delivered.reached}, nil)
	case over:
		f.to.Answered(Result{}, t.whyUndecided(context.Background(), d))
	default:
		return false
	}
	return true
}

// followers are those of a drive.
type followers struct{ first *Following }

func (fs *followers) add(f *Following) {
	f.follows, f.prev, f.next = true, nil, fs.first
	if fs.first != nil {
		fs.first.prev = f
	}
	fs.first = f
}

func (fs *followers) remove(f *Following) {
	if f.prev == nil {
		fs.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	}
	f.follows, f.prev, f.next = false, nil, nil
}

// tell answers those who can be answered. mu is held.
func (fs *followers) tell() {
	for f := fs.first; f != nil; {
		next := f.next
		fs.remove(f)
		if !f.answer() {
			fs.add(f)
		}
		f = next
	}
}
