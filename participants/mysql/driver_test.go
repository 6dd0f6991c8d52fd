package mysql

// What is proven here: what a branch may do and what it may not, on a real
// server; that a connection which leads to the wrong place makes everything wait
// and nothing damage; and that no secret is ever shown.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

const rawSQL = `, "raw_sql": true`

// newRawBank is a bank whose participant takes SQL of requests.
func newRawBank(t testing.TB) (*bank, *participant) {
	t.Helper()
	b := newBank(t, databases.Shared(t, databases.MariaDB))
	return b, b.open(t, rawSQL)
}

// R8 and the contract of votes: each of these is a no with a reason, keeps
// nothing, and leaves the connection usable.
func TestStatementsThatAreRefused(t *testing.T) {
	b, p := newRawBank(t)
	b.exec(t, "CREATE PROCEDURE sneak() BEGIN INSERT INTO counter VALUES ('sneak', 1); COMMIT; END")
	b.exec(t, "CREATE PROCEDURE mimic() BEGIN INSERT INTO counter VALUES ('mimic', 1); SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1440, MESSAGE_TEXT = 'sold out'; END")
	b.exec(t, "CREATE PROCEDURE define() CREATE TABLE defined (a INT)")
	b.exec(t, "INSERT INTO account VALUES ('alice', 10)")
	for payload, words := range map[string][]string{
		raw("COMMIT"): {"may not COMMIT"},
		raw("UPDATE account SET balance = 0; COMMIT"):             {"one statement"},
		raw("UPDATE account SET balance = 0 WHERE id = 'x'' OR "): {"quote"},
		raw("CALL sneak()"):             {"1399"},
		raw("CALL mimic()"):             {"1440", "sold out"},
		raw("CALL define()"):            {"1399"},
		raw("UPDATE nothing SET a = 1"): {"1146", "42S02"},
		raw("UPDATE account SET balance = ? WHERE id = ?", "1"): {"2 placeholders for 1 args"},
		raw("INSERT INTO taken VALUES (?)", `"seat"`):           {"duplicate key", "1062", "seat"},
		raw("SELECT SLEEP(0) INTO @x"):                          {"SELECT INTO"},
		raw("SELECT n FROM counter FOR UPDATE INTO @x"):         {"SELECT INTO"},
		`{"name": "debit", "args": {"account": "alice", "amount": 10.01}}`: {
			`statement "debit" touched 0 rows, expected 1`},
		`{"name": "steal"}`: {`the catalogue has no "steal"`},
		`{"sql": "SELECT n FROM counter FOR UPDATE", "expect_rows": 1}`: {"touched 0 rows, expected 1"},
		`{"sql": "SELECT n FROM counter", "expect_rows": 1}`:            {"touched 0 rows, expected 1"},
		`{}`: {"no statement"},
	} {
		refused(t, p, newBranch(payload), words...)
		if all := b.prepared(t); strings.Contains(all, cluster) {
			t.Fatalf("after %s: %s is prepared", payload, all)
		}
	}
	if n := b.count(t, "sneak"); n != 0 {
		t.Errorf("the procedure has counted %d", n)
	}
	if n := b.number(t, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'defined'"); n != 0 {
		t.Error("the procedure has made a table")
	}
}

func TestStatementsThatWork(t *testing.T) {
	b, p := newRawBank(t)
	b.exec(t, "CREATE PROCEDURE pay(IN who VARCHAR(64)) BEGIN SELECT 1; UPDATE account SET balance = balance + 1 WHERE id = who; SELECT 2; END")
	b.exec(t, "INSERT INTO account VALUES ('alice', 10), ('bob', 123456789012345678.90)")
	for _, payload := range []string{
		raw("CALL pay(?)", `"alice"`),
		raw("INSERT INTO taken VALUES (?) RETURNING name", `"one"`),
		`{"sql": "INSERT INTO taken VALUES (?), (?) RETURNING name", "args": ["two", "it's \\ \"three\" ; -- é"], "expect_rows": 2}`,
		`{"sql": "SELECT id FROM account WHERE id = ? FOR UPDATE", "args": ["alice"], "expect_rows": 1}`,
		`{"sql": "UPDATE account SET balance = balance WHERE id = 'alice'", "expect_rows": 1}`, // matched, not changed
		// As a string, the number would be a floating point one with 15 digits.
		`{"sql": "UPDATE account SET balance = balance - ? WHERE id = 'bob' AND balance = ?", "args": [0.01, 123456789012345678.90], "expect_rows": 1}`,
		`{"statements": [{"name": "add", "args": ["x"]}, {"name": "look", "args": ["x"]}, {"name": "debit", "args": {"account": "alice", "amount": 1.5}}]}`,
	} {
		branch := newBranch(payload)
		prepare(t, p, branch)
		commit(t, p, branch)
	}
	for query, want := range map[string]int{
		"SELECT COUNT(*) FROM taken": 4,
		"SELECT n FROM counter":      1,
		"SELECT COUNT(*) FROM account WHERE id = 'alice' AND balance = 9.5":                   1,
		"SELECT COUNT(*) FROM account WHERE id = 'bob' AND balance = 123456789012345678.89":   1,
		`SELECT COUNT(*) FROM taken WHERE name = 'it''s \\ "three" ; -- é'`:                   1,
		"SELECT COUNT(*) FROM decree_branch WHERE state = 'prepared'":                         7,
		"SELECT COUNT(*) FROM decree_branch WHERE owner NOT REGEXP '^[0-9]+ [0-9]+ decree:.'": 0,
	} {
		if got := b.number(t, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

// A branch that reads leaves nothing; one that only seems to read is prepared.
func TestReadingBranches(t *testing.T) {
	b, p := newRawBank(t)
	b.exec(t, "CREATE FUNCTION touch() RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO counter VALUES ('touched', 1); RETURN 1; END")
	reads := newBranch(`{"statements": [{"name": "look", "args": ["x"]}, {"sql": "SELECT COUNT(*) FROM account", "expect_rows": 1}]}`)
	if v, err := p.Prepare(bounded(t), reads); err != nil || v.Kind != txn.VoteReadOnly {
		t.Fatalf("prepare: %s %q, %v; want read-only", v.Kind, v.Reason, err)
	}
	if n := b.number(t, "SELECT COUNT(*) FROM decree_branch"); n != 0 {
		t.Errorf("a reading branch has left %d rows", n)
	}
	for _, sql := range []string{"SELECT touch()", "SELECT id FROM account FOR UPDATE"} {
		branch := newBranch(raw(sql))
		prepare(t, p, branch)
		commit(t, p, branch)
	}
	if n := b.count(t, "touched"); n != 1 {
		t.Errorf("the function has written %d rows, want 1", n)
	}
}

// R14: connections are bounded; what is beyond waits, and is told which bound it
// is. Decisions are delivered all the same, and make room.
func TestConnectionsAreBounded(t *testing.T) {
	b := newBank(t, databases.Shared(t, databases.MariaDB))
	p := b.open(t, `, "max_connections": 2`)
	one, two, three := newBranch(add("x")), newBranch(add("y")), newBranch(add("z"))
	prepare(t, p, one)
	prepare(t, p, two)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if v, err := p.Prepare(ctx, three); err == nil || !strings.Contains(err.Error(), "max_connections") {
		t.Fatalf("prepare beyond the bound: %s %q, %v; want an error that names it", v.Kind, v.Reason, err)
	}
	abort(t, p, three) // it needs no connection of the branches'
	commit(t, p, one)
	four := newBranch(add("z"))
	prepare(t, p, four)
	commit(t, p, two)
	commit(t, p, four)
	if n := b.number(t, "SELECT SUM(n) FROM counter"); n != 3 {
		t.Errorf("%d effects, want 3", n)
	}
}

// A waiting prepare gives way to its own branch's abort.
func TestAbortInterruptsItsPrepare(t *testing.T) {
	b := newBank(t, databases.Shared(t, databases.MariaDB))
	p := b.open(t, `, "lock_timeout": "1m"`)
	release := b.block(t, "x")
	defer release()
	branch := newBranch(add("x"))
	voted := make(chan error, 1)
	go func() {
		v, err := p.Prepare(bounded(t), branch)
		if err == nil {
			err = fmt.Errorf("voted %s", v.Kind)
		} else {
			err = nil
		}
		voted <- err
	}()
	until(t, "the branch waits for the lock", func() bool {
		return b.number(t, "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'") > 0
	})
	abort(t, p, branch)
	if err := <-voted; err != nil {
		t.Errorf("the interrupted prepare has %v", err)
	}
	refused(t, p, branch)
}

// R9: at a server that is not the registered one, or that cannot write, nothing is
// known, so everything waits.
func TestWrongPlaceMakesEverythingWait(t *testing.T) {
	server := databases.ForTest(t, databases.MariaDB, databases.Options{})
	b, other := newBank(t, server), newBank(t, server)
	r := b.registered(t, server.DSN(b.database), "")
	p := openAs(t, r)
	branch := newBranch(add("x"))
	prepare(t, p, branch)

	dsn := strings.TrimPrefix(string(p.cfg.DSN), "file:")
	point := func(database string) {
		t.Helper()
		if err := os.WriteFile(dsn, []byte(server.DSN(database)), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Close() //nolint:errcheck // it never fails
		var log bytes.Buffer
		opened, err := (Driver{}).Open(t.Context(), r, hclog.New(&hclog.LoggerOptions{Output: hclogSink{&log}}))
		if err != nil {
			t.Fatal(err)
		}
		p = opened.(*participant)
		t.Cleanup(func() { p.Close() }) //nolint:errcheck // it never fails
	}
	waits := func(want error) {
		t.Helper()
		var damage *participants.Heuristic
		for what, call := range map[string]func() error{
			"commit":  func() error { return p.Commit(bounded(t), branch) },
			"abort":   func() error { return p.Abort(bounded(t), branch) },
			"recover": func() error { _, err := p.Recover(bounded(t), cluster); return err },
			"status":  func() error { _, err := p.Status(bounded(t), branch); return err },
			"prepare": func() error { _, err := p.Prepare(bounded(t), newBranch(add("x"))); return err },
		} {
			if err := call(); !errors.Is(err, want) || errors.As(err, &damage) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		if p.Recovers() {
			t.Error("it says that it lists its branches")
		}
	}
	point(other.database)
	waits(errStranger)
	b.exec(t, "CREATE DATABASE nothing")
	point("nothing")
	waits(errStranger)
	b.exec(t, "SET GLOBAL read_only = ON")
	point(b.database)
	waits(errReadOnly)
	b.exec(t, "SET GLOBAL read_only = OFF")
	commit(t, p, branch)
	if n := b.count(t, "x"); n != 1 {
		t.Errorf("the counter is %d, want 1", n)
	}
}

// A server that becomes read-only under a prepared branch refuses the commit of
// those who are not its masters, and takes it later.
func TestReadOnlyServerKeepsTheBranch(t *testing.T) {
	server := databases.ForTest(t, databases.MariaDB, databases.Options{})
	b := newBank(t, server)
	b.exec(t, "CREATE USER clerk@localhost IDENTIFIED BY 'pencil'")
	b.exec(t, "GRANT ALL ON `"+b.database+"`.* TO clerk@localhost")
	b.exec(t, "GRANT PROCESS ON *.* TO clerk@localhost")
	p := b.openAt(t, strings.Replace(server.DSN(b.database), "root@", "clerk:pencil@", 1), "")
	branch := newBranch(add("x"))
	prepare(t, p, branch)
	b.exec(t, "SET GLOBAL read_only = ON")
	var damage *participants.Heuristic
	if err := p.Commit(bounded(t), branch); err == nil || errors.As(err, &damage) {
		t.Fatalf("commit on a read-only server: %v, want an error that says ask again", err)
	}
	b.exec(t, "SET GLOBAL read_only = OFF")
	commit(t, p, branch)
	if n := b.count(t, "x"); n != 1 {
		t.Errorf("the counter is %d, want 1", n)
	}
}

// hclogSink keeps hclog from asking whether a buffer is a terminal.
type hclogSink struct{ *bytes.Buffer }

// No error and no log line shows the password, nor the DSN, whatever is wrong
// with it.
func TestSecretsAreNotShown(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	socket := socketOf(t, server)
	const secret = "hunter2"
	for what, dsn := range map[string]string{
		"a wrong password": "root:" + secret + "@unix(" + socket + ")/" + b.database,
		"a wrong host":     "root:" + secret + "@tcp(127.0.0.1:1)/" + b.database,
		"a wrong socket":   "root:" + secret + "@unix(/nowhere)/" + b.database,
		"no slash":         "root:" + secret + "@unix(" + socket + ")",
		"no database":      "root:" + secret + "@unix(" + socket + ")/",
		"a wrong option":   "root@unix(" + socket + ")/" + b.database + "?parseTime=" + secret,
		"a wrong variable": "root@unix(" + socket + ")/" + b.database + "?tls=" + secret,
		"a URL":            "mysql://root:" + secret + "@localhost/" + url.PathEscape(b.database),
		"nonsense":         secret,
	} {
		var log bytes.Buffer
		logger := hclog.New(&hclog.LoggerOptions{Output: hclogSink{&log}, Level: hclog.Trace})
		r := b.registration(t, dsn, "")
		_, err := (Driver{}).Probe(bounded(t), r, logger)
		if !errors.Is(err, participants.ErrUnfit) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: probe: %v", what, err)
		}
		r.Identity = "mariadb:x/y"
		opened, err := (Driver{}).Open(t.Context(), r, logger)
		if err != nil {
			t.Fatalf("%s: open: %v", what, err)
		}
		if _, err = opened.Recover(bounded(t), cluster); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: recover: %v", what, err)
		}
		opened.Close() //nolint:errcheck // it never fails
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s: the log says %s", what, log.String())
		}
	}
	r := participants.Registration{Config: []byte(`{"dsn": "root:hunter2@/x", "raw_sql": true}`)}
	if err := (Driver{}).Check(r.Config); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a secret in the place of its name: %v", err)
	}
}

// A password that was changed is found at the next connection.
func TestRotatedPassword(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	user := "u" + b.database[len("test_"):]
	b.exec(t, "CREATE USER "+user+"@localhost IDENTIFIED BY 'old'")
	b.exec(t, "GRANT ALL ON `"+b.database+"`.* TO "+user+"@localhost")
	b.exec(t, "GRANT PROCESS ON *.* TO "+user+"@localhost")
	dsn := func(password string) string {
		return strings.Replace(server.DSN(b.database), "root@", user+":"+password+"@", 1)
	}
	p := b.openAt(t, dsn("old"), "")
	b.exec(t, "ALTER USER "+user+"@localhost IDENTIFIED BY 'new'")
	if err := os.WriteFile(strings.TrimPrefix(string(p.cfg.DSN), "file:"), []byte(dsn("new")), 0o600); err != nil {
		t.Fatal(err)
	}
	p.branches.trim(time.Now().Add(2 * idleFor))
	p.errands.trim(time.Now().Add(2 * idleFor))
	branch := newBranch(add("x"))
	prepare(t, p, branch)
	commit(t, p, branch)
}

// What the DSN says about a session gives way to what the driver needs.
func TestDSNDoesNotBendTheSession(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	b.exec(t, "INSERT INTO account VALUES ('alice', 10)")
	p := b.openAt(t, server.DSN(b.database)+"?autocommit=0&clientFoundRows=false&multiStatements=false&interpolateParams=false"+
		"&charset=latin1&sql_mode=ANSI_QUOTES&tx_isolation=SERIALIZABLE&completion_type=CHAIN&allowAllFiles=true&rejectReadOnly=true&parseTime=true", "")
	branch := newBranch(`{"statements": [{"name": "debit", "args": {"account": "alice", "amount": 0}}, {"name": "add", "args": ["é"]}]}`)
	prepare(t, p, branch)
	commit(t, p, branch)
	if n := b.count(t, "é"); n != 1 {
		t.Errorf("the counter is %d, want 1", n)
	}
	refused(t, p, newBranch(`{"name": "debit", "args": ["a lot", "alice", 1]}`), "1292")
}

// An argument stays one in whatever character set the DSN asks for. In gbk, the
// last byte of U+20BF and the backslash before a quote are one character.
func TestDSNDoesNotOpenTheQuotes(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	for _, set := range []string{"charset=gbk", "character_set_connection=gbk", "character_set_client=gbk"} {
		p := b.openAt(t, server.DSN(b.database)+"?"+set, "")
		if v, err := p.Prepare(bounded(t), newBranch(`{"name": "look", "args": ["\u20bf'; COMMIT; DELETE FROM taken; -- "]}`)); err != nil || v.Kind != txn.VoteReadOnly {
			t.Errorf("%s: %s %q, %v; want read-only", set, v.Kind, v.Reason, err)
		}
		if n := b.number(t, "SELECT COUNT(*) FROM taken"); n != 1 {
			t.Fatalf("%s: the argument has deleted rows of another table", set)
		}
	}
}
