package transport

import "sync"

// maxIdleHands bounds the goroutines that are kept without work: as many as one
// busy stream needs, some 8 KiB of stack each.
const maxIdleHands = 1024

// crew carries out tasks, each at once and on a goroutine of its own, and keeps
// the goroutines for the next ones: their stacks have grown to what a submission
// needs, and they are warm. How many there are is bounded by whoever gives tasks.
type crew struct {
	hands sync.WaitGroup

	mu     sync.Mutex
	idle   []*hand // the last to have worked comes last, and is the first to be called; guarded by mu
	closed bool    // guarded by mu
}

// hand is a goroutine of the crew.
type hand struct{ tasks chan task }

type task interface{ carryOut() }

// give has t carried out and does not wait for that.
func (c *crew) give(t task) {
	c.mu.Lock()
	n := len(c.idle)
	if n == 0 {
		c.mu.Unlock()
		h := &hand{tasks: make(chan task, 1)}
		c.hands.Go(func() { c.work(h, t) })
		return
	}
	h := c.idle[n-1]
	c.idle = c.idle[:n-1]
	c.mu.Unlock()
	h.tasks <- t
}

func (c *crew) work(h *hand, t task) {
	for {
		t.carryOut()
		if !c.rest(h) {
			return
		}
		var more bool
		if t, more = <-h.tasks; !more {
			return
		}
	}
}

// rest reports whether the hand is kept.
func (c *crew) rest(h *hand) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) == maxIdleHands {
		return false
	}
	c.idle = append(c.idle, h)
	return true
}

// close ends the goroutines and waits for them. No task may be given after it.
func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	for _, h := range c.idle {
		close(h.tasks)
	}
	c.idle = nil
	c.mu.Unlock()
	c.hands.Wait()
}
