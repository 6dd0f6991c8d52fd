package decreesql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/transport/branch"
)

// Errors of Begin and Run, to be told by errors.Is. After each of them nothing of
// the branch is in the database.
var (
	// ErrAborted says that decree has aborted the branch meanwhile, by the
	// transaction's timeout for instance.
	ErrAborted = errors.New("the branch was aborted")
	// ErrTaken says that a transaction of this branch is at work, prepared or
	// committed already: the application runs the branch a second time.
	ErrTaken = errors.New("the branch was begun before")
	// ErrUnmarked says that the database has no marker tables, or that the user may
	// not use them: the database is not registered with decree, or with another
	// schema.
	ErrUnmarked = errors.New("decree's marker tables cannot be used")
)

// ErrAmbiguous says that nobody knows whether the branch is prepared: the
// connection or the context ended while that was under way. Abort the transaction;
// decree's driver then makes sure that nothing stays.
var ErrAmbiguous = errors.New("whether the branch is prepared is not known")

const (
	// rollbackPatience bounds a rollback whose caller has gone: past it the
	// connection is closed, with which the server rolls back by itself.
	rollbackPatience = 5 * time.Second
	// detachPatience bounds the wait for the end of a session whose connection was
	// closed, which takes a millisecond. Past it the vote is given all the same: the
	// branch is prepared, and decree's driver ends the session before the branch.
	detachPatience = 2 * time.Second
	detachPause    = time.Millisecond // between two looks
)

// Branch is an application's own branch: an XA transaction of its database that
// has begun and is not prepared. It is for one goroutine at a time.
type Branch struct {
	db      *sql.DB
	conn    *sql.Conn
	session *session
	xid     string // as it stands in SQL
	lock    string // of the session, by which the server tells that it lives
	started bool   // only then is what has the XA id ours, and nobody else's
	ended   bool
}

// Begin opens the transaction of a branch that was enlisted, and marks it. The
// caller ends it with Prepare or Rollback; a deferred Rollback after Prepare does
// nothing. Marker tables in another schema than the connection's need [Config].
func Begin(ctx context.Context, db *sql.DB, e branch.Enlistment) (*Branch, error) {
	return Config{}.Begin(ctx, db, e)
}

// Run runs f in the transaction of a branch that was enlisted, and votes.
//
//   - Where f returns nil and none of its statements failed, the branch is prepared
//     and the vote is Yes.
//   - Where f fails, a statement of it did, or the database refuses to prepare, the
//     vote is No with the reason, and nothing is left. Where f panics the same is
//     true, and the panic goes on.
//   - An error is no vote. Abort the transaction, or commit it without this vote,
//     which decree counts as a no.
func Run(ctx context.Context, db *sql.DB, e branch.Enlistment, f func(context.Context, *sql.Tx) error) (branch.Vote, error) {
	return Config{}.Run(ctx, db, e, f)
}

// Config says where the marker tables are. The zero Config is a good one.
type Config struct {
	// Schema is the database that holds the marker tables; empty means that of the
	// connection. It must be that of the participant's registration.
	Schema string
}

// Begin is as the function of that name.
func (c Config) Begin(ctx context.Context, db *sql.DB, e branch.Enlistment) (*Branch, error) {
	name, err := nameOf(e)
	if err != nil {
		return nil, err
	}
	text, err := marker.NewMySQL(c.Schema)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin the branch: %w", err)
	}
	b := &Branch{db: db, conn: conn, xid: name.XID().String(), lock: marker.MySQLLock(uuid.NewString())}
	if err := b.begin(ctx, text, name); err != nil {
		b.abandon(ctx)
		return nil, err
	}
	return b, nil
}

// begin leaves an XA transaction in which nothing but the marker was written, lent
// to the application.
func (b *Branch) begin(ctx context.Context, text marker.MySQL, name marker.Branch) error {
	owner := marker.MySQLOwner{Lock: b.lock}
	var claimed sql.NullInt64
	var isolation string
	err := b.conn.QueryRowContext(ctx, marker.MySQLClaim+", @@tx_isolation", b.lock).Scan(&owner.Connection, &owner.Started, &claimed, &isolation)
	if err == nil && claimed.Int64 != 1 {
		err = errors.New("the server refused the session's lock")
	}
	if err != nil {
		return fmt.Errorf("begin the branch: %w", err)
	}
	locks := isolation == "SERIALIZABLE"
	if locks {
		if err := b.lookApart(ctx, text, name); err != nil {
			return err
		}
	}
	if _, err := b.conn.ExecContext(ctx, "XA START "+b.xid); err != nil {
		return refusal(err)
	}
	b.started = true
	// The look comes first, so that no lock on the fence is kept: see Insert.
	if !locks {
		if err := look(ctx, b.conn, text, name); err != nil {
			return err
		}
	}
	if _, err := b.conn.ExecContext(ctx, text.Insert, name.GID(), nil, owner.String()); err != nil {
		return b.known(ctx, text, name, err)
	}
	b.session, err = lend(ctx, b.conn, nil)
	return err
}

// lookApart looks at the fence in a transaction of its own. In the branch's own, at
// SERIALIZABLE, the look would lock the fence until the branch ends, and the next
// leader, who raises the fence before it ends anything, would wait for ever.
func (b *Branch) lookApart(ctx context.Context, text marker.MySQL, name marker.Branch) error {
	tx, err := b.conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted, ReadOnly: true})
	if err != nil {
		return refusal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	if err := look(ctx, tx, text, name); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return refusal(err)
	}
	return nil
}

// look refuses a branch that the fence is closed to.
func look(ctx context.Context, in interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, text marker.MySQL, name marker.Branch) error {
	var epoch, horizon uint64
	err := in.QueryRowContext(ctx, text.Fence, name.Cluster).Scan(&epoch, &horizon)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return refusal(err)
	}
	if uint64(name.TxID.Time()) < horizon { //nolint:gosec // times are not before 1970
		return fmt.Errorf("%w: its transaction is older than decree remembers", ErrAborted)
	}
	return nil
}

// known finds out why the marker was refused.
func (b *Branch) known(ctx context.Context, text marker.MySQL, name marker.Branch, refused error) error {
	if !is(refused, duplicateEntry) {
		return refusal(refused)
	}
	var state string
	err := b.conn.QueryRowContext(ctx, text.Look, name.GID()).Scan(&state, new(any), new(any), new(any))
	switch {
	case err == nil && state == marker.Aborted:
		return ErrAborted
	case err == nil, errors.Is(err, sql.ErrNoRows): // no longer, or not yet, to be seen
		return ErrTaken
	default:
		return fmt.Errorf("mark the branch: %w", errors.Join(refused, err))
	}
}

// refusal gives the errors of a branch's first statements their meaning.
func refusal(err error) error {
	switch {
	case is(err, xaDuplicate), is(err, lockWaitTimeout):
		return ErrTaken
	case is(err, noSuchTable, accessDenied, tableAccessDenied):
		return fmt.Errorf("%w: %w", ErrUnmarked, err)
	default:
		return fmt.Errorf("mark the branch: %w", err)
	}
}

// Run is as the function of that name.
func (c Config) Run(ctx context.Context, db *sql.DB, e branch.Enlistment, f func(context.Context, *sql.Tx) error) (branch.Vote, error) {
	b, err := c.Begin(ctx, db, e)
	if err != nil {
		return branch.Vote{}, err
	}
	defer b.abandon(ctx)
	if err := f(ctx, b.Tx()); err != nil {
		return branch.No("%v", err), nil // certain: it was never prepared
	}
	return b.Prepare(ctx)
}

// Read runs f in a transaction that the database keeps from writing, and votes
// ReadOnly where f returns nil and No where it fails. What f has read may change
// before the transaction is decided. An error is no vote.
func Read(ctx context.Context, db *sql.DB, f func(context.Context, *sql.Tx) error) (branch.Vote, error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return branch.Vote{}, fmt.Errorf("begin the branch: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	if err := f(ctx, tx); err != nil {
		return branch.No("%v", err), nil
	}
	return branch.ReadOnly(), nil
}

// Tx is the branch's transaction, for the application's statements. Its Commit
// and Rollback do nothing but make the vote a no.
func (b *Branch) Tx() *sql.Tx { return b.session.tx }

// Prepare ends the work and votes. A Yes says that the database holds the branch,
// through any crash, until decree has decided; a No, that nothing of it is left.
// After an error that wraps ErrAmbiguous neither is certain. In each case the
// connection is given back.
func (b *Branch) Prepare(ctx context.Context) (branch.Vote, error) {
	if b.ended {
		return branch.Vote{}, errors.New("the branch has ended before")
	}
	if failed := b.session.recall(); failed != nil {
		b.abandon(ctx)
		return branch.No("a statement of the branch had failed: %v", failed), nil
	}
	if _, err := b.conn.ExecContext(ctx, "XA END "+b.xid); err != nil {
		b.abandon(ctx)
		return branch.No("the database refused to end the branch: %v", err), nil
	}
	if _, err := b.conn.ExecContext(ctx, "XA PREPARE "+b.xid); err != nil {
		if b.rollback(ctx) == nil {
			return branch.No("the database refused to prepare: %v", err), nil
		}
		b.discard()
		return branch.Vote{}, fmt.Errorf("%w: %w", ErrAmbiguous, err)
	}
	b.discard()
	b.awaitDetached(ctx)
	return branch.Yes(), nil
}

// awaitDetached waits until the session that prepared the branch has ended, so that
// decree's driver need not end it. That the server has let go of the branch as
// well, an instant later, is for the driver to make certain.
func (b *Branch) awaitDetached(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, detachPatience)
	defer cancel()
	tick := time.NewTicker(detachPause)
	defer tick.Stop()
	for {
		var owner sql.NullInt64
		err := b.db.QueryRowContext(ctx, "SELECT IS_USED_LOCK(?)", b.lock).Scan(&owner)
		if err != nil || !owner.Valid {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Rollback gives the branch up. Nothing of it is left, and nobody needs to hear of
// it: a branch without a vote counts as a no. After Prepare it does nothing.
func (b *Branch) Rollback(ctx context.Context) error {
	if b.ended {
		return nil
	}
	if b.session != nil {
		b.session.recall() //nolint:errcheck // whatever failed is given up with the rest
	}
	if b.started {
		// Of the errors of XA END the rollback tells those that matter: a transaction
		// that lost a deadlock answers so, and has to be rolled back like any other.
		_, _ = b.conn.ExecContext(ctx, "XA END "+b.xid)
	}
	err := b.rollback(ctx)
	if err != nil {
		b.discard()
	}
	return err
}

// rollback ends the XA transaction and gives the connection back as it was.
func (b *Branch) rollback(ctx context.Context) error {
	if b.started {
		if _, err := b.conn.ExecContext(ctx, "XA ROLLBACK "+b.xid); err != nil {
			return err
		}
	}
	if _, err := b.conn.ExecContext(ctx, "DO RELEASE_LOCK(?)", b.lock); err != nil {
		return err
	}
	b.ended = true
	return b.conn.Close()
}

// abandon rolls back even where the caller's context has ended. Where that fails
// the connection is closed, and the server rolls back.
func (b *Branch) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackPatience)
	defer cancel()
	_ = b.Rollback(ctx)
}

// discard closes the connection itself: nobody else may get it from the pool.
func (b *Branch) discard() {
	b.ended = true
	discard(b.conn)
}

func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
}

// nameOf is the branch's name, whose parts may stand in SQL text once it is valid.
func nameOf(e branch.Enlistment) (marker.Branch, error) {
	cluster, txid, number := e.BranchName()
	name, ok := marker.ParseGID(marker.GIDPrefix(cluster) + txid + "_" + strconv.Itoa(number))
	if !ok {
		return marker.Branch{}, fmt.Errorf("no branch of a database can have the name %.64q, %.64q, %d: was it enlisted?", cluster, txid, number)
	}
	return name, nil
}
