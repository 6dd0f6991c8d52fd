package transport

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/decree-tx/decree/fsm/txn"
)

func beginning(id txn.TxID) *txn.Transaction {
	return &txn.Transaction{ID: id, State: txn.Active, Interactive: true}
}

// inwardContext is that of a call of the gateway's.
func inwardContext(t *testing.T, who string) context.Context {
	ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: inwardInfo{}})
	return metadata.NewIncomingContext(ctx, metadata.Pairs(metadataCaller, who))
}
