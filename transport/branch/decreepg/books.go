package decreepg

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/transport/branch"
)

const (
	// attempts bounds how often one call begins anew after a deadlock: those who
	// meet back off by chance, so that more than a few mean that something else is
	// wrong, and decree asks again anyway.
	attempts = 6
	// pause is the mean wait before the second attempt; it doubles from there.
	pause = 5 * time.Millisecond
)

// books are the barrier's tables in a PostgreSQL database.
type books struct{ pool *pgxpool.Pool }

// Raise implements branch.Books.
func (b *books) Raise(ctx context.Context, cluster string, heard branch.Fence, most int) (stored branch.Fence, err error) {
	// A stranger has a row only where there is room for it. Two at once may both find
	// the last place: the bound is there to stop floods, not to count.
	const sql = `INSERT INTO decree_tcc_fence AS f (cluster, epoch, horizon)
SELECT $1, $2, $3 WHERE EXISTS (SELECT FROM decree_tcc_fence WHERE cluster = $1) OR (SELECT count(*) FROM decree_tcc_fence) < $4
ON CONFLICT (cluster) DO UPDATE SET epoch = greatest(f.epoch, excluded.epoch),
  horizon = CASE WHEN excluded.epoch >= f.epoch THEN greatest(f.horizon, excluded.horizon) ELSE f.horizon END
RETURNING epoch, horizon`
	err = b.steady(ctx, func() error {
		return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
			batch := &pgx.Batch{}
			batch.Queue(durable)
			batch.Queue(sql, cluster, heard.Epoch, heard.Horizon, most).QueryRow(func(row pgx.Row) error {
				return row.Scan(&stored.Epoch, &stored.Horizon)
			})
			return tx.SendBatch(ctx, batch).Close()
		})
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return stored, branch.ErrClusters
	}
	return stored, err
}

// steady repeats what may be repeated until it meets a connection that lives: when
// the server has been started anew the pool is full of dead ones, and each of them
// fails once.
func (b *books) steady(ctx context.Context, f func() error) (err error) {
	for range b.pool.Stat().MaxConns() + 1 {
		if err = f(); err == nil || ctx.Err() != nil || !cut(err) {
			return err
		}
	}
	return err
}

// cut reports whether a connection broke: the server has not answered, and neither
// has it refused a new connection.
func cut(err error) bool {
	var answer *pgconn.PgError
	var refused *pgconn.ConnectError
	dead := errors.As(err, &answer) && answer.SeverityUnlocalized == "FATAL" // its last words
	return dead || !errors.As(err, &answer) && !errors.As(err, &refused) && !errors.Is(err, pgx.ErrNoRows)
}

// durable makes the transaction's commit wait for the disk where the server or the
// role would not have it so. It leaves stronger settings as they are.
const durable = `SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'`

// Change implements branch.Books.
func (b *books) Change(ctx context.Context, name branch.Branch, f func(branch.Page[pgx.Tx]) (*branch.Record, error)) error {
	var err error
	for attempt := range attempts {
		if attempt > 0 && !wait(ctx, pause<<(attempt-1)) {
			return err
		}
		if err = b.change(ctx, name, f); err == nil || !again(err) {
			return err
		}
	}
	return err
}

// errLost says that the answer to a commit was lost. The next attempt waits for
// that transaction's end, because it needs the same row, and finds what it left.
var errLost = errors.New("the answer to a commit was lost")

// errForgotten says that the row went away between two statements.
var errForgotten = errors.New("the branch was forgotten meanwhile")

// again reports whether an attempt that failed left nothing and may go better the
// next time: it lost to a deadlock or a concurrent update, or its end is not known.
func again(err error) bool {
	const serializationFailure, deadlockDetected = "40001", "40P01"
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code == serializationFailure || answer.Code == deadlockDetected
	}
	return errors.Is(err, errLost) || errors.Is(err, errForgotten)
}

// wait sleeps for about d, so that those who met do not meet again.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(time.Duration(rand.Int64N(int64(2*d) + 1)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *books) change(ctx context.Context, name branch.Branch, f func(branch.Page[pgx.Tx]) (*branch.Record, error)) error {
	var tx pgx.Tx
	err := b.steady(ctx, func() (err error) {
		tx, err = b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
		return err
	})
	if err != nil {
		return err
	}
	held := &Branch{inner: tx}
	defer held.abandon(ctx)
	work := &guarded{Tx: tx}
	page, err := open(ctx, work, name)
	if err != nil {
		return err
	}
	next, err := f(page)
	if err != nil || next == nil {
		return err // and what was made for the branch goes with the rollback
	}
	if work.givenUp {
		return errors.New(givenUp)
	}
	if err := write(ctx, tx, name, *next); err != nil {
		return err
	}
	held.ended = true
	err = tx.Commit(ctx)
	var answer *pgconn.PgError
	if err == nil || errors.As(err, &answer) || errors.Is(err, pgx.ErrTxCommitRollback) {
		return err
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

// open takes the branch's row for the transaction, makes it where there is none,
// and reads the page. It is one round trip. The statements are several on purpose:
// each sees what was committed when it began, and the fence must be read once the
// row is held.
func open(ctx context.Context, tx *guarded, name branch.Branch) (branch.Page[pgx.Tx], error) {
	page := branch.Page[pgx.Tx]{Tx: tx, Undo: func(ctx context.Context) error {
		tx.givenUp = false // it has become so
		_, err := tx.Exec(ctx, "ROLLBACK TO SAVEPOINT decree_tcc")
		return err
	}}
	batch := &pgx.Batch{}
	batch.Queue(durable)
	batch.Queue(`INSERT INTO decree_tcc (cluster, txid, branch) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		name.Cluster, name.TxID, name.Number)
	batch.Queue(selectRecord+` FOR UPDATE`, name.Cluster, name.TxID, name.Number).QueryRow(func(row pgx.Row) error {
		record, err := scan(row)
		if errors.Is(err, pgx.ErrNoRows) {
			err = errForgotten
		}
		page.Record = record
		return err
	})
	batch.Queue(`SELECT epoch, horizon FROM decree_tcc_fence WHERE cluster = $1`, name.Cluster).QueryRow(func(row pgx.Row) error {
		return row.Scan(&page.Fence.Epoch, &page.Fence.Horizon) // it was raised before
	})
	batch.Queue(`SAVEPOINT decree_tcc`)
	return page, tx.SendBatch(ctx, batch).Close()
}

const selectRecord = `SELECT state, digest, payload, reason FROM decree_tcc WHERE cluster = $1 AND txid = $2 AND branch = $3`

// scan reads a record. A row without a state was made by the transaction that looks.
func scan(row pgx.Row) (r branch.Record, err error) {
	var state string
	if err := row.Scan(&state, &r.Digest, &r.Payload, &r.Reason); err != nil || state == "" {
		return branch.Record{}, err
	}
	return r, r.State.UnmarshalText([]byte(state))
}

// write stores the record. It notices where a function, against its promise, has
// ended the transaction that it was given: then nothing may be written outside.
func write(ctx context.Context, tx pgx.Tx, name branch.Branch, r branch.Record) error {
	if tx.Conn().PgConn().TxStatus() == idle {
		return errEnded
	}
	if !r.State.Open() {
		r.Payload = nil
	}
	tag, err := tx.Exec(ctx, `UPDATE decree_tcc SET state = $4, digest = $5, payload = $6, reason = $7, changed = now()
WHERE cluster = $1 AND txid = $2 AND branch = $3`,
		name.Cluster, name.TxID, name.Number, r.State.String(), r.Digest, r.Payload, strings.ReplaceAll(r.Reason, "\x00", ""))
	if err == nil && tag.RowsAffected() != 1 {
		err = errEnded
	}
	return err
}

// Look implements branch.Books.
func (b *books) Look(ctx context.Context, name branch.Branch) (r branch.Record, err error) {
	err = b.steady(ctx, func() error {
		r, err = scan(b.pool.QueryRow(ctx, selectRecord, name.Cluster, name.TxID, name.Number))
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return branch.Record{}, nil
	}
	return r, err
}

const openBranches = ` FROM decree_tcc WHERE cluster = $1 AND state = 'prepared' ORDER BY cluster, txid, branch LIMIT $2`

// Open implements branch.Books.
func (b *books) Open(ctx context.Context, cluster string, limit int) (open []branch.Branch, err error) {
	err = b.steady(ctx, func() error {
		rows, _ := b.pool.Query(ctx, `SELECT txid::text, branch`+openBranches, cluster, limit) // rows tell its error
		open, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (branch.Branch, error) {
			one := branch.Branch{Cluster: cluster}
			err := row.Scan(&one.TxID, &one.Number)
			return one, err
		})
		return err
	})
	return open, err
}

// Count implements branch.Books.
func (b *books) Count(ctx context.Context, cluster string, limit int) (n int, err error) {
	err = b.steady(ctx, func() error {
		return b.pool.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1`+openBranches+`) open`, cluster, limit).Scan(&n)
	})
	return n, err
}

// Forget implements branch.Books.
func (b *books) Forget(ctx context.Context, cluster, before string, limit int) error {
	_, err := b.pool.Exec(ctx, `DELETE FROM decree_tcc WHERE (cluster, txid, branch) IN (
SELECT cluster, txid, branch FROM decree_tcc WHERE cluster = $1 AND txid < $2 AND state <> 'prepared'
ORDER BY cluster, txid, branch LIMIT $3 FOR UPDATE SKIP LOCKED)`, cluster, before, limit)
	return err
}
