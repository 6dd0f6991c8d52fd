package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

func TestMain(m *testing.M) { os.Exit(databases.Run(m)) }

// patience is how long a call may take before a test calls it stuck. It is no
// promise: long enough for a database on a loaded machine.
const patience = 30 * time.Second

// bench is a database with the tables that tests work on.
type bench struct {
	testing.TB
	server   *databases.Server
	database string
}

// tables of the tests. A counter's name is its key; what is owed must be to a
// counter that exists, which is looked at only when the transaction ends.
const tables = `
CREATE TABLE counter (name text PRIMARY KEY, n int NOT NULL CHECK (n >= 0));
CREATE TABLE owed (name text REFERENCES counter DEFERRABLE INITIALLY DEFERRED);
`

// catalogue of the tests.
const catalogue = `{
	"add": {"sql": "INSERT INTO counter AS c VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET n = c.n + 1", "params": ["name"], "expect_rows": 1},
	"add_quietly": {"sql": "INSERT INTO counter AS c VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET n = c.n + 1", "params": ["name"]},
	"take": {"sql": "UPDATE counter SET n = n - $2 WHERE name = $1", "params": ["name", "much"], "expect_rows": 1},
	"make": {"sql": "INSERT INTO counter VALUES ($1, 1)", "params": ["name"]},
	"owe": {"sql": "INSERT INTO owed VALUES ($1)", "params": ["name"]},
	"read": {"sql": "SELECT n FROM counter WHERE name = $1", "params": ["name"]}
}`

func newBench(t testing.TB, server *databases.Server) *bench {
	t.Helper()
	b := &bench{TB: t, server: server, database: databases.FreshDatabase(t, server)}
	b.exec(tables)
	return b
}

func sharedBench(t testing.TB) *bench {
	t.Helper()
	return newBench(t, databases.Shared(t, databases.Postgres))
}

// exec runs SQL as the superuser.
func (b *bench) exec(sql string) {
	b.Helper()
	if err := b.server.Exec(b.Context(), b.database, sql); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

// ask runs a query as the superuser and returns its text.
func (b *bench) ask(sql string) string {
	b.Helper()
	out, err := b.server.Query(b.Context(), b.database, sql)
	if err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
	return strings.TrimSpace(out)
}

// connect opens a connection that the test talks over itself.
func (b *bench) connect() *pgx.Conn {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), b.server.DSN(b.database))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // the test is over
	return conn
}

// secretFile keeps a secret as an operator would.
func secretFile(t testing.TB, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "file:" + path
}

// registrationOf describes a participant on a DSN; more goes into its
// configuration.
func registrationOf(t testing.TB, dsn string, more map[string]any) participants.Registration {
	t.Helper()
	config := map[string]any{
		"dsn":          secretFile(t, dsn),
		"catalogue":    json.RawMessage(catalogue),
		"lock_timeout": "250ms",
	}
	for name, value := range more {
		config[name] = value
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return participants.Registration{Name: "orders", Driver: "postgres", Config: raw, Revision: 1}
}

// registered is a registration of the bench's database, as it stands after its
// probe.
func (b *bench) registered(more map[string]any) participants.Registration {
	b.Helper()
	r := registrationOf(b, b.server.DSN(b.database), more)
	var err error
	if r.Identity, err = (Driver{}).Probe(b.Context(), r, hclog.NewNullLogger()); err != nil {
		b.Fatal(err)
	}
	return r
}

// opened opens a registration until the test ends.
func opened(t testing.TB, r participants.Registration) *participant {
	t.Helper()
	p, err := Driver{}.Open(t.Context(), r, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() }) //nolint:errcheck // the test is over
	return p.(*participant)
}

// participant opens the bench's database.
func (b *bench) participant() *participant {
	b.Helper()
	return opened(b, b.registered(nil))
}

func (b *bench) count(counter string) int {
	b.Helper()
	var n int
	out := b.ask("SELECT coalesce(sum(n), 0) FROM counter WHERE name = '" + counter + "'")
	if _, err := fmt.Sscan(out, &n); err != nil {
		b.Fatalf("counter %s: %q", counter, out)
	}
	return n
}

// one is the payload of one named statement.
func one(name string, args ...any) []byte { return payload(call{name, args}) }

type call struct {
	Name string `json:"name"`
	Args []any  `json:"args"`
}

func payload(calls ...call) []byte {
	raw, err := json.Marshal(map[string]any{"statements": calls})
	if err != nil {
		panic(err)
	}
	return raw
}

// sqlOf is the payload of a statement that the request carries itself.
func sqlOf(sql string, args ...any) []byte {
	raw, err := json.Marshal(map[string]any{"statements": []any{map[string]any{"sql": sql, "args": append([]any{}, args...)}}})
	if err != nil {
		panic(err)
	}
	return raw
}

// cluster of the tests that need only one.
const cluster = "c1"

// branchOf is a new branch with a payload.
func branchOf(payload []byte) participants.Branch {
	return participants.Branch{
		Cluster: cluster,
		TxID:    participanttest.NewTxID(txn.Time(time.Now().UnixNano())),
		Number:  1,
		Epoch:   1,
		Digest:  txn.NewBranch("orders", payload).Digest,
		Payload: payload,
	}
}

// phaseTwo is a branch as commit and abort carry it.
func phaseTwo(b participants.Branch) participants.Branch {
	b.Digest, b.Payload = txn.Digest{}, nil
	return b
}

func within30s(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// voteOf prepares a branch, which must give a certain answer.
func voteOf(t testing.TB, p participants.Participant, b participants.Branch) participants.Vote {
	t.Helper()
	v, err := p.Prepare(within30s(t), b)
	if err != nil {
		t.Fatalf("prepare: %v, want a vote", err)
	}
	return v
}

func mustPrepare(t testing.TB, p participants.Participant, b participants.Branch) {
	t.Helper()
	if v := voteOf(t, p, b); v.Kind != txn.VoteCommit {
		t.Fatalf("prepare: %s %q, want a yes", v.Kind, v.Reason)
	}
}

// mustRefuse wants a no that says these words.
func mustRefuse(t testing.TB, p participants.Participant, b participants.Branch, words ...string) {
	t.Helper()
	v := voteOf(t, p, b)
	if v.Kind != txn.VoteAbort {
		t.Fatalf("prepare: %s, want a no", v.Kind)
	}
	for _, word := range words {
		if !strings.Contains(v.Reason, word) {
			t.Fatalf("the no says %q, want %q in it", v.Reason, word)
		}
	}
}

func mustCommit(t testing.TB, p participants.Participant, b participants.Branch) {
	t.Helper()
	if err := p.Commit(within30s(t), phaseTwo(b)); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func mustAbort(t testing.TB, p participants.Participant, b participants.Branch) {
	t.Helper()
	if err := p.Abort(within30s(t), phaseTwo(b)); err != nil {
		t.Fatalf("abort: %v", err)
	}
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for ctx := within30s(t); !so(); {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not in %s", what, patience)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
