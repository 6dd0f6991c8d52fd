package decreesql_test

// These tests prove what an application's own branch promises: the vote is Yes
// exactly where the database holds the branch prepared and no session is in its
// way, and everything else leaves nothing behind and the connection clean, whoever
// fails: the function, a statement whose error it swallows, the database, the
// connection or the caller's patience (rules R7, R8).

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreesql"
)

// till is the application's database, registered with decree.
type till struct {
	*testing.T
	dsn    string
	db     *sql.DB
	driver participants.Participant // decree's end
}

func newTill(t *testing.T) *till {
	t.Helper()
	server := databases.Shared(t, databases.MariaDB)
	s := &till{T: t, dsn: server.DSN(databases.FreshDatabase(t, server))}
	s.db = newDB(t, s.dsn, nil)
	s.exec(`CREATE TABLE payment (payer VARCHAR(200) PRIMARY KEY, amount INT NOT NULL DEFAULT 1) ENGINE=InnoDB`)
	s.driver = s.register()
	return s
}

func (s *till) exec(statement string, args ...any) {
	s.Helper()
	if _, err := s.db.ExecContext(s.Context(), statement, args...); err != nil {
		s.Fatalf("%s: %v", statement, err)
	}
}

// number reads one number.
func (s *till) number(query string, args ...any) (n int) {
	s.Helper()
	if err := s.db.QueryRowContext(s.Context(), query, args...).Scan(&n); err != nil {
		s.Fatalf("%s: %v", query, err)
	}
	return n
}

// enlisted is a branch of a new transaction, and its name as the database has it.
func enlisted() (branch.Branch, marker.Branch) {
	b := branch.Branch{Cluster: "c1", TxID: uuid.Must(uuid.NewV7()).String(), Number: 1}
	name, ok := marker.ParseGID("decree_c1_" + b.TxID + "_1")
	if !ok {
		panic("not a name")
	}
	return b, name
}

// pay is the application's own code.
func pay(payer string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO payment (payer) VALUES (?)", payer)
		return err
	}
}

// isPrepared reports whether the server holds a branch.
func (s *till) isPrepared(name marker.Branch) bool {
	s.Helper()
	rows, err := s.db.QueryContext(s.Context(), "XA RECOVER FORMAT='SQL'")
	if err != nil {
		s.Fatal(err)
	}
	defer rows.Close()
	found := false
	for rows.Next() {
		var format, gtrid, bqual int
		var text string
		if err := rows.Scan(&format, &gtrid, &bqual, &text); err != nil {
			s.Fatal(err)
		}
		found = found || strings.Contains(text, name.TxID.String())
	}
	if err := rows.Err(); err != nil {
		s.Fatal(err)
	}
	return found
}

func (s *till) prepared(name marker.Branch, want bool) {
	s.Helper()
	if got := s.isPrepared(name); got != want {
		s.Fatalf("prepared is %t, want %t", got, want)
	}
}

// clean wants nothing of a branch, and every connection idle and without locks.
func (s *till) clean(name marker.Branch) {
	s.Helper()
	s.prepared(name, false)
	until(s.T, "nothing is left", func() bool {
		return s.db.Stats().InUse == 0 &&
			s.number("SELECT COUNT(*) FROM decree_branch WHERE gid = ?", name.GID()) == 0 &&
			s.number("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id IN (SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID())") == 0
	})
	// Whoever comes next finds a connection that is in no transaction.
	s.exec("INSERT INTO payment (payer) VALUES ('next')")
	s.exec("DELETE FROM payment WHERE payer = 'next'")
}

// The marker row names the session that prepared the branch, so that decree's
// driver can end it where it still lives.
func TestMarkerNamesTheSession(t *testing.T) {
	s := newTill(t)
	b, name := enlisted()
	work, err := decreesql.Begin(t.Context(), s.db, b)
	if err != nil {
		t.Fatal(err)
	}
	defer work.Rollback(context.Background()) //nolint:errcheck // the test is over
	var id uint64
	if err := work.Tx().QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	var written string
	tx, err := s.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelReadUncommitted})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	if err := tx.QueryRowContext(t.Context(), "SELECT owner FROM decree_branch WHERE gid = ?", name.GID()).Scan(&written); err != nil {
		t.Fatal(err)
	}
	owner, ok := marker.ParseMySQLOwner(written)
	if !ok || owner.Connection != id || s.number("SELECT IS_USED_LOCK(?)", owner.Lock) != int(id) {
		t.Errorf("the row has the owner %q, want session %d", written, id)
	}
}

func TestPanicLeavesNothing(t *testing.T) {
	s := newTill(t)
	b, name := enlisted()
	func() {
		defer func() {
			if r := recover(); r != "out of paper" {
				t.Errorf("recovered %v", r)
			}
		}()
		_, _ = decreesql.Run(t.Context(), s.db, b, func(ctx context.Context, tx *sql.Tx) error {
			_ = pay("a")(ctx, tx)
			panic("out of paper")
		})
	}()
	s.clean(name)
}

// R8: a branch that decree has aborted never begins; nor does one a second time.
func TestBranchThatMustNotBegin(t *testing.T) {
	s := newTill(t)
	never := func(context.Context, *sql.Tx) error { t.Error("the function ran"); return nil }

	aborted, name := enlisted()
	if err := s.driver.Abort(t.Context(), asked(name)); err != nil {
		t.Fatal(err)
	}
	if _, err := decreesql.Run(t.Context(), s.db, aborted, never); !errors.Is(err, decreesql.ErrAborted) {
		t.Errorf("after its abort: %v", err)
	}

	twice, name := enlisted()
	if vote, err := decreesql.Run(t.Context(), s.db, twice, pay("a")); err != nil || vote != branch.Yes() {
		t.Fatalf("%s, %v; want yes", vote, err)
	}
	if _, err := decreesql.Run(t.Context(), s.db, twice, never); !errors.Is(err, decreesql.ErrTaken) {
		t.Errorf("while it is prepared: %v", err)
	}
	s.prepared(name, true) // the second run has not taken the first one back
	if err := s.driver.Commit(t.Context(), asked(name)); err != nil {
		t.Fatal(err)
	}
	if _, err := decreesql.Run(t.Context(), s.db, twice, never); !errors.Is(err, decreesql.ErrTaken) {
		t.Errorf("once it is committed: %v", err)
	}

	open, _ := enlisted()
	first, err := decreesql.Begin(t.Context(), s.db, open)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decreesql.Run(t.Context(), s.db, open, never); !errors.Is(err, decreesql.ErrTaken) {
		t.Errorf("while it is at work: %v", err)
	}
	if err := first.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}

	expired, _ := enlisted()
	s.exec("UPDATE decree_fence SET horizon = 9000000000000000000")
	if _, err := decreesql.Run(t.Context(), s.db, expired, never); !errors.Is(err, decreesql.ErrAborted) {
		t.Errorf("from before the horizon: %v", err)
	}

	for _, b := range []branch.Branch{
		{}, {Cluster: "c_1", TxID: expired.TxID, Number: 1}, {Cluster: "c1", TxID: "'; DROP TABLE payment; --", Number: 1},
		{Cluster: "c1", TxID: uuid.NewString(), Number: 1}, {Cluster: "c1", TxID: expired.TxID},
	} {
		if _, err := decreesql.Run(t.Context(), s.db, b, never); err == nil || !strings.Contains(err.Error(), "was it enlisted") {
			t.Errorf("%v: %v", b, err)
		}
	}
}

// A database that is not registered says so, and not only that a table is missing.
func TestUnregisteredDatabase(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	s := &till{T: t, db: newDB(t, server.DSN(databases.FreshDatabase(t, server)), nil)}
	b, name := enlisted()
	if _, err := decreesql.Run(t.Context(), s.db, b, pay("a")); !errors.Is(err, decreesql.ErrUnmarked) {
		t.Errorf("%v, want ErrUnmarked", err)
	}
	b, _ = enlisted()
	if _, err := (decreesql.Config{Schema: "elsewhere"}).Run(t.Context(), s.db, b, pay("a")); !errors.Is(err, decreesql.ErrUnmarked) {
		t.Errorf("%v, want ErrUnmarked", err)
	}
	s.prepared(name, false)
}

// A connection that breaks at XA PREPARE leaves a branch that may be prepared, and
// that is what is said.
func TestCutAtPrepare(t *testing.T) {
	for _, arrives := range []bool{false, true} {
		s := newTill(t)
		cut := &scissors{word: "XA PREPARE", arrives: arrives}
		cut.armed.Store(true)
		db := newDB(t, s.dsn, cut.dial)
		b, name := enlisted()
		vote, err := decreesql.Run(t.Context(), db, b, pay("a"))
		if !errors.Is(err, decreesql.ErrAmbiguous) || vote != (branch.Vote{}) {
			t.Fatalf("%s, %v; want ErrAmbiguous", vote, err)
		}
		if cut.cuts.Load() != 1 {
			t.Fatal("nothing was cut")
		}
		s.prepared(name, arrives)
	}
}

// A caller who leaves at any time leaves no transaction open, and a branch prepared
// only where the vote or ErrAmbiguous told of it.
func TestLeavingAtAnyTime(t *testing.T) {
	s := newTill(t)
	const copies = 40
	told := map[marker.Branch]bool{}
	for i := range copies {
		ctx, leave := context.WithCancel(t.Context())
		b, name := enlisted()
		vote, err := decreesql.Run(ctx, s.db, b, func(ctx context.Context, tx *sql.Tx) error {
			if i%4 == 0 {
				leave()
			}
			err := pay(name.GID())(ctx, tx)
			go leave() // now, or while it is being prepared, or after
			return err
		})
		leave()
		told[name] = vote == branch.Yes() || errors.Is(err, decreesql.ErrAmbiguous)
		if vote == branch.Yes() {
			s.prepared(name, true)
		}
	}
	until(t, "every connection is given back", func() bool { return s.db.Stats().InUse == 0 })
	for name, told := range told {
		if !told && s.isPrepared(name) {
			t.Errorf("%s is prepared and nobody knows", name.GID())
		}
	}
}

// The steps by hand: Rollback may be deferred, and comes to nothing after Prepare.
func TestSteps(t *testing.T) {
	s := newTill(t)
	b, name := enlisted()
	work, err := decreesql.Begin(t.Context(), s.db, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := pay("a")(t.Context(), work.Tx()); err != nil {
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
	s.prepared(name, true)
	if _, err := work.Tx().ExecContext(t.Context(), "SELECT 1"); err == nil {
		t.Error("a statement ran after prepare")
	}

	b, name = enlisted()
	if work, err = decreesql.Begin(t.Context(), s.db, b); err != nil {
		t.Fatal(err)
	}
	if err := work.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	s.clean(name)
}

// A pool of one connection is enough: the branch that was prepared has given its
// connection up.
func TestPoolOfOne(t *testing.T) {
	s := newTill(t)
	one := newDB(t, s.dsn, nil)
	one.SetMaxOpenConns(1)
	for _, payer := range []string{"a", "b"} {
		b, name := enlisted()
		vote, err := decreesql.Run(t.Context(), one, b, pay(payer))
		if err != nil || vote != branch.Yes() {
			t.Fatalf("%s, %v; want yes", vote, err)
		}
		s.prepared(name, true)
	}
}

// A branch that only looks leaves nothing, and cannot write by mistake.
func TestRead(t *testing.T) {
	s := newTill(t)
	vote, err := decreesql.Read(t.Context(), s.db, func(ctx context.Context, tx *sql.Tx) error {
		var n int
		return tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM payment").Scan(&n)
	})
	if err != nil || vote != branch.ReadOnly() {
		t.Errorf("%s, %v; want read-only", vote, err)
	}
	vote, err = decreesql.Read(t.Context(), s.db, pay("a"))
	if err != nil || !strings.Contains(vote.Reason(), "1792") {
		t.Errorf("a write: %s, %v; want a no", vote, err)
	}
}
