package decreesql_test

// These tests prove what the conformance suite cannot see from outside: that each
// function of a TCC service counts exactly once, whatever happens to its
// transaction, and that the barrier's tables do not grow for ever (rules R8, R9,
// R11, R14).

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/participants/participanttest/databases"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreesql"
)

// script is a TCC service of functions; one that is nil notes its name and payload.
type script struct {
	try             func(context.Context, *sql.Tx, branch.Branch) (branch.Vote, error)
	confirm, cancel func(context.Context, *sql.Tx, branch.Branch) error
}

func (s *script) Try(ctx context.Context, tx *sql.Tx, b branch.Branch) (branch.Vote, error) {
	if s.try != nil {
		return s.try(ctx, tx, b)
	}
	return branch.Yes(), note(ctx, tx, "try", b)
}

func (s *script) Confirm(ctx context.Context, tx *sql.Tx, b branch.Branch) error {
	if s.confirm != nil {
		return s.confirm(ctx, tx, b)
	}
	return note(ctx, tx, "confirm", b)
}

func (s *script) Cancel(ctx context.Context, tx *sql.Tx, b branch.Branch) error {
	if s.cancel != nil {
		return s.cancel(ctx, tx, b)
	}
	return note(ctx, tx, "cancel", b)
}

func note(ctx context.Context, tx *sql.Tx, what string, b branch.Branch) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO note VALUES (?)", what+" "+string(b.Payload))
	return err
}

// stall is a service's database and its server, called without a wire.
type stall struct {
	*testing.T
	dsn    string
	db     *sql.DB
	server *branch.Server
}

func newStall(t *testing.T, service branch.TCC[*sql.Tx], c branch.Config) *stall {
	t.Helper()
	server := databases.Shared(t, databases.MariaDB)
	s := &stall{T: t, dsn: server.DSN(databases.FreshDatabase(t, server))}
	s.db = newDB(t, s.dsn, nil)
	s.exec("CREATE TABLE note (text VARCHAR(200)) ENGINE=InnoDB")
	var err error
	if s.server, err = decreesql.NewTCC(t.Context(), s.db, service, c); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stall) exec(statement string, args ...any) {
	s.Helper()
	if _, err := s.db.ExecContext(s.Context(), statement, args...); err != nil {
		s.Fatalf("%s: %v", statement, err)
	}
}

// notes wants exactly these notes, in any order.
func (s *stall) notes(want ...string) {
	s.Helper()
	var got string
	err := s.db.QueryRowContext(s.Context(), "SELECT COALESCE(GROUP_CONCAT(text ORDER BY text SEPARATOR ', '), '') FROM note").Scan(&got)
	if err != nil || got != strings.Join(want, ", ") {
		s.Fatalf("notes %q, %v; want %q", got, err, want)
	}
}

func (s *stall) records(where string) (n int) {
	s.Helper()
	if err := s.db.QueryRowContext(s.Context(), "SELECT count(*) FROM decree_tcc WHERE "+where).Scan(&n); err != nil {
		s.Fatal(err)
	}
	return n
}

func newBranch() *participantv1.Branch {
	return &participantv1.Branch{Cluster: "c1", Txid: uuid.Must(uuid.NewV7()).String(), Number: 1, Epoch: 1}
}

func (s *stall) prepare(b *participantv1.Branch, payload string) (string, error) {
	digest := sha256.Sum256([]byte(payload))
	r, err := s.server.Prepare(s.Context(), &participantv1.PrepareRequest{Branch: b, Payload: []byte(payload), Digest: digest[:]})
	return strings.TrimSuffix(strings.TrimPrefix(r.GetVote().String(), "VOTE_")+": "+r.GetReason(), ": "), err
}

func (s *stall) votes(b *participantv1.Branch, payload, want string) {
	s.Helper()
	if got, err := s.prepare(b, payload); err != nil || got != want {
		s.Fatalf("%q, %v; want %q", got, err, want)
	}
}

const (
	done         = participantv1.Receipt_RECEIPT_DONE
	damageAbort  = participantv1.Receipt_RECEIPT_HEURISTIC_ABORT
	damageCommit = participantv1.Receipt_RECEIPT_HEURISTIC_COMMIT
)

func (s *stall) commits(b *participantv1.Branch, want participantv1.Receipt) {
	s.Helper()
	if r, err := s.server.Commit(s.Context(), &participantv1.CommitRequest{Branch: b}); err != nil || r.GetReceipt() != want {
		s.Fatalf("commit: %s, %v; want %s", r, err, want)
	}
}

func (s *stall) aborts(b *participantv1.Branch, want participantv1.Receipt) {
	s.Helper()
	if r, err := s.server.Abort(s.Context(), &participantv1.AbortRequest{Branch: b}); err != nil || r.GetReceipt() != want {
		s.Fatalf("abort: %s, %v; want %s", r, err, want)
	}
}

func fails(t *testing.T, what string, err error, code codes.Code, says string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(fmt.Sprint(err), says) {
		t.Fatalf("%s: %v, want %s with %q", what, err, code, says)
	}
}

// R8: the barrier lets each operation through once: a repeated one, a cancel
// without a try, a try after its cancel, a confirm and a cancel of one branch.
func TestEachFunctionCountsOnce(t *testing.T) {
	s := newStall(t, &script{}, branch.Config{})
	a, b, c := newBranch(), newBranch(), newBranch()
	for range 2 {
		s.votes(a, "a", "COMMIT")
	}
	for range 2 {
		s.commits(a, done)
	}
	s.votes(a, "a", "COMMIT")
	s.aborts(a, damageCommit)
	s.notes("confirm a", "try a")

	s.votes(b, "b", "COMMIT")
	for range 2 {
		s.aborts(b, done)
	}
	s.votes(b, "b", "ABORT: the branch was aborted before")
	s.commits(b, damageAbort)
	s.notes("cancel b", "confirm a", "try a", "try b")

	s.aborts(c, done) // an empty cancel
	s.votes(c, "c", "ABORT: the branch was aborted before")
	s.notes("cancel b", "confirm a", "try a", "try b")
}

// What a function wrote goes with its no, with its error, and with a word that
// contradicts it.
func TestUnkeptWorkIsUndone(t *testing.T) {
	service := &script{}
	s := newStall(t, service, branch.Config{})
	answer := func(v branch.Vote, err error) func(context.Context, *sql.Tx, branch.Branch) (branch.Vote, error) {
		return func(ctx context.Context, tx *sql.Tx, b branch.Branch) (branch.Vote, error) {
			if err := note(ctx, tx, "try", b); err != nil {
				return branch.Vote{}, err
			}
			return v, err
		}
	}
	for _, c := range []struct {
		vote branch.Vote
		want string
	}{{branch.No("sold out"), "ABORT: sold out"}, {branch.ReadOnly(), "READ_ONLY"}} {
		service.try = answer(c.vote, nil)
		b := newBranch()
		s.votes(b, "x", c.want)
		service.try = answer(branch.Yes(), nil)
		s.votes(b, "x", c.want) // and it stays so
	}
	b := newBranch()
	service.try = answer(branch.Yes(), errors.New("out of order"))
	_, err := s.prepare(b, "x")
	fails(t, "a try that failed", err, codes.Unknown, "out of order")
	s.notes()
	service.try = nil
	s.votes(b, "x", "COMMIT")

	tries := 0
	service.confirm = func(ctx context.Context, tx *sql.Tx, b branch.Branch) error {
		if tries++; tries == 1 {
			return errors.Join(note(ctx, tx, "confirm", b), errors.New("out of order"))
		}
		return note(ctx, tx, "confirm", b)
	}
	_, err = s.server.Commit(t.Context(), &participantv1.CommitRequest{Branch: b})
	fails(t, "a confirm that failed", err, codes.Unknown, "out of order")
	s.commits(b, done)
	s.notes("confirm x", "try x")

	c := newBranch()
	s.votes(c, "y", "COMMIT")
	service.confirm = func(ctx context.Context, tx *sql.Tx, b branch.Branch) error {
		return errors.Join(note(ctx, tx, "confirm", b), branch.HeuristicAbort("the warehouse burnt down"))
	}
	s.commits(c, damageAbort)
	service.confirm = nil
	s.commits(c, damageAbort) // for ever
	s.notes("confirm x", "try x", "try y")
}

// A function that ends the transaction it was given is told apart from one that
// works in it, and its branch is not called prepared.
func TestFunctionThatEndsItsTransaction(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(context.Context, *sql.Tx) error
		says string
	}{
		"commit":           {func(_ context.Context, tx *sql.Tx) error { return tx.Commit() }, "decree ends this transaction"},
		"commit, unseen":   {func(_ context.Context, tx *sql.Tx) error { _ = tx.Commit(); return nil }, "decree ends this transaction"},
		"rollback, unseen": {func(_ context.Context, tx *sql.Tx) error { _ = tx.Rollback(); return nil }, "rolled its transaction back"},
		"commit in SQL":    {func(ctx context.Context, tx *sql.Tx) error { _, err := tx.ExecContext(ctx, "COMMIT"); return err }, "ended the transaction"},
		"a table": {func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "CREATE TABLE extra (n INT) ENGINE=InnoDB")
			return err
		}, "ended the transaction"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStall(t, &script{try: func(ctx context.Context, tx *sql.Tx, _ branch.Branch) (branch.Vote, error) {
				return branch.Yes(), c.end(ctx, tx)
			}}, branch.Config{})
			b := newBranch()
			if got, err := s.prepare(b, "x"); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q, %v; want an error with %q", got, err, c.says)
			}
			s.aborts(b, done)
			s.votes(b, "x", "ABORT: the branch was aborted before")
		})
	}
}

// Functions that meet in a deadlock are run again, and both get through.
func TestDeadlockIsRunAgain(t *testing.T) {
	met := make(chan struct{})
	var runs atomic.Int32
	s := newStall(t, &script{try: func(ctx context.Context, tx *sql.Tx, b branch.Branch) (branch.Vote, error) {
		for i, name := range strings.Split(string(b.Payload), " ") {
			if _, err := tx.ExecContext(ctx, "UPDATE pile SET n = n + 1 WHERE name = ?", name); err != nil {
				return branch.Vote{}, fmt.Errorf("raise %s: %w", name, err)
			}
			if i == 0 && runs.Add(1) <= 2 {
				if strings.HasPrefix(string(b.Payload), "x") {
					met <- struct{}{}
				} else {
					<-met
				}
			}
		}
		return branch.Yes(), nil
	}}, branch.Config{})
	s.exec("CREATE TABLE pile (name VARCHAR(9) PRIMARY KEY, n INT NOT NULL DEFAULT 0) ENGINE=InnoDB")
	s.exec("INSERT INTO pile (name) VALUES ('x'), ('y')")
	var both sync.WaitGroup
	for _, payload := range []string{"x y", "y x"} {
		both.Go(func() {
			if got, err := s.prepare(newBranch(), payload); err != nil || got != "COMMIT" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	both.Wait()
	var sum int
	if err := s.db.QueryRowContext(t.Context(), "SELECT sum(n) FROM pile").Scan(&sum); err != nil || sum != 4 {
		t.Errorf("the sum is %d, %v; want 4", sum, err)
	}
	if n := runs.Load(); n < 3 {
		t.Errorf("%d runs: there was no deadlock", n)
	}
}

// A commit whose answer is lost is settled by a look at the row, in the same call:
// the function runs again only where it had not counted.
func TestLostCommitIsSettled(t *testing.T) {
	for _, arrives := range []bool{false, true} {
		s := newStall(t, &script{}, branch.Config{})
		cut := &scissors{word: "\x03COMMIT", arrives: arrives}
		db := newDB(t, s.dsn, cut.dial)
		var runs atomic.Int32
		var err error
		s.server, err = decreesql.NewTCC(t.Context(), db, &script{try: func(ctx context.Context, tx *sql.Tx, b branch.Branch) (branch.Vote, error) {
			runs.Add(1)
			return branch.Yes(), note(ctx, tx, "try", b)
		}}, branch.Config{})
		if err != nil {
			t.Fatal(err)
		}
		messenger := newBranch()
		s.aborts(messenger, done) // so that the fence is heard, and the next commit is the branch's own
		cut.armed.Store(true)
		s.votes(newBranch(), "a", "COMMIT")
		s.notes("try a")
		if want := map[bool]int32{false: 2, true: 1}[arrives]; cut.cuts.Load() != 1 || runs.Load() != want {
			t.Errorf("arrives %t: %d cuts, %d runs, want 1 and %d", arrives, cut.cuts.Load(), runs.Load(), want)
		}
	}
}

// R14: what is open is bounded, across processes too; what was ended makes room.
func TestOpenBranchesAreBounded(t *testing.T) {
	s := newStall(t, &script{}, branch.Config{MaxOpen: 2})
	a, b, c := newBranch(), newBranch(), newBranch()
	s.votes(a, "x", "COMMIT")
	s.votes(b, "x", "COMMIT")
	s.votes(b, "x", "COMMIT")
	_, err := s.prepare(c, "x")
	fails(t, "a third branch", err, codes.ResourceExhausted, "2")
	s.aborts(newBranch(), done) // ends are always heard
	other := *s
	if other.server, err = decreesql.NewTCC(t.Context(), s.db, &script{}, branch.Config{MaxOpen: 2}); err != nil {
		t.Fatal(err)
	}
	_, err = other.prepare(c, "x")
	fails(t, "a third branch at another process", err, codes.ResourceExhausted, "2")
	s.commits(a, done)
	s.votes(c, "x", "COMMIT")
}

// R14: clusters come and go; their books do not, so they are few.
func TestClustersAreBounded(t *testing.T) {
	s := newStall(t, &script{}, branch.Config{})
	for i := range 17 {
		b := newBranch()
		b.Cluster = fmt.Sprint("cluster", i)
		got, err := s.prepare(b, "x")
		if i < 16 && (err != nil || got != "COMMIT") {
			t.Fatalf("cluster %d: %q, %v", i, got, err)
		}
		if i == 16 {
			fails(t, "one cluster too many", err, codes.ResourceExhausted, "clusters")
		}
	}
}

// R11: what lies before the horizon is forgotten, a bounded number at a time, and
// what waits is not.
func TestHorizonForgets(t *testing.T) {
	s := newStall(t, &script{}, branch.Config{})
	const many = 300
	s.exec("INSERT INTO decree_tcc (cluster, txid, branch, state) SELECT 'c1', CONCAT('01890a5d-ac96-774b-bcce-', LPAD(seq, 12, '0')), 1, 'committed' FROM seq_1_to_300")
	s.exec("INSERT INTO decree_tcc (cluster, txid, branch, state) VALUES ('c1', '01890a5d-ac96-774b-bcce-b302099a8057', 2, 'prepared')")
	s.exec("INSERT INTO decree_tcc (cluster, txid, branch, state) VALUES ('c2', '01890a5d-ac96-774b-bcce-b302099a8057', 1, 'committed')")
	kept := newBranch()
	s.aborts(kept, done) // after the horizon
	left := []int{}
	for range 200 {
		b := newBranch()
		b.Horizon = 1_700_000_000_000_000_000
		s.aborts(b, done)
		if n := s.records("txid < '01890a5e-0000-0000-0000-000000000000' AND cluster = 'c1' AND state = 'committed'"); len(left) == 0 || left[len(left)-1] != n {
			left = append(left, n)
		}
	}
	if len(left) != 3 || left[0] != many || left[1] != many-256 || left[2] != 0 {
		t.Errorf("of the old records, %v were left in turn; want 256 forgotten at once, and then the rest", left)
	}
	if n := s.records("state = 'prepared'"); n != 1 {
		t.Errorf("%d records wait, want 1: what is open is not forgotten (R10)", n)
	}
	if n := s.records("cluster = 'c2'"); n != 1 {
		t.Errorf("%d records of another cluster, want 1", n)
	}
	if n := s.records("state = 'aborted'"); n != 201 {
		t.Errorf("%d records after the horizon, want 201", n)
	}
}

// The tables are made once, by whoever comes first; a role that may only use them
// is enough later, and those of a later release are left alone.
func TestTables(t *testing.T) {
	s := newStall(t, &script{}, branch.Config{})
	s.exec("DROP TABLE decree_tcc, decree_tcc_fence, decree_tcc_schema")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := decreesql.NewTCC(t.Context(), s.db, &script{}, branch.Config{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	user := "u" + strings.ReplaceAll(uuid.NewString(), "-", "")
	s.exec("CREATE USER " + user + "@localhost")
	s.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON * TO " + user + "@localhost")
	config, err := mysql.ParseDSN(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.User = user
	poor := *s
	poor.db = newDB(t, config.FormatDSN(), nil)
	if poor.server, err = decreesql.NewTCC(t.Context(), poor.db, &script{}, branch.Config{}); err != nil {
		t.Fatal(err)
	}
	poor.votes(newBranch(), "a", "COMMIT")

	s.exec("UPDATE decree_tcc_schema SET version = 2")
	if _, err := decreesql.NewTCC(t.Context(), s.db, &script{}, branch.Config{}); err == nil || !strings.Contains(err.Error(), "version 2, this release knows 1") {
		t.Errorf("tables of a later release: %v", err)
	}
	if _, err := decreesql.NewTCC(t.Context(), s.db, &script{}, branch.Config{MaxOpen: -1}); err == nil {
		t.Error("a config that makes no sense was taken")
	}
}

// R7: a server that forgets, or that ends a transaction behind a function's back, is
// refused, with the lines to change.
func TestUnfitServer(t *testing.T) {
	server := databases.ForTest(t, databases.MariaDB, databases.Options{Settings: map[string]string{
		"innodb_flush_log_at_trx_commit": "2", "innodb_rollback_on_timeout": "1", "log_bin": "binlog", "sync_binlog": "0",
	}})
	db := newDB(t, server.DSN(databases.FreshDatabase(t, server)), nil)
	_, err := decreesql.NewTCC(t.Context(), db, &script{}, branch.Config{})
	for _, setting := range []string{"innodb_flush_log_at_trx_commit", "innodb_rollback_on_timeout", "sync_binlog"} {
		if err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("%v, want a word about %s", err, setting)
		}
	}
}

// A function that loses a deadlock and looks away is stopped: what it would do next
// would be committed one by one. What it returns does not count, and it is run
// again.
func TestSwallowedDeadlock(t *testing.T) {
	met := make(chan struct{})
	var runs, stopped atomic.Int32
	s := newStall(t, &script{try: func(ctx context.Context, tx *sql.Tx, b branch.Branch) (branch.Vote, error) {
		first, second, _ := strings.Cut(string(b.Payload), " ")
		raise := func(name string) error {
			_, err := tx.ExecContext(ctx, "UPDATE pile SET n = n + 1 WHERE name = ?", name)
			return err
		}
		if err := raise(first); err != nil {
			return branch.Vote{}, err
		}
		if runs.Add(1) <= 2 {
			if first == "x" {
				met <- struct{}{}
			} else {
				<-met
			}
		}
		lost := raise(second)
		if err := note(ctx, tx, "try", b); err != nil {
			stopped.Add(1)
			if lost == nil {
				t.Errorf("stopped without a reason: %v", err)
			}
		}
		return branch.Yes(), nil
	}}, branch.Config{})
	s.exec("CREATE TABLE pile (name VARCHAR(9) PRIMARY KEY, n INT NOT NULL DEFAULT 0) ENGINE=InnoDB")
	s.exec("INSERT INTO pile (name) VALUES ('x'), ('y')")
	var both sync.WaitGroup
	for _, payload := range []string{"x y", "y x"} {
		both.Go(func() {
			if got, err := s.prepare(newBranch(), payload); err != nil || got != "COMMIT" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	both.Wait()
	s.notes("try x y", "try y x")
	if stopped.Load() != 1 {
		t.Errorf("%d functions were stopped, want 1", stopped.Load())
	}
}

// R8: where nothing commits by itself, what was heard of a cluster would not be
// kept, and calls would find the transactions of earlier ones open.
func TestAutocommitOffIsRefused(t *testing.T) {
	s := newStall(t, &script{}, branch.Config{})
	_, err := decreesql.NewTCC(t.Context(), newDB(t, s.dsn+"?autocommit=0", nil), &script{}, branch.Config{})
	if err == nil || !strings.Contains(err.Error(), "autocommit") {
		t.Errorf("with autocommit off: %v, want a word about it", err)
	}
}
