package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// What is proven here: an open loop begins what is due whatever becomes of the rest,
// and counts latency from the moment at which a transaction was due; what it sheds it
// counts; a closed loop never has more under way than it has clients.

// TestOpenLoopCountsFromTheIntendedStart has a cluster that stalls for a second. A
// generator that waits for answers would see one slow transaction; users would have
// seen hundreds.
func TestOpenLoopCountsFromTheIntendedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		const stallFrom, stallUntil = time.Second, 2 * time.Second
		l := newLoad(func(context.Context, uint64) (answer, error) {
			if at := time.Since(start); at >= stallFrom && at < stallUntil {
				time.Sleep(stallUntil - at)
			}
			return committed, nil
		})
		l.start(t.Context(), Step{Rate: 100}, 1000)
		time.Sleep(4*time.Second - time.Millisecond)
		l.stop()
		c := l.tally.cut()
		if c.done() != 400 || c.shed != 0 {
			t.Fatalf("%d done, %d shed, want 400 and none", c.done(), c.shed)
		}
		// A hundred were due during the stall, and waited half a second on average.
		var slow int64
		for _, bar := range c.latency.Distribution() {
			if bar.From > 2 { // the rest took no time at all
				slow += bar.Count
			}
		}
		if slow < 99 || slow > 101 {
			t.Errorf("%d transactions felt the stall, want the 100 that were due in it", slow)
		}
		if p90 := time.Duration(c.latency.ValueAtQuantile(90)) * time.Microsecond; p90 < 500*time.Millisecond {
			t.Errorf("p90 %s: the stall was left out", p90)
		}
	})
}

// TestOpenLoopThatBeginsLate has a generator that gets no processor for a while: what
// was due meanwhile begins late, and counts from when it was due.
func TestOpenLoopThatBeginsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad(func(context.Context, uint64) (answer, error) { return committed, nil })
		meant := time.Now()
		time.Sleep(300 * time.Millisecond) // begun late
		l.one(t.Context(), meant)
		if c := l.tally.cut(); c.latency.Max() < 299_000 {
			t.Errorf("latency %d us, want the 300 ms since it was due", c.latency.Max())
		}
	})
}

func TestOpenLoopSheds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad(func(ctx context.Context, _ uint64) (answer, error) {
			time.Sleep(10 * time.Second) // nobody answers in time
			return committed, nil
		})
		l.start(t.Context(), Step{Rate: 100}, 30)
		time.Sleep(time.Second - time.Millisecond)
		if n := l.inFlight.Load(); n != 30 {
			t.Errorf("%d under way, want 30", n)
		}
		l.stop()
		if c := l.tally.cut(); c.done() != 30 || c.shed != 70 {
			t.Errorf("%d done and %d shed of 100 that were due, want 30 and 70", c.done(), c.shed)
		}
	})
}

func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad(func(_ context.Context, n uint64) (answer, error) {
			time.Sleep(100 * time.Millisecond)
			switch n % 4 {
			case 0:
				return aborted, nil
			case 1:
				return failed, errors.New("no outcome")
			default:
				return committed, nil
			}
		})
		l.start(t.Context(), Step{Clients: 8}, 1)
		time.Sleep(950 * time.Millisecond)
		if n := l.inFlight.Load(); n != 8 {
			t.Errorf("%d under way, want one for each of 8 clients", n)
		}
		l.stop()
		c := l.tally.cut()
		if c.answers != [answers]uint64{committed: 40, aborted: 20, failed: 20} {
			t.Errorf("answers %v of 80", c.answers)
		}
		if l := latencyOf(c.latency); l.P50 < 99_900 || l.Max > 100_200 {
			t.Errorf("latencies %+v, want 100 ms", l)
		}
	})
}
