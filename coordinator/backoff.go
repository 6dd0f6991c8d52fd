package coordinator

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is the pause before a retry, with full jitter: uniform between nothing
// and base * 2^attempt, at most the cap. Spreading over the whole interval keeps
// the retries of a crowd apart better than any jitter around its end
// (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
func (c *Coordinator) backoff(attempt int) time.Duration {
	const mostDoublings = 20 // base << 20 is past any sensible cap, and far from overflow
	ceiling := min(c.cfg.BackoffBase<<min(max(attempt, 0), mostDoublings), c.cfg.BackoffCap)
	return rand.N(ceiling) + 1
}

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
