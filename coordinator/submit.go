package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// Submit runs a one-shot transaction and waits for its decision, and for delivery
// where s.Wait says so. A txid that ran before is joined or answered (rule R11).
//
// That the transaction aborted is a Result and not an error. When ctx ends before
// the decision the error wraps ErrOutcomeUnknown and the transaction goes on;
// when it ends between decision and delivery the Result says so.
func (c *Coordinator) Submit(ctx context.Context, s Submission) (Result, error) {
	t := c.current()
	if t == nil { // before the checks, which a follower's older state could fail
		return Result{}, ErrNotLeader
	}
	if err := c.checkSubmission(&s); err != nil {
		return Result{}, err
	}
	stage := txn.Stage{ID: s.ID, Branches: s.Branches, Timeout: s.Timeout, Owner: s.Owner}
	d, known, err := t.admit(stage, s.Traceparent)
	switch {
	case err != nil:
		return Result{}, err
	case known != nil:
		return finished(known), nil
	}
	return t.await(ctx, d, s.Wait)
}

// Begin opens an interactive transaction and returns once it is replicated.
// Timeout covers it from here to its decision; 0 means Config.DefaultTimeout. A
// repeated Begin answers with the transaction that it opened, or ErrAborted or
// ErrCommitted where that is over.
func (c *Coordinator) Begin(ctx context.Context, id txn.TxID, timeout time.Duration) (*txn.Transaction, error) {
	t := c.current()
	if t == nil {
		return nil, ErrNotLeader
	}
	if err := c.checkTimeout(&timeout, c.cfg.MaxInteractiveTimeout); err != nil {
		return nil, err
	}
	d, tx, err := t.admit(txn.Stage{ID: id, Interactive: true, Timeout: timeout, Owner: CallerOf(ctx).Owner}, "")
	if d != nil && err == nil {
		tx, err = t.awaitStaged(ctx, d)
	}
	switch {
	case err != nil:
		return nil, err
	case tx.Decision() == txn.Abort:
		return nil, fmt.Errorf("%w: %s", ErrAborted, tx.Reason)
	case tx.Decision() == txn.Commit:
		return nil, ErrCommitted
	}
	return tx, nil
}

// Enlist adds a branch to an Active transaction and returns once that is
// replicated; Transaction.Branch tells the branch's number. Enlisting the same
// content again changes nothing.
func (c *Coordinator) Enlist(ctx context.Context, id txn.TxID, b txn.Branch) (*txn.Transaction, error) {
	t := c.current()
	if t == nil {
		return nil, ErrNotLeader
	}
	if err := c.checkBranch(b); err != nil {
		return nil, err
	}
	d, known, err := t.findFor(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case known != nil:
		return nil, fmt.Errorf("%w: it is %s", txn.ErrSealed, known.State)
	}
	if _, err := t.awaitStaged(ctx, d); err != nil {
		return nil, err
	}
	return t.enlist(ctx, d, b)
}

// Commit seals an interactive transaction with the votes of its external branches
// and waits as Submit does. A transaction that was aborted before answers
// ErrAborted; one that commits already answers with its outcome.
func (c *Coordinator) Commit(ctx context.Context, id txn.TxID, votes []txn.BranchVote, w Wait) (Result, error) {
	t := c.current()
	if t == nil {
		return Result{}, ErrNotLeader
	}
	d, known, err := t.findFor(ctx, id)
	switch {
	case err != nil:
		return Result{}, err
	case known != nil && known.Decision() == txn.Abort:
		return Result{}, fmt.Errorf("%w: %s", ErrAborted, known.Reason)
	case known != nil:
		return finished(known), nil
	}
	tx, err := t.awaitStaged(ctx, d)
	switch {
	case err != nil:
		return Result{}, err
	case tx.Decision() == txn.Abort:
		return Result{}, fmt.Errorf("%w: %s", ErrAborted, tx.Reason)
	case tx.State == txn.Active:
		if err := t.seal(ctx, d, votes); err != nil {
			return Result{}, err
		}
	}
	return t.await(ctx, d, w)
}

// Abort decides abort, unless the transaction is decided: a committed one answers
// ErrCommitted. A txid that the log does not know gets a tombstone (rule R6).
func (c *Coordinator) Abort(ctx context.Context, id txn.TxID, reason string, w Wait) (Result, error) {
	t := c.current()
	if t == nil {
		return Result{}, ErrNotLeader
	}
	why := txn.Reason{Code: txn.ReasonClient, Detail: clip(reason)}
	r, err := t.abort(ctx, id, why, w)
	if err == nil && r.Decision() == txn.Commit {
		return Result{}, ErrCommitted
	}
	return r, err
}

// Inquire answers with an outcome that will stand. An undecided transaction is
// told as Undecided; one that the log does not know, after a barrier, is aborted
// first (rule R6).
func (c *Coordinator) Inquire(ctx context.Context, id txn.TxID) (Result, error) {
	t := c.current()
	if t == nil {
		return Result{}, ErrNotLeader
	}
	if err := c.log.Barrier(ctx); err != nil {
		return Result{}, err
	}
	d, known, err := t.findFor(ctx, id)
	switch {
	case known != nil:
		return finished(known), nil
	case err == nil:
		tx, err := t.awaitStaged(ctx, d)
		return Result{Transaction: tx}, err
	case !errors.Is(err, txn.ErrUnknown):
		return Result{}, err
	}
	tx, err := t.presume(ctx, id)
	return Result{Transaction: tx, Delivered: err == nil && tx.State.Finished()}, err
}

// presume writes the abort of a transaction that the log does not know. Where it has
// come to know it meanwhile nothing is written, and the caller is told what is theirs.
func (t *term) presume(ctx context.Context, id txn.TxID) (*txn.Transaction, error) {
	tx, err := t.propose(ctx, txn.Presume{ID: id})
	if err == nil && !CallerOf(ctx).Sees(tx) {
		return nil, ErrNotTheirs
	}
	return tx, err
}

// finished answers from the state of a transaction that is no longer driven.
func finished(tx *txn.Transaction) Result {
	return Result{Transaction: tx, Delivered: tx.State.Finished()}
}

func (c *Coordinator) checkSubmission(s *Submission) error {
	if len(s.Branches) == 0 {
		return txn.ErrEmpty
	}
	if len(s.Branches) > txn.MaxBranches {
		return txn.ErrTooManyBranches
	}
	total := 0
	for _, b := range s.Branches {
		if err := c.checkBranch(b); err != nil {
			return err
		}
		total += len(b.Payload)
	}
	if total > c.cfg.MaxTransactionBytes {
		return fmt.Errorf("%w: payloads of %d bytes in all, at most %d", ErrTooLarge, total, c.cfg.MaxTransactionBytes)
	}
	return c.checkTimeout(&s.Timeout, c.cfg.MaxTimeout)
}

func (c *Coordinator) checkBranch(b txn.Branch) error {
	if len(b.Payload) > c.cfg.MaxPayload {
		return fmt.Errorf("%w: payload of %d bytes for %q, at most %d", ErrTooLarge, len(b.Payload), b.Participant, c.cfg.MaxPayload)
	}
	return nil
}

// checkTimeout fills in the default.
func (c *Coordinator) checkTimeout(d *time.Duration, most time.Duration) error {
	switch {
	case *d == 0:
		*d = c.cfg.DefaultTimeout
	case *d < 0:
		return fmt.Errorf("%w: negative timeout %s", ErrInvalid, *d)
	case *d > most:
		return fmt.Errorf("%w: timeout %s, at most %s", ErrInvalid, *d, most)
	}
	return nil
}

// clip bounds what comes from outside and is replicated, and keeps it the UTF-8
// that the wire requires where the cut goes through a character.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), txn.MaxReasonDetail)], "")
}
