package mysql

// What is proven here: registering a database says everything at once that keeps
// it from taking part, each with the line to change, and names the database
// whatever leads to it.

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

func TestProbeNamesTheDatabase(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b, other := newBank(t, server), newBank(t, server)
	names := make(chan string, 8)
	for range cap(names) { // several nodes at once
		go func() {
			name, err := (Driver{}).Probe(bounded(t), b.registration(t, server.DSN(b.database), ""), logger())
			if err != nil {
				t.Errorf("probe: %v", err)
			}
			names <- name
		}()
	}
	first := <-names
	for range cap(names) - 1 {
		if next := <-names; next != first {
			t.Errorf("one database has the names %q and %q", first, next)
		}
	}
	if !strings.HasPrefix(first, "mariadb:") || !strings.HasSuffix(first, "/"+b.database) {
		t.Errorf("the name is %q", first)
	}
	if second, err := (Driver{}).Probe(bounded(t), other.registration(t, server.DSN(other.database), ""), logger()); err != nil || second == first {
		t.Errorf("another database has the name %q, %v", second, err)
	}
	if n := b.number(t, "SELECT COUNT(*) FROM decree_branch"); n != 0 {
		t.Errorf("the rehearsal has left %d rows", n)
	}
	if n := b.number(t, "SELECT COUNT(*) FROM decree_fence"); n != 0 {
		t.Errorf("the rehearsal has left %d fences", n)
	}
	if strings.Contains(b.prepared(t), "rehearsal") {
		t.Error("the rehearsal is still prepared")
	}
}

// unfit probes and wants a refusal with all of these words.
func unfit(t *testing.T, r participants.Registration, words ...string) {
	t.Helper()
	_, err := (Driver{}).Probe(bounded(t), r, logger())
	if !errors.Is(err, participants.ErrUnfit) {
		t.Fatalf("probe: %v, want it to wrap ErrUnfit", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("probe: %v\nwant a word about %q", err, w)
		}
	}
}

func TestProbeRefusesTheServersSettings(t *testing.T) {
	server := databases.ForTest(t, databases.MariaDB, databases.Options{Settings: map[string]string{
		"log_bin": "binlog", "server_id": "1", "binlog_format": "STATEMENT", "sync_binlog": "0",
		"innodb_flush_log_at_trx_commit": "2", "max_connections": "50",
	}})
	b := newBank(t, server)
	r := b.registration(t, server.DSN(b.database), "")
	unfit(t, r, "innodb_flush_log_at_trx_commit = 1", "sync_binlog = 1", "binlog_format = MIXED", "gives 50 connections", "to 42 or less")
	b.exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")
	b.exec(t, "SET GLOBAL sync_binlog = 1")
	b.exec(t, "SET GLOBAL binlog_format = MIXED")
	unfit(t, r, "max_connections")
	r = b.registration(t, server.DSN(b.database), `, "max_connections": 42`)
	b.exec(t, "SET GLOBAL read_only = ON")
	unfit(t, r, "SET GLOBAL read_only = OFF")
	b.exec(t, "SET GLOBAL read_only = OFF")
	if _, err := (Driver{}).Probe(bounded(t), r, logger()); err != nil {
		t.Errorf("probe after all was changed: %v", err)
	}
}

func TestProbeSaysWhichRightsAreMissing(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	user := "u" + b.database[len("test_"):]
	account := user + "@localhost"
	b.exec(t, "CREATE USER "+account)
	b.exec(t, "GRANT SELECT, INSERT, UPDATE, DELETE ON `"+b.database+"`.* TO "+account)
	r := b.registration(t, strings.Replace(server.DSN(b.database), "root@", user+"@", 1), "")
	unfit(t, r, "GRANT PROCESS ON *.* TO '"+user+"'@'localhost'", "CREATE TABLE IF NOT EXISTS decree_branch", "CREATE TABLE IF NOT EXISTS decree_resource")
	b.exec(t, "GRANT PROCESS ON *.* TO "+account)
	owner := b.registration(t, server.DSN(b.database), "")
	if _, err := (Driver{}).Probe(bounded(t), owner, logger()); err != nil {
		t.Fatal(err)
	}
	// Somebody has made the tables: the right to do so is not needed.
	if _, err := (Driver{}).Probe(bounded(t), r, logger()); err != nil {
		t.Fatal(err)
	}
	b.exec(t, "REVOKE DELETE ON `"+b.database+"`.* FROM "+account)
	unfit(t, r, "GRANT SELECT, INSERT, UPDATE, DELETE ON decree_branch")
}

func TestProbeReadsTheCatalogue(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	b.exec(t, "CREATE TABLE journal (line TEXT) ENGINE=Aria")
	b.exec(t, "CREATE TABLE jour (line TEXT) ENGINE=InnoDB")
	r := b.registration(t, server.DSN(b.database), "")
	r.Config = bytes.Replace(r.Config, []byte(`"catalogue": {`), []byte(`"catalogue": {
		"typo": {"sql": "UPDATE acount SET balance = 0"},
		"syntax": {"sql": "UPDATE account balance"},
		"note": {"sql": "INSERT INTO Journal VALUES (?)", "params": ["line"]},
		"fine": {"sql": "INSERT INTO jour VALUES (?)", "params": ["line"]},`), 1)
	unfit(t, r, `"typo"`, "acount", `"syntax"`, `"note"`, "ALTER TABLE `journal` ENGINE = InnoDB")
	_, err := (Driver{}).Probe(bounded(t), r, logger())
	if strings.Contains(err.Error(), `"fine"`) {
		t.Errorf("probe: %v, though nothing is wrong with that", err)
	}
	// Where requests carry SQL, the log is all that can be told.
	var log bytes.Buffer
	open := b.registration(t, server.DSN(b.database), rawSQL)
	if _, err := (Driver{}).Probe(bounded(t), open, hclog.New(&hclog.LoggerOptions{Output: hclogSink{&log}})); err != nil || !strings.Contains(log.String(), "journal") {
		t.Errorf("probe: %v, log %s; want a warning about the journal", err, log.String())
	}
}

// A later release's tables are left alone.
func TestProbeRefusesLaterTables(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	r := b.registered(t, server.DSN(b.database), "")
	b.exec(t, "UPDATE decree_resource SET version = 2")
	unfit(t, r, "version 2")
}

// The marker tables may stand in a schema of their own.
func TestSchemaOfItsOwn(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	p := b.open(t, `, "schema": "`+databases.FreshDatabase(t, server)+`"`)
	branch := newBranch(add("x"))
	prepare(t, p, branch)
	commit(t, p, branch)
	commit(t, p, branch)
	if n := b.number(t, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'decree%'"); n != 0 {
		t.Errorf("%d marker tables stand in the database itself", n)
	}
}

func TestJudgeVersions(t *testing.T) {
	for version, word := range map[string]string{
		"10.11.19-MariaDB-0+deb12u1": "",
		"5.5.5-10.6.18-MariaDB":      "",
		"11.4.2-MariaDB-log":         "",
		"10.4.34-MariaDB":            "from 10.5 on",
		"5.5.68-MariaDB":             "from 10.5 on",
		"8.0.36":                     "works with MariaDB",
		"MariaDB":                    "cannot be read",
	} {
		err := judge(version, "a build")
		if word == "" && err != nil || word != "" && (err == nil || !strings.Contains(err.Error(), word)) {
			t.Errorf("%s: %v, want %q", version, err, word)
		}
	}
}

func TestConfigTellsEverythingAtOnce(t *testing.T) {
	err := (Driver{}).Check([]byte(`{"dsn": "x", "schema": "a;b", "max_connections": -1, "lock_timeout": "1500ms", "connect_timeout": "1h",
		"catalogue": {"a": {"sql": "COMMIT"}, "b": {"sql": "SELECT ?"}}}`))
	for _, word := range []string{`"dsn"`, `"schema"`, `"max_connections"`, `"lock_timeout"`, `"connect_timeout"`, `"a": a branch may not COMMIT`, `"b": the statement has 1 placeholders for 0 params`} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v\nwant a word about %s", err, word)
		}
	}
	for _, config := range []string{``, `null`, `{}`, `{"dsn": "env:A"}`, `{"dsn": "env:A", "raw_sql": true, "more": 1}`, `{"dsn": "env:A", "raw_sql": true} {}`, `{"dsn": "env:A", "raw_sql": true, "lock_timeout": 2}`} {
		if (Driver{}).Check([]byte(config)) == nil {
			t.Errorf("%s passes", config)
		}
	}
	if err := (Driver{}).Check([]byte(`{"dsn": "env:A", "raw_sql": true, "lock_timeout": "3s"}`)); err != nil {
		t.Error(err)
	}
}
