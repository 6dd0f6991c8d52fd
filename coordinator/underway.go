package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// flight is the part of a call that has no goroutine while it is under way: its
// participant is a [participants.Starter]. Guarded by term.mu.
type flight struct {
	started    participants.Started
	deadline   time.Time
	roster     *roster // nil once it has ended or was to be given up
	prev, next *call   // in roster
}

// roster is calls under way of one phase, in the order in which they left, which is
// that of their deadlines.
type roster struct {
	first, last *call
	patience    *time.Timer // until first's deadline, or an earlier one's; nil while not set
}

func (r *roster) add(c *call) {
	c.roster, c.flight.prev = r, r.last
	if r.last == nil {
		r.first = c
	} else {
		r.last.flight.next = c
	}
	r.last = c
}

func (r *roster) remove(c *call) {
	u := &c.flight
	if u.prev == nil {
		r.first = u.next
	} else {
		u.prev.flight.next = u.next
	}
	if u.next == nil {
		r.last = u.prev
	} else {
		u.next.flight.prev = u.prev
	}
	*u = flight{}
}

// start begins a call without a goroutine, where the participant can be asked so. mu
// is held.
func (l *lane) start(c *call) bool {
	patience, r := l.t.cfg.DeliveryTimeout, &l.started[1]
	staged := true
	if c.work.Kind == txn.PrepareBranch {
		patience, r = l.t.cfg.PrepareTimeout, &l.started[0]
		staged = c.d.staged.reached
	}
	deadline := time.Now().Add(patience)
	started := l.door.start(participants.Call{Kind: c.work.Kind, Branch: l.branchOf(c), Deadline: deadline}, staged, c)
	if started == nil {
		return false
	}
	c.flight = flight{started: started, deadline: deadline}
	r.add(c)
	if c.work.Kind == txn.PrepareBranch {
		c.d.prepares = append(c.d.prepares, c)
	}
	l.watchPatience(r)
	return true
}

// Ended implements participants.Listener.
func (c *call) Ended(vote participants.Vote, err error) {
	l := c.lane
	defer l.door.leave()
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if l.t.ended {
		return
	}
	if c.roster != nil { // else it was to be given up
		c.roster.remove(c)
	}
	if errors.Is(err, participants.ErrNotStarted) {
		l.again(c)
		return
	}
	l.ended(c, vote, err)
}

// again makes a call that was started and has not left, unless it is wanted no more: a
// prepare that is cancelled at the decision may be about to tell so. mu is held.
func (l *lane) again(c *call) {
	switch {
	case c.d.Wants(c.work):
		l.call(c)
		return
	case c.work.Kind == txn.PrepareBranch:
		l.preparing--
	default:
		l.delivering--
	}
	l.pump()
}

// ended takes the answer to a call of either phase. mu is held.
func (l *lane) ended(c *call, vote participants.Vote, err error) {
	if c.work.Kind == txn.PrepareBranch {
		l.answered(c, vote, err)
	} else {
		l.delivered(c, err)
	}
}

// cancel gives a call up; false where it has ended, or is about to tell so. Either way
// it is in its roster no more. mu is held.
func (c *call) cancel() bool {
	if c.roster == nil {
		return false
	}
	cancelled := c.started.Cancel()
	c.roster.remove(c)
	if cancelled {
		c.lane.door.leave()
	}
	return cancelled
}

// watchPatience sets the timer for the call of a roster that is to be given up first,
// unless it is set: for that one or an earlier one. mu is held.
func (l *lane) watchPatience(r *roster) {
	if r.patience != nil || r.first == nil {
		return
	}
	r.patience = time.AfterFunc(time.Until(r.first.deadline), func() {
		l.t.mu.Lock()
		defer l.t.mu.Unlock()
		r.patience = nil
		if !l.t.ended {
			l.losePatience(r, time.Now())
			l.watchPatience(r)
		}
	})
}

// givenUpAtOnce is how many calls of a participant are given up while mu is held: all
// that left together are due together, and other participants' transactions wait.
const givenUpAtOnce = 16

// losePatience gives up the first of what has taken too long. mu is held.
func (l *lane) losePatience(r *roster, now time.Time) {
	for range givenUpAtOnce {
		c := r.first
		if c == nil || now.Before(c.deadline) {
			return
		}
		if c.cancel() {
			l.ended(c, participants.Vote{}, fmt.Errorf("no answer: %w", context.DeadlineExceeded))
		}
	}
}

// abandon gives up all calls that have no goroutine: the term is over. mu is held.
func (l *lane) abandon() {
	for i := range l.started {
		r := &l.started[i]
		if r.patience != nil {
			r.patience.Stop()
		}
		for c := r.first; c != nil; c = r.first {
			c.cancel()
		}
	}
}
