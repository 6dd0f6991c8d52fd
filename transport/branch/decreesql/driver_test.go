package decreesql_test

// These tests prove that an application's branch and decree's driver agree about
// it: what the one prepares the other finds, and ends, and what the other aborts
// the one can no longer prepare (rules R7, R8, R9).

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	mysqlparticipant "github.com/decree-tx/decree/participants/mysql"
	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreesql"
)

// register does to the till's database what decree does to one that is registered,
// and opens it as a node does.
func (s *till) register() participants.Participant {
	s.Helper()
	dsn := filepath.Join(s.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(s.dsn), 0o600); err != nil {
		s.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"dsn": "file:" + dsn, "raw_sql": true})
	if err != nil {
		s.Fatal(err)
	}
	r := participants.Registration{Name: "payments", Driver: "mysql", Config: config}
	driver := mysqlparticipant.Driver{}
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
func asked(name marker.Branch) participants.Branch {
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
	s := newTill(t)
	p := s.driver
	const rounds = 10 // the server lets go of a branch in two steps, and between them a commit is lost
	for i := range rounds {
		b, name := enlisted()
		vote, err := decreesql.Run(t.Context(), s.db, b, pay(name.GID()))
		if err != nil || vote != branch.Yes() {
			t.Fatalf("%s, %v; want yes", vote, err)
		}
		if n := s.number("SELECT COUNT(*) FROM payment WHERE payer = ?", name.GID()); n != 0 {
			t.Error("what is only prepared is visible")
		}
		if n := listed(t, p); n != 1 {
			t.Fatalf("the driver lists %d branches, want this one", n)
		}
		end, want := p.Commit, 1
		if i%2 == 1 {
			end, want = p.Abort, 0
		}
		for range 2 { // the second is a copy
			if err := end(t.Context(), asked(name)); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.number("SELECT COUNT(*) FROM payment WHERE payer = ?", name.GID()); n != want {
			t.Fatalf("%d payments, want %d", n, want)
		}
		if n := listed(t, p); n != 0 {
			t.Fatalf("the driver lists %d branches after the end", n)
		}
	}
}

// R8: an abort finds the branch at any moment of its life.
func TestAbortMeetsTheApplication(t *testing.T) {
	s := newTill(t)
	p := s.driver

	before, name := enlisted()
	if err := p.Abort(t.Context(), asked(name)); err != nil {
		t.Fatal(err)
	}
	if _, err := decreesql.Begin(t.Context(), s.db, before); !errors.Is(err, decreesql.ErrAborted) {
		t.Errorf("begun after its abort: %v", err)
	}

	during, name := enlisted()
	work, err := decreesql.Begin(t.Context(), s.db, during)
	if err != nil {
		t.Fatal(err)
	}
	if err := pay("a")(t.Context(), work.Tx()); err != nil {
		t.Fatal(err)
	}
	if err := p.Abort(t.Context(), asked(name)); err != nil {
		t.Fatal(err)
	}
	if vote, err := work.Prepare(t.Context()); vote == branch.Yes() || vote == branch.ReadOnly() {
		t.Errorf("prepared after its abort: %s, %v", vote, err)
	}
	s.prepared(name, false)
	if n := s.number("SELECT COUNT(*) FROM payment"); n != 0 {
		t.Errorf("%d payments", n)
	}
	var damage *participants.Heuristic
	if err := p.Commit(t.Context(), asked(name)); !errors.As(err, &damage) || damage.Receipt != txn.HeuristicAbort {
		t.Errorf("commit after abort: %v, want HeuristicAbort", err)
	}
}

// Many branches at once, of which some are aborted while they are at work: each
// ends as it was told, and the database shows it.
func TestManyApplications(t *testing.T) {
	s := newTill(t)
	const many = 24
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			b, name := enlisted()
			var aborts sync.WaitGroup
			vote, err := decreesql.Run(t.Context(), s.db, b, func(ctx context.Context, tx *sql.Tx) error {
				if i%3 == 0 {
					aborts.Go(func() {
						if err := s.driver.Abort(t.Context(), asked(name)); err != nil {
							t.Error(err)
						}
					})
				}
				return pay(name.GID())(ctx, tx)
			})
			aborts.Wait()
			if i%3 == 0 {
				return // whatever the vote was: the abort has been answered
			}
			if err != nil || vote != branch.Yes() {
				t.Errorf("%s, %v; want yes", vote, err)
				return
			}
			if err := s.driver.Commit(t.Context(), asked(name)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := s.number("SELECT COUNT(*) FROM payment"); n != many-many/3 {
		t.Errorf("%d payments, want %d", n, many-many/3)
	}
	if n := listed(t, s.driver); n != 0 {
		t.Errorf("%d branches are left prepared", n)
	}
}

// The rights that the package documentation asks for are enough.
func TestLeastRights(t *testing.T) {
	s := newTill(t)
	user := "u" + strings.ReplaceAll(uuid.NewString(), "-", "")
	s.exec("CREATE USER " + user + "@localhost")
	s.exec("GRANT INSERT, SELECT ON decree_branch TO " + user + "@localhost")
	s.exec("GRANT SELECT ON decree_fence TO " + user + "@localhost")
	s.exec("GRANT INSERT ON payment TO " + user + "@localhost")
	config, err := mysql.ParseDSN(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.User = user
	db := newDB(t, config.FormatDSN(), nil)
	b, name := enlisted()
	vote, err := decreesql.Run(t.Context(), db, b, pay("a"))
	if err != nil || vote != branch.Yes() {
		t.Fatalf("%s, %v; want yes", vote, err)
	}
	if _, err := decreesql.Begin(t.Context(), db, b); !errors.Is(err, decreesql.ErrTaken) {
		t.Errorf("begun again: %v", err)
	}
	if err := s.driver.Commit(t.Context(), asked(name)); err != nil {
		t.Fatal(err)
	}
	s.exec("REVOKE INSERT ON decree_branch FROM " + user + "@localhost")
	b, _ = enlisted()
	if _, err := decreesql.Begin(t.Context(), newDB(t, config.FormatDSN(), nil), b); !errors.Is(err, decreesql.ErrUnmarked) {
		t.Errorf("without rights: %v", err)
	}
}

// R10: at every level of isolation that the application may want, the next leader
// raises the fence and ends the branch. A branch that had locked the fence would
// wait for a leader that waits for it.
func TestNextLeaderEndsBranchesOfEveryLevel(t *testing.T) {
	s := newTill(t)
	epoch := uint64(1)
	_, first := enlisted()
	if err := s.driver.Abort(t.Context(), asked(first)); err != nil { // and the fence has a row
		t.Fatal(err)
	}
	for _, session := range []string{"tx_isolation='READ-UNCOMMITTED'", "tx_isolation='REPEATABLE-READ'", "tx_isolation='SERIALIZABLE'", "tx_isolation='SERIALIZABLE'&autocommit=0"} {
		db := newDB(t, s.dsn+"?"+strings.ReplaceAll(session, "'", "%27"), nil)
		b, name := enlisted()
		if vote, err := decreesql.Run(t.Context(), db, b, pay(name.GID())); err != nil || vote != branch.Yes() {
			t.Fatalf("%s: %s, %v; want yes", session, vote, err)
		}
		epoch++
		next := asked(name)
		next.Epoch = epoch
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := s.driver.Commit(ctx, next); err != nil {
			t.Fatalf("%s: the next leader's commit: %v", session, err)
		}
		if n := s.number("SELECT COUNT(*) FROM payment WHERE payer = ?", name.GID()); n != 1 {
			t.Errorf("%s: %d payments, want 1", session, n)
		}
	}
}

// R10: where decree has a user of its own, that user needs the right to end the
// application's sessions, as the package documentation says: an application that
// hangs in the middle of a branch is otherwise waited for, with a word about why.
func TestDecreeEndsSessionsOfAnotherUser(t *testing.T) {
	s := newTill(t)
	user := "u" + strings.ReplaceAll(uuid.NewString(), "-", "")
	s.exec("CREATE USER " + user + "@localhost")
	s.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON * TO " + user + "@localhost")
	s.exec("GRANT PROCESS ON *.* TO " + user + "@localhost")
	config, err := mysql.ParseDSN(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.User = user
	own := *s
	own.dsn = config.FormatDSN()
	decree := own.register()
	b, name := enlisted()
	hangs, err := decreesql.Begin(t.Context(), s.db, b)
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Rollback(context.Background()) //nolint:errcheck // its session has ended
	if err := decree.Abort(t.Context(), asked(name)); err == nil || !strings.Contains(err.Error(), "GRANT CONNECTION ADMIN") {
		t.Fatalf("abort without the right: %v, want a word about it", err)
	}
	s.exec("GRANT CONNECTION ADMIN ON *.* TO " + user + "@localhost")
	again := own.register() // rights count for new sessions
	if err := again.Abort(t.Context(), asked(name)); err != nil {
		t.Errorf("abort: %v", err)
	}
}
