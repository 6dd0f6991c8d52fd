package decreepg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/transport/branch"
)

// DB is the application's database: a *pgxpool.Pool, a *pgxpool.Conn or a
// *pgx.Conn. A branch takes one connection of it from Begin to Prepare.
type DB interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Errors of Begin and Run, to be told by errors.Is. After each of them the call has
// left nothing in the database.
var (
	// ErrAborted says that decree has aborted the branch meanwhile, by the
	// transaction's timeout for instance.
	ErrAborted = errors.New("the branch was aborted")
	// ErrTaken says that a transaction of this branch is at work, prepared or
	// committed already: the application runs the branch a second time.
	ErrTaken = errors.New("the branch was begun before")
	// ErrUnmarked says that the database has no marker tables, or that the role may
	// not use them: the database is not registered with decree, or with another
	// schema.
	ErrUnmarked = errors.New("decree's marker tables cannot be used")
)

// ErrAmbiguous says that nobody knows whether the branch is prepared: the
// connection or the context ended while that was under way. Abort the transaction;
// decree's driver then makes sure that nothing stays.
var ErrAmbiguous = errors.New("whether the branch is prepared is not known")

// ErrNotYours answers Commit and Rollback of the transaction that a function is
// given.
var ErrNotYours = errors.New("decree ends this transaction, not the function that works in it")

// rollbackPatience bounds a rollback whose caller has gone: past it the connection
// is given up, with which the database rolls back by itself.
const rollbackPatience = 5 * time.Second

// Branch is an application's own branch: a transaction of its database that has
// begun and is not prepared. It is for one goroutine at a time.
type Branch struct {
	inner pgx.Tx
	tx    *guarded
	ended bool
}

// Begin opens the transaction of a branch that was enlisted, and marks it. The
// caller ends it with Prepare or Rollback; a deferred Rollback after Prepare does
// nothing. Marker tables outside of the schema "public" need [Config].
func Begin(ctx context.Context, db DB, e branch.Enlistment) (*Branch, error) {
	return Config{}.Begin(ctx, db, e)
}

// Run runs f in the transaction of a branch that was enlisted, and votes.
//
//   - Where f returns nil the branch is prepared and the vote is Yes.
//   - Where f fails, a statement of it did, or the database refuses to prepare, the
//     vote is No with the reason, and nothing is left. Where f panics the same is
//     true, and the panic goes on.
//   - An error is no vote. Abort the transaction, or commit it without this vote,
//     which decree counts as a no.
func Run(ctx context.Context, db DB, e branch.Enlistment, f func(context.Context, pgx.Tx) error) (branch.Vote, error) {
	return Config{}.Run(ctx, db, e, f)
}

// Config says where the marker tables are. The zero Config is a good one.
type Config struct {
	// Schema holds the marker tables; empty means "public". It must be that of the
	// participant's registration.
	Schema string
}

// Begin is as the function of that name.
func (c Config) Begin(ctx context.Context, db DB, e branch.Enlistment) (*Branch, error) {
	name, err := nameOf(e)
	if err != nil {
		return nil, err
	}
	sql, err := marker.NewPostgres(c.Schema)
	if err != nil {
		return nil, err
	}
	// A rollback instead of a commit is no error to PostgreSQL: pgx looks at the tag
	// that it answers.
	inner, err := db.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite, CommitQuery: "PREPARE TRANSACTION '" + name.GID() + "'"})
	if err != nil {
		return nil, fmt.Errorf("begin the branch: %w", err)
	}
	b := &Branch{inner: inner, tx: &guarded{Tx: inner}}
	if err = mark(ctx, inner, sql, name); err == nil {
		return b, nil
	}
	b.abandon(ctx)
	return nil, refusal(ctx, db, sql, name, err)
}

// confirmed makes PREPARE TRANSACTION wait for synchronous standbys, where there are
// any, although the role would not have it so: the server flushes a prepared
// transaction in any case, but a failover would lose it.
const confirmed = `SELECT set_config('synchronous_commit', 'on', true)` +
	` WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')`

// mark writes the branch's marker row, in one round trip.
func mark(ctx context.Context, tx pgx.Tx, sql marker.Postgres, name marker.Branch) error {
	batch := &pgx.Batch{}
	batch.Queue(sql.Insert, name.PostgresArgs([32]byte{}, nil)...)
	batch.Queue(confirmed)
	return tx.SendBatch(ctx, batch).Close()
}

// Run is as the function of that name.
func (c Config) Run(ctx context.Context, db DB, e branch.Enlistment, f func(context.Context, pgx.Tx) error) (branch.Vote, error) {
	b, err := c.Begin(ctx, db, e)
	if err != nil {
		return branch.Vote{}, err
	}
	defer b.abandon(ctx)
	if err := f(ctx, b.Tx()); err != nil {
		if b.status() == idle {
			return branch.Vote{}, errors.Join(errEnded, err)
		}
		return branch.No("%v", err), nil // certain: it was never prepared
	}
	return b.Prepare(ctx)
}

// Read runs f in a transaction that the database keeps from writing, and votes
// ReadOnly where f returns nil and No where it fails. What f has read may change
// before the transaction is decided. An error is no vote.
func Read(ctx context.Context, db DB, f func(context.Context, pgx.Tx) error) (branch.Vote, error) {
	inner, err := db.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return branch.Vote{}, fmt.Errorf("begin the branch: %w", err)
	}
	b := &Branch{inner: inner, tx: &guarded{Tx: inner}}
	defer b.abandon(ctx)
	if err := f(ctx, b.Tx()); err != nil {
		return branch.No("%v", err), nil
	}
	return branch.ReadOnly(), nil
}

// Tx is the branch's transaction, for the application's statements. Its Commit and
// Rollback fail with ErrNotYours, and Rollback makes the vote a no. Those of
// transactions nested in it work as ever.
func (b *Branch) Tx() pgx.Tx { return b.tx }

// Prepare ends the work and votes. A Yes says that the database holds the branch,
// through any crash, until decree has decided; a No, that nothing of it is left.
// After an error that wraps ErrAmbiguous neither is certain. In each case the
// connection is free.
func (b *Branch) Prepare(ctx context.Context) (branch.Vote, error) {
	if b.ended {
		return branch.Vote{}, errors.New("the branch has ended before")
	}
	if b.tx.givenUp {
		b.abandon(ctx)
		return branch.No(givenUp), nil
	}
	switch b.status() {
	case failed:
		b.abandon(ctx)
		return branch.No("a statement of the branch had failed"), nil
	case idle:
		b.abandon(ctx)
		return branch.Vote{}, errEnded
	}
	b.ended = true
	err := b.inner.Commit(ctx)
	var answer *pgconn.PgError
	switch {
	case err == nil:
		return branch.Yes(), nil
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return branch.No("the database rolled back instead of preparing"), nil
	case errors.As(err, &answer) && certain(answer):
		return branch.No("the database refused to prepare: %s (%s)", answer.Message, answer.Code), nil
	default:
		return branch.Vote{}, fmt.Errorf("%w: %w", ErrAmbiguous, err)
	}
}

// What the server tells, with each answer, of the transaction that it is in.
const (
	idle   = 'I' // in none
	failed = 'E'
)

// errEnded is damage that only a statement such as COMMIT can do.
var errEnded = errors.New("a statement of the function ended the transaction it was given: what it did before that may be committed")

func (b *Branch) status() byte { return b.inner.Conn().PgConn().TxStatus() }

// certain reports whether an error to PREPARE says that the transaction was rolled
// back. A session that was ended, or told to stop, or whose server is in trouble
// itself, has perhaps answered for a statement that was carried out.
func certain(answer *pgconn.PgError) bool {
	if answer.SeverityUnlocalized != "ERROR" || len(answer.Code) != len("00000") {
		return false
	}
	switch answer.Code[:2] {
	case "08", "57", "58", "F0", "XX": // the connection, an operator, the system, its files, a fault
		return false
	}
	const completionUnknown = "40003"
	return answer.Code != completionUnknown
}

// Rollback gives the branch up. Nothing of it is left, and nobody needs to hear of
// it: a branch without a vote counts as a no. After Prepare it does nothing.
func (b *Branch) Rollback(ctx context.Context) error {
	if b.ended {
		return nil
	}
	b.ended = true
	return b.inner.Rollback(ctx)
}

// abandon rolls back even where the caller's context has ended, so that the
// connection is clean for the next. Where that fails pgx closes the connection,
// and the database rolls back.
func (b *Branch) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackPatience)
	defer cancel()
	_ = b.Rollback(ctx)
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

// refusal finds out why the marker was refused.
func refusal(ctx context.Context, db DB, sql marker.Postgres, name marker.Branch, refused error) error {
	const undefinedTable, insufficientPrivilege, undefinedSchema = "42P01", "42501", "3F000"
	var answer *pgconn.PgError
	switch {
	case !errors.As(refused, &answer):
		return fmt.Errorf("mark the branch: %w", refused)
	case answer.Code == undefinedTable, answer.Code == undefinedSchema, answer.Code == insufficientPrivilege:
		return fmt.Errorf("%w: %w", ErrUnmarked, refused)
	case !marker.PostgresRefused(answer.Code, answer.TableName):
		return fmt.Errorf("mark the branch: %w", refused)
	}
	var state *string
	var horizon *int64
	if err := db.QueryRow(ctx, sql.Look, name.GID(), name.Cluster).Scan(&state, nil, nil, nil, &horizon); err != nil {
		return fmt.Errorf("mark the branch: %w", errors.Join(refused, err))
	}
	switch {
	case state != nil && *state == marker.Aborted:
		return ErrAborted
	case state == nil && horizon != nil && int64(name.TxID.Time()) < *horizon:
		return fmt.Errorf("%w: its transaction is older than decree remembers", ErrAborted)
	default:
		return ErrTaken
	}
}

// guarded is the transaction as a function sees it. It cannot be ended, and a
// function that rolls it back is taken at its word: its work is not kept.
type guarded struct {
	pgx.Tx
	givenUp bool
}

func (g *guarded) Commit(context.Context) error { return ErrNotYours }

func (g *guarded) Rollback(context.Context) error {
	g.givenUp = true
	return ErrNotYours
}

const givenUp = "the function rolled its transaction back"
