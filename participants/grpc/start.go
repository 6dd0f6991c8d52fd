package grpcparticipant

import (
	"context"
	"errors"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Start implements participants.Starter: a call on the stream needs nobody to wait for
// it. Where there is no stream, or no room on it, the call is to be an RPC.
func (c *client) Start(of participants.Call, to participants.Listener) (participants.Started, bool) {
	s := c.streams.forCall(of.Branch)
	if s == nil {
		return nil, false
	}
	started := &call{
		kind: kindOf(of.Kind), branch: of.Branch, txid: of.TxID.String(), deadline: of.Deadline,
		listener: to, stream: s,
	}
	if !s.join(started) {
		return nil, false
	}
	return started, true
}

func kindOf(k txn.WorkKind) kind {
	switch k {
	case txn.PrepareBranch:
		return callPrepare
	case txn.CommitBranch:
		return callCommit
	default:
		return callAbort
	}
}

// Cancel implements participants.Started.
func (c *call) Cancel() bool { return c.stream.giveUp(c) }

// outcome is what Prepare, Commit or Abort would have returned.
func (c *call) outcome(r result) (participants.Vote, error) {
	err := r.err
	if errors.Is(err, errNotSent) {
		return participants.Vote{}, participants.ErrNotStarted
	}
	if e := r.answer.GetError(); e != nil {
		err = errorFromWire(e)
	}
	if err != nil {
		return participants.Vote{}, failure(context.Background(), c.kind.String(), c.branch, err)
	}
	switch c.kind {
	case callPrepare:
		return voteFromWire(c.branch, r.answer.GetPrepare())
	case callCommit:
		a := r.answer.GetCommit()
		return participants.Vote{}, receiptFromWire(c.kind.String(), c.branch, a.GetReceipt(), a.GetDetail(), txn.HeuristicAbort)
	default:
		a := r.answer.GetAbort()
		return participants.Vote{}, receiptFromWire(c.kind.String(), c.branch, a.GetReceipt(), a.GetDetail(), txn.HeuristicCommit)
	}
}
