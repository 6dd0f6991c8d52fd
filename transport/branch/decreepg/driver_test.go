package decreepg_test

// These tests prove that an application's branch and decree's driver agree about
// it: what the one prepares the other finds, and ends, and what the other aborts
// the one can no longer prepare (rules R7, R8, R9).

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	pgparticipant "github.com/decree-tx/decree/participants/postgres"
	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreepg"
)

// register does to the shop's database what decree does to one that is registered,
// and opens it as a node does.
func (s *shop) register() participants.Participant {
	s.Helper()
	dsn := filepath.Join(s.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(s.dsn), 0o600); err != nil {
		s.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"dsn": "file:" + dsn, "raw_sql": true, "max_connections": 8})
	if err != nil {
		s.Fatal(err)
	}
	r := participants.Registration{Name: "orders", Driver: "postgres", Config: config}
	driver := pgparticipant.Driver{}
	if r.Identity, err = driver.Probe(s.Context(), r, hclog.NewNullLogger()); err != nil {
		s.Fatal(err)
	}
	p, err := driver.Open(s.Context(), r, hclog.NewNullLogger())
	if err != nil {
		s.Fatal(err)
	}
	t := s.T
	t.Cleanup(func() {
		// The server is shared, and what is prepared in it is bounded.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		left, err := p.Recover(ctx, "c1")
		for _, b := range left {
			b.Cluster, b.Epoch = "c1", 1
			err = errors.Join(err, p.Abort(ctx, b))
		}
		if err := errors.Join(err, p.Close()); err != nil {
			t.Errorf("close the driver: %v", err)
		}
	})
	return p
}

// asked is a branch as a leader asks for its end.
func asked(gid string) participants.Branch {
	name, ok := marker.ParseGID(gid)
	if !ok {
		panic("not a name")
	}
	return participants.Branch{Cluster: name.Cluster, TxID: name.TxID, Number: name.Number, Epoch: 1}
}

func listed(t *testing.T, p participants.Participant) int {
	t.Helper()
	all, err := p.Recover(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestDriverEndsWhatTheApplicationPrepared(t *testing.T) {
	s := newShop(t)
	for i := range 10 {
		b, gid := enlisted()
		vote, err := decreepg.Run(t.Context(), s.pool, b, sell(gid))
		if err != nil || vote != branch.Yes() {
			t.Fatalf("%s, %v; want yes", vote, err)
		}
		if n := s.number("SELECT count(*) FROM item WHERE name = $1", gid); n != 0 {
			t.Error("what is only prepared is visible")
		}
		s.pool.Reset() // the branch outlives its connection
		if n := listed(t, s.driver); n != 1 {
			t.Fatalf("the driver lists %d branches, want this one", n)
		}
		end, want := s.driver.Commit, 1
		if i%2 == 1 {
			end, want = s.driver.Abort, 0
		}
		for range 2 { // the second is a copy
			if err := end(t.Context(), asked(gid)); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.number("SELECT count(*) FROM item WHERE name = $1", gid); n != want {
			t.Fatalf("%d items, want %d", n, want)
		}
		if n := listed(t, s.driver); n != 0 {
			t.Fatalf("the driver lists %d branches after the end", n)
		}
	}
}

// R8: an abort finds the branch at any moment of its life.
func TestAbortMeetsTheApplication(t *testing.T) {
	s := newShop(t)

	before, gid := enlisted()
	if err := s.driver.Abort(t.Context(), asked(gid)); err != nil {
		t.Fatal(err)
	}
	if _, err := decreepg.Begin(t.Context(), s.pool, before); !errors.Is(err, decreepg.ErrAborted) {
		t.Errorf("begun after its abort: %v", err)
	}

	during, gid := enlisted()
	work, err := decreepg.Begin(t.Context(), s.pool, during)
	if err != nil {
		t.Fatal(err)
	}
	if err := sell("a")(t.Context(), work.Tx()); err != nil {
		t.Fatal(err)
	}
	if err := s.driver.Abort(t.Context(), asked(gid)); err != nil {
		t.Fatal(err)
	}
	if vote, err := work.Prepare(t.Context()); vote == branch.Yes() || vote == branch.ReadOnly() {
		t.Errorf("prepared after its abort: %s, %v", vote, err)
	}
	s.prepared(gid, false)
	if n := s.number("SELECT count(*) FROM item"); n != 0 {
		t.Errorf("%d items", n)
	}
	var damage *participants.Heuristic
	if err := s.driver.Commit(t.Context(), asked(gid)); !errors.As(err, &damage) || damage.Receipt != txn.HeuristicAbort {
		t.Errorf("commit after abort: %v, want HeuristicAbort", err)
	}
}

// A connection that breaks at PREPARE leaves a branch that may be prepared, and
// that is what is said. The abort of decree's driver then finds out.
func TestCutAtPrepare(t *testing.T) {
	for _, arrives := range []bool{false, true} {
		s := newShop(t)
		cut := &scissors{word: []byte("PREPARE TRANSACTION"), arrives: arrives}
		cut.armed.Store(true)
		pool := newPool(t, s.dsn, cut.hold)
		b, gid := enlisted()
		vote, err := decreepg.Run(t.Context(), pool, b, sell("a"))
		if !errors.Is(err, decreepg.ErrAmbiguous) || vote != (branch.Vote{}) {
			t.Fatalf("%s, %v; want ErrAmbiguous", vote, err)
		}
		if cut.cuts.Load() != 1 {
			t.Fatal("nothing was cut")
		}
		s.prepared(gid, arrives)
		if err := s.driver.Abort(t.Context(), asked(gid)); err != nil {
			t.Fatal(err)
		}
		s.prepared(gid, false)
		if _, err := decreepg.Begin(t.Context(), s.pool, b); !errors.Is(err, decreepg.ErrAborted) {
			t.Errorf("begun after its abort: %v", err)
		}
	}
}

// Many branches at once, of which some are aborted while they are at work: each
// ends as it was told, and the database shows it.
func TestManyApplications(t *testing.T) {
	s := newShop(t)
	const many = 48
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			b, gid := enlisted()
			var aborts sync.WaitGroup
			vote, err := decreepg.Run(t.Context(), s.pool, b, func(ctx context.Context, tx pgx.Tx) error {
				if i%3 == 0 {
					aborts.Go(func() {
						if err := s.driver.Abort(t.Context(), asked(gid)); err != nil {
							t.Error(err)
						}
					})
				}
				return sell(gid)(ctx, tx)
			})
			aborts.Wait()
			if i%3 == 0 {
				return // whatever the vote was: the abort has been answered
			}
			if err != nil || vote != branch.Yes() {
				t.Errorf("%s, %v; want yes", vote, err)
				return
			}
			if err := s.driver.Commit(t.Context(), asked(gid)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := s.number("SELECT count(*) FROM item"); n != many-many/3 {
		t.Errorf("%d items, want %d", n, many-many/3)
	}
	if n := listed(t, s.driver); n != 0 {
		t.Errorf("%d branches are left prepared", n)
	}
}

// The rights that the package documentation asks for are enough.
func TestLeastRights(t *testing.T) {
	s := newShop(t)
	role := "r" + strings.ReplaceAll(uuid.NewString(), "-", "")
	s.exec("CREATE ROLE " + role)
	s.exec("GRANT INSERT, SELECT ON decree_branch TO " + role)
	s.exec("GRANT SELECT ON decree_fence TO " + role)
	s.exec("GRANT INSERT ON item TO " + role)
	pool := newPool(t, s.dsn, func(c *pgxpool.Config) {
		c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET ROLE "+role)
			return err
		}
	})
	b, gid := enlisted()
	vote, err := decreepg.Run(t.Context(), pool, b, sell("a"))
	if err != nil || vote != branch.Yes() {
		t.Fatalf("%s, %v; want yes", vote, err)
	}
	if _, err := decreepg.Begin(t.Context(), pool, b); !errors.Is(err, decreepg.ErrTaken) {
		t.Errorf("begun again: %v", err)
	}
	if err := s.driver.Commit(t.Context(), asked(gid)); err != nil {
		t.Fatal(err)
	}
	s.exec("REVOKE INSERT ON decree_branch FROM " + role)
	b, _ = enlisted()
	if _, err := decreepg.Begin(t.Context(), pool, b); !errors.Is(err, decreepg.ErrUnmarked) {
		t.Errorf("without rights: %v", err)
	}
}
