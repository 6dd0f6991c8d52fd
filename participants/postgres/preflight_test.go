package postgres

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// What is proven here: whatever keeps a database from taking part is found when it
// is registered, all of it at once, with the line to change; and what is found in
// one that is open already is logged, until it is gone.

func probeOf(t testing.TB, r participants.Registration) (string, error) {
	t.Helper()
	return Driver{}.Probe(within30s(t), r, hclog.NewNullLogger())
}

func mustBeUnfit(t testing.TB, r participants.Registration, words ...string) string {
	t.Helper()
	_, err := probeOf(t, r)
	if !errors.Is(err, participants.ErrUnfit) {
		t.Fatalf("probe: %v, want ErrUnfit", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the probe says %q, want %q in it", err, word)
		}
	}
	return err.Error()
}

// The identity is the database's own, whatever name or role leads to it, and no
// two have the same.
func TestIdentity(t *testing.T) {
	b, other := sharedBench(t), sharedBench(t)
	first, err := probeOf(t, registrationOf(t, b.server.DSN(b.database), nil))
	if err != nil {
		t.Fatal(err)
	}
	again, err := probeOf(t, registrationOf(t, b.server.DSN(b.database)+" application_name=x connect_timeout=7", nil))
	if err != nil || again != first {
		t.Errorf("probed again: %s, %v; want %s", again, err, first)
	}
	twin, err := probeOf(t, registrationOf(t, other.server.DSN(other.database), nil))
	if err != nil || twin == first {
		t.Errorf("another database: %s, %v; want another identity", twin, err)
	}
	system := b.ask("SELECT system_identifier FROM pg_control_system()")
	if want := "postgresql:" + system + "/" + b.database; first != want {
		t.Errorf("the identity is %s, want %s", first, want)
	}
}

// Nodes that probe at once make the tables once.
func TestProbesAtOnce(t *testing.T) {
	b := sharedBench(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := probeOf(t, registrationOf(t, b.server.DSN(b.database), nil)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := b.ask("SELECT count(*) FROM decree_schema"); n != "1" {
		t.Errorf("decree_schema has %s rows", n)
	}
}

func TestServersThatAreUnfit(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{
		Settings: map[string]string{"max_prepared_transactions": "0", "fsync": "off"},
	})
	b := newBench(t, server)
	mustBeUnfit(t, registrationOf(t, server.DSN(b.database), nil),
		"set max_prepared_transactions = 64", "restart the server", "set fsync = on")
}

// All that is wrong is said at once: here the tables are missing, and the role may
// not make them; the SQL that helps is in the error, and helps.
func TestMissingTablesAndRights(t *testing.T) {
	b := sharedBench(t)
	role := "role_" + b.database
	b.exec("CREATE ROLE " + role + " LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO " + role)
	b.exec("GRANT SELECT, INSERT, UPDATE ON counter TO " + role)
	r := registrationOf(t, strings.Replace(b.server.DSN(b.database), "user=postgres", "user="+role, 1), nil)

	said := mustBeUnfit(t, r, "decree_branch, decree_fence, decree_schema are missing", "run as the schema's owner: ")
	_, sql, _ := strings.Cut(said, "run as the schema's owner: ")
	b.exec(sql)
	if _, err := probeOf(t, r); err != nil {
		t.Fatalf("after the SQL that the error gave: %v", err)
	}
	p := opened(t, r)
	br := branchOf(one("add", "x"))
	mustPrepare(t, p, br)
	mustCommit(t, p, br)
	mustAbort(t, p, branchOf(nil))
	if err := p.forget(t.Context(), usualPace(), cluster, 1); err != nil {
		t.Errorf("forgetting with those rights: %v", err)
	}

	b.exec("REVOKE INSERT, DELETE ON decree_branch FROM " + role + "; REVOKE UPDATE ON decree_fence FROM " + role)
	said = mustBeUnfit(t, r, "run as their owner: ", "GRANT DELETE, INSERT ON public.decree_branch TO "+role)
	_, sql, _ = strings.Cut(said, "run as their owner: ")
	b.exec(sql)
	if _, err := probeOf(t, r); err != nil {
		t.Fatalf("after the SQL that the error gave: %v", err)
	}

	b.exec("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
	mustBeUnfit(t, r, "GRANT EXECUTE ON FUNCTION pg_control_system()")
	b.exec("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
}

// Tables may have a schema of their own, and a search_path leads nobody astray.
func TestSchema(t *testing.T) {
	b := sharedBench(t)
	mustBeUnfit(t, registrationOf(t, b.server.DSN(b.database), map[string]any{"schema": "books"}), `CREATE SCHEMA IF NOT EXISTS "books"`)
	b.exec("CREATE SCHEMA books")
	r := b.registered(map[string]any{"schema": "books"})
	b.exec("CREATE SCHEMA astray; CREATE TABLE astray.decree_branch (); ALTER DATABASE " + b.database + " SET search_path = astray, public")
	p := opened(t, r)
	br := branchOf(one("add", "x"))
	mustPrepare(t, p, br)
	mustCommit(t, p, br)
	mustCommit(t, p, br)
	if n := b.ask("SELECT count(*) FROM books.decree_branch"); n != "1" {
		t.Errorf("the schema's table has %s rows, want 1", n)
	}
}

// Tables of a later release are left alone.
func TestLaterTablesAreLeftAlone(t *testing.T) {
	b := sharedBench(t)
	r := b.registered(nil)
	b.exec("UPDATE decree_schema SET version = 2")
	mustBeUnfit(t, r, "version 2", "later")
	b.exec("DELETE FROM decree_schema")
	mustBeUnfit(t, r, "0 rows")
}

// Open waits for nothing, tells in the log what is wrong, and knows that the
// database recovers once it was seen to be fit.
func TestOpenLooksInTheBackground(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	b := newBench(t, server)
	r := registrationOf(t, server.DSN(b.database), nil)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	p, j := loud(t, r)
	eventually(t, "the log tells of it", func() bool { return strings.Contains(j.String(), "cannot take part") })
	if p.Recovers() {
		t.Error("a database that nobody has seen recovers")
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	fit(t, p)
	eventually(t, "the log tells of it", func() bool { return strings.Contains(j.String(), "can take part now") })
	br := branchOf(one("add", "x")) // the look has made the tables
	mustPrepare(t, p, br)
	mustCommit(t, p, br)
}

func TestConfigSaysEverythingThatIsWrong(t *testing.T) {
	err := Driver{}.Check([]byte(`{"dsn": "postgres://bob:hunter2@db/orders", "catalogue": {"a b": {"sql": "COMMIT"}},
		"schema": "a\"b", "isolation": "none", "max_connections": 1, "lock_timeout": "1h", "statement_timeout": "0s"}`))
	for _, word := range []string{
		"dsn: want a reference", `"a b" is no name`, "COMMIT is not for a branch", "schema:", "isolation:", "max_connections:", "lock_timeout:", "statement_timeout:",
	} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("Check: %v, want %q in it", err, word)
		}
	}
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Check quotes the secret: %v", err)
	}
	for name, config := range map[string]string{
		"empty":         ``,
		"unknown field": `{"dsn": "env:X", "raw_sql": true, "host": "db"}`,
		"a tail":        `{"dsn": "env:X", "raw_sql": true} {}`,
		"no statements": `{"dsn": "env:X"}`,
		"no DSN":        `{"raw_sql": true}`,
		"a number":      `{"dsn": "env:X", "raw_sql": true, "lock_timeout": 2}`,
	} {
		if (Driver{}).Check([]byte(config)) == nil {
			t.Errorf("%s: %s passes", name, config)
		}
	}
	good := []byte(`{"dsn": "env:ORDERS_DSN", "raw_sql": true}`)
	c, err := parseConfig(good)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := parseConfig(again); err != nil || d.LockTimeout != c.LockTimeout || d.MaxConnections != defaultConnections {
		t.Errorf("written and read again: %+v, %v; want %+v", d, err, c)
	}
}
