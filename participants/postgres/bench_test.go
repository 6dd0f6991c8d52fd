package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants/participanttest"
)

// BenchmarkBranch measures what a branch of one statement with an expectation
// costs from prepare to commit: through the driver, and by a client that runs the
// same statement with PREPARE TRANSACTION and COMMIT PREPARED and keeps no books.
// The two take turns in one run, so that their ratio holds on a busy machine.
func BenchmarkBranch(b *testing.B) {
	bank := sharedBench(b)
	bank.exec("INSERT INTO counter SELECT 'a' || g, 1000000000 FROM generate_series(1, 100000) g; VACUUM ANALYZE counter")
	p := opened(b, bank.registered(nil))
	fit(b, p)
	plain := plainClient(b, bank)
	var next atomic.Int64
	counter := func() string { return "a" + strconv.FormatInt(next.Add(1)%100000+1, 10) }
	driver := func(ctx context.Context) error {
		br := branchOf(one("take", counter(), 1))
		v, err := p.Prepare(ctx, br)
		if err == nil && v.Kind != txn.VoteCommit {
			err = errors.New(v.Reason)
		}
		if err != nil {
			return err
		}
		return p.Commit(ctx, phaseTwo(br))
	}
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			const turn = 250 // calls: short, so that both meet the same noise
			var took [2]time.Duration
			for left := b.N; left > 0; left -= turn {
				n := min(left, turn)
				took[0] += crowdOf(b, callers, n, driver)
				took[1] += crowdOf(b, callers, n, func(ctx context.Context) error { return plain(ctx, counter()) })
			}
			b.ReportMetric(float64(b.N)/took[0].Seconds(), "driver/s")
			b.ReportMetric(float64(b.N)/took[1].Seconds(), "plain/s")
			b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
		})
	}
}

// crowdOf has so many callers do n calls between them.
func crowdOf(b testing.TB, callers, n int, call func(context.Context) error) time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	start := time.Now()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(context.Background()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// plainClient is a careful client without a coordinator: a statement a trip, rows
// and tags checked, statements parsed once for each connection.
func plainClient(b testing.TB, bank *bench) func(ctx context.Context, counter string) error {
	pc, err := pgxpool.ParseConfig(bank.server.DSN(bank.database))
	if err != nil {
		b.Fatal(err)
	}
	pc.MaxConns = defaultConnections
	pool, err := pgxpool.NewWithConfig(b.Context(), pc)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return func(ctx context.Context, counter string) error {
		id := participanttest.NewTxID(txn.Time(time.Now().UnixNano()))
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		if _, err = conn.Exec(ctx, "BEGIN"); err == nil {
			_, err = conn.Exec(ctx, "UPDATE counter SET n = n - $2 WHERE name = $1", counter, 1)
		}
		if err == nil {
			_, err = conn.Exec(ctx, "PREPARE TRANSACTION '"+id.String()+"'")
		}
		conn.Release()
		if err == nil {
			_, err = pool.Exec(ctx, "COMMIT PREPARED '"+id.String()+"'")
		}
		return err
	}
}
