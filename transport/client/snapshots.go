package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// errCutSnapshot is a stream that ended before the snapshot did.
var errCutSnapshot = errors.New("decree: the snapshot was cut or damaged on its way: save it again")

// SaveSnapshot copies the cluster's state as it was at some moment after the call began.
// begin is told what is coming and says where it goes; it may be called again, when the
// copy is begun anew at another node, and is to give up what was written before then.
// With local the answer is what the first node that answers has applied, however old.
func (c *Client) SaveSnapshot(ctx context.Context, local bool, begin func(*decreev1.SnapshotHeader) (io.Writer, error)) error {
	var own error // of this side, which another attempt would not mend
	_, err := do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (struct{}, error) {
		err := save(ctx, conn, local, begin)
		if _, remote := status.FromError(err); err != nil && !remote {
			own, err = err, nil
		}
		return struct{}{}, err
	})
	return errors.Join(err, own)
}

func save(ctx context.Context, conn *grpc.ClientConn, local bool, begin func(*decreev1.SnapshotHeader) (io.Writer, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := decreev1.NewSnapshotsClient(conn).Save(ctx, &decreev1.SaveRequest{Local: local})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	to, err := begin(first.GetHeader())
	if err != nil {
		return err
	}
	sum, n := sha256.New(), uint64(0)
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errCutSnapshot
		}
		if err != nil {
			return err
		}
		if end := part.GetEnd(); end != nil {
			if end.GetBytes() != n || !bytes.Equal(end.GetSha256(), sum.Sum(nil)) {
				return errCutSnapshot
			}
			return nil
		}
		n += uint64(len(part.GetChunk()))
		sum.Write(part.GetChunk())
		if _, err := to.Write(part.GetChunk()); err != nil {
			return fmt.Errorf("write the snapshot: %w", err)
		}
	}
}

// Unresolved lists the transactions that only an operator may decide: after a restore
// their outcome may have been lost, or they are older than what the cluster remembers and
// still prepared somewhere.
func (c *Client) Unresolved(ctx context.Context) (*decreev1.ListUnresolvedResponse, error) {
	return do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ListUnresolvedResponse, error) {
		return decreev1.NewUnresolvedClient(conn).ListUnresolved(ctx, &decreev1.ListUnresolvedRequest{})
	})
}

// Evidence asks the participants what became of one of them. [ErrNotLost] is any other
// transaction's.
func (c *Client) Evidence(ctx context.Context, txid string) (*decreev1.UnresolvedTransaction, error) {
	answer, err := do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.GetEvidenceResponse, error) {
		return decreev1.NewUnresolvedClient(conn).GetEvidence(ctx, &decreev1.GetEvidenceRequest{Txid: text(txid)})
	})
	return answer.GetTransaction(), err
}

// Decide decides them, at most a thousand at once, for good; reason is for those who look
// at it later. What was decided before keeps its decision, and is answered with it.
func (c *Client) Decide(ctx context.Context, outcome Outcome, reason string, txids ...string) ([]*decreev1.Transaction, error) {
	req := &decreev1.DecideRequest{Outcome: decreev1.Outcome(outcome), Reason: text(reason)}
	for _, id := range txids {
		req.Txids = append(req.Txids, text(id))
	}
	answer, err := do(ctx, c, &call{}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.DecideResponse, error) {
		return decreev1.NewUnresolvedClient(conn).Decide(ctx, req)
	})
	return answer.GetTransactions(), err
}
