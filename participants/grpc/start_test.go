package grpcparticipant_test

import (
	"context"
	"errors"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// beginner makes every call by Start, as the coordinator does: it cancels a call when
// its context ends, and asks in the ordinary way where a call cannot be begun.
type beginner struct {
	participants.Participant
	participants.StatusReporter
}

func begins(p participants.Participant) participants.Participant {
	return beginner{p, p.(participants.StatusReporter)}
}

// ending is how a call ended.
type ending struct {
	vote participants.Vote
	err  error
}

type endings chan ending

func (e endings) Ended(v participants.Vote, err error) { e <- ending{v, err} }

func (s beginner) begin(ctx context.Context, kind txn.WorkKind, b participants.Branch) (ending, bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Minute)
	}
	to := make(endings, 1)
	started, ok := s.Participant.(participants.Starter).Start(participants.Call{Kind: kind, Branch: b, Deadline: deadline}, to)
	if !ok {
		return ending{}, false
	}
	var e ending
	select {
	case e = <-to:
	case <-ctx.Done():
		if started.Cancel() {
			return ending{err: ctx.Err()}, true
		}
		e = <-to
	}
	return e, !errors.Is(e.err, participants.ErrNotStarted)
}

func (s beginner) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	if e, ok := s.begin(ctx, txn.PrepareBranch, b); ok {
		return e.vote, e.err
	}
	return s.Participant.Prepare(ctx, b)
}

func (s beginner) Commit(ctx context.Context, b participants.Branch) error {
	if e, ok := s.begin(ctx, txn.CommitBranch, b); ok {
		return e.err
	}
	return s.Participant.Commit(ctx, b)
}

func (s beginner) Abort(ctx context.Context, b participants.Branch) error {
	if e, ok := s.begin(ctx, txn.AbortBranch, b); ok {
		return e.err
	}
	return s.Participant.Abort(ctx, b)
}
