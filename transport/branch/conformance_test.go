package branch_test

// These tests prove that services written with this package keep the whole
// contract of a participant: the conformance suite that every driver passes runs
// against a Local and a Foreign service, through the real driver and a real
// connection, with restarts in the middle.

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/transport/branch"
)

// patience bounds what a test waits for; it is reached only by a failure.
const patience = 30 * time.Second

// Payloads of the test services; any other names a counter to be raised.
const (
	refuse = "refuse!"
	look   = "look!"
)

// tally is a Local service of counters. It writes before it makes up its mind, so
// that what is to be undone is there to be undone.
type tally struct{}

var tallyName = []byte("tally")

func (tally) Prepare(tx *branch.Tx, b branch.Branch) (branch.Vote, error) {
	name := string(b.Payload)
	switch name {
	case refuse:
		return branch.No("asked to"), add(tx.Tx, "refused", 1)
	case look:
		return branch.ReadOnly(), add(tx.Tx, "looked", 1)
	}
	if err := add(tx.Tx, "prepares", 1); err != nil {
		return branch.Vote{}, err
	}
	if err := tx.Hold(name); err != nil {
		return branch.No("%v", err), nil
	}
	return branch.Yes(), nil
}

func (tally) Commit(tx *branch.Tx, b branch.Branch) error { return add(tx.Tx, string(b.Payload), 1) }

func (tally) Abort(tx *branch.Tx, b branch.Branch) error { return add(tx.Tx, "aborts", 1) }

func add(tx *bbolt.Tx, name string, n int) error {
	bucket, err := tx.CreateBucketIfNotExists(tallyName)
	if err != nil {
		return err
	}
	return bucket.Put([]byte(name), []byte(strconv.Itoa(value(tx, name)+n)))
}

func value(tx *bbolt.Tx, name string) (n int) {
	if b := tx.Bucket(tallyName); b != nil {
		n, _ = strconv.Atoi(string(b.Get([]byte(name))))
	}
	return n
}

func count(t *testing.T, db *bbolt.DB, name string) (n int) {
	t.Helper()
	if err := db.View(func(tx *bbolt.Tx) error { n = value(tx, name); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// abroad is a Foreign service: counters in a system of its own, which knows
// nothing of the server's file and is idempotent on the branch's name, as the
// package asks for.
type abroad struct{ db *bbolt.DB }

func (a abroad) Prepare(_ context.Context, b branch.Branch) (vote branch.Vote, err error) {
	switch string(b.Payload) {
	case refuse:
		return branch.No("asked to"), nil
	case look:
		return branch.ReadOnly(), nil
	}
	err = a.db.Update(func(tx *bbolt.Tx) error {
		w := worldOf(tx)
		switch holder, fate := w.get("held", b.Payload), w.get("fate", []byte(b.Name())); {
		case fate == "aborted":
			return errors.New("a prepare after its abort reached the foreign system")
		case fate == "prepared":
			vote = branch.Yes()
		case holder != "":
			vote = branch.No("%s has it", holder)
		default:
			vote = branch.Yes()
			w.put("held", b.Payload, b.Name())
			w.put("fate", []byte(b.Name()), "prepared")
		}
		return nil
	})
	return vote, err
}

func (a abroad) Commit(_ context.Context, b branch.Branch) error { return a.end(b, "committed", 1) }

func (a abroad) Abort(_ context.Context, b branch.Branch) error { return a.end(b, "aborted", 0) }

func (a abroad) end(b branch.Branch, fate string, n int) error {
	return a.db.Update(func(tx *bbolt.Tx) error {
		w := worldOf(tx)
		if w.get("held", b.Payload) == b.Name() {
			w.put("held", b.Payload, "")
		}
		if w.get("fate", []byte(b.Name())) == fate {
			return nil
		}
		w.put("fate", []byte(b.Name()), fate)
		return add(tx, string(b.Payload), n)
	})
}

// world is the foreign system's own books.
type world struct{ b *bbolt.Bucket }

func worldOf(tx *bbolt.Tx) world {
	b, err := tx.CreateBucketIfNotExists([]byte("world"))
	if err != nil {
		panic(err)
	}
	return world{b}
}

func (w world) get(table string, key []byte) string {
	return string(w.b.Get(append([]byte(table+"/"), key...)))
}

func (w world) put(table string, key []byte, v string) {
	if err := w.b.Put(append([]byte(table+"/"), key...), []byte(v)); err != nil {
		panic(err)
	}
}

// process is a service's process, without the process: its file, its server, and
// the driver that calls it.
type process struct {
	path   string
	over   func(*bbolt.DB) (*branch.Server, error)
	db     *bbolt.DB
	driver participants.Participant
	stop   func()
}

func (p *process) start(t *testing.T, opts ...grpc.ServerOption) {
	t.Helper()
	p.db = openFile(t, p.path)
	server, err := p.over(p.db)
	if err != nil {
		t.Fatal(err)
	}
	target, stop := serve(t, server, opts...)
	p.driver = openDriver(t, target)
	p.stop = func() {
		if err := p.driver.Close(); err != nil {
			t.Errorf("close the driver: %v", err)
		}
		stop()
		if err := p.db.Close(); err != nil {
			t.Errorf("close the file: %v", err)
		}
	}
}

func openFile(t *testing.T, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// serve runs a server on a free port until stop.
func serve(t *testing.T, s *branch.Server, opts ...grpc.ServerOption) (target string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l, opts...) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}

// openDriver opens the coordinator's end and waits until it knows that the
// service lists its branches.
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
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !p.Recovers() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the driver never learnt that the service lists its branches")
		}
	}
	return p
}

func conform(t *testing.T, over func(*bbolt.DB) (*branch.Server, error), count func(*testing.T, *process, string) int) {
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		p := &process{path: filepath.Join(t.TempDir(), "service.db"), over: over}
		p.start(t)
		t.Cleanup(func() { p.stop() })
		return &participanttest.Subject{
			Participant: p.driver,
			Restart: func(t *testing.T) participants.Participant {
				p.stop()
				p.start(t)
				return p.driver
			},
			Effect:    func(counter string) []byte { return []byte(counter) },
			Count:     func(t *testing.T, counter string) int { return count(t, p, counter) },
			Refused:   func() []byte { return []byte(refuse) },
			ReadOnly:  func() []byte { return []byte(look) },
			Conflicts: true,
		}
	}})
}

func TestLocalKeepsTheContract(t *testing.T) {
	conform(t,
		func(db *bbolt.DB) (*branch.Server, error) { return branch.NewLocal(db, tally{}, branch.Config{}) },
		func(t *testing.T, p *process, counter string) int { return count(t, p.db, counter) })
}

func TestForeignKeepsTheContract(t *testing.T) {
	world := abroad{openFile(t, filepath.Join(t.TempDir(), "world.db"))}
	t.Cleanup(func() { world.db.Close() })
	conform(t,
		func(db *bbolt.DB) (*branch.Server, error) { return branch.NewForeign(db, world, branch.Config{}) },
		func(t *testing.T, _ *process, counter string) int { return count(t, world.db, counter) })
}
