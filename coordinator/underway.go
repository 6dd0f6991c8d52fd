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
	roster     *roster // nil once it has ended
	prev, next *call   // in roster
}

// roster is calls under way in the order in which they left, which is that of their
// deadlines.
type roster struct{ first, last *call }

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
	l.watchPatience()
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
	c.roster.remove(c)
	if errors.Is(err, participants.ErrNotStarted) {
		l.call(c)
		return
	}
	l.ended(c, vote, err)
}

// ended takes the answer to a call of either phase. mu is held.
func (l *lane) ended(c *call, vote participants.Vote, err error) {
	if c.work.Kind == txn.PrepareBranch {
		l.answered(c, vote, err)
	} else {
		l.delivered(c, err)
	}
}

// cancel gives a call up; false where it has ended, or is about to tell so. mu is
// held.
func (c *call) cancel() bool {
	if c.roster == nil || !c.started.Cancel() {
		return false
	}
	c.roster.remove(c)
	c.lane.door.leave()
	return true
}

// watchPatience sets the timer for the call that is to be given up first, unless it
// is set: for that one or an earlier one. mu is held.
func (l *lane) watchPatience() {
	if l.patience != nil {
		return
	}
	var first time.Time
	for _, r := range l.started {
		if r.first != nil && (first.IsZero() || r.first.deadline.Before(first)) {
			first = r.first.deadline
		}
	}
	if first.IsZero() {
		return
	}
	l.patience = time.AfterFunc(time.Until(first), func() {
		l.t.mu.Lock()
		defer l.t.mu.Unlock()
		l.patience = nil
		if !l.t.ended {
			l.losePatience(time.Now())
			l.watchPatience()
		}
	})
}

// losePatience gives up what has taken too long. mu is held.
func (l *lane) losePatience(now time.Time) {
	for _, r := range l.started {
		for c := r.first; c != nil && !now.Before(c.deadline); {
			next := c.flight.next
			if c.cancel() {
				l.ended(c, participants.Vote{}, fmt.Errorf("no answer: %w", context.DeadlineExceeded))
			}
			c = next
		}
	}
}

// abandon gives up all calls that have no goroutine: the term is over. mu is held.
func (l *lane) abandon() {
	if l.patience != nil {
		l.patience.Stop()
	}
	for _, r := range l.started {
		for c := r.first; c != nil; {
			next := c.flight.next
			c.cancel()
			c = next
		}
	}
}
