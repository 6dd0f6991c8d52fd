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

	next     atomic.Uint64 // number of the next transaction
	inFlight atomic.Int64
	stopped  atomic.Bool
	work     sync.WaitGroup
}

// one runs the next transaction; its latency counts from the moment at which it was
// meant to begin.
func (l *load) one(ctx context.Context, meant time.Time) {
	l.inFlight.Add(1)
	defer l.inFlight.Add(-1)
	a, err := l.run(ctx, l.next.Add(1))
	if err != nil {
		l.tally.fail(err)
		return
	}
	l.tally.record(a, time.Since(meant))
}

// closed starts clients of which each begins a transaction when its last has ended.
func (l *load) closed(ctx context.Context, clients int) {
	for range clients {
		l.work.Go(func() {
			for !l.stopped.Load() && ctx.Err() == nil {
				l.one(ctx, time.Now())
			}
		})
	}
}

// stop begins no more transactions, and waits for those under way.
func (l *load) stop() {
	l.stopped.Store(true)
	l.work.Wait()
}
