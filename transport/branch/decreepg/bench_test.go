package decreepg_test

import (
	"context"
	"crypto/sha256"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/participants/participanttest/databases"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreepg"
)

// What the barrier costs: try and confirm with one statement each, against two
// local transactions of the same statements without a barrier.
func BenchmarkTCC(b *testing.B) {
	pool := benchPool(b)
	server, err := decreepg.NewTCC(b.Context(), pool, &script{}, branch.Config{MaxOpen: 1_000_000})
	if err != nil {
		b.Fatal(err)
	}
	payload := []byte("x")
	digest := sha256.Sum256(payload)
	both(b, "barrier", func(ctx context.Context) error {
		name := newBranch()
		if _, err := server.Prepare(ctx, &participantv1.PrepareRequest{Branch: name, Payload: payload, Digest: digest[:]}); err != nil {
			return err
		}
		_, err := server.Commit(ctx, &participantv1.CommitRequest{Branch: name})
		return err
	})
	both(b, "bare", func(ctx context.Context) error {
		for _, what := range []string{"try", "confirm"} {
			err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return note(ctx, tx, what, branch.Branch{Payload: payload}) })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func benchPool(b *testing.B) *pgxpool.Pool {
	server := databases.Shared(b, databases.Postgres)
	pool := newPool(b, server.DSN(databases.FreshDatabase(b, server)), nil)
	if _, err := pool.Exec(b.Context(), "CREATE TABLE note (text text)"); err != nil {
		b.Fatal(err)
	}
	return pool
}

// both runs work by one caller, and by sixteen.
func both(b *testing.B, name string, work func(context.Context) error) {
	b.Run(name+"/1", func(b *testing.B) {
		for b.Loop() {
			if err := work(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run(name+"/16", func(b *testing.B) {
		b.SetParallelism(8) // of two cores
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := work(b.Context()); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
