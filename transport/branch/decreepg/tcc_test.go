package decreepg_test

// These tests prove that a service whose barrier is in its own PostgreSQL database
// keeps the whole contract of a participant: the conformance suite runs against it
// through the real driver, a real connection and a real server, with restarts of
// the service, kills of the database, and connections that break at the commit.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreepg"
)

func TestMain(m *testing.M) { os.Exit(databases.Run(m)) }

// patience bounds what a test waits for; it is reached only by a failure.
const patience = 30 * time.Second

// order is the payload of the test service: counters to raise by one.
type order struct {
	Counters []string
	Then     string // "refuse", "look" or "fail": what Try does after it has written
}

func (o order) payload() []byte {
	raw, _ := json.Marshal(o)
	return raw
}

// tally is a service of counters. Try holds them, Confirm raises them.
type tally struct{}

const tallyTables = `CREATE TABLE counter (name text PRIMARY KEY, n int NOT NULL DEFAULT 0, holder text);
CREATE TABLE once (name text PRIMARY KEY); INSERT INTO once VALUES ('x');`

func (tally) Try(ctx context.Context, tx pgx.Tx, b branch.Branch) (branch.Vote, error) {
	var o order
	if err := json.Unmarshal(b.Payload, &o); err != nil {
		return branch.No("payload: %v", err), nil
	}
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '300ms'"); err != nil {
		return branch.Vote{}, err
	}
	for _, name := range o.Counters {
		vote, err := hold(ctx, tx, name, b.Name())
		if err != nil || vote != branch.Yes() {
			return vote, err
		}
	}
	switch o.Then {
	case "refuse":
		return branch.No("asked to"), nil
	case "look":
		return branch.ReadOnly(), nil
	case "fail":
		if _, err := tx.Exec(ctx, "INSERT INTO once VALUES ('x')"); err != nil {
			return branch.No("%v", err), nil
		}
	}
	return branch.Yes(), nil
}

func hold(ctx context.Context, tx pgx.Tx, name, holder string) (branch.Vote, error) {
	const lockNotAvailable = "55P03"
	tag, err := tx.Exec(ctx, `INSERT INTO counter AS c (name, holder) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET holder = $2 WHERE c.holder IS NULL`, name, holder)
	var answer *pgconn.PgError
	switch {
	case errors.As(err, &answer) && answer.Code == lockNotAvailable:
		return branch.No("%s: %s", name, answer.Message), nil
	case err != nil:
		return branch.Vote{}, err
	case tag.RowsAffected() == 0:
		return branch.No("%s is locked", name), nil
	}
	return branch.Yes(), nil
}

func (tally) Confirm(ctx context.Context, tx pgx.Tx, b branch.Branch) error {
	_, err := tx.Exec(ctx, "UPDATE counter SET n = n + 1, holder = NULL WHERE holder = $1", b.Name())
	return err
}

func (tally) Cancel(ctx context.Context, tx pgx.Tx, b branch.Branch) error {
	_, err := tx.Exec(ctx, "UPDATE counter SET holder = NULL WHERE holder = $1", b.Name())
	return err
}

// process is a service's process, without the process: its pool, its server, and
// the driver that calls it.
type process struct {
	pool   *pgxpool.Pool
	driver participants.Participant
	stop   func()
}

func start(t *testing.T, dsn string, change func(*pgxpool.Config)) *process {
	t.Helper()
	p := &process{pool: newPool(t, dsn, change)}
	server, err := decreepg.NewTCC(t.Context(), p.pool, tally{}, branch.Config{})
	if err != nil {
		t.Fatal(err)
	}
	target, stop := serve(t, server)
	p.driver = openDriver(t, target)
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := p.driver.Close(); err != nil {
			t.Errorf("close the driver: %v", err)
		}
		stop()
		p.pool.Close()
	}
	t.Cleanup(p.stop)
	return p
}

func newPool(t testing.TB, dsn string, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 16
	if change != nil {
		change(config)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// serve runs a server on a free port until stop.
func serve(t *testing.T, s *branch.Server) (target string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}

// openDriver opens the coordinator's end and waits until it knows that the service
// lists its branches.
func openDriver(t *testing.T, target string) participants.Participant {
	t.Helper()
	config, err := json.Marshal(grpcparticipant.Config{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	p, err := grpcparticipant.Driver{}.Open(t.Context(), participants.Registration{Name: "service", Config: config}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the driver learns that the service lists its branches", p.Recovers)
	return p
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestTCCKeepsTheContract(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	database := databases.FreshDatabase(t, server)
	if err := server.Exec(t.Context(), database, tallyTables); err != nil {
		t.Fatal(err)
	}
	dsn := server.DSN(database)
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		p := start(t, dsn, nil)
		// The suite plays more clusters than a service takes.
		if _, err := p.pool.Exec(t.Context(), "DELETE FROM decree_tcc_fence"); err != nil {
			t.Fatal(err)
		}
		one := func(then string) func(string) []byte {
			return func(counter string) []byte { return order{Counters: []string{counter}, Then: then}.payload() }
		}
		return &participanttest.Subject{
			Participant: p.driver,
			Restart: func(t *testing.T) participants.Participant {
				p.stop()
				p = start(t, dsn, nil)
				return p.driver
			},
			Effect:    one(""),
			Count:     func(t *testing.T, counter string) int { return count(t, server, database, counter) },
			Refused:   func() []byte { return one("refuse")("refused") },
			ReadOnly:  func() []byte { return one("look")("looked") },
			Conflicts: true,
			Both: func(first, second string) []byte {
				return order{Counters: []string{first, second}}.payload()
			},
			FailsLate: one("fail"),
			Block:     func(t *testing.T, counter string) func() { return block(t, p.pool, counter) },
			Second:    func(t *testing.T) participants.Participant { return start(t, dsn, nil).driver },
			Crash: func(t *testing.T) participants.Participant {
				if err := errors.Join(server.Kill(), server.Restart(t.Context())); err != nil {
					t.Fatal(err)
				}
				return p.driver
			},
			Cut: func(t *testing.T, arrives bool) participants.Participant {
				s := &scissors{arrives: arrives}
				cut := start(t, dsn, s.hold)
				s.armed.Store(true)
				return cut.driver
			},
		}
	}})
}

// count reads a counter as anybody else sees it. It asks with a connection of its
// own, because the database may just have been killed.
func count(t *testing.T, server *databases.Server, database, counter string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	err = conn.QueryRow(t.Context(), "SELECT n FROM counter WHERE name = $1", counter).Scan(&n)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	return n
}

// block has somebody else hold the lock on a counter.
func block(t *testing.T, pool *pgxpool.Pool, counter string) (release func()) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), "INSERT INTO counter (name) VALUES ($1)", counter); err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT FROM counter WHERE name = $1 FOR UPDATE", counter); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// scissors cut the first connection that commits once they are armed: before the
// commit leaves, or after it, so that only its answer is lost.
type scissors struct {
	arrives bool
	armed   atomic.Bool
	cuts    atomic.Int32
	word    []byte // COMMIT where it is empty
}

func (s *scissors) hold(c *pgxpool.Config) {
	dial := c.ConnConfig.DialFunc
	c.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &cuttable{Conn: conn, scissors: s}, err
	}
}

type cuttable struct {
	net.Conn
	scissors *scissors
}

var errCut = errors.New("cut by the test")

func (c *cuttable) Write(b []byte) (int, error) {
	s := c.scissors
	word := s.word
	if word == nil {
		word = []byte("Q\x00\x00\x00\x0bcommit\x00") // and not "read committed"
	}
	if !bytes.Contains(b, word) || !s.armed.CompareAndSwap(true, false) {
		return c.Conn.Write(b)
	}
	s.cuts.Add(1)
	if s.arrives {
		if _, err := c.Conn.Write(b); err != nil {
			return 0, err
		}
		c.drain()
	}
	c.Close()
	return 0, errCut
}

// drain waits for the answer, which shows that the commit was carried out.
func (c *cuttable) drain() { _, _ = c.Read(make([]byte, 1)) }
