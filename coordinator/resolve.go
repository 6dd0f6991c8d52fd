package coordinator

import (
	"context"
	"slices"

	"github.com/decree-tx/decree/fsm/txn"
)

// Resolve writes an operator's word for what became of a branch, as a command that makes
// txn.Resolve happen, and returns the state after it. What is delivered to that branch
// ends with it (rule R10); a call that is under way is waited for no more. Errors are
// txn.ErrUndecided, txn.ErrResolved, txn.ErrSettled and those of [Log].
func (c *Coordinator) Resolve(ctx context.Context, word txn.Command) (*txn.Transaction, error) {
	t, ctx, done, err := c.withinTerm(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return t.propose(ctx, word)
}

// Examine asks the participant of a branch what became of it: the evidence for Resolve.
// What the participant says is in the Evidence, its error too; the error is ErrNotLeader,
// txn.ErrUnknown, txn.ErrNoSuchBranch, or the barrier's.
func (c *Coordinator) Examine(ctx context.Context, id txn.TxID, branch int) (*txn.Transaction, Evidence, error) {
	t, ctx, done, err := c.withinTerm(ctx)
	if err != nil {
		return nil, Evidence{}, err
	}
	defer done()
	if err := t.log.Barrier(ctx); err != nil {
		return nil, Evidence{}, err
	}
	tx, known := t.view.Transaction(id)
	switch {
	case !known:
		return nil, Evidence{}, t.unknown(id)
	case branch < 1 || branch > len(tx.Branches):
		return nil, Evidence{}, txn.ErrNoSuchBranch
	}
	name := tx.Branches[branch-1].Participant
	found := t.evidenceAt(ctx, name, id, tx)
	i := slices.IndexFunc(found, func(e Evidence) bool { return e.Branch == branch })
	if i < 0 { // it has a record of ends, and none of this branch
		return tx, Evidence{Participant: name, Branch: branch}, nil
	}
	return tx, found[i], nil
}
