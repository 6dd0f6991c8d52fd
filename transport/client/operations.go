package client

import (
	"context"

	"google.golang.org/grpc"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// reasonKey is where a context has the reason of an operator.
type reasonKey struct{}

// Because makes operators' calls with the context say why they are made, for the audit
// trail: at most 512 bytes. The calls are PutParticipant, DeleteParticipant, AddNode,
// RemoveNode, TransferLeadership and SetGroup.
func Because(ctx context.Context, reason string) context.Context {
	return context.WithValue(ctx, reasonKey{}, reason)
}

func because(ctx context.Context) string {
	reason, _ := ctx.Value(reasonKey{}).(string)
	return text(reason)
}

// AuditPage is a part of the audit trail, the youngest record first.
type AuditPage struct {
	Records []*decreev1.AuditRecord
	// Next is what Audit is to be asked for as before, for older records; 0 when there are
	// none.
	Next uint64
}

// Audit shows what operators did, as a node has applied it: at most limit records (100
// where 0, 1000 in any case) with a number above after and, unless before is 0, below it.
func (c *Client) Audit(ctx context.Context, after, before uint64, limit uint32) (AuditPage, error) {
	answer, err := do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ListAuditResponse, error) {
		return decreev1.NewOperationsClient(conn).ListAudit(ctx, &decreev1.ListAuditRequest{After: after, Before: before, PageSize: limit})
	})
	return AuditPage{Records: answer.GetRecords(), Next: answer.GetNextBefore()}, err
}

// ExamineBranch has the leader ask the participant of a branch, from 1, what became of it.
// What the participant could not say is in the answer's error.
func (c *Client) ExamineBranch(ctx context.Context, txid string, branch uint32) (*decreev1.ExamineBranchResponse, error) {
	return do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ExamineBranchResponse, error) {
		return decreev1.NewOperationsClient(conn).ExamineBranch(ctx, &decreev1.ExamineBranchRequest{Txid: text(txid), Branch: branch})
	})
}

// ResolveBranch takes an operator's word for what became of a branch, from 1, of a decided
// transaction: that it is Committed or Aborted. The reason says how that is known and is
// kept in the audit trail. The same word again changes nothing; see [ErrNotDecided],
// [ErrResolved] and [ErrSettled] for what is refused.
func (c *Client) ResolveBranch(ctx context.Context, txid string, branch uint32, as Outcome, reason string) (*decreev1.Transaction, error) {
	answer, err := do(ctx, c, &call{}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ResolveBranchResponse, error) {
		return decreev1.NewOperationsClient(conn).ResolveBranch(ctx, &decreev1.ResolveBranchRequest{
			Txid: text(txid), Branch: branch, As: decreev1.Outcome(as), Reason: text(reason),
		})
	})
	return answer.GetTransaction(), err
}
