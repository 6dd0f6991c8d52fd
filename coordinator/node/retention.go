package node

import (
	"context"
	"time"

	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

const (
	// retentionInterval is how often the horizon moves, and pressedInterval how often
	// it does while more is kept than MaxRetained: at 20,000 transactions a second a
	// minute would bring as many again.
	retentionInterval = time.Minute
	pressedInterval   = time.Second
	// collectLimit is how many transactions one entry forgets: about a millisecond in
	// which no other is applied.
	collectLimit = 1000
	// pressedRetention is what is left of MinRetention where that does not fit. Less
	// would refuse the new transactions of clients whose clocks are behind.
	pressedRetention = time.Minute
)

// fullDelay is when a client that found no room for its outcome tries again.
const fullDelay = time.Second

// retain moves the horizon and forgets what lies before it, until the leadership
// ends.
func (n *Node) retain(ctx context.Context, epoch uint64) {
	ticker := time.NewTicker(pressedInterval)
	defer ticker.Stop()
	pressed := false
	for tick := 1; ; tick++ {
		kept := n.Machine.Stats().Finished
		n.full.Store(n.cfg.full(kept))
		if now := n.cfg.leastRetention(kept) == pressedRetention; now != pressed {
			if pressed = now; now {
				n.logger.Warn("more transactions finish than there is room for: their outcomes are kept for less than ten minutes",
					"kept", kept, "max-retained", n.cfg.MaxRetained)
			}
		}
		if kept > n.cfg.MaxRetained || tick%int(retentionInterval/pressedInterval) == 0 {
			for n.collect(ctx, epoch) == collectLimit {
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// collect writes one entry and returns how many transactions it forgot.
func (n *Node) collect(ctx context.Context, epoch uint64) int {
	collected := make(chan int, 1)
	n.writer.propose(proposal{
		epoch:   epoch,
		command: fsm.Collect{Limit: collectLimit},
		horizon: n.horizon(n.writer.Now()),
		done:    func(r fsm.Result, _ error) { collected <- r.Collected },
	})
	select {
	case n := <-collected:
		return n
	case <-ctx.Done():
		return 0
	}
}

// horizon is where it should lie now.
func (n *Node) horizon(now txn.Time) txn.Time {
	stats := n.Machine.Stats()
	return n.cfg.horizon(now, n.Machine.Cluster().Horizon, stats.Finished, stats.Oldest)
}

// horizon is the retention's, or a later one where more transactions are kept
// than there is room for: as if they had come at an even pace since the oldest of
// them, the share that is too much is cut off the time that they cover.
func (c Config) horizon(now, before txn.Time, kept int, oldest txn.Time) txn.Time {
	h := max(now.Add(-c.Retention), before)
	if kept <= c.MaxRetained {
		return h
	}
	share := float64(c.MaxRetained) / float64(kept)
	early := now.Add(-time.Duration(float64(now.Sub(max(h, oldest))) * share))
	return max(h, min(early, now.Add(-c.leastRetention(kept))))
}

// leastRetention is for how long a finished transaction is kept whatever the room:
// MinRetention, as long as no more than MaxRetained are; from a quarter above that
// on, pressedRetention; evenly less in between. Memory is bounded, and a retry that
// comes later is refused, never run (rules R11 and R14).
func (c Config) leastRetention(kept int) time.Duration {
	over := float64(kept-c.MaxRetained) / (float64(c.MaxRetained) / 4)
	return MinRetention - time.Duration(float64(MinRetention-pressedRetention)*max(0, min(over, 1)))
}

// full reports whether there is no room for the outcome of one more transaction:
// more finish than pressedRetention can be kept of.
func (c Config) full(kept int) bool { return kept >= 2*c.MaxRetained }
