package main

// What tests do on a bench: transactions of its two banks, and looks at what nodes
// and participants show of them.

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// answer is what a client was told.
type answer struct {
	result client.Result
	err    error
}

func add(key string, amount int) map[string]any {
	return map[string]any{"ops": []any{map[string]any{"op": "add", "key": key, "amount": amount, "min": 0}}}
}

func (b *bench) deposit(bank, key string, amount int) {
	b.t.Helper()
	b.mustCommit(client.JSON(bank, add(key, amount)))
}

// check reads a balance with a transaction of its own: the branch votes no unless
// the key has the value.
func (b *bench) check(bank, key string, want int) {
	b.t.Helper()
	op := map[string]any{"op": "check", "key": key, "min": want, "max": want}
	b.mustCommit(client.JSON(bank, map[string]any{"ops": []any{op}}))
}

func (b *bench) mustCommit(branches ...client.Branch) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := b.client.Submit(ctx, client.Transaction{Branches: branches})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// settled waits until all nodes hold the transaction as finished.
func (b *bench) settled(txid string) {
	b.t.Helper()
	for _, s := range b.servers {
		b.await(fmt.Sprintf("the end at %s", s.id), func(ctx context.Context) bool {
			return b.getOnce(ctx, s, txid).GetState() == decreev1.State_STATE_COMMITTED
		})
	}
}

func (b *bench) get(s *server, txid string) *decreev1.Transaction {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return b.getOnce(ctx, s, txid)
}

// getOnce asks one node, nil where it does not answer.
func (b *bench) getOnce(ctx context.Context, s *server, txid string) *decreev1.Transaction {
	one, err := client.New(client.Config{Endpoints: []string{s.grpc}})
	if err != nil {
		b.t.Fatal(err)
	}
	defer one.Close()
	tx, err := one.Get(ctx, txid)
	if err != nil {
		return nil
	}
	return tx
}

func (b *bench) nothingPrepared() {
	b.t.Helper()
	for bank := range b.banks {
		b.await("nothing prepared at "+bank, func(ctx context.Context) bool {
			r, err := b.client.CheckParticipant(ctx, bank)
			return err == nil && r.GetReachable() && r.GetPrepared() == 0
		})
	}
}

func mustTxID(t testing.TB) string {
	t.Helper()
	id, err := client.NewTxID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustStruct(t testing.TB, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
