package postgres

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// What is proven here: what a prepare answers beyond what every participant
// promises, and that neither a copy of a branch nor its abort ever waits for the
// branch's locks. Where a test must show that nobody waited, the lock timeout is
// set far beyond the test's patience.

// slowLocks makes waiting for a lock something that a test does not survive.
func slowLocks() map[string]any { return map[string]any{"lock_timeout": "60s"} }

// R8 and R13: a branch prepared again is recognized by its digest, although its
// row is invisible, and its own lock holds nobody up.
func TestPreparedAgainAnswersAtOnce(t *testing.T) {
	b := sharedBench(t)
	p := opened(t, b.registered(slowLocks()))
	br := branchOf(one("add", "x"))
	mustPrepare(t, p, br)
	mustPrepare(t, p, br)
	other := br
	other.Payload = one("add", "y")
	other.Digest = txn.NewBranch("orders", other.Payload).Digest
	mustRefuse(t, p, other, "other content")
	reading := br
	reading.Payload = one("read", "x")
	reading.Digest = txn.NewBranch("orders", reading.Payload).Digest
	mustRefuse(t, p, reading, "other content")
	mustPrepare(t, p, br) // the refusals have left it as it was
	mustCommit(t, p, br)
	if n := b.count("x"); n != 1 {
		t.Errorf("counter x is %d after the commit, want 1", n)
	}
	mustRefuse(t, p, other, "other content")
}

// R8: what is remembered of a branch survives a crash of the server and a driver
// that begins with nothing: the digest of one that is still prepared, too.
func TestDigestSurvivesCrash(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	b := newBench(t, server)
	r := b.registered(slowLocks())
	br := branchOf(one("add", "x"))
	mustPrepare(t, opened(t, r), br)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := opened(t, r)
	other := br
	other.Digest[0]++
	mustRefuse(t, p, other, "other content")
	mustPrepare(t, p, br)
	mustCommit(t, p, br)
}

// R13: a copy of a prepare that another node is still working on waits for that,
// and then says the same.
func TestCopyWaitsForTheFirst(t *testing.T) {
	for _, tc := range []struct {
		name  string
		first func(release func(), cancel context.CancelFunc)
	}{
		{"which becomes prepared", func(release func(), _ context.CancelFunc) { release() }},
		{"which is given up", func(release func(), cancel context.CancelFunc) { cancel(); release() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := sharedBench(t)
			r := b.registered(slowLocks())
			first, second := opened(t, r), opened(t, r)
			release := b.block("x")
			br := branchOf(one("add", "x"))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				first.Prepare(ctx, br) //nolint:errcheck // it may be given up
			}()
			b.awaitWaiting("INSERT INTO counter%")
			votes := make(chan participants.Vote, 1)
			go func() {
				v, err := second.Prepare(within30s(t), br)
				if err != nil {
					t.Error(err)
				}
				votes <- v
			}()
			tc.first(release, cancel)
			if v := <-votes; v.Kind != txn.VoteCommit {
				t.Errorf("the copy votes %s %q, want a yes", v.Kind, v.Reason)
			}
			<-gone
			mustCommit(t, second, br)
			if n := b.count("x"); n != 1 {
				t.Errorf("counter x is %d after two copies and a commit, want 1", n)
			}
		})
	}
}

// awaitWaiting waits until a statement waits for a lock.
func (b *bench) awaitWaiting(like string) {
	b.Helper()
	eventually(b, "somebody waits for a lock", func() bool {
		return b.ask("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '"+like+"'") != "0"
	})
}

// R8: an abort that meets its branch's prepare at work ends that session, on
// whatever node, and does not wait for its locks.
func TestAbortEndsAPrepareAtWork(t *testing.T) {
	b := sharedBench(t)
	r := b.registered(slowLocks())
	old, next := opened(t, r), opened(t, r)
	release := b.block("x")
	defer release()
	br := branchOf(one("add", "x"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if v, err := old.Prepare(within30s(t), br); err == nil && v.Kind != txn.VoteAbort {
			t.Errorf("the prepare that was aborted votes %s", v.Kind)
		}
	}()
	b.awaitWaiting("INSERT INTO counter%")
	later := phaseTwo(br)
	later.Epoch = 2
	mustAbort(t, next, later)
	<-done
	if n := b.ask("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"); n != "0" {
		t.Errorf("%s branches are prepared after the abort", n)
	}
	mustRefuse(t, next, later)
}

// A branch that only reads votes so, and leaves neither a prepared transaction nor
// a row; one that looks so and writes is found out by the server.
func TestReading(t *testing.T) {
	b := sharedBench(t)
	b.exec("INSERT INTO counter VALUES ('x', 7); CREATE SEQUENCE numbers")
	p := opened(t, b.registered(map[string]any{"raw_sql": true}))
	for _, sql := range []string{
		"SELECT n FROM counter", "/* one /* two */ */ -- three\n (SELECT 1)", "VALUES (1)", "TABLE counter", "SHOW work_mem",
		"WITH c AS (SELECT n FROM counter) SELECT * FROM c",
	} {
		if v := voteOf(t, p, branchOf(sqlOf(sql))); v.Kind != txn.VoteReadOnly {
			t.Errorf("%s: %s %q, want read-only", sql, v.Kind, v.Reason)
		}
	}
	if n := b.ask("SELECT count(*) FROM decree_branch"); n != "0" {
		t.Errorf("reading has left %s marker rows", n)
	}
	for _, sql := range []string{
		"SELECT n FROM counter FOR UPDATE", "SELECT nextval('numbers')", "SELECT n INTO copies FROM counter",
		"WITH c AS (DELETE FROM counter RETURNING n) SELECT * FROM c",
	} {
		br := branchOf(sqlOf(sql))
		mustPrepare(t, p, br)
		mustPrepare(t, p, br)
		mustAbort(t, p, br)
		mustRefuse(t, p, br)
	}
	mustRefuse(t, p, branchOf(sqlOf("SELECT 1 / 0")), "22012")
	mustRefuse(t, p, branchOf(sqlOf("SELECT 1 / (n - 7) FROM counter")), "22012") // after its row description
	mustRefuse(t, p, branchOf([]byte(`{"statements": [{"sql": "SELECT 1", "expect_rows": 0}]}`)), "touched 1 rows, expected 0")
}

// A notification of a branch that only reads would be out before the decision.
func TestReadingNotifiesNobody(t *testing.T) {
	b := sharedBench(t)
	p := opened(t, b.registered(map[string]any{"raw_sql": true}))
	conn := b.connect()
	if _, err := conn.Exec(t.Context(), "LISTEN news"); err != nil {
		t.Fatal(err)
	}
	voteOf(t, p, branchOf(sqlOf("SELECT pg_notify('news', 'early')")))
	b.exec("NOTIFY news, 'the test'")
	n, err := conn.WaitForNotification(within30s(t))
	if err != nil || n.Payload != "the test" {
		t.Fatalf("heard %v, %v; want only the test's own", n, err)
	}
}

// Whatever would end or bend the branch's transaction, or stay in the connection,
// is a no, in a catalogue a mistake of the configuration, and the connection is
// good afterwards.
func TestStatementsThatAreNotForBranches(t *testing.T) {
	b := sharedBench(t)
	p := opened(t, b.registered(map[string]any{"raw_sql": true, "max_connections": 2}))
	for sql, word := range map[string]string{
		"COMMIT":                      "COMMIT",
		"-- x\rcommit -- \nselect 1":  "COMMIT",
		"/* /* */ */ ROLLBACK":        "ROLLBACK",
		"ABORT":                       "ABORT",
		"END":                         "END",
		"BEGIN":                       "BEGIN",
		"START TRANSACTION":           "START",
		"PREPARE TRANSACTION 'mine'":  "PREPARE",
		"SAVEPOINT s":                 "SAVEPOINT",
		"SET work_mem = '1MB'":        "SET LOCAL",
		"SET SESSION work_mem = 1000": "SET LOCAL",
		"SET LOCAL ROLE postgres":     "role",
		"RESET ALL":                   "RESET",
		"LISTEN news":                 "LISTEN",
		"COPY counter FROM STDIN":     "COPY",
		"DISCARD ALL":                 "DISCARD",
		"  ":                          "missing or empty",
		"-- nothing":                  "no statement",
		"SELECT 1; COMMIT":            "42601",
		"CREATE TEMP TABLE t ()":      "0A000",
		"DO $$BEGIN COMMIT; END$$":    "2D000",
		"VACUUM counter":              "25001",
	} {
		mustRefuse(t, p, branchOf(sqlOf(sql)), word)
		entry := map[string]any{"catalogue": map[string]any{"bad": map[string]any{"sql": sql}}}
		err := Driver{}.Check(registrationOf(t, "", entry).Config)
		if beyondWords := strings.ContainsAny(word, "0123456789"); (err == nil) != beyondWords {
			t.Errorf("a catalogue with %q: %v", sql, err)
		}
	}
	after := branchOf(one("add", "x"))
	mustPrepare(t, p, after)
	mustCommit(t, p, after)
	for _, fine := range []string{"SET LOCAL work_mem = '1MB'", "SET CONSTRAINTS ALL IMMEDIATE", "CREATE TABLE made ()", "CALL nothing()", "LOCK TABLE counter"} {
		if err := allowed(fine); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
}

// SQL that a request carries can leave nothing in the session for the next branch,
// and a role that it takes on does not own what others prepare.
func TestRawSQLLeavesTheSessionClean(t *testing.T) {
	b := sharedBench(t)
	role := "role_" + b.database
	b.exec("CREATE ROLE " + role + "; CREATE SCHEMA astray; CREATE TABLE astray.counter (LIKE counter INCLUDING ALL)")
	p := opened(t, b.registered(map[string]any{"raw_sql": true, "max_connections": 2}))
	for _, sql := range []string{
		"SELECT set_config('search_path', 'astray', false), set_config('synchronous_commit', 'off', false), pg_advisory_lock(1)",
		"INSERT INTO counter VALUES ('evil', 1) RETURNING set_config('role', '" + role + "', false)",
		"WITH gone AS (DELETE FROM counter) SELECT set_config('search_path', 'astray', false), set_config('lock_timeout', '0', false)",
	} {
		evil := branchOf(sqlOf(sql))
		if v := voteOf(t, p, evil); v.Kind == txn.VoteAbort {
			t.Fatalf("%s: %s %q", sql, v.Kind, v.Reason)
		}
		if owner := b.ask("SELECT owner FROM pg_prepared_xacts WHERE gid = '" + gid(evil) + "'"); owner == role {
			t.Errorf("%s: the branch belongs to %s", sql, owner)
		}
		mustAbort(t, p, evil)
		br := branchOf(one("add", "x"))
		mustPrepare(t, p, br)
		mustCommit(t, p, br)
		err := p.with(t.Context(), func(s *session) error {
			a, err := s.query(t.Context(), "SELECT current_user, current_setting('synchronous_commit'), current_setting('lock_timeout'),"+
				" current_setting('default_transaction_isolation')")
			if got := string(bytes.Join(a.rows[0], []byte(" "))); got != "postgres on 250ms read committed" {
				t.Errorf("after %s the session has %s", sql, got)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := b.count("x"); n != 3 {
		t.Errorf("counter x is %d, want 3", n)
	}
	if n := b.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1"); n != "0" {
		t.Errorf("a session-level lock has stayed")
	}
}

// A no is certain, and stays one, although its reason has characters that the
// database's encoding has not.
func TestReasonThatTheDatabaseCannotWrite(t *testing.T) {
	shared := sharedBench(t)
	b := &bench{TB: t, server: shared.server, database: "latin1_" + shared.database}
	shared.exec("CREATE DATABASE " + b.database + " ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	t.Cleanup(func() {
		// The test's own context is over by now.
		if err := b.server.Exec(context.Background(), shared.database, "DROP DATABASE "+b.database+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	b.exec(tables)
	p := b.participant()
	br := branchOf(one("銀行"))
	for range 2 {
		mustRefuse(t, p, br, "the catalogue has no")
	}
	if row := b.ask("SELECT state FROM decree_branch WHERE gid = '" + gid(br) + "'"); row != "aborted" {
		t.Errorf("the row is %q, want a tombstone", row)
	}
}

// Parameters are what the server reads in their text, whatever type JSON has for
// them; they are never part of the SQL.
func TestParameters(t *testing.T) {
	b := sharedBench(t)
	b.exec(`CREATE TABLE thing (i int, big numeric, f float8, t text, b boolean, j jsonb, d date, a int[])`)
	p := opened(t, b.registered(map[string]any{"raw_sql": true}))
	br := branchOf([]byte(`{"statements": [{"sql": "INSERT INTO thing VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		"args": [42, 12345678901234567890.125, 1e3, "it's; DROP TABLE thing --", true, {"k": [1, null]}, "2026-02-28", "{1,2}"]}]}`))
	mustPrepare(t, p, br)
	mustCommit(t, p, br)
	const want = "42\t12345678901234567890.125\t1000\tit's; DROP TABLE thing --\tt\t{\"k\": [1, null]}\t2026-02-28\t{1,2}"
	if got := b.ask("SELECT * FROM thing"); got != want {
		t.Errorf("the row is\n%s, want\n%s", got, want)
	}
	nulls := branchOf([]byte(`{"sql": "INSERT INTO thing (i, t) VALUES ($1, $2)", "args": [null, 17]}`))
	mustPrepare(t, p, nulls)
	mustCommit(t, p, nulls)
	if got := b.ask("SELECT count(*) FROM thing WHERE i IS NULL AND t = '17'"); got != "1" {
		t.Errorf("%s rows with a null and a number as text, want 1", got)
	}
	mustRefuse(t, p, branchOf(sqlOf("INSERT INTO thing (i) VALUES ($1)", "many")), "bad value", "22P02")
	mustRefuse(t, p, branchOf(sqlOf("INSERT INTO thing (t) VALUES ($1)", "a\x00b")), "22021")
}

// Requests to a participant with a catalogue carry no SQL, and what a no says
// names the statement, the kind of failure and the SQLSTATE.
func TestReasons(t *testing.T) {
	b := sharedBench(t)
	b.exec("INSERT INTO counter VALUES ('x', 5)")
	b.exec(`CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(60)'`)
	p := opened(t, b.registered(nil))
	mustRefuse(t, p, branchOf(sqlOf("DELETE FROM counter")), "no SQL")
	mustRefuse(t, p, branchOf(one("erase")), `no "erase"`)
	mustRefuse(t, p, branchOf([]byte(`{`)), "payload")
	mustRefuse(t, p, branchOf(one("take", "x", 6)), `statement "take"`, "constraint violated", "23514")
	mustRefuse(t, p, branchOf(one("take", "y", 1)), `statement "take" touched 0 rows, expected 1`)
	mustRefuse(t, p, branchOf(one("make", "x")), "constraint violated", "23505")
	mustRefuse(t, p, branchOf(one("owe", "nobody")), "prepare: constraint violated", "23503")
	release := b.block("y")
	mustRefuse(t, p, branchOf(one("add", "y")), "lock timeout", "55P03")
	release()
	impatient := opened(t, b.registered(map[string]any{"raw_sql": true, "statement_timeout": "50ms"}))
	mustRefuse(t, impatient, branchOf(sqlOf("DELETE FROM counter WHERE n = slow()")), "statement timeout", "57014")
	if n := b.count("x"); n != 5 {
		t.Errorf("counter x is %d after many noes, want 5", n)
	}
}

// A conflict that only serializable transactions have is a no like any other.
func TestSerializationFailureIsANo(t *testing.T) {
	b := sharedBench(t)
	b.exec("INSERT INTO counter VALUES ('x', 5), ('y', 5)")
	p := opened(t, b.registered(map[string]any{"raw_sql": true, "isolation": "serializable"}))
	skew := func(from, to string) participants.Branch {
		return branchOf(sqlOf("UPDATE counter SET n = n + (SELECT n FROM counter WHERE name = $1) WHERE name = $2", from, to))
	}
	first, second := skew("x", "y"), skew("y", "x")
	mustPrepare(t, p, first)
	mustRefuse(t, p, second, "serialization failure", "40001")
	mustCommit(t, p, first)
	reader := branchOf(sqlOf("SELECT sum(n) FROM counter"))
	if v := voteOf(t, p, reader); v.Kind != txn.VoteReadOnly {
		t.Errorf("a serializable reader votes %s %q", v.Kind, v.Reason)
	}
}

// A server without room for another prepared transaction is a no that names the
// setting, and room that comes back is used.
func TestNoRoomForPrepared(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{Settings: map[string]string{"max_prepared_transactions": "1"}})
	b := newBench(t, server)
	p := opened(t, b.registered(nil))
	first, second := branchOf(one("add", "x")), branchOf(one("add", "y"))
	mustPrepare(t, p, first)
	mustRefuse(t, p, second, "max_prepared_transactions", "53200")
	mustCommit(t, p, first)
	third := branchOf(one("add", "z"))
	mustPrepare(t, p, third)
	mustAbort(t, p, third)
}

// What was promised stays promised when the catalogue changes; only then is the
// statement that is gone a no.
func TestChangedCatalogueKeepsPromises(t *testing.T) {
	b := sharedBench(t)
	r := b.registered(nil)
	br := branchOf(one("add", "x"))
	mustPrepare(t, opened(t, r), br)
	fewer := map[string]any{"catalogue": map[string]any{"nothing": map[string]any{"sql": "SELECT 1"}}}
	p := opened(t, b.registered(fewer))
	mustPrepare(t, p, br)
	mustCommit(t, p, br)
	mustPrepare(t, p, br)
	mustRefuse(t, p, branchOf(one("add", "x")), `no "add"`)
}

// A table that changes under a statement which a connection has parsed is no
// reason to refuse anybody.
func TestStatementIsParsedAgain(t *testing.T) {
	b := sharedBench(t)
	b.exec("INSERT INTO counter VALUES ('x', 5)")
	star := map[string]any{"catalogue": map[string]any{
		"all":  map[string]any{"sql": "SELECT * FROM counter"},
		"keep": map[string]any{"sql": "UPDATE counter SET n = n RETURNING *"},
	}}
	p := opened(t, b.registered(star))
	for _, column := range []string{"a", "b"} {
		if v := voteOf(t, p, branchOf(one("all"))); v.Kind != txn.VoteReadOnly {
			t.Fatalf("before column %s: %s %q", column, v.Kind, v.Reason)
		}
		br := branchOf(one("keep"))
		mustPrepare(t, p, br)
		mustCommit(t, p, br)
		b.exec("ALTER TABLE counter ADD " + column + " int")
	}
	br := branchOf(one("keep"))
	mustPrepare(t, p, br)
	mustAbort(t, p, br)
}

// Two transactions that wait for each other in two databases, where neither
// database sees it, end by the lock timeout of at least one.
func TestDeadlockAcrossDatabases(t *testing.T) {
	left, right := sharedBench(t), sharedBench(t)
	p, q := left.participant(), right.participant()
	one1, two1 := branchOf(one("add", "x")), branchOf(one("add", "x"))
	mustPrepare(t, p, one1)
	mustPrepare(t, q, two1)
	one2, two2 := one1, two1
	one2.Number, two2.Number = 2, 2
	noes := make(chan participants.Vote, 2)
	for at, br := range map[*participant]participants.Branch{q: one2, p: two2} {
		go func() {
			v, err := at.Prepare(within30s(t), br)
			if err != nil {
				t.Error(err)
			}
			noes <- v
		}()
	}
	for range 2 {
		if v := <-noes; v.Kind != txn.VoteAbort || !strings.Contains(v.Reason, "lock timeout") {
			t.Errorf("crossed: %s %q, want a no for the lock timeout", v.Kind, v.Reason)
		}
	}
	mustAbort(t, p, one1)
	mustAbort(t, q, one2)
	mustAbort(t, q, two1)
	mustAbort(t, p, two2)
}

// A context that ends is no vote, and what follows is certain again.
func TestEndOfContextIsAmbiguous(t *testing.T) {
	b := sharedBench(t)
	p := opened(t, b.registered(slowLocks()))
	release := b.block("x")
	defer release()
	br := branchOf(one("add", "x"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if v, err := p.Prepare(ctx, br); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("prepare: %s, %v; want the context's error", v.Kind, err)
	}
	mustAbort(t, p, br)
	mustRefuse(t, p, br)
}

// Prepares that wait for locks leave connections to the deliveries that free them.
func TestDeliveriesHaveRoom(t *testing.T) {
	b := sharedBench(t)
	p := opened(t, b.registered(map[string]any{"lock_timeout": "60s", "max_connections": 4}))
	holder := branchOf(one("add", "x"))
	mustPrepare(t, p, holder)
	votes := make(chan participants.Vote, 12)
	for range cap(votes) {
		go func() {
			br := branchOf(one("add", "x"))
			v, err := p.Prepare(within30s(t), br)
			if err == nil && v.Kind == txn.VoteCommit {
				err = p.Commit(within30s(t), phaseTwo(br))
			}
			if err != nil {
				t.Error(err)
			}
			votes <- v
		}()
	}
	b.awaitWaiting("INSERT INTO counter%")
	mustCommit(t, p, holder)
	for range cap(votes) {
		if v := <-votes; v.Kind != txn.VoteCommit {
			t.Errorf("a prepare that waited votes %s %q", v.Kind, v.Reason)
		}
	}
	if n := b.count("x"); n != 1+cap(votes) {
		t.Errorf("counter x is %d, want %d", n, 1+cap(votes))
	}
}

// R8 and R11: the fence is in the database: a node whose memory is behind is
// refused all the same, by the insert itself.
func TestFenceIsInTheDatabase(t *testing.T) {
	b := sharedBench(t)
	r := b.registered(nil)
	old, next := opened(t, r), opened(t, r)
	held := branchOf(one("add", "x"))
	mustPrepare(t, old, held) // it has told the database of epoch 1
	abort := phaseTwo(branchOf(nil))
	abort.Epoch = 7
	mustAbort(t, next, abort)
	for _, br := range []participants.Branch{branchOf(one("add", "y")), branchOf(one("read", "y"))} {
		if v, err := old.Prepare(within30s(t), br); !errors.Is(err, participants.ErrStaleEpoch) {
			t.Errorf("prepare of epoch 1 after 7: %s, %v; want ErrStaleEpoch", v.Kind, err)
		}
	}
	held.Epoch = 7
	mustCommit(t, next, held)
}

// Our own statements work beside each other although the role's transactions are
// serializable, read what they need in whatever form the role has bytes shown, hear
// the server's warnings, and are durable although the role's are not.
func TestRoleSettingsDoNotMatter(t *testing.T) {
	b := sharedBench(t)
	b.exec(`ALTER DATABASE ` + b.database + ` SET default_transaction_isolation = 'serializable'`)
	b.exec(`ALTER DATABASE ` + b.database + ` SET default_transaction_deferrable = on`)
	b.exec(`ALTER DATABASE ` + b.database + ` SET synchronous_commit = off`)
	b.exec(`ALTER DATABASE ` + b.database + ` SET lock_timeout = '1h'`)
	b.exec(`ALTER DATABASE ` + b.database + ` SET bytea_output = 'escape'`)
	b.exec(`ALTER DATABASE ` + b.database + ` SET client_min_messages = 'error'`)
	p := opened(t, b.registered(nil))
	err := p.with(t.Context(), func(s *session) error {
		for setting, want := range map[string]string{
			"synchronous_commit": "on", "default_transaction_isolation": "read committed", "lock_timeout": "250ms",
			"application_name": "decree/orders", "client_encoding": "UTF8",
			"client_min_messages": "warning",
		} {
			a, err := s.query(t.Context(), "SHOW "+setting)
			if err != nil {
				return err
			}
			if got := a.rows[0].text(0); got != want {
				t.Errorf("%s is %s, want %s", setting, got, want)
			}
		}
		if want := "BEGIN ISOLATION LEVEL serializable"; s.begin != want {
			t.Errorf("branches begin with %q, want %q", s.begin, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	br := branchOf(one("add", "x"))
	mustPrepare(t, p, br)
	mustCommit(t, p, br)
	mustCommit(t, p, br)  // read from the marker row, digest and all (R9)
	mustPrepare(t, p, br) // the same
	if v := voteOf(t, p, branchOf(one("read", "x"))); v.Kind != txn.VoteReadOnly {
		t.Errorf("reading: %s %q", v.Kind, v.Reason)
	}
}
