package transport

import (
	"context"
	"math/bits"
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

	mu   sync.Mutex
	open map[time.Duration]*deadline // by the time since start; guarded by mu
	many int                         // at so many, those that have passed are removed; guarded by mu
}

type deadline struct {
	context.Context
	cancel context.CancelFunc
}

// newDeadlines makes contexts that end with parent at the latest.
func newDeadlines(parent context.Context) *deadlines {
	return &deadlines{parent: parent, start: time.Now(), open: make(map[time.Duration]*deadline)}
}

// in is a context that ends when the time left is over, or a little earlier.
func (d *deadlines) in(left time.Duration) context.Context {
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
	c := &deadline{ctx, cancel}
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
