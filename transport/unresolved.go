package transport

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// unresolved is decree.v1.Unresolved: what only an operator may decide. Its calls are
// repeated where their outcome is not known, for a decision that comes twice is answered
// with the first.
type unresolved struct {
	decreev1.UnimplementedUnresolvedServer
	*Server
}

// ListUnresolved implements the RPC.
func (s *unresolved) ListUnresolved(ctx context.Context, req *decreev1.ListUnresolvedRequest) (*decreev1.ListUnresolvedResponse, error) {
	return route(ctx, s.Server, &errand[*decreev1.ListUnresolvedResponse]{
		budget: joinBudget, // every participant is asked
		local: func(ctx context.Context) (*decreev1.ListUnresolvedResponse, error) {
			list, away, more, err := s.cfg.Coordinator.Unresolved(ctx)
			if err != nil {
				return nil, err
			}
			answer := &decreev1.ListUnresolvedResponse{More: more, Away: map[string]string{}}
			for _, u := range list {
				answer.Transactions = append(answer.Transactions, unresolvedMessage(u))
			}
			for _, name := range slices.Sorted(maps.Keys(away)) {
				answer.Away[name] = message(away[name])
			}
			return answer, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ListUnresolvedResponse, error) {
			return decreev1.NewUnresolvedClient(conn).ListUnresolved(ctx, req)
		},
	})
}

// GetEvidence implements the RPC.
func (s *unresolved) GetEvidence(ctx context.Context, req *decreev1.GetEvidenceRequest) (*decreev1.GetEvidenceResponse, error) {
	id, err := txidOf(req.GetTxid())
	if err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	return route(ctx, s.Server, &errand[*decreev1.GetEvidenceResponse]{
		txid:   req.GetTxid(),
		budget: joinBudget,
		local: func(ctx context.Context) (*decreev1.GetEvidenceResponse, error) {
			u, err := s.cfg.Coordinator.Evidence(ctx, id)
			if err != nil {
				return nil, err
			}
			return &decreev1.GetEvidenceResponse{Transaction: unresolvedMessage(u)}, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.GetEvidenceResponse, error) {
			return decreev1.NewUnresolvedClient(conn).GetEvidence(ctx, req)
		},
	})
}

// Decide implements the RPC.
func (s *unresolved) Decide(ctx context.Context, req *decreev1.DecideRequest) (*decreev1.DecideResponse, error) {
	ids, decision, err := parseDecide(req)
	if err != nil {
		return nil, refuse(err, "")
	}
	return route(ctx, s.Server, &errand[*decreev1.DecideResponse]{
		budget: joinBudget,
		local: func(ctx context.Context) (*decreev1.DecideResponse, error) {
			decided, err := s.cfg.Coordinator.Arbitrate(ctx, onTheRecord(operatorOf(ctx, req.GetReason()), ids, decision))
			if err != nil {
				return nil, err
			}
			answer := &decreev1.DecideResponse{}
			for _, t := range decided {
				answer.Transactions = append(answer.Transactions, transactionMessage(t, nil))
			}
			return answer, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.DecideResponse, error) {
			return decreev1.NewUnresolvedClient(conn).Decide(ctx, req)
		},
	})
}

// onTheRecord makes an operator's decisions, each with its record.
func onTheRecord(by fsm.Operator, ids []txn.TxID, d txn.Decision) []txn.Command {
	commands := make([]txn.Command, len(ids))
	for i, id := range ids {
		commands[i] = fsm.Audited{
			Who: by.Who, Action: "decide", Target: id.String(), Detail: d.String(), Why: by.Why,
			Command: txn.Arbitrate{ID: id, Decision: d, Detail: by.Who + ": " + by.Why},
		}
	}
	return commands
}

func parseDecide(req *decreev1.DecideRequest) (ids []txn.TxID, d txn.Decision, err error) {
	var bad invalidError
	for i, text := range req.GetTxids() {
		id, err := txn.ParseTxID(text)
		if err != nil {
			bad.add(reasonMalformedTxID, fmt.Sprintf("txids[%d]", i), "%v", err)
		}
		ids = append(ids, id)
	}
	if n := len(ids); n == 0 || n > coordinator.MaxArbitrated {
		bad.add(reasonInvalidRequest, "txids", "%d of them, want 1 to %d", n, coordinator.MaxArbitrated)
	}
	switch req.GetOutcome() {
	case decreev1.Outcome_OUTCOME_COMMITTED:
		d = txn.Commit
	case decreev1.Outcome_OUTCOME_ABORTED:
		d = txn.Abort
	default:
		bad.add(reasonInvalidRequest, "outcome", "is neither committed nor aborted")
	}
	if n := len(req.GetReason()); n == 0 || n > fsm.MaxAuditText {
		bad.add(reasonInvalidRequest, "reason", "has %d bytes, want 1 to %d: somebody will want to know", n, fsm.MaxAuditText)
	}
	return ids, d, bad.err()
}

func unresolvedMessage(u coordinator.Unresolved) *decreev1.UnresolvedTransaction {
	m := &decreev1.UnresolvedTransaction{Txid: u.ID.String()}
	if u.Transaction != nil {
		m.Transaction = transactionMessage(u.Transaction, nil)
	}
	switch u.Decided() {
	case txn.Commit:
		m.Evident = decreev1.Outcome_OUTCOME_COMMITTED
	case txn.Abort:
		m.Evident = decreev1.Outcome_OUTCOME_ABORTED
	}
	for _, e := range u.Evidence {
		m.Evidence = append(m.Evidence, evidenceMessage(e))
	}
	return m
}

func evidenceMessage(e coordinator.Evidence) *decreev1.Evidence {
	m := &decreev1.Evidence{Participant: e.Participant, Branch: uint32(e.Branch)} //nolint:gosec // at most 256
	if e.Err != nil {
		m.Error = message(e.Err)
	}
	switch e.Status {
	case participants.StatusPrepared:
		m.Status = decreev1.BranchStatus_BRANCH_STATUS_PREPARED
	case participants.StatusCommitted:
		m.Status = decreev1.BranchStatus_BRANCH_STATUS_COMMITTED
	case participants.StatusAborted:
		m.Status = decreev1.BranchStatus_BRANCH_STATUS_ABORTED
	}
	return m
}
