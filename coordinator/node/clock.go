package node

import (
	"sync"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

const (
	// hearingTime is how long what was heard of cluster time must have held before this
	// node's own wall clock is judged by it. Entries that are replayed after
	// a restart tell an old time, all of them within moments; a live leader tells the
	// present one at least every retentionInterval.
	hearingTime = 2 * retentionInterval
	// hearingSlack is how late an entry may be applied and still confirm it.
	hearingSlack = 5 * time.Second
)

// clock is cluster time as this node hears it: the headers of the entries that it
// applies, carried on by its own monotonic clock. With it a leader judges its own wall
// clock when it opens its epoch: one that is days ahead would move cluster time, and
// with it the horizon, for good, and every younger id would be refused as expired (rule
// R11).
type clock struct {
	watch stopwatch // set once by newClock

	mu sync.Mutex // guards what follows
	// lead is by how much cluster time is ahead of the watch. An entry is applied after
	// its time was taken, so the most that was heard is the nearest.
	lead  time.Duration
	since time.Duration // by the watch, when lead was first heard, but for the slack
	last  time.Duration // when an entry last confirmed it
	any   bool          // something was heard
}

func newClock(asleep func() time.Duration) *clock { return &clock{watch: startWatch(asleep)} }

// hear notes the cluster time of an entry that is applied now.
func (c *clock) hear(t txn.Time) {
	now := c.watch.elapsed()
	lead := t.Sub(txn.Time(now))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.any, lead > c.lead+hearingSlack:
		c.any, c.lead, c.since, c.last = true, lead, now, now
	case lead >= c.lead-hearingSlack:
		c.lead, c.last = max(c.lead, lead), now
	}
}

// now is cluster time by what was heard; false where that may be old.
func (c *clock) now() (txn.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return txn.Time(c.lead + c.watch.elapsed()), c.last-c.since >= hearingTime
}
