package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// load runs transactions until it is stopped, and tallies what comes of them.
type load struct {
	run   func(ctx context.Context, n uint64) (answer, error) // the n-th transaction
	tally *tally
	diary *diary // nil where nobody reads it

	next     atomic.Uint64 // number of the next transaction
	inFlight atomic.Int64
	quit     chan struct{} // closed by stop
	work     sync.WaitGroup
}

func newLoad(run func(ctx context.Context, n uint64) (answer, error)) *load {
	return &load{run: run, tally: newTally(), quit: make(chan struct{})}
}

// start begins a step's load.
func (l *load) start(ctx context.Context, s Step, inFlight int) {
	if s.open() {
		l.work.Go(func() { l.open(ctx, s.Rate, int64(inFlight)) })
		return
	}
	l.closed(ctx, s.Clients)
}

// one runs the next transaction; its latency counts from the moment at which it was
// meant to begin.
func (l *load) one(ctx context.Context, meant time.Time) {
	a, err := l.run(ctx, l.next.Add(1))
	if err != nil {
		l.tally.fail(err)
		return
	}
	now := time.Now()
	l.tally.record(a, now.Sub(meant))
	if l.diary != nil {
		l.diary.write(meant, now)
	}
}

// closed starts clients of which each begins a transaction when its last has ended.
func (l *load) closed(ctx context.Context, clients int) {
	for range clients {
		l.work.Go(func() {
			l.inFlight.Add(1)
			defer l.inFlight.Add(-1)
			for !l.stopped() && ctx.Err() == nil {
				l.one(ctx, time.Now())
			}
		})
	}
}

// open begins rate transactions a second, evenly, and never waits for one: users come
// when they come. A transaction's latency counts from the moment at which it was due,
// so that one which had to begin late, since this process was, shows that (no
// coordinated omission). While more than most are under way, what is due is shed.
func (l *load) open(ctx context.Context, rate float64, most int64) {
	start := time.Now()
	for due := 0; ; due++ {
		at := start.Add(time.Duration(float64(due) / rate * float64(time.Second)))
		if !l.until(ctx, at) {
			return
		}
		if l.inFlight.Load() >= most {
			l.tally.shedOne()
			continue
		}
		l.inFlight.Add(1)
		l.work.Go(func() {
			defer l.inFlight.Add(-1)
			l.one(ctx, at)
		})
	}
}

// until waits for a moment; false when the load is to end before. A moment that has
// passed is not waited for.
func (l *load) until(ctx context.Context, at time.Time) bool {
	wait := time.Until(at)
	if wait <= 0 {
		return !l.stopped() && ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.quit:
		return false
	case <-ctx.Done():
		return false
	}
}

func (l *load) stopped() bool {
	select {
	case <-l.quit:
		return true
	default:
		return false
	}
}

// stop begins no more transactions, and waits for those under way.
func (l *load) stop() {
	close(l.quit)
	l.work.Wait()
}

// diary keeps when each transaction began and was answered, for who looks for gaps.
type diary struct {
	mu    sync.Mutex
	spans []span // guarded by mu
}

// span is one transaction that got an outcome.
type span struct{ began, answered time.Time }

func (d *diary) write(began, answered time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spans = append(d.spans, span{began, answered})
}

// read gives what was written so far, in the order of the answers.
func (d *diary) read() []span {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]span(nil), d.spans...)
}
