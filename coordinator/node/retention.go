package node

import (
	"context"
	"time"

	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

// retentionInterval is how often the horizon moves, and collectLimit how many
// transactions one entry forgets, so that no apply takes long.
const (
	retentionInterval = time.Minute
	collectLimit      = 10_000
)

// retain moves the horizon and forgets what lies before it, until the leadership
// ends.
func (n *Node) retain(ctx context.Context, epoch uint64) {
	ticker := time.NewTicker(retentionInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for n.collect(ctx, epoch) == collectLimit {
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

// horizon is the retention's, or a later one where more transactions are kept
// than there is room for: as if they had come at an even pace, the share that is
// too much is cut off the time that they cover.
func (n *Node) horizon(now txn.Time) txn.Time {
	cluster, stats := n.Machine.Cluster(), n.Machine.Stats()
	h := max(now.Add(-n.cfg.Retention), cluster.Horizon)
	if kept := stats.Retained - stats.Unfinished; kept > n.cfg.MaxRetained {
		share := float64(n.cfg.MaxRetained) / float64(kept)
		early := now.Add(-time.Duration(float64(now.Sub(h)) * share))
		h = max(h, min(early, now.Add(-MinRetention)))
	}
	return h
}
