package transport

import (
	"cmp"
	"context"

	"google.golang.org/grpc"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/certs"
)

// operations is decree.v1.Operations.
type operations struct {
	decreev1.UnimplementedOperationsServer
	*Server
}

// anonymous is who acts where callers are not asked who they are.
const anonymous = "anonymous"

// operatorOf is who makes a call, for the audit trail: the one place that says so.
func operatorOf(ctx context.Context, why string) fsm.Operator {
	return fsm.Operator{Who: cmp.Or(callerOf(ctx).String(), anonymous), Why: why}
}

// onRecord carries out an action that is not the log's, after it is on the record, and
// records as well that it failed. A failure that can't be recorded, for this node may have
// ceased to lead, is the caller's to know.
func (s *Server) onRecord(ctx context.Context, action, target, detail, why string, do func() error) error {
	by := operatorOf(ctx, why)
	if err := s.cfg.Registrar.Note(ctx, by, action, target, detail); err != nil {
		return err
	}
	err := do()
	if err != nil && s.cfg.Coordinator.Leads() {
		s.cfg.Registrar.Note(ctx, by, action+": failed", target, clip(message(err), fsm.MaxAuditText)) //nolint:errcheck // as said
	}
	return err
}

// overseen puts on the record that an operator ends what somebody else began, before it
// does. What the log does not know may become somebody's, and is recorded as well.
func (s *Server) overseen(ctx context.Context, action string, id txn.TxID, why string) error {
	if callerOf(ctx).Role != certs.Operator {
		return nil
	}
	begun := ""
	if t, known := s.cfg.Machine.Transaction(id); known {
		if t.State.Decided() || t.Owner == coordinator.CallerOf(ctx).Owner {
			return nil
		}
		begun = "begun by " + cmp.Or(t.Owner.String(), anonymous)
	}
	return s.cfg.Registrar.Note(ctx, operatorOf(ctx, why), action, id.String(), begun)
}

// ListAudit implements the RPC.
func (s *operations) ListAudit(_ context.Context, req *decreev1.ListAuditRequest) (*decreev1.ListAuditResponse, error) {
	page, more := s.cfg.Machine.Trail(req.GetAfter(), req.GetBefore(), int(min(req.GetPageSize(), maxPage)))
	answer := &decreev1.ListAuditResponse{}
	for _, r := range page {
		answer.Records = append(answer.Records, auditMessage(r))
	}
	if more {
		answer.NextBefore = page[len(page)-1].Number
	}
	return answer, nil
}

func auditMessage(r fsm.Audit) *decreev1.AuditRecord {
	return &decreev1.AuditRecord{
		Number: r.Number, Index: r.Index, Epoch: r.Epoch, Time: timeMessage(r.At), Who: r.Who,
		Action: r.Action, Target: r.Target, Detail: r.Detail, Reason: r.Why, Refused: r.Refused,
	}
}

// ExamineBranch implements the RPC.
func (s *operations) ExamineBranch(ctx context.Context, req *decreev1.ExamineBranchRequest) (*decreev1.ExamineBranchResponse, error) {
	id, err := txidOf(req.GetTxid())
	if err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	return route(ctx, s.Server, &errand[*decreev1.ExamineBranchResponse]{
		txid:   req.GetTxid(),
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.ExamineBranchResponse, error) {
			tx, found, err := s.cfg.Coordinator.Examine(ctx, id, int(req.GetBranch()))
			if err != nil {
				return nil, err
			}
			answer := &decreev1.ExamineBranchResponse{
				Transaction: transactionMessage(tx, s.cfg.Coordinator.Deliveries(id)),
				Fate:        decreev1.BranchFate(found.Status),
			}
			if found.Err != nil {
				answer.Error = message(found.Err)
			}
			return answer, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ExamineBranchResponse, error) {
			return decreev1.NewOperationsClient(conn).ExamineBranch(ctx, req)
		},
	})
}

// ResolveBranch implements the RPC.
func (s *operations) ResolveBranch(ctx context.Context, req *decreev1.ResolveBranchRequest) (*decreev1.ResolveBranchResponse, error) {
	word, err := parseWord(req)
	if err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	return route(ctx, s.Server, &errand[*decreev1.ResolveBranchResponse]{
		txid:   req.GetTxid(),
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.ResolveBranchResponse, error) {
			tx, err := s.cfg.Registrar.Resolve(ctx, operatorOf(ctx, req.GetReason()), word)
			if err != nil {
				return nil, err
			}
			return &decreev1.ResolveBranchResponse{Transaction: transactionMessage(tx, s.cfg.Coordinator.Deliveries(word.ID))}, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ResolveBranchResponse, error) {
			return decreev1.NewOperationsClient(conn).ResolveBranch(ctx, req)
		},
	})
}

func parseWord(req *decreev1.ResolveBranchRequest) (txn.Resolve, error) {
	var bad invalidError
	word := txn.Resolve{ID: parseTxID(req.GetTxid(), &bad), Branch: int(req.GetBranch())}
	switch req.GetAs() {
	case decreev1.Outcome_OUTCOME_COMMITTED:
		word.As = txn.Commit
	case decreev1.Outcome_OUTCOME_ABORTED:
		word.As = txn.Abort
	default:
		bad.add(reasonInvalidRequest, "as", "want OUTCOME_COMMITTED or OUTCOME_ABORTED")
	}
	if req.GetReason() == "" {
		bad.add(reasonInvalidRequest, "reason", "say how it is known: it stays in the audit trail")
	}
	return word, bad.err()
}
