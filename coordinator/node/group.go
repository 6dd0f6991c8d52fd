package node

import (
	"context"

	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/group"
)

// SetGroup tells a new cluster which group it is, on the record; see fsm.SetGroup. Errors
// are fsm.ErrGroupStays, fsm.ErrTooLateForGroup, fsm.ErrLevel where not all nodes are
// upgraded, and those of a coordinator.Log.
func (n *Node) SetGroup(ctx context.Context, by fsm.Operator, g group.Group) error {
	_, err := n.register(ctx, n.audited(fsm.Audited{
		Who: by.Who, Why: by.Why, Action: "set group", Target: g.String(), Command: fsm.SetGroup{Group: g},
	}))
	return err
}
