package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// probePause is how often the demo looks at what no event announces.
const probePause = 20 * time.Millisecond

// probe asks a participant itself, beside the cluster.
type probe struct {
	name string
	conn *grpc.ClientConn
	api  participantv1.ParticipantClient
}

func newProbe(name, address string) (*probe, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &probe{name, conn, participantv1.NewParticipantClient(conn)}, nil
}

// prepared lists the txids of which the participant holds a branch prepared.
func (p *probe) prepared(ctx context.Context, cluster string) ([]string, error) {
	stream, err := p.api.Recover(ctx, &participantv1.RecoverRequest{Cluster: cluster})
	if err != nil {
		return nil, err
	}
	var txids []string
	for {
		page, err := stream.Recv()
		if err != nil {
			return txids, endOf(err)
		}
		for _, b := range page.GetBranches() {
			txids = append(txids, b.GetTxid())
		}
	}
}

// endOf is nil for the end of a stream.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// awaitPrepared returns once the participant holds the transaction prepared.
func (p *probe) awaitPrepared(ctx context.Context, cluster, txid string) error {
	return poll(ctx, fmt.Sprintf("%s to hold %s prepared", p.name, txid), func() (bool, error) {
		txids, err := p.prepared(ctx, cluster)
		return slices.Contains(txids, txid), err
	})
}

// books asks for the fate of every branch that the entries have here.
func (p *probe) books(ctx context.Context, cluster string, epoch uint64, entries []bank.Entry) (bank.Books, error) {
	books := bank.Books{Participant: p.name, Fates: map[bank.Branch]participants.Status{}}
	for _, e := range entries {
		number := 1 + slices.Index(e.Participants(), p.name)
		if number == 0 {
			continue
		}
		answer, err := p.api.Status(ctx, &participantv1.StatusRequest{Branch: &participantv1.Branch{
			Cluster: cluster, Txid: e.TxID, Number: uint32(number), Epoch: epoch, //nolint:gosec // a handful
		}})
		if err != nil {
			return bank.Books{}, fmt.Errorf("ask %s for %s: %w", p.name, e.TxID, err)
		}
		books.Fates[bank.Branch{TxID: e.TxID, Number: number}] = participants.Status(answer.GetStatus()) //nolint:gosec // the same order
	}
	return books, nil
}

// poll calls holds until it is true, or fails, or ctx ends.
func poll(ctx context.Context, what string, holds func() (bool, error)) error {
	tick := time.NewTicker(probePause)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
