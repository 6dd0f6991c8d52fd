package decreesql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

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

// books are the barrier's tables in a MariaDB database.
type books struct{ db *sql.DB }

// Raise implements branch.Books.
func (b *books) Raise(ctx context.Context, cluster string, heard branch.Fence, most int) (stored branch.Fence, err error) {
	// A stranger has a row only where there is room for it. Two at once may both find
	// the last place: the bound is there to stop floods, not to count. The horizon is
	// assigned first, because assignments see those before them.
	const raise = `INSERT INTO decree_tcc_fence (cluster, epoch, horizon)
SELECT ?, ?, ? FROM DUAL WHERE EXISTS (SELECT 1 FROM decree_tcc_fence WHERE cluster = ?) OR (SELECT COUNT(*) FROM decree_tcc_fence) < ?
ON DUPLICATE KEY UPDATE
  horizon = IF(VALUES(epoch) >= decree_tcc_fence.epoch, GREATEST(decree_tcc_fence.horizon, VALUES(horizon)), decree_tcc_fence.horizon),
  epoch = GREATEST(decree_tcc_fence.epoch, VALUES(epoch))`
	err = repeat(ctx, func() error {
		_, err := b.db.ExecContext(ctx, raise, cluster, heard.Epoch, heard.Horizon, cluster, most)
		return err
	})
	if err != nil {
		return stored, err
	}
	err = b.db.QueryRowContext(ctx, `SELECT epoch, horizon FROM decree_tcc_fence WHERE cluster = ?`, cluster).
		Scan(&stored.Epoch, &stored.Horizon)
	if errors.Is(err, sql.ErrNoRows) {
		return stored, branch.ErrClusters
	}
	return stored, err
}

// Change implements branch.Books.
func (b *books) Change(ctx context.Context, name branch.Branch, f func(branch.Page[*sql.Tx]) (*branch.Record, error)) error {
	return repeat(ctx, func() error { return b.change(ctx, name, f) })
}

// repeat runs f until it succeeds, or fails in a way that another attempt would not
// change.
func repeat(ctx context.Context, f func() error) (err error) {
	for attempt := range attempts {
		if attempt > 0 && !wait(ctx, pause<<(attempt-1)) {
			return err
		}
		if err = f(); err == nil || !again(err) {
			return err
		}
	}
	return err
}

// errLost says that the answer to a commit was lost. The next attempt waits for
// that transaction's end, because it needs the same row, and finds what it left.
var errLost = errors.New("the answer to a commit was lost")

// again reports whether an attempt that failed left nothing and may go better the
// next time: it lost to a deadlock, or its end is not known.
func again(err error) bool {
	return is(err, deadlock) || errors.Is(err, errLost)
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

func (b *books) change(ctx context.Context, name branch.Branch, f func(branch.Page[*sql.Tx]) (*branch.Record, error)) error {
	conn, err := b.db.Conn(ctx)
	if err != nil {
		return err
	}
	t := &transaction{conn: conn}
	defer t.abandon(ctx)
	page, err := t.open(ctx, name)
	if err != nil {
		return err
	}
	next, err := f(page)
	if err != nil || next == nil {
		return err // and what was made for the branch goes with the rollback
	}
	if err := t.write(ctx, name, *next); err != nil {
		return err
	}
	return t.commit(ctx)
}

// transaction is one local transaction, on a connection that is its own.
type transaction struct {
	conn    *sql.Conn
	session *session // what the function works in; nil before and after
	gone    error    // with which it vanished, or was given up
	ended   bool
}

// open takes the branch's row for the transaction, makes it where there is none,
// and reads the page. The row is held once the insert has been answered, also where
// it was there; only then is the fence read, by a statement that sees what was
// committed when it begins.
func (t *transaction) open(ctx context.Context, name branch.Branch) (page branch.Page[*sql.Tx], err error) {
	for _, statement := range []string{"SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION READ WRITE"} {
		if _, err := t.conn.ExecContext(ctx, statement); err != nil {
			return page, err
		}
	}
	_, err = t.conn.ExecContext(ctx, `INSERT INTO decree_tcc (cluster, txid, branch) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE state = state`,
		name.Cluster, name.TxID, name.Number)
	if err != nil {
		return page, err
	}
	row := t.conn.QueryRowContext(ctx, `SELECT b.state, b.digest, b.payload, b.reason, f.epoch, f.horizon
FROM decree_tcc b JOIN decree_tcc_fence f ON f.cluster = b.cluster WHERE b.cluster = ? AND b.txid = ? AND b.branch = ?`,
		name.Cluster, name.TxID, name.Number)
	if page.Record, err = scan(row, &page.Fence.Epoch, &page.Fence.Horizon); err != nil {
		return page, err
	}
	if _, err := t.conn.ExecContext(ctx, "SAVEPOINT decree_tcc"); err != nil {
		return page, err
	}
	if t.session, err = lend(ctx, t.conn, func(err error) bool { return is(err, deadlock) }); err != nil {
		return page, err
	}
	page.Tx = t.session.tx
	page.Undo = func(ctx context.Context) error {
		if err := t.recall(); is(err, deadlock) {
			return err
		}
		t.gone = nil // what the function made of its work is over
		return t.savepoint(ctx, "ROLLBACK TO SAVEPOINT decree_tcc")
	}
	return page, nil
}

var errEnded = errors.New("a statement of the function ended the transaction it was given: what it did before that may be committed")

// savepoint makes use of the savepoint, which is there as long as the transaction
// of open is. A statement that commits by itself, such as CREATE TABLE, ends both.
func (t *transaction) savepoint(ctx context.Context, statement string) error {
	_, err := t.conn.ExecContext(ctx, statement)
	if is(err, savepointGone) {
		return errEnded
	}
	return err
}

// recall ends the function's use of the transaction. It fails where there is none
// any more, or where the function has given it up.
func (t *transaction) recall() error {
	if t.session == nil {
		return t.gone
	}
	_ = t.session.recall() // in a local transaction, a statement that failed is the function's affair
	t.gone, t.session = t.session.gone, nil
	return t.gone
}

// write stores the record, but not outside of the transaction that open began.
func (t *transaction) write(ctx context.Context, name branch.Branch, r branch.Record) error {
	if err := t.recall(); err != nil {
		return err
	}
	if err := t.savepoint(ctx, "RELEASE SAVEPOINT decree_tcc"); err != nil {
		return err
	}
	if !r.State.Open() {
		r.Payload = nil
	}
	result, err := t.conn.ExecContext(ctx, `UPDATE decree_tcc SET state = ?, digest = ?, payload = ?, reason = ?
WHERE cluster = ? AND txid = ? AND branch = ?`,
		r.State.String(), r.Digest, r.Payload, r.Reason, name.Cluster, name.TxID, name.Number)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n != 1 {
		err = errEnded
	}
	return err
}

func (t *transaction) commit(ctx context.Context) error {
	_, err := t.conn.ExecContext(ctx, "COMMIT")
	switch {
	case err == nil:
		t.ended = true
		return t.conn.Close()
	case answered(err):
		return err
	default:
		t.ended = true
		discard(t.conn)
		return fmt.Errorf("%w: %w", errLost, err)
	}
}

// abandon rolls back what has not ended, even where the caller's context has, so
// that the connection is clean for the next. Where that fails the connection is
// closed, and the server rolls back.
func (t *transaction) abandon(ctx context.Context) {
	_ = t.recall()
	if t.ended {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackPatience)
	defer cancel()
	if _, err := t.conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		discard(t.conn)
		return
	}
	_ = t.conn.Close()
}

// scan reads a record, and after it what else the row holds. A row without a state
// was made by the transaction that looks.
func scan(row *sql.Row, more ...any) (r branch.Record, err error) {
	var state string
	if err := row.Scan(append([]any{&state, &r.Digest, &r.Payload, &r.Reason}, more...)...); err != nil || state == "" {
		return branch.Record{}, err
	}
	return r, r.State.UnmarshalText([]byte(state))
}

// Look implements branch.Books.
func (b *books) Look(ctx context.Context, name branch.Branch) (branch.Record, error) {
	r, err := scan(b.db.QueryRowContext(ctx, `SELECT state, digest, payload, reason FROM decree_tcc WHERE cluster = ? AND txid = ? AND branch = ?`,
		name.Cluster, name.TxID, name.Number))
	if errors.Is(err, sql.ErrNoRows) {
		return branch.Record{}, nil
	}
	return r, err
}

const openBranches = ` FROM decree_tcc WHERE state = 'prepared' AND cluster = ? ORDER BY txid, branch LIMIT ?`

// Open implements branch.Books.
func (b *books) Open(ctx context.Context, cluster string, limit int) (open []branch.Branch, err error) {
	rows, err := b.db.QueryContext(ctx, `SELECT txid, branch`+openBranches, cluster, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		one := branch.Branch{Cluster: cluster}
		if err := rows.Scan(&one.TxID, &one.Number); err != nil {
			return nil, err
		}
		open = append(open, one)
	}
	return open, rows.Err()
}

// Count implements branch.Books.
func (b *books) Count(ctx context.Context, cluster string, limit int) (n int, err error) {
	err = b.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT 1`+openBranches+`) open`, cluster, limit).Scan(&n)
	return n, err
}

// Forget implements branch.Books.
func (b *books) Forget(ctx context.Context, cluster, before string, limit int) error {
	// What the first statement lists has ended, and what has ended stays so: the
	// second deletes nothing that waits, and locks nothing but what it deletes.
	rows, err := b.db.QueryContext(ctx, `SELECT txid, branch FROM decree_tcc
WHERE cluster = ? AND txid < ? AND state NOT IN ('', 'prepared') ORDER BY txid, branch LIMIT ?`, cluster, before, limit)
	if err != nil {
		return err
	}
	defer rows.Close()
	where, args := "", []any{cluster}
	for rows.Next() {
		var one branch.Branch
		if err := rows.Scan(&one.TxID, &one.Number); err != nil {
			return err
		}
		where += ", (?, ?)"
		args = append(args, one.TxID, one.Number)
	}
	if err := rows.Err(); err != nil || where == "" {
		return err
	}
	_, err = b.db.ExecContext(ctx, `DELETE FROM decree_tcc WHERE cluster = ? AND (txid, branch) IN (`+where[2:]+`)`, args...)
	return err
}
