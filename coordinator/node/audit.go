package node

import (
	"context"
	"fmt"

	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

// Note puts an operator's action on the record that is not the log's to carry out, such as
// a change of the membership, and blocks until the record is applied here. Call it before
// the action, on the leader. Errors are those of a coordinator.Log.
func (n *Node) Note(ctx context.Context, by fsm.Operator, action, target, detail string) error {
	c := n.audited(fsm.Audited{Who: by.Who, Why: by.Why, Action: action, Target: target, Detail: detail})
	if c == nil {
		return nil
	}
	_, err := n.register(ctx, c)
	return err
}

// audited is the command that puts an action on the record. Where there is no trail yet,
// in the middle of an upgrade, or nobody to be named, it is the bare action, which may be
// none: what operators could do before there was a trail they can do meanwhile.
func (n *Node) audited(a fsm.Audited) fsm.Command {
	if a.Who == "" {
		return a.Command
	}
	if n.Machine.Level() < fsm.LevelAudit {
		n.logger.Warn("not on the audit trail, for not all nodes are upgraded", "who", a.Who, "action", a.Action,
			"target", a.Target, "detail", a.Detail, "why", a.Why)
		return a.Command
	}
	return a
}

// Resolve writes an operator's word for what became of a branch, on the record, and returns
// the state after it. Errors are those of coordinator.Coordinator.Resolve, and fsm.ErrLevel
// where not all nodes are upgraded.
func (n *Node) Resolve(ctx context.Context, by fsm.Operator, word txn.Resolve) (*txn.Transaction, error) {
	fate := "committed"
	if word.As == txn.Abort {
		fate = "aborted"
	}
	tx, err := n.Coordinator.Resolve(ctx, fsm.Audited{
		Who: by.Who, Why: by.Why, Action: "resolve branch", Target: word.ID.String(),
		Detail: fmt.Sprintf("branch %d as %s", word.Branch, fate), Command: word,
	})
	return tx, n.sayWhoLags(err)
}
