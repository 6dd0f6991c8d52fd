package bench

import (
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Latencies are kept in microseconds, to three digits, up to ten minutes: a call's
// patience ends long before.
const (
	longestLatency = int64(10 * time.Minute / time.Microsecond)
	latencyDigits  = 3
)

func newHistogram() *hdr.Histogram { return hdr.New(1, longestLatency, latencyDigits) }

// answer is what a client learnt of one transaction.
type answer uint8

const (
	committed answer = iota
	aborted
	failed // no outcome: refused, or not known in time
	answers
)

// counted is what came of the load in some span of time.
type counted struct {
	answers [answers]uint64
	shed    uint64         // never begun: too many were under way
	latency *hdr.Histogram // of committed and aborted ones
	fault   error          // of the latest that failed
}

func newCounted() *counted { return &counted{latency: newHistogram()} }

// add puts another span's beside this one's.
func (c *counted) add(other *counted) {
	for i, n := range other.answers {
		c.answers[i] += n
	}
	c.shed += other.shed
	c.latency.Merge(other.latency)
	if other.fault != nil {
		c.fault = other.fault
	}
}

func (c *counted) reset() {
	c.answers, c.shed, c.fault = [answers]uint64{}, 0, nil
	c.latency.Reset()
}

// done is how many had an outcome.
func (c *counted) done() uint64 { return c.answers[committed] + c.answers[aborted] }

// shards keep clients from waiting for one another when they record.
const shards = 16

// tally counts what clients learn. It is safe for concurrent use.
type tally struct {
	next   atomic.Uint64 // which shard
	shards [shards]shard
}

type shard struct {
	mu  sync.Mutex
	now *counted // since the last cut; guarded by mu
	_   [40]byte // the next shard's lock is on another cache line
}

func newTally() *tally {
	t := &tally{}
	for i := range t.shards {
		t.shards[i].now = newCounted()
	}
	return t
}

// record counts an outcome that took so long.
func (t *tally) record(a answer, took time.Duration) {
	s := &t.shards[t.next.Add(1)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.answers[a]++
	us := min(max(took.Microseconds(), 1), longestLatency)
	s.now.latency.RecordValue(us) //nolint:errcheck // it is within the bounds
}

// shedOne counts a transaction that was due and not begun.
func (t *tally) shedOne() {
	s := &t.shards[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.shed++
}

// fail counts a transaction without an outcome.
func (t *tally) fail(err error) {
	s := &t.shards[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.answers[failed]++
	s.now.fault = err
}

// cut returns what was counted since the last cut.
func (t *tally) cut() *counted {
	all := newCounted()
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		all.add(s.now)
		s.now.reset()
		s.mu.Unlock()
	}
	return all
}
