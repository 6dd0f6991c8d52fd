package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
)

// levelInterval is how often a leader asks the nodes whether the cluster's level can
// rise, while it can: one small question to each.
const levelInterval = time.Second

// raiseLevel raises the cluster's level as soon as every configured node reads more than
// it has, and ends once it has what this binary does, or with the leadership. What holds
// it back, a node that is down or not upgraded yet, is told once.
func (n *Node) raiseLevel(ctx context.Context) {
	ticker := time.NewTicker(levelInterval)
	defer ticker.Stop()
	for uint32(n.Machine.Level()) < n.cfg.Cluster.Level {
		if err := n.tryToRaiseLevel(ctx); err != nil && ctx.Err() == nil {
			if before := n.lagging.Swap(&err); before == nil || (*before).Error() != err.Error() {
				n.logger.Info("the cluster's level can't rise yet", "level", n.Machine.Level(), "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// raiseLevelOfNewCluster raises the level before a cluster that has nothing yet is led,
// where all nodes answer soon: what its operator does first is on the record then.
func (n *Node) raiseLevelOfNewCluster(ctx context.Context) {
	if s := n.Machine.Stats(); s.Participants > 0 || s.Retained > 0 || uint32(n.Machine.Level()) >= n.cfg.Cluster.Level {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, levelInterval)
	defer cancel()
	if err := n.tryToRaiseLevel(ctx); err != nil {
		n.logger.Debug("the new cluster's level is not raised yet", "error", err)
	}
}

func (n *Node) tryToRaiseLevel(ctx context.Context) error {
	return n.Cluster.AtLowestLevel(ctx, func(lowest uint32) error {
		level := fsm.Level(max(lowest, uint32(fsm.LevelFirst)))
		if has := n.Machine.Level(); level <= has {
			return fmt.Errorf("a node's decree reads levels up to %d only, the leader's up to %d", level, n.cfg.Cluster.Level)
		}
		_, err := n.register(ctx, fsm.RaiseLevel{Level: level})
		if errors.Is(err, coordinator.ErrOutcomeUnknown) {
			return err // it may be raised; the next look tells
		}
		if err == nil {
			n.logger.Info("the cluster's level has risen", "level", level)
		}
		return err
	})
}

// sayWhoLags adds to a refusal for the cluster's level what holds the level back.
func (n *Node) sayWhoLags(err error) error {
	if lagging := n.lagging.Load(); lagging != nil && errors.Is(err, fsm.ErrLevel) {
		return fmt.Errorf("%w: %w", err, *lagging)
	}
	return err
}
