package cluster

import (
	"context"
	"fmt"
	"strings"
)

// AtLowestLevel asks every configured node for its [Config.Level], and calls do with the
// lowest of them while the membership stays as it is, so that no node of a lower level
// can come in meanwhile. It runs on the leader and blocks until a change of the
// membership that is under way has ended, or ctx has.
//
// A node that does not answer may be of any level: the error names it, and do is not
// called. Other errors: [ErrNotLeader], and those of do.
func (n *Node) AtLowestLevel(ctx context.Context, do func(lowest uint32) error) error {
	return n.changeMembers(ctx, func() error {
		lowest, err := n.lowestLevel(ctx)
		if err != nil {
			return err
		}
		return do(lowest)
	})
}

func (n *Node) lowestLevel(ctx context.Context) (uint32, error) {
	var others []Peer
	for _, m := range n.Status().Members {
		if m.ID != n.cfg.ID {
			others = append(others, m.Peer)
		}
	}
	lowest := n.cfg.Level
	var silent []string
	for i, r := range n.askAll(ctx, others) {
		switch {
		case r.err != nil:
			silent = append(silent, fmt.Sprintf("%s (%s)", others[i].ID, r.err))
		case r.answer.ID != others[i].ID:
			silent = append(silent, fmt.Sprintf("%s (node %s answers in its place)", others[i].ID, r.answer.ID))
		default:
			lowest = min(lowest, r.answer.Level)
		}
	}
	if len(silent) > 0 {
		return 0, fmt.Errorf("%w: %s", ErrUnreachable, strings.Join(silent, ", "))
	}
	return lowest, nil
}

// readsWhatIsWritten refuses a node that could not read the cluster's log.
func (n *Node) readsWhatIsWritten(a answer) error {
	if n.cfg.LevelInUse == nil {
		return nil
	}
	if inUse := n.cfg.LevelInUse(); a.Level < inUse {
		return fmt.Errorf("%w: node %s reads levels up to %d, the cluster is at %d: install a newer decree on it",
			ErrTooOld, a.ID, a.Level, inUse)
	}
	return nil
}
