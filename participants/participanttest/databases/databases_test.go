package databases

// What is proven: both engines start as their settings say, on a socket alone or on
// a port too, and sync what they promise to keep; what was prepared survives a kill of the whole server; a suspended server stands
// still and goes on. What a test says whose server is not here.

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

func forEach(t *testing.T, test func(t *testing.T, e Engine)) {
	for _, e := range []Engine{Postgres, MariaDB} {
		t.Run(e.String(), func(t *testing.T) { test(t, e) })
	}
}

// run executes SQL that must work.
func run(t *testing.T, s *Server, database, sql string) {
	t.Helper()
	if err := s.Exec(t.Context(), database, sql); err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, s *Server, database, sql, want string) {
	t.Helper()
	got, err := s.Query(t.Context(), database, sql)
	if got != want || err != nil {
		t.Fatalf("%s: %q, %v; want %q", sql, got, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a prepared transaction is to each engine.
var prepare = map[Engine]string{
	Postgres: "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'g'",
	MariaDB:  "XA START 'g'; INSERT INTO t VALUES (1); XA END 'g'; XA PREPARE 'g'",
}

var commit = map[Engine]string{Postgres: "COMMIT PREPARED 'g'", MariaDB: "XA COMMIT 'g'"}

func TestPreparedSurvivesKillAndStop(t *testing.T) {
	forEach(t, func(t *testing.T, e Engine) {
		s := ForTest(t, e, Options{})
		db := FreshDatabase(t, s)
		run(t, s, db, "CREATE TABLE t (id int PRIMARY KEY)")
		run(t, s, db, prepare[e])
		must(t, s.Kill())
		if left := members(s.data()); len(left) > 0 {
			t.Errorf("processes %v have survived the kill", left)
		}
		if err := s.Exec(t.Context(), db, "SELECT 1"); err == nil {
			t.Error("the killed server answers")
		}
		must(t, s.Restart(t.Context()))
		wants(t, s, db, "SELECT count(*), 'waits' FROM t", "0\twaits")
		must(t, s.Stop(t.Context()))
		must(t, s.Restart(t.Context()))
		run(t, s, db, commit[e])
		wants(t, s, db, "SELECT count(*) FROM t", "1")
	})
}

func TestSuspendedStandsStill(t *testing.T) {
	forEach(t, func(t *testing.T, e Engine) {
		s := ForTest(t, e, Options{})
		must(t, s.Suspend())
		running := members(s.data())
		if len(running) == 0 {
			t.Fatal("found no process of the server")
		}
		for _, pid := range running {
			eventually(t, func() error {
				if state := stateOf(pid); state != "T" {
					return fmt.Errorf("process %d of the suspended server is in state %s", pid, state)
				}
				return nil
			})
		}
		must(t, s.Resume())
		wants(t, s, "", "SELECT 1", "1")

		must(t, s.Suspend())
		must(t, s.Kill())
		must(t, s.Restart(t.Context()))
		wants(t, s, "", "SELECT 1", "1")
	})
}

func TestSettings(t *testing.T) {
	own := map[Engine]map[string]string{
		Postgres: {"max_prepared_transactions": "0", "application_name": "it's"},
		MariaDB:  {"max_connections": "17"},
	}
	questions := map[Engine][][2]string{
		Postgres: {
			{"SHOW max_prepared_transactions", "0"},
			{"SHOW fsync", "on"},
			{"SHOW synchronous_commit", "on"},
			{"SHOW full_page_writes", "on"},
			{"SHOW listen_addresses", ""},
		},
		MariaDB: {
			{"SELECT @@max_connections", "17"},
			{"SELECT @@innodb_flush_log_at_trx_commit", "1"},
			{"SELECT @@innodb_doublewrite", "1"},
			{"SELECT @@skip_networking", "1"},
			{"SELECT @@log_bin", "0"},
		},
	}
	forEach(t, func(t *testing.T, e Engine) {
		s := ForTest(t, e, Options{Settings: own[e]})
		for _, q := range questions[e] {
			wants(t, s, "", q[0], q[1])
		}
	})
}

// TestPort holds that a server which is killed comes back on its port, with the
// data that clients found there before.
func TestPort(t *testing.T) {
	driver := map[Engine]string{Postgres: "pgx", MariaDB: "mysql"}
	forEach(t, func(t *testing.T, e Engine) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		port := l.Addr().(*net.TCPAddr).Port
		must(t, l.Close())
		s := ForTest(t, e, Options{Port: port})
		must(t, s.Create(t.Context(), "bank"))
		run(t, s, "bank", "CREATE TABLE t (id int)") // its socket is there too
		db, err := sql.Open(driver[e], s.DSNAt(fmt.Sprintf("127.0.0.1:%d", port), "bank"))
		must(t, err)
		defer db.Close()
		db.SetMaxIdleConns(-1)
		_, err = db.ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
		must(t, err)
		must(t, s.Kill())
		if err := db.PingContext(t.Context()); err == nil {
			t.Error("the killed server answers")
		}
		must(t, s.Restart(t.Context()))
		var n int
		must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&n))
		if n != 1 {
			t.Errorf("%d rows survived the kill, want 1", n)
		}
	})
}

func TestABadSettingIsToldFromTheLog(t *testing.T) {
	bad := map[Engine]map[string]string{Postgres: {"fsynk": "on"}, MariaDB: {"no_such_variable": "1"}}
	forEach(t, func(t *testing.T, e Engine) {
		dir := filepath.Join(t.TempDir(), "s")
		s, err := Start(t.Context(), e, Options{Dir: reachable(t, dir), Settings: bad[e]})
		if err == nil {
			t.Fatal(errors.Join(errors.New("the server has started"), s.Close()))
		}
		for name := range bad[e] {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not show what the log says of %s: %v", name, err)
			}
		}
		nothingOf(t, dir)
	})
}

// reachable lets the server's account, where it is another, come to a directory
// below the test's.
func reachable(t *testing.T, dir string) string {
	t.Helper()
	for up := filepath.Dir(dir); up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		must(t, os.Chmod(up, 0o755)) //nolint:gosec // it holds nothing else
	}
	return dir
}

func TestDirectoryOfTheCaller(t *testing.T) {
	dir := reachable(t, filepath.Join(t.TempDir(), "s"))
	s, err := Start(t.Context(), Postgres, Options{Dir: dir})
	must(t, err)
	if s.Dir() != dir || !strings.Contains(s.DSN("x"), dir) {
		t.Errorf("the server is in %s, reached by %s; want %s", s.Dir(), s.DSN("x"), dir)
	}
	if _, err := Start(t.Context(), Postgres, Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("another start in the directory: %v", err)
	}
	wants(t, s, "", "SELECT 1", "1") // it was not harmed
	must(t, s.Close())
	must(t, s.Close())
	nothingOf(t, dir)

	long := filepath.Join(t.TempDir(), strings.Repeat("x", MaxDir))
	if _, err := Start(t.Context(), Postgres, Options{Dir: long}); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("start in a directory with a long path: %v", err)
	}
	nothingOf(t, long)
}

func TestOrdersToTheWrongServer(t *testing.T) {
	s := ForTest(t, Postgres, Options{})
	wrong := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s has worked", what)
		}
	}
	wrong("restart of a running server", s.Restart(t.Context()))
	wrong("bad SQL", s.Exec(t.Context(), "", "SELEKT"))
	wrong("SQL after an error", s.Exec(t.Context(), "", "SELEKT 1; CREATE DATABASE too_late"))
	wants(t, s, "", "SELECT count(*) FROM pg_database WHERE datname = 'too_late'", "0")
	wrong("a database with a name that needs quotes", s.Create(t.Context(), "x; DROP DATABASE postgres"))
	wrong("a database without a name", s.Create(t.Context(), ""))
	must(t, s.Kill())
	wrong("kill of a dead server", s.Kill())
	wrong("stop of a dead server", s.Stop(t.Context()))
	wrong("suspension of a dead server", s.Suspend())
	must(t, s.Close())
	wrong("restart of a closed server", s.Restart(t.Context()))
}

func TestSharedIsOne(t *testing.T) {
	forEach(t, func(t *testing.T, e Engine) {
		s := Shared(t, e)
		if Shared(t, e) != s {
			t.Error("the shared server is not shared")
		}
		a, b := FreshDatabase(t, s), FreshDatabase(t, s)
		run(t, s, a, "CREATE TABLE t (id int)")
		run(t, s, b, "CREATE TABLE t (id int)") // another
	})
}

// testOf is a test that notes how it ended. Fatalf and Skipf end the goroutine,
// as those of package testing do.
type testOf struct {
	TB
	failed, skipped string
}

func (t *testOf) Helper() {}

func (t *testOf) Fatalf(format string, args ...any) {
	t.failed = fmt.Sprintf(format, args...)
	panic(t)
}

func (t *testOf) Skipf(format string, args ...any) {
	t.skipped = fmt.Sprintf(format, args...)
	panic(t)
}

// A test whose server is not here never passes, and is skipped under -short only.
func TestMissingProgramsAreToldLoudly(t *testing.T) {
	end := func(short bool, err error) *testOf {
		test := &testOf{}
		func() {
			defer func() { recover() }() //nolint:errcheck // it is the test itself
			refuse(test, short, err)
		}()
		return test
	}
	missing := fmt.Errorf("start: %w: mariadbd", ErrMissing)
	if test := end(false, missing); !strings.Contains(test.failed, "mariadbd: "+advice) || test.skipped != "" {
		t.Errorf("without the programs: failed %q, skipped %q; want a failure with advice", test.failed, test.skipped)
	}
	if test := end(true, missing); !strings.Contains(test.skipped, "mariadbd") || test.failed != "" {
		t.Errorf("without the programs, -short: failed %q, skipped %q; want a skip that says why", test.failed, test.skipped)
	}
	if test := end(true, errors.New("out of memory")); test.failed == "" || test.skipped != "" {
		t.Errorf("another error, -short: failed %q, skipped %q; want a failure", test.failed, test.skipped)
	}
	if test := end(false, nil); test.failed != "" || test.skipped != "" {
		t.Errorf("no error: failed %q, skipped %q", test.failed, test.skipped)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := program("no-such-program", t.TempDir()); !errors.Is(err, ErrMissing) {
		t.Errorf("a program that is nowhere: %v, want ErrMissing", err)
	}
}

func TestNewestServerFirst(t *testing.T) {
	got := newestFirst([]string{"/p/9.6/bin", "/p/15/bin", "/p/local/bin", "/p/16/bin", "/p/9.5/bin"})
	if want := "[/p/16/bin /p/15/bin /p/9.6/bin /p/9.5/bin /p/local/bin]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// patience is how long these tests wait for what must happen; it only bounds a
// failing run.
const patience = 30 * time.Second

// eventually polls a condition until it holds.
func eventually(t *testing.T, holds func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}
