package coordinator

import (
	"context"
	"errors"
	"fmt"

	"github.com/decree-tx/decree/fsm/txn"
)

// await follows a drive to its decision, and to its delivery where asked.
func (t *term) await(ctx context.Context, d *drive, w Wait) (Result, error) {
	if !t.pass(ctx, &d.decided) {
		return Result{}, t.undecided(ctx, d)
	}
	if w == WaitDelivery {
		t.pass(ctx, &d.delivered)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return Result{Transaction: d.Transaction(), Delivered: d.delivered.reached}, nil
}

// pass waits until a milestone of a drive is reached, and reports whether it was:
// the drive may fail, the term may end, and so may ctx.
func (t *term) pass(ctx context.Context, m *milestone) bool {
	t.mu.Lock()
	passed := m.wait()
	t.mu.Unlock()
	select {
	case <-passed:
	case <-t.endedDone:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return m.reached
}

// undecided says why a drive was followed no further.
func (t *term) undecided(ctx context.Context, d *drive) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.whyUndecided(ctx, d)
}

// whyUndecided is undecided with mu held.
func (t *term) whyUndecided(ctx context.Context, d *drive) error {
	switch {
	case d.failure != nil:
		return d.failure
	case t.ended:
		return ErrOutcomeUnknown
	default:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
	}
}

// awaitStaged follows a drive until staging is applied, and returns the state by
// then.
func (t *term) awaitStaged(ctx context.Context, d *drive) (*txn.Transaction, error) {
	if !t.pass(ctx, &d.staged) {
		return nil, t.undecided(ctx, d)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return d.Transaction(), nil
}

// enlist proposes one more branch.
func (t *term) enlist(ctx context.Context, d *drive, b txn.Branch) (*txn.Transaction, error) {
	t.mu.Lock()
	err := t.enlistable(d, b)
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return t.propose(ctx, txn.Enlist{ID: d.id, Branch: b})
}

// enlistable applies the bounds that admission applies to a one-shot transaction.
func (t *term) enlistable(d *drive, b txn.Branch) error {
	if t.ended {
		return ErrNotLeader
	}
	if d.Transaction().Branch(b.Participant) != 0 {
		return nil // a repetition, or refused by the state machine
	}
	if err := t.cfg.Admit(); err != nil {
		return err
	}
	if n := payloadBytes(d.Branches()) + len(b.Payload); n > t.cfg.MaxTransactionBytes {
		return fmt.Errorf("%w: payloads of %d bytes in all, at most %d", ErrTooLarge, n, t.cfg.MaxTransactionBytes)
	}
	return t.admissibleAt(b.Participant)
}

// seal proposes the end of enlisting.
func (t *term) seal(ctx context.Context, d *drive, votes []txn.BranchVote) error {
	_, err := t.propose(ctx, txn.Prepare{ID: d.id, Votes: votes})
	return err
}

// abort withdraws a transaction that is driven, answers for one that is finished,
// and writes a tombstone for one that the log does not know.
func (t *term) abort(ctx context.Context, id txn.TxID, why txn.Reason, w Wait) (Result, error) {
	t.mu.Lock()
	caller := CallerOf(ctx)
	d, known, err := t.lookupFor(caller, id)
	if d != nil {
		t.carry(d, d.Withdraw(why), nil)
	}
	t.mu.Unlock()
	switch {
	case d != nil:
		return t.await(ctx, d, w)
	case known != nil:
		return finished(known), nil
	case !errors.Is(err, txn.ErrUnknown):
		return Result{}, err
	}
	tx, err := t.tombstone(ctx, caller, id, why)
	if err != nil {
		return Result{}, err
	}
	return finished(tx), nil
}

// tombstone aborts what the log does not know. Somebody else's transaction, which may
// come to be known just now, must not be met by a caller's abort: that is presumed then.
func (t *term) tombstone(ctx context.Context, c Caller, id txn.TxID, why txn.Reason) (*txn.Transaction, error) {
	if c != (Caller{}) && !c.All {
		return t.presume(ctx, id)
	}
	return t.propose(ctx, txn.Decide{ID: id, Decision: txn.Abort, Reason: why})
}

// deliveries copies what is known of the branches under way.
func (t *term) deliveries(id txn.TxID) []Delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	d, ok := t.live[id]
	if !ok {
		return nil
	}
	return d.chronicle.deliveries(t.began)
}
