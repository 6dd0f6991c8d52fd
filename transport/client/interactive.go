package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Tx is an interactive transaction. Its methods repeat their calls as Submit
// does, and may be called again after an error: each is idempotent.
type Tx struct {
	ID       string
	Deadline time.Time // when it aborts unless decided; zero in a Tx from Resume
	Wait     Wait      // what Commit and Abort wait for

	client *Client
}

// Begin opens an interactive transaction, which aborts unless it is decided
// within the timeout; 0 means the server's default.
func (c *Client) Begin(ctx context.Context, timeout time.Duration) (*Tx, error) {
	return underNewID(c, func(txid string) (*Tx, error) { return c.BeginAs(ctx, txid, timeout) })
}

// BeginAs is Begin under a txid of the caller's.
func (c *Client) BeginAs(ctx context.Context, txid string, timeout time.Duration) (*Tx, error) {
	req := &decreev1.BeginRequest{Txid: text(txid), Timeout: durationProto(timeout)}
	answer, err := do(ctx, c, &call{txid: txid}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.BeginResponse, error) {
		return decreev1.NewTransactionsClient(conn).Begin(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	return &Tx{ID: txid, Deadline: answer.GetDeadline().AsTime(), client: c}, nil
}

// Resume gives a handle on an interactive transaction that was begun elsewhere.
// It asks nobody.
func (c *Client) Resume(txid string) *Tx { return &Tx{ID: txid, client: c} }

// Enlistment names an enlisted branch. (Cluster, txid, Branch) is the name under
// which an application prepares an external one.
type Enlistment struct {
	TxID    string
	Branch  int // from 1
	Cluster string
	Epoch   uint64
}

// BranchName lets packages decreepg and decreesql run the branch.
func (e Enlistment) BranchName() (cluster, txid string, number int) {
	return e.Cluster, e.TxID, e.Branch
}

// Voted is the branch's vote, of what such a package answered.
func (e Enlistment) Voted(v interface{ Wire() decreev1.Vote }) BranchVote {
	return BranchVote{Branch: e.Branch, Vote: Vote(v.Wire())}
}

// Enlist adds a branch. When it returns nil the branch is replicated: an external
// branch may begin its work then, and not before.
func (t *Tx) Enlist(ctx context.Context, b Branch) (Enlistment, error) {
	if b.err != nil {
		return Enlistment{}, b.err
	}
	req := &decreev1.EnlistRequest{Txid: text(t.ID), External: b.external, Branch: &decreev1.NewBranch{Participant: b.participant}}
	if !b.external {
		req.Branch.Content = &decreev1.NewBranch_Payload{Payload: b.payload}
	}
	answer, err := do(ctx, t.client, &call{txid: t.ID}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.EnlistResponse, error) {
		return decreev1.NewTransactionsClient(conn).Enlist(ctx, req)
	})
	if err != nil {
		return Enlistment{}, err
	}
	return Enlistment{TxID: t.ID, Branch: int(answer.GetBranch()), Cluster: answer.GetCluster(), Epoch: answer.GetEpoch()}, nil
}

// Vote is how an external branch voted.
type Vote uint8

// The votes.
const (
	VoteCommit   Vote = iota + 1 // prepared durably
	VoteReadOnly                 // nothing to do in phase two
	VoteAbort                    // nothing was kept
)

// BranchVote is the vote of an external branch. One that has none when Commit is
// called counts as VoteAbort.
type BranchVote struct {
	Branch int // from 1, as Enlist told
	Vote   Vote
}

// Commit seals the transaction, has its branches prepared, and decides. Like
// Submit it returns a Result for either outcome. Of a transaction that was
// aborted before the call, by its timeout for instance, the error is
// [ErrAborted].
func (t *Tx) Commit(ctx context.Context, votes ...BranchVote) (Result, error) {
	req := &decreev1.CommitRequest{Txid: text(t.ID), Wait: t.Wait.proto()}
	for _, v := range votes {
		if v.Branch < 1 {
			return Result{TxID: t.ID}, fmt.Errorf("decree: vote of branch %d: branches count from 1", v.Branch)
		}
		req.Votes = append(req.Votes, &decreev1.BranchVote{Branch: uint32(v.Branch), Vote: decreev1.Vote(v.Vote)}) //nolint:gosec // checked above; the server bounds it
	}
	k := &call{txid: t.ID}
	answer, err := do(ctx, t.client, k, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.CommitResponse, error) {
		return decreev1.NewTransactionsClient(conn).Commit(ctx, req)
	})
	switch {
	case err == nil:
		return resultOf(answer.GetResult()), nil
	case k.ran && errors.Is(err, ErrAborted):
		// The abort may be the outcome of an earlier attempt of this very call.
		return t.client.Inquire(ctx, t.ID)
	default:
		return Result{TxID: t.ID}, err
	}
}

// Abort decides abort. Of a transaction that is committed already the error is
// [ErrCommitted]. It may be called of a txid that never began: that one can then
// never run.
func (t *Tx) Abort(ctx context.Context, reason string) (Result, error) {
	req := &decreev1.AbortRequest{Txid: text(t.ID), Reason: text(reason), Wait: t.Wait.proto()}
	answer, err := do(ctx, t.client, &call{txid: t.ID}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.AbortResponse, error) {
		return decreev1.NewTransactionsClient(conn).Abort(ctx, req)
	})
	if err != nil {
		return Result{TxID: t.ID}, err
	}
	return resultOf(answer.GetResult()), nil
}
