package transport

import (
	"context"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// deadlineShare bounds by how much a shared deadline may come early: that part of
// the time that is left.
const deadlineShare = 64

// deadlines are the contexts of a stream's submissions. A timer and a context of
// its own would be a good part of what a submission costs, so those that end at
// about the same time share them: times are rounded down to a grain that is a
// power of two and at most a 64th of what is left. So there are at most some 64 of
// them for each doubling of the time left, whatever the number of submissions.
type deadlines struct {
	parent context.Context
	start  time.Time
	leave  func(f *following, cause error) // tells one that its deadline has come

	mu   sync.Mutex
	open map[time.Duration]*deadline // by the time since start; guarded by mu
	many int                         // at so many, those that have passed are removed; guarded by mu
}

type deadline struct {
	context.Context
	cancel context.CancelFunc
	leave  func(f *following, cause error) // set once

	mu         sync.Mutex
	followings map[*following]struct{} // that wait until then; guarded by mu
}

// add has f leave when the deadline comes.
func (c *deadline) add(f *following) {
	f.within = c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.followings == nil {
		c.followings = make(map[*following]struct{})
		context.AfterFunc(c, c.pass)
	}
	c.followings[f] = struct{}{}
}

func (c *deadline) remove(f *following) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.followings, f)
}

// pass lets all leave who wait.
func (c *deadline) pass() {
	c.mu.Lock()
	waiting := slices.Collect(maps.Keys(c.followings))
	c.mu.Unlock()
	for _, f := range waiting { // without the lock, which they take
		c.leave(f, context.Cause(c))
	}
}

// newDeadlines makes contexts that end with parent at the latest.
func newDeadlines(parent context.Context, leave func(*following, error)) *deadlines {
	return &deadlines{parent: parent, start: time.Now(), leave: leave, open: make(map[time.Duration]*deadline)}
}

// in is a context that ends when the time left is over, or a little earlier.
func (d *deadlines) in(left time.Duration) *deadline {
	end := time.Since(d.start) + left
	if grain := left / deadlineShare; grain > 1 {
		end &^= 1<<(bits.Len64(uint64(grain))-1) - 1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.open[end]; ok {
		return c
	}
	d.sweep()
	ctx, cancel := context.WithDeadline(d.parent, d.start.Add(end))
	c := &deadline{Context: ctx, cancel: cancel, leave: d.leave}
	d.open[end] = c
	return c
}

// sweep forgets what has passed, now and then; mu is held.
func (d *deadlines) sweep() {
	if len(d.open) < d.many {
		return
	}
	now := time.Since(d.start)
	for end, c := range d.open {
		if end < now {
			c.cancel()
			delete(d.open, end)
		}
	}
	d.many = 2*len(d.open) + deadlineShare
}

// close ends all of them.
func (d *deadlines) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.open {
		c.cancel()
	}
	clear(d.open)
}
