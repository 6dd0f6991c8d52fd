package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

func TestMain(m *testing.M) { os.Exit(databases.Run(m)) }

// bank is a database on a real server, with what a test needs around it.
type bank struct {
	server   *databases.Server
	database string
	db       *sql.DB // somebody who is not decree
}

// newBank makes a database with counters, accounts, and one key that is taken.
func newBank(t testing.TB, server *databases.Server) *bank {
	t.Helper()
	b := &bank{server: server, database: databases.FreshDatabase(t, server)}
	var err error
	if b.db, err = sql.Open("mysql", server.DSN(b.database)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.db.Close() }) //nolint:errcheck // nothing follows from it
	b.exec(t, "CREATE TABLE counter (name VARCHAR(64) PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB")
	b.exec(t, "CREATE TABLE account (id VARCHAR(64) PRIMARY KEY, balance DECIMAL(20,2) NOT NULL) ENGINE=InnoDB")
	b.exec(t, "CREATE TABLE taken (name VARCHAR(64) PRIMARY KEY) ENGINE=InnoDB")
	b.exec(t, "INSERT INTO taken VALUES ('seat')")
	return b
}

func (b *bank) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := b.db.ExecContext(context.Background(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (b *bank) number(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	if err := b.db.QueryRowContext(context.Background(), query, args...).Scan(&n); err != nil && err != sql.ErrNoRows {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (b *bank) count(t testing.TB, counter string) int {
	t.Helper()
	return b.number(t, "SELECT n FROM counter WHERE name = ?", counter)
}

// catalogue is what the tests' participants offer.
const catalogue = `{
  "add": {"sql": "INSERT INTO counter VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1", "params": ["counter"]},
  "debit": {"sql": "UPDATE account SET balance = balance - ? WHERE id = ? AND balance >= ?", "params": ["amount", "account", "amount"], "expect_rows": 1},
  "sit": {"sql": "INSERT INTO taken VALUES (?)", "params": ["seat"]},
  "look": {"sql": "SELECT n FROM counter WHERE name = ?", "params": ["counter"]}
}`

// registration is one of the bank, by a DSN in a file.
func (b *bank) registration(t testing.TB, dsn, more string) participants.Registration {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(path, []byte(dsn), 0o600); err != nil {
		t.Fatal(err)
	}
	return participants.Registration{
		Name:   "bank",
		Driver: "mysql",
		Config: fmt.Appendf(nil, `{"dsn": "file:%s", "catalogue": %s, "lock_timeout": "1s"%s}`, path, catalogue, more),
	}
}

// logger is quiet, unless a test is run with -v and DECREE_TEST_LOG.
func logger() hclog.Logger {
	if os.Getenv("DECREE_TEST_LOG") == "" {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug})
}

// open registers and opens the bank as a node does.
func (b *bank) open(t testing.TB, more string) *participant {
	t.Helper()
	return b.openAt(t, b.server.DSN(b.database), more)
}

func (b *bank) openAt(t testing.TB, dsn, more string) *participant {
	t.Helper()
	return openAs(t, b.registered(t, dsn, more))
}

// registered is the bank's registration with its identity.
func (b *bank) registered(t testing.TB, dsn, more string) participants.Registration {
	t.Helper()
	r := b.registration(t, dsn, more)
	var err error
	if r.Identity, err = (Driver{}).Probe(bounded(t), b.registration(t, b.server.DSN(b.database), more), logger()); err != nil {
		t.Fatal(err)
	}
	return r
}

func openAs(t testing.TB, r participants.Registration) *participant {
	t.Helper()
	opened, err := (Driver{}).Open(context.Background(), r, logger())
	if err != nil {
		t.Fatal(err)
	}
	p := opened.(*participant)
	t.Cleanup(func() { p.Close() }) //nolint:errcheck // it never fails
	until(t, "the driver has looked at the database", p.Recovers)
	return p
}

// patience is how long a test waits for what is to happen soon. Long enough for a
// loaded machine.
const patience = 60 * time.Second

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for ctx := bounded(t); !is(); {
		if sleep(ctx, time.Millisecond) != nil {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// cluster is one that talks to a bank.
const cluster = "c1"

// newBranch is a branch with a payload, as a leader of epoch 1 sends it.
func newBranch(payload string) participants.Branch {
	return participants.Branch{
		Cluster: cluster,
		TxID:    participanttest.NewTxID(txn.Time(time.Now().UnixNano())),
		Number:  1,
		Epoch:   1,
		Digest:  txn.NewBranch("bank", []byte(payload)).Digest,
		Payload: []byte(payload),
	}
}

func add(counter string) string {
	return fmt.Sprintf(`{"name": "add", "args": [%q]}`, counter)
}

func raw(sql string, args ...string) string {
	return fmt.Sprintf(`{"sql": %q, "args": [%s]}`, sql, strings.Join(args, ", "))
}

func prepare(t testing.TB, p participants.Participant, b participants.Branch) {
	t.Helper()
	if v, err := p.Prepare(bounded(t), b); err != nil || v.Kind != txn.VoteCommit {
		t.Fatalf("prepare %s: %s %q, %v; want a yes", b.Name(), v.Kind, v.Reason, err)
	}
}

func refused(t testing.TB, p participants.Participant, b participants.Branch, words ...string) {
	t.Helper()
	v, err := p.Prepare(bounded(t), b)
	if err != nil || v.Kind != txn.VoteAbort {
		t.Fatalf("prepare %s: %s, %v; want a no", b.Name(), v.Kind, err)
	}
	for _, w := range words {
		if !strings.Contains(v.Reason, w) {
			t.Fatalf("the no says %q, want %q in it", v.Reason, w)
		}
	}
}

func commit(t testing.TB, p participants.Participant, b participants.Branch) {
	t.Helper()
	if err := p.Commit(bounded(t), b); err != nil {
		t.Fatalf("commit %s: %v", b.Name(), err)
	}
}

func abort(t testing.TB, p participants.Participant, b participants.Branch) {
	t.Helper()
	if err := p.Abort(bounded(t), b); err != nil {
		t.Fatalf("abort %s: %v", b.Name(), err)
	}
}

func xidOf(b participants.Branch) string {
	return marker.Branch{Cluster: b.Cluster, TxID: b.TxID, Number: b.Number}.XID().String()
}

// byHand ends a prepared branch as an operator does: take it from its session,
// then end it.
func (b *bank) byHand(t testing.TB, p *participant, branch participants.Branch, verb string) {
	t.Helper()
	m, _ := name(branch)
	seen, err := p.look(bounded(t), m.GID())
	if err != nil || !seen.known {
		t.Fatalf("look: %+v, %v", seen, err)
	}
	if err := p.detach(bounded(t), seen.owner); err != nil {
		t.Fatal(err)
	}
	b.exec(t, verb+" "+xidOf(branch))
}
