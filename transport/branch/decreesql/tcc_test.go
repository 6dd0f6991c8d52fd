package decreesql_test

// These tests prove that a service whose barrier is in its own MariaDB database
// keeps the whole contract of a participant: the conformance suite runs against it
// through the real driver, a real connection and a real server, with restarts of
// the service, kills of the database, and connections that break at the commit.

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreesql"
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

const tallyTables = `CREATE TABLE counter (name VARCHAR(64) PRIMARY KEY, n INT NOT NULL DEFAULT 0, holder VARCHAR(300), KEY (holder)) ENGINE=InnoDB;
CREATE TABLE once (name VARCHAR(64) PRIMARY KEY) ENGINE=InnoDB; INSERT INTO once VALUES ('x');`

func (tally) Try(ctx context.Context, tx *sql.Tx, b branch.Branch) (branch.Vote, error) {
	var o order
	if err := json.Unmarshal(b.Payload, &o); err != nil {
		return branch.No("payload: %v", err), nil
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
		if _, err := tx.ExecContext(ctx, "INSERT INTO once VALUES ('x')"); err != nil {
			return branch.No("%v", err), nil
		}
	}
	return branch.Yes(), nil
}

func hold(ctx context.Context, tx *sql.Tx, name, holder string) (branch.Vote, error) {
	const lockWaitTimeout = 1205
	result, err := tx.ExecContext(ctx, `SET STATEMENT innodb_lock_wait_timeout = 1 FOR
INSERT INTO counter (name, holder) VALUES (?, ?) ON DUPLICATE KEY UPDATE holder = IF(holder IS NULL, VALUES(holder), holder)`, name, holder)
	var answer *mysql.MySQLError
	if errors.As(err, &answer) && answer.Number == lockWaitTimeout {
		return branch.No("%s: %s", name, answer.Message), nil
	}
	if err != nil {
		return branch.Vote{}, err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return branch.No("%s is locked", name), err
	}
	return branch.Yes(), nil
}

func (tally) Confirm(ctx context.Context, tx *sql.Tx, b branch.Branch) error {
	_, err := tx.ExecContext(ctx, "UPDATE counter SET n = n + 1, holder = NULL WHERE holder = ?", b.Name())
	return err
}

func (tally) Cancel(ctx context.Context, tx *sql.Tx, b branch.Branch) error {
	_, err := tx.ExecContext(ctx, "UPDATE counter SET holder = NULL WHERE holder = ?", b.Name())
	return err
}

// process is a service's process, without the process: its pool, its server, and
// the driver that calls it.
type process struct {
	db     *sql.DB
	driver participants.Participant
	stop   func()
}

func start(t *testing.T, dsn string, dial dialer) *process {
	t.Helper()
	p := &process{db: newDB(t, dsn, dial)}
	server, err := decreesql.NewTCC(t.Context(), p.db, tally{}, branch.Config{})
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
		p.db.Close() // its connections may be dead, and then it says so
	}
	t.Cleanup(p.stop)
	return p
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// newDB opens a pool. dial, where it is not nil, makes its connections.
func newDB(t testing.TB, dsn string, dial dialer) *sql.DB {
	t.Helper()
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if dial != nil {
		config.DialFunc = dial
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { db.Close() })
	return db
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
	server := databases.ForTest(t, databases.MariaDB, databases.Options{})
	database := databases.FreshDatabase(t, server)
	if err := server.Exec(t.Context(), database, tallyTables); err != nil {
		t.Fatal(err)
	}
	dsn := server.DSN(database)
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		p := start(t, dsn, nil)
		// The suite plays more clusters than a service takes.
		if _, err := p.db.ExecContext(t.Context(), "DELETE FROM decree_tcc_fence"); err != nil {
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
			Count:     func(t *testing.T, counter string) int { return count(t, dsn, counter) },
			Refused:   func() []byte { return one("refuse")("refused") },
			ReadOnly:  func() []byte { return one("look")("looked") },
			Conflicts: true,
			Both: func(first, second string) []byte {
				return order{Counters: []string{first, second}}.payload()
			},
			FailsLate: one("fail"),
			Block:     func(t *testing.T, counter string) func() { return block(t, p.db, counter) },
			Second:    func(t *testing.T) participants.Participant { return start(t, dsn, nil).driver },
			Crash: func(t *testing.T) participants.Participant {
				if err := errors.Join(server.Kill(), server.Restart(t.Context())); err != nil {
					t.Fatal(err)
				}
				return p.driver
			},
			Cut: func(t *testing.T, arrives bool) participants.Participant {
				s := &scissors{word: "\x03COMMIT", arrives: arrives} // and not READ COMMITTED
				cut := start(t, dsn, s.dial)
				s.armed.Store(true)
				return cut.driver
			},
		}
	}})
}

// count reads a counter as anybody else sees it. It asks with a connection of its
// own, because the database may just have been killed.
func count(t *testing.T, dsn, counter string) (n int) {
	t.Helper()
	db := newDB(t, dsn, nil)
	defer db.Close()
	err := db.QueryRowContext(t.Context(), "SELECT n FROM counter WHERE name = ?", counter).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	return n
}

// block has somebody else hold the lock on a counter.
func block(t *testing.T, db *sql.DB, counter string) (release func()) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "INSERT INTO counter (name) VALUES (?)", counter); err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "SELECT n FROM counter WHERE name = ? FOR UPDATE", counter); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// scissors cut the first connection that says a word once they are armed: before
// the word leaves, or after it, so that only its answer is lost.
type scissors struct {
	word    string
	arrives bool
	armed   atomic.Bool
	cuts    atomic.Int32
}

func (s *scissors) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &cuttable{Conn: conn, scissors: s}, nil
}

type cuttable struct {
	net.Conn
	scissors *scissors
}

var errCut = errors.New("cut by the test")

func (c *cuttable) Write(b []byte) (int, error) {
	s := c.scissors
	if !bytes.Contains(b, []byte(s.word)) || !s.armed.CompareAndSwap(true, false) {
		return c.Conn.Write(b)
	}
	s.cuts.Add(1)
	if s.arrives {
		if _, err := c.Conn.Write(b); err != nil {
			return 0, err
		}
		_, _ = c.Read(make([]byte, 1)) // the answer shows that it was carried out
	}
	c.Close()
	return 0, errCut
}
