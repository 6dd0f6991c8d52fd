package bench

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// What is proven here: whatever many clients record is counted once, in one cut or the
// next, and a failure has no latency.

func TestTallyCountsOnce(t *testing.T) {
	const clients, each = 32, 500
	tally := newTally()
	var recording sync.WaitGroup
	for range clients {
		recording.Go(func() {
			for range each {
				tally.record(committed, 7*time.Millisecond)
			}
		})
	}
	all := newCounted()
	recorded := make(chan struct{})
	go func() { defer close(recorded); recording.Wait() }()
	for done := false; !done; {
		select {
		case <-recorded:
			done = true
		default:
		}
		all.add(tally.cut())
	}
	if all.done() != clients*each || all.latency.TotalCount() != clients*each {
		t.Errorf("%d done, %d latencies of %d", all.done(), all.latency.TotalCount(), clients*each)
	}
	if l := latencyOf(all.latency); l.P50 < 6990 || l.P50 > 7010 || l.Max < l.P999 {
		t.Errorf("latencies %+v", l)
	}
}

func TestFailuresHaveNoLatency(t *testing.T) {
	tally := newTally()
	tally.fail(errors.New("cut"))
	tally.shedOne()
	tally.record(aborted, 0) // faster than the clock's tick
	c := tally.cut()
	if c.answers != [answers]uint64{aborted: 1, failed: 1} || c.shed != 1 || c.done() != 1 {
		t.Errorf("counted %+v", c)
	}
	if c.latency.TotalCount() != 1 || c.fault == nil {
		t.Errorf("%d latencies, fault %v", c.latency.TotalCount(), c.fault)
	}
}
