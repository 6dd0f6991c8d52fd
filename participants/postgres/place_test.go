package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// What is proven here: a connection that leads to the wrong place means "ask
// again" and an alarm, never a heuristic (rule R9); a connection that is refused
// says why and shows nothing of its secret; and a secret may change under traffic.

// steerable is a registration whose DSN can be changed, as an operator changes a
// file.
type steerable struct {
	participants.Registration
	path string
}

func (b *bench) steerable() steerable {
	b.Helper()
	r := b.registered(nil)
	path := secretFile(b, b.server.DSN(b.database))
	r.Config = bytes.Replace(r.Config, fieldOf(b, r.Config, "dsn"), []byte(`"`+path+`"`), 1)
	return steerable{r, strings.TrimPrefix(path, "file:")}
}

// fieldOf finds the value of a string field of a JSON object, with its quotes.
func fieldOf(t testing.TB, object []byte, name string) []byte {
	t.Helper()
	_, after, ok := bytes.Cut(object, []byte(`"`+name+`":"`))
	end := bytes.IndexByte(after, '"')
	if !ok || end < 0 {
		t.Fatalf("no field %s in %s", name, object)
	}
	return append(append([]byte{'"'}, after[:end]...), '"')
}

func (s steerable) steer(t testing.TB, dsn string) {
	t.Helper()
	if err := os.WriteFile(s.path, []byte(dsn), 0o600); err != nil {
		t.Fatal(err)
	}
}

// loud opens a registration and returns what it logs.
func loud(t testing.TB, r participants.Registration) (*participant, *journal) {
	t.Helper()
	j := &journal{}
	p, err := Driver{}.Open(t.Context(), r, hclog.New(&hclog.LoggerOptions{Output: j}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() }) //nolint:errcheck // the test is over
	return p.(*participant), j
}

// journal is a log that a test reads.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// nothingConcluded wants errors from every call that are no heuristics.
func nothingConcluded(t testing.TB, p participants.Participant, b participants.Branch, where string) {
	t.Helper()
	ctx := within30s(t)
	_, voted := p.Prepare(ctx, b)
	_, listed := p.Recover(ctx, b.Cluster)
	_, told := p.(participants.StatusReporter).Status(ctx, b)
	for call, err := range map[string]error{
		"prepare": voted, "commit": p.Commit(ctx, phaseTwo(b)), "abort": p.Abort(ctx, phaseTwo(b)), "recover": listed, "status": told,
	} {
		var h *participants.Heuristic
		if err == nil || errors.As(err, &h) {
			t.Errorf("%s %s: %v, want an error that asks to try again", call, where, err)
		}
	}
}

// R9: another database, on the same server or on another, is empty of our branches
// and proves nothing.
func TestAnotherDatabaseProvesNothing(t *testing.T) {
	b, twin := sharedBench(t), sharedBench(t)
	twin.registered(nil) // it has marker tables, and they are empty
	s := b.steerable()
	br := branchOf(one("add", "x"))
	mustPrepare(t, opened(t, s.Registration), br)

	s.steer(t, twin.server.DSN(twin.database))
	p, j := loud(t, s.Registration)
	nothingConcluded(t, p, br, "at another database")
	if p.Recovers() {
		t.Error("the participant says that it recovers what it cannot see")
	}
	if !strings.Contains(j.String(), "wrong place") || !strings.Contains(j.String(), "/"+twin.database) {
		t.Errorf("no alarm in the log: %s", j)
	}

	s.steer(t, b.server.DSN(b.database))
	mustCommit(t, p, br)
	fit(t, p)
	if n := b.count("x"); n != 1 {
		t.Errorf("counter x is %d after the commit, want 1", n)
	}
}

// R9: the same for a standby, which may not have the branch yet, and whose
// identity is the primary's.
func TestStandbyProvesNothing(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{Settings: map[string]string{"hot_standby": "on"}})
	b := newBench(t, server)
	r := b.registered(nil)
	br := branchOf(one("add", "x"))
	mustPrepare(t, opened(t, r), br)
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	signal := filepath.Join(server.Dir(), "data", "standby.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil { //nolint:gosec // the server's user reads it
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, j := loud(t, r)
	nothingConcluded(t, p, br, "at a standby")
	if !strings.Contains(j.String(), "standby") {
		t.Errorf("no alarm in the log: %s", j)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(signal); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, p, br)
}

// A database that takes no writes for a while is asked again.
func TestReadOnlyDatabaseProvesNothing(t *testing.T) {
	b := sharedBench(t)
	r := b.registered(nil)
	br, gone := branchOf(one("add", "x")), branchOf(one("add", "y"))
	mustPrepare(t, opened(t, r), br)
	b.exec("ALTER DATABASE " + b.database + " SET default_transaction_read_only = on")
	p, j := loud(t, r)
	nothingConcluded(t, p, br, "at a read-only database")
	nothingConcluded(t, p, gone, "at a read-only database")
	if !strings.Contains(j.String(), "default_transaction_read_only") {
		t.Errorf("no alarm in the log: %s", j)
	}
	b.exec("SET default_transaction_read_only = off; ALTER DATABASE " + b.database + " RESET default_transaction_read_only")
	mustCommit(t, p, br)
}

// A database that is gone for a moment costs errors and no decision, and the
// participant needs nobody's help to find it again.
func TestServerThatReturnsIsFound(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	b := newBench(t, server)
	p := opened(t, b.registered(nil))
	var waiting []participants.Branch
	for i := range 8 {
		br := branchOf(one("add", fmt.Sprint("x", i)))
		mustPrepare(t, p, br)
		waiting = append(waiting, br)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	nothingConcluded(t, p, waiting[0], "at a dead server")
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, br := range waiting {
		mustCommit(t, p, br)
	}
	mustPrepare(t, p, branchOf(one("add", "y")))
}

// R9: a role that may not finish a branch is told which may, and the branch waits.
func TestAnotherRoleIsToldWhich(t *testing.T) {
	b := sharedBench(t)
	role := "role_" + b.database
	b.exec("CREATE ROLE " + role + " LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO " + role)
	r := b.registered(nil)
	br := branchOf(one("add", "x"))
	mustPrepare(t, opened(t, r), br)
	b.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON decree_branch, decree_fence, decree_schema TO " + role)
	other := registrationOf(t, strings.Replace(b.server.DSN(b.database), "user=postgres", "user="+role, 1), nil)
	p, j := loud(t, other)
	for what, err := range map[string]error{"commit": p.Commit(within30s(t), phaseTwo(br)), "abort": p.Abort(within30s(t), phaseTwo(br))} {
		var h *participants.Heuristic
		if err == nil || errors.As(err, &h) || !strings.Contains(err.Error(), "use the role that prepared it") {
			t.Errorf("%s by another role: %v", what, err)
		}
	}
	fit(t, p)
	if !strings.Contains(j.String(), "another role has prepared branches") {
		t.Errorf("the preflight does not warn of it: %s", j)
	}
	mustCommit(t, opened(t, r), br)
}

// What was read out of a secret is in no error and in no line of the log, whatever
// is wrong with it.
func TestSecretsStaySecret(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	b := newBench(t, server)
	b.exec("CREATE ROLE app LOGIN PASSWORD 'hunter2'; GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON SCHEMA public TO app")
	wantsPasswords(b)
	socket := server.Dir()
	identity, err := probe(t.Context(), registrationOf(t, server.DSN(b.database), nil), mustConfig(t, registrationOf(t, server.DSN(b.database), nil)), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	for name, dsn := range map[string]string{
		"wrong password":  "host='" + socket + "' user=app password=marlin7 dbname=" + b.database,
		"wrong role":      "host='" + socket + "' user=marlin7 password=x dbname=" + b.database,
		"wrong database":  "host='" + socket + "' user=app password=hunter2 dbname=marlin7",
		"wrong host":      "postgres://app:p@marlin7.invalid:5432/orders",
		"slash in it":     "postgres://app:mar/lin7@localhost:1/orders",
		"wrong socket":    "host=/nowhere/marlin7 user=app password=marlin7",
		"nobody listens":  "postgres://app:marlin7@127.0.0.1:1/marlin7?sslmode=disable",
		"no DSN":          "marlin7",
		"bad URL":         "postgres://app:mar%zzlin7@db/orders",
		"bad key":         "host=db marlin7=x password=marlin7",
		"bad port":        "host=db port=marlin7 password=marlin7",
		"TLS without any": "postgres://app:marlin7@127.0.0.1:1/orders?sslmode=require",
		"bad certificate": "host=db sslmode=verify-full sslrootcert=/nowhere/marlin7 password=marlin7",
	} {
		t.Run(name, func(t *testing.T) {
			r := registrationOf(t, dsn, nil)
			r.Identity = identity
			p, j := loud(t, r)
			br := branchOf(one("add", "x"))
			_, prepared := p.Prepare(within30s(t), br)
			_, probed := Driver{}.Probe(within30s(t), r, hclog.New(&hclog.LoggerOptions{Output: j}))
			if !errors.Is(probed, participants.ErrUnfit) {
				t.Errorf("probe: %v, want ErrUnfit", probed)
			}
			eventually(t, "the log tells of it", func() bool { return strings.Contains(j.String(), "cannot take part") })
			said := fmt.Sprintf("%v\n%+v\n%v\n%#v\n%v\n%v", prepared, prepared, probed, probed.Error(), p.Commit(within30s(t), phaseTwo(br)), j)
			for _, secret := range []string{"marlin7", "lin7", "hunter2", "mar/", "mar%"} {
				if strings.Contains(said, secret) {
					t.Errorf("%q is in\n%s", secret, said)
				}
			}
			if prepared == nil || !strings.Contains(said, "file:") {
				t.Errorf("prepare: %v; want an error, and the reference named", prepared)
			}
		})
	}
}

func mustConfig(t testing.TB, r participants.Registration) Config {
	t.Helper()
	c, err := parseConfig(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantsPasswords makes the server ask everybody but its superuser for one.
func wantsPasswords(b *bench) {
	b.Helper()
	hba := filepath.Join(b.server.Dir(), "data", "pg_hba.conf")
	lines := "local all postgres trust\nlocal all all scram-sha-256\n"
	if err := os.WriteFile(hba, []byte(lines), 0o600); err != nil {
		b.Fatal(err)
	}
	b.exec("SELECT pg_reload_conf()")
}

// A password that is changed is read again, without a restart of anything.
func TestPasswordMayChange(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	b := newBench(t, server)
	b.exec("CREATE ROLE app LOGIN PASSWORD 'first'; GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON SCHEMA public TO app")
	wantsPasswords(b)
	dsn := func(password string) string {
		return "host='" + server.Dir() + "' user=app password=" + password + " dbname=" + b.database
	}
	s := b.steerable()
	s.steer(t, dsn("first"))
	p := opened(t, s.Registration)
	b.exec("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
	br := branchOf(one("add", "x"))
	mustPrepare(t, p, br)
	b.exec("ALTER ROLE app PASSWORD 'second'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
	if err := p.Commit(within30s(t), phaseTwo(br)); err == nil {
		t.Error("a commit went through with the old password")
	}
	s.steer(t, dsn("second"))
	mustCommit(t, p, br)
}

// A pooler between the node and the server would hand a branch's transaction to
// others. It shows by the number of the server's process.
func TestPoolerIsFoundOut(t *testing.T) {
	b := sharedBench(t)
	dir := impostor(t, filepath.Join(b.server.Dir(), ".s.PGSQL.5432"))
	r := registrationOf(t, strings.ReplaceAll(b.server.DSN(b.database), b.server.Dir(), dir), nil)
	nothingConcluded(t, opened(t, r), branchOf(one("add", "x")), "through a pooler")
	_, err := Driver{}.Probe(t.Context(), r, hclog.NewNullLogger())
	if !errors.Is(err, participants.ErrUnfit) || !strings.Contains(err.Error(), "pooler") {
		t.Errorf("probe through a pooler: %v", err)
	}
}
