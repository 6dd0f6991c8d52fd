package decreepg_test

// These tests prove what an application's own branch promises: the vote is Yes
// exactly where the database holds the branch prepared, and everything else leaves
// nothing behind and the connection clean, whoever fails: the function, a
// statement, the database, the connection or the caller's patience (rules R7, R8).

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreepg"
)

// shop is the application's database, registered with decree.
type shop struct {
	*testing.T
	dsn    string
	pool   *pgxpool.Pool
	driver participants.Participant // decree's end
}

func newShop(t *testing.T) *shop {
	t.Helper()
	server := databases.Shared(t, databases.Postgres)
	s := &shop{T: t, dsn: server.DSN(databases.FreshDatabase(t, server))}
	s.pool = newPool(t, s.dsn, nil)
	s.exec(`CREATE TABLE item (name text PRIMARY KEY)`)
	s.exec(`CREATE TABLE part (item text REFERENCES item DEFERRABLE INITIALLY DEFERRED)`)
	s.driver = s.register()
	return s
}

func (s *shop) exec(sql string, args ...any) {
	s.Helper()
	if _, err := s.pool.Exec(s.Context(), sql, args...); err != nil {
		s.Fatalf("%s: %v", sql, err)
	}
}

// number reads one number.
func (s *shop) number(sql string, args ...any) (n int) {
	s.Helper()
	if err := s.pool.QueryRow(s.Context(), sql, args...).Scan(&n); err != nil {
		s.Fatalf("%s: %v", sql, err)
	}
	return n
}

// enlisted is a branch of a new transaction, and its gid.
func enlisted() (branch.Branch, string) {
	b := branch.Branch{Cluster: "c1", TxID: uuid.Must(uuid.NewV7()).String(), Number: 1}
	return b, "decree_c1_" + b.TxID + "_1"
}

// sell is the application's own code.
func sell(name string) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO item VALUES ($1)", name)
		return err
	}
}

// prepared wants a gid prepared, or not.
func (s *shop) prepared(gid string, want bool) {
	s.Helper()
	if got := s.number("SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1", gid) == 1; got != want {
		s.Fatalf("prepared is %t, want %t", got, want)
	}
}

// clean wants nothing of a branch, and no connection in a transaction.
func (s *shop) clean(gid string) {
	s.Helper()
	s.prepared(gid, false)
	if n := s.number("SELECT count(*) FROM decree_branch WHERE gid = $1", gid); n != 0 {
		s.Errorf("%d marker rows are left", n)
	}
	until(s.T, "every connection is given back and idle", func() bool {
		return s.pool.Stat().AcquiredConns() == 0 &&
			s.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'") == 0
	})
}

// A no leaves nothing, and says why.
func TestNoLeavesNothing(t *testing.T) {
	s := newShop(t)
	s.exec("INSERT INTO item VALUES ('taken')")
	for name, c := range map[string]struct {
		work func(context.Context, pgx.Tx) error
		says string
	}{
		"the function refuses": {func(ctx context.Context, tx pgx.Tx) error {
			return errors.Join(sell("a")(ctx, tx), errors.New("sold out"))
		}, "sold out"},
		"a statement fails": {sell("taken"), "duplicate key"},
		"a statement fails and the function swallows it": {func(ctx context.Context, tx pgx.Tx) error {
			_ = sell("taken")(ctx, tx)
			return nil
		}, "a statement of the branch had failed"},
		"a constraint is checked at prepare": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO part VALUES ('nothing')")
			return err
		}, "foreign key"},
		"a temporary table": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 1")
			return err
		}, "temporary"},
		"the function rolls back": {func(ctx context.Context, tx pgx.Tx) error {
			defer tx.Rollback(ctx) //nolint:errcheck // a habit
			return sell("b")(ctx, tx)
		}, "rolled its transaction back"},
		"the function commits": {func(ctx context.Context, tx pgx.Tx) error {
			return errors.Join(sell("c")(ctx, tx), tx.Commit(ctx))
		}, "decree ends this transaction"},
	} {
		t.Run(name, func(t *testing.T) {
			s.T = t
			b, gid := enlisted()
			vote, err := decreepg.Run(t.Context(), s.pool, b, c.work)
			if err != nil || vote.Wire() != branch.No("").Wire() || !strings.Contains(vote.Reason(), c.says) {
				t.Fatalf("%s, %v; want a no with %q", vote, err, c.says)
			}
			s.clean(gid)
			if n := s.number("SELECT count(*) FROM item"); n != 1 {
				t.Errorf("%d items, want the one that was there", n)
			}
		})
	}
}

// A statement that ends the transaction is damage. It is not called a no.
func TestStatementThatEndsTheTransaction(t *testing.T) {
	s := newShop(t)
	for _, after := range []error{nil, errors.New("sold out")} {
		b, gid := enlisted()
		vote, err := decreepg.Run(t.Context(), s.pool, b, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "COMMIT")
			return errors.Join(err, after)
		})
		if err == nil || vote != (branch.Vote{}) || !strings.Contains(err.Error(), "may be committed") {
			t.Errorf("%s, %v; want an error", vote, err)
		}
		s.prepared(gid, false)
	}
}

// A savepoint takes a failure back, and the branch goes on.
func TestNestedTransactions(t *testing.T) {
	s := newShop(t)
	s.exec("INSERT INTO item VALUES ('taken')")
	b, gid := enlisted()
	vote, err := decreepg.Run(t.Context(), s.pool, b, func(ctx context.Context, tx pgx.Tx) error {
		if err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return sell("taken")(ctx, tx) }); err == nil {
			return errors.New("sold twice")
		}
		return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return sell("other")(ctx, tx) })
	})
	if err != nil || vote != branch.Yes() {
		t.Fatalf("%s, %v; want yes", vote, err)
	}
	s.exec("COMMIT PREPARED '" + gid + "'")
	if n := s.number("SELECT count(*) FROM item"); n != 2 {
		t.Errorf("%d items, want 2", n)
	}
}

func TestPanicLeavesNothing(t *testing.T) {
	s := newShop(t)
	b, gid := enlisted()
	func() {
		defer func() {
			if r := recover(); r != "out of paper" {
				t.Errorf("recovered %v", r)
			}
		}()
		_, _ = decreepg.Run(t.Context(), s.pool, b, func(ctx context.Context, tx pgx.Tx) error {
			_ = sell("a")(ctx, tx)
			panic("out of paper")
		})
	}()
	s.clean(gid)
}

// R8: a branch that decree has aborted never begins; nor does one a second time.
func TestBranchThatMustNotBegin(t *testing.T) {
	s := newShop(t)
	never := func(context.Context, pgx.Tx) error { t.Error("the function ran"); return nil }

	aborted, gid := enlisted()
	if err := s.driver.Abort(t.Context(), asked(gid)); err != nil {
		t.Fatal(err)
	}
	if _, err := decreepg.Run(t.Context(), s.pool, aborted, never); !errors.Is(err, decreepg.ErrAborted) {
		t.Errorf("after its abort: %v", err)
	}

	twice, gid := enlisted()
	if vote, err := decreepg.Run(t.Context(), s.pool, twice, sell("a")); err != nil || vote != branch.Yes() {
		t.Fatalf("%s, %v; want yes", vote, err)
	}
	if _, err := decreepg.Run(t.Context(), s.pool, twice, never); !errors.Is(err, decreepg.ErrTaken) {
		t.Errorf("while it is prepared: %v", err)
	}
	s.prepared(gid, true) // the second run has not taken the first one back
	if err := s.driver.Commit(t.Context(), asked(gid)); err != nil {
		t.Fatal(err)
	}
	if _, err := decreepg.Run(t.Context(), s.pool, twice, never); !errors.Is(err, decreepg.ErrTaken) {
		t.Errorf("once it is committed: %v", err)
	}

	open, _ := enlisted()
	first, err := decreepg.Begin(t.Context(), s.pool, open)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decreepg.Run(t.Context(), s.pool, open, never); !errors.Is(err, decreepg.ErrTaken) {
		t.Errorf("while it is at work: %v", err)
	}
	if err := first.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}

	expired, _ := enlisted()
	s.exec("UPDATE decree_fence SET horizon = 9000000000000000000")
	if _, err := decreepg.Run(t.Context(), s.pool, expired, never); !errors.Is(err, decreepg.ErrAborted) {
		t.Errorf("from before the horizon: %v", err)
	}

	for _, b := range []branch.Branch{
		{}, {Cluster: "c_1", TxID: expired.TxID, Number: 1}, {Cluster: "c1", TxID: "'; DROP TABLE item; --", Number: 1},
		{Cluster: "c1", TxID: uuid.NewString(), Number: 1}, {Cluster: "c1", TxID: expired.TxID},
	} {
		if _, err := decreepg.Run(t.Context(), s.pool, b, never); err == nil || !strings.Contains(err.Error(), "was it enlisted") {
			t.Errorf("%v: %v", b, err)
		}
	}
}

// A database that is not registered says so, and not only that a relation is missing.
func TestUnregisteredDatabase(t *testing.T) {
	server := databases.Shared(t, databases.Postgres)
	s := &shop{T: t, pool: newPool(t, server.DSN(databases.FreshDatabase(t, server)), nil)}
	s.exec("CREATE TABLE item (name text PRIMARY KEY)")
	b, _ := enlisted()
	if _, err := decreepg.Run(t.Context(), s.pool, b, sell("a")); !errors.Is(err, decreepg.ErrUnmarked) {
		t.Errorf("%v, want ErrUnmarked", err)
	}
	b, _ = enlisted()
	if _, err := (decreepg.Config{Schema: "elsewhere"}).Run(t.Context(), s.pool, b, sell("a")); !errors.Is(err, decreepg.ErrUnmarked) {
		t.Errorf("%v, want ErrUnmarked", err)
	}
	if n := s.number("SELECT count(*) FROM item"); n != 0 {
		t.Errorf("%d items are there", n)
	}
}

// A caller who leaves at any time leaves no transaction open, and a branch prepared
// only where the vote or ErrAmbiguous told of it.
func TestLeavingAtAnyTime(t *testing.T) {
	s := newShop(t)
	const copies = 40
	for i := range copies {
		ctx, leave := context.WithCancel(t.Context())
		b, gid := enlisted()
		vote, err := decreepg.Run(ctx, s.pool, b, func(ctx context.Context, tx pgx.Tx) error {
			if i%4 == 0 {
				leave()
			}
			err := sell(gid)(ctx, tx)
			go leave() // now, or while it is being prepared, or after
			return err
		})
		leave()
		told := vote == branch.Yes() || errors.Is(err, decreepg.ErrAmbiguous)
		if n := s.number("SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1", gid); n == 1 && !told {
			t.Fatalf("prepared after %s, %v", vote, err)
		}
		if vote == branch.Yes() {
			s.prepared(gid, true)
		}
	}
	until(t, "every connection is given back and idle", func() bool {
		return s.pool.Stat().AcquiredConns() == 0 &&
			s.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'") == 0
	})
}

// The steps by hand: Rollback may be deferred, and comes to nothing after Prepare.
func TestSteps(t *testing.T) {
	s := newShop(t)
	b, gid := enlisted()
	work, err := decreepg.Begin(t.Context(), s.pool, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := sell("a")(t.Context(), work.Tx()); err != nil {
		t.Fatal(err)
	}
	if vote, err := work.Prepare(t.Context()); err != nil || vote != branch.Yes() {
		t.Fatalf("%s, %v; want yes", vote, err)
	}
	if err := work.Rollback(t.Context()); err != nil {
		t.Errorf("rollback after prepare: %v", err)
	}
	if _, err := work.Prepare(t.Context()); err == nil {
		t.Error("a second prepare succeeded")
	}
	s.prepared(gid, true)
	if _, err := work.Tx().Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a statement ran after prepare")
	}
}

// A branch that only looks leaves nothing, and cannot write by mistake.
func TestRead(t *testing.T) {
	s := newShop(t)
	vote, err := decreepg.Read(t.Context(), s.pool, func(ctx context.Context, tx pgx.Tx) error {
		var n int
		return tx.QueryRow(ctx, "SELECT count(*) FROM item").Scan(&n)
	})
	if err != nil || vote != branch.ReadOnly() {
		t.Errorf("%s, %v; want read-only", vote, err)
	}
	vote, err = decreepg.Read(t.Context(), s.pool, sell("a"))
	if err != nil || !strings.Contains(vote.Reason(), "read-only") {
		t.Errorf("a write: %s, %v; want a no", vote, err)
	}
	_, gid := enlisted()
	s.clean(gid)
}

// A single connection serves as well as a pool, and is clean afterwards.
func TestOneConnection(t *testing.T) {
	s := newShop(t)
	conn, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, name := range []string{"a", "a", "b"} { // the second waits for the first one's key
		b, gid := enlisted()
		vote, err := decreepg.Run(t.Context(), conn, b, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = 100")
			return errors.Join(err, sell(name)(ctx, tx))
		})
		if err != nil {
			t.Fatal(err)
		}
		if vote == branch.Yes() {
			s.prepared(gid, true)
		} else if !strings.Contains(vote.Reason(), "lock timeout") {
			t.Fatal(vote)
		}
		if conn.PgConn().TxStatus() != 'I' {
			t.Fatal("the connection is not idle")
		}
	}
}

// R7: where the server waits for synchronous standbys, a branch that only the server
// itself has is no yes, whatever the application's role is satisfied with: a
// failover would lose it.
func TestYesWaitsForStandbys(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	s := &shop{T: t, dsn: server.DSN(databases.FreshDatabase(t, server))}
	s.pool = newPool(t, s.dsn, nil)
	s.exec(`CREATE TABLE item (name text PRIMARY KEY)`)
	s.driver = s.register()
	standbys := func(names string) {
		if err := server.Exec(context.Background(), "postgres", "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'; SELECT pg_reload_conf()"); err != nil {
			t.Fatal(err)
		}
		until(t, "the setting is in force", func() bool {
			return s.number("SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = $1", names) == 1
		})
	}
	for _, setting := range []string{"off", "local"} {
		s.exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = " + setting + "', current_database()); END $$")
		s.pool.Reset()
		standbys("nobody")
		b, gid := enlisted()
		ctx, cancel := context.WithCancel(t.Context())
		voted := make(chan error, 1)
		go func() {
			vote, err := decreepg.Run(ctx, s.pool, b, sell(setting))
			if err == nil {
				err = errors.New(vote.String())
			}
			voted <- err
		}()
		until(t, "the branch waits for standbys", func() bool {
			return len(voted) > 0 || s.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") > 0
		})
		cancel()
		if err := <-voted; !errors.Is(err, decreepg.ErrAmbiguous) {
			t.Errorf("synchronous_commit %s: %v; no standby has it", setting, err)
		}
		standbys("")
		if err := s.driver.Abort(t.Context(), asked(gid)); err != nil {
			t.Fatal(err)
		}
	}
}
