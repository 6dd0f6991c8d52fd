package mysql

// What is proven here: whoever held a branch, and however its session goes, an
// end that was answered is an end in the database, and nothing else was ended with
// it (rules R7 to R10).

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// R7, R9: a thousand branches that another instance holds, ended from here under
// load while their sessions live, close by themselves, or are killed. The server
// is known to answer OK to some such commits that it does not carry out.
func TestEndingWhatOthersHold(t *testing.T) {
	const callers = 25
	const each = 40
	b := newBank(t, databases.Shared(t, databases.MariaDB))
	r := b.registered(t, b.server.DSN(b.database), "")
	owner, ender := openAs(t, r), openAs(t, r)
	var committed atomic.Int64
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for j := range each {
				branch := newBranch(add(fmt.Sprintf("n%d-%d", i, j)))
				if v, err := owner.Prepare(bounded(t), branch); err != nil || v.Kind != txn.VoteCommit {
					t.Errorf("prepare: %s %q, %v", v.Kind, v.Reason, err)
					return
				}
				disturb(&all, owner, ender, branch, rand.IntN(3))
				end, want := ender.Commit, 1
				if j%4 == 3 {
					end, want = ender.Abort, 0
				}
				if err := end(bounded(t), branch); err != nil {
					t.Errorf("end: %v", err)
					return
				}
				committed.Add(int64(want))
				if n := b.count(t, fmt.Sprintf("n%d-%d", i, j)); n != want {
					t.Errorf("the counter is %d right after the end was answered, want %d", n, want)
				}
			}
		})
	}
	all.Wait()
	audit(t, b, int(committed.Load()))
}

// disturb has the session that holds a branch live, be closed by its own side, or
// be killed by somebody, just now.
func disturb(closing *sync.WaitGroup, owner, other *participant, b participants.Branch, how int) {
	switch how {
	case 1:
		hangUp(closing, owner, b)
	case 2:
		other.errand(context.Background(), func(s *session) error { //nolint:errcheck // it is the point
			_, err := s.exec(context.Background(), fmt.Sprintf("KILL %d", heldBy(owner, b).owner.Connection))
			return err
		})
	}
}

// heldBy is the session that an instance holds a branch with. Nobody calls there
// about the branch just now.
func heldBy(p *participant, b participants.Branch) *session {
	m, _ := name(b)
	p.books.mu.Lock()
	defer p.books.mu.Unlock()
	return p.books.open[m.GID()].held.session
}

// hangUp closes the connection that holds a branch, while others go on.
func hangUp(closing *sync.WaitGroup, owner *participant, b participants.Branch) {
	closing.Go(func() {
		m, _ := name(b)
		e, err := owner.books.enter(context.Background(), m.GID())
		if err != nil {
			return
		}
		defer owner.books.leave(m.GID(), e)
		if e.held != nil {
			e.held.session.close()
		}
	})
}

// audit compares the counters with the marker rows, and looks for what is left.
func audit(t *testing.T, b *bank, committed int) {
	t.Helper()
	if n := b.number(t, "SELECT COALESCE(SUM(n), 0) FROM counter"); n != committed {
		t.Errorf("the counters' sum is %d, want %d", n, committed)
	}
	if n := b.number(t, "SELECT COUNT(*) FROM decree_branch WHERE state = 'prepared'"); n != committed {
		t.Errorf("%d rows say committed, want %d", n, committed)
	}
	// At READ UNCOMMITTED, nothing shows that is not committed.
	dirty, err := b.db.BeginTx(bounded(t), &sql.TxOptions{Isolation: sql.LevelReadUncommitted})
	if err != nil {
		t.Fatal(err)
	}
	defer dirty.Rollback() //nolint:errcheck // it only reads
	n := 0
	if err := dirty.QueryRow("SELECT COALESCE(SUM(n), 0) FROM counter").Scan(&n); err != nil || n != committed {
		t.Errorf("the counters' sum is %d with what is uncommitted, want %d (%v)", n, committed, err)
	}
	if all := b.prepared(t); strings.Contains(all, "decree_"+cluster) {
		t.Errorf("prepared at the end:\n%s", all)
	}
}

// R8, R10: everything at once: copies of every message, aborts that race their
// prepares, sessions that are killed at random, two leaders. In the end the tables
// agree with what was answered.
func TestStorm(t *testing.T) {
	const callers = 24
	const each = 12
	b := newBank(t, databases.Shared(t, databases.MariaDB))
	r := b.registered(t, b.server.DSN(b.database), "")
	nodes := []*participant{openAs(t, r), openAs(t, r)}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() { killAtRandom(t, b, rand.New(rand.NewPCG(seed, 0)), stop) })
	var committed atomic.Int64
	var all sync.WaitGroup
	for i := range callers {
		random := rand.New(rand.NewPCG(seed, uint64(i)+1))
		all.Go(func() {
			for j := range each {
				n, err := storm(t, nodes, random, fmt.Sprintf("n%d-%d", i, j))
				if err != nil {
					t.Error(err)
					return
				}
				committed.Add(int64(n))
			}
		})
	}
	all.Wait()
	close(stop)
	killer.Wait()
	audit(t, b, int(committed.Load()))
}

// storm carries one branch to its end and returns the effects that it must have.
func storm(t *testing.T, nodes []*participant, random *rand.Rand, counter string) (int, error) {
	branch := newBranch(add(counter))
	node := func() *participant { return nodes[random.IntN(len(nodes))] }
	copies, early := 1+random.IntN(3), random.IntN(4) == 0
	votes := make(chan txn.Vote, copies)
	var calls sync.WaitGroup
	for range copies {
		p := node()
		calls.Go(func() {
			v, err := p.Prepare(bounded(t), branch)
			if err != nil {
				v.Kind = txn.VoteNone
			}
			votes <- v.Kind
		})
	}
	if early {
		p := node()
		calls.Go(func() { p.Abort(bounded(t), branch) }) //nolint:errcheck // it comes again below
	}
	calls.Wait()
	close(votes)
	yes := true
	for v := range votes {
		yes = yes && v == txn.VoteCommit
	}
	verb, end, effects := "abort", (*participant).Abort, 0
	if yes && !early && random.IntN(5) > 0 {
		verb, end, effects = "commit", (*participant).Commit, 1
	}
	for range 1 + random.IntN(2) {
		p := node()
		calls.Go(func() { end(p, bounded(t), branch) }) //nolint:errcheck // the one that counts comes below
	}
	calls.Wait()
	return effects, persist(t, verb, func() error { return end(node(), bounded(t), branch) })
}

// persist asks again, as a coordinator does.
func persist(t *testing.T, what string, call func() error) error {
	for ctx := bounded(t); ; {
		err := call()
		var damage *participants.Heuristic
		if err == nil || errors.As(err, &damage) || sleep(ctx, takenPause) != nil {
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		}
	}
}

// killAtRandom ends sessions with the bank's database until stop is closed.
func killAtRandom(t *testing.T, b *bank, random *rand.Rand, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		id := b.number(t, "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID() ORDER BY RAND(?) LIMIT 1", random.Int64())
		if id != 0 {
			b.db.Exec(fmt.Sprintf("KILL %d", id)) //nolint:errcheck // it may be gone
		}
		sleep(t.Context(), takenPause) //nolint:errcheck // the loop ends soon
	}
}

// A server that is started again gives the ids of its connections to others. They
// are not killed, and not waited for.
func TestIdsOfAnEarlierRun(t *testing.T) {
	server := databases.ForTest(t, databases.MariaDB, databases.Options{})
	b := newBank(t, server)
	p := b.open(t, "")
	branch := newBranch(add("x"))
	prepare(t, p, branch)
	m, _ := name(branch)
	seen, err := p.look(bounded(t), m.GID())
	if err != nil {
		t.Fatal(err)
	}
	// Its runs are told apart by the second in which they began.
	until(t, "the server runs for a second", func() bool {
		return b.number(t, "SELECT UNIX_TIMESTAMP() - ?", strings.Fields(seen.owner)[1]) > 0
	})
	if err := errors.Join(server.Kill(), server.Restart(bounded(t))); err != nil {
		t.Fatal(err)
	}
	// Innocents take every id up to the owner's, and each is in a transaction.
	for {
		conn, err := b.db.Conn(bounded(t))
		if err != nil {
			continue // the pool has old connections
		}
		t.Cleanup(func() { conn.Close() }) //nolint:errcheck // nothing follows from it
		var id uint64
		if err := conn.QueryRowContext(bounded(t), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ExecContext(bounded(t), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ExecContext(bounded(t), "INSERT INTO account VALUES (?, 1)", fmt.Sprint(id)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := conn.PingContext(context.Background()); err != nil {
				t.Errorf("connection %d, an innocent's: %v", id, err)
			}
		})
		if fmt.Sprint(id) >= strings.Fields(seen.owner)[0] && len(fmt.Sprint(id)) >= len(strings.Fields(seen.owner)[0]) {
			break
		}
	}
	commit(t, p, branch)
	if n := b.count(t, "x"); n != 1 {
		t.Errorf("the counter is %d, want 1", n)
	}
}

// The server's own fault, of which DESIGN.md tells: what is ended by somebody who
// does not wait for its session is lost from the server's list. The driver says
// so, keeps asking, and the branch ends once the server lists it again.
func TestBranchThatTheServerHasLost(t *testing.T) {
	server := databases.ForTest(t, databases.MariaDB, databases.Options{})
	b := newBank(t, server)
	r := b.registered(t, server.DSN(b.database), "")
	p := openAs(t, r)
	lost := loseOne(t, b, p)
	var damage *participants.Heuristic
	if err := p.Commit(bounded(t), lost); !errors.Is(err, errLimbo) || errors.As(err, &damage) {
		t.Fatalf("commit: %v, want %v", err, errLimbo)
	}
	if err := errors.Join(server.Kill(), server.Restart(bounded(t))); err != nil {
		t.Fatal(err)
	}
	if err := persist(t, "commit after the restart", func() error { return p.Commit(bounded(t), lost) }); err != nil {
		t.Fatal(err)
	}
	if n := b.count(t, "lost"); n != 1 {
		t.Errorf("the counter is %d, want 1", n)
	}
}

// loseOne commits prepared branches by hand, while their sessions end, until one
// is lost. It takes some hundred tries.
func loseOne(t *testing.T, b *bank, p *participant) participants.Branch {
	t.Helper()
	const tries = 20000
	for range tries {
		branch := newBranch(add("lost"))
		prepare(t, p, branch)
		m, _ := name(branch)
		var closing sync.WaitGroup
		hangUp(&closing, p, branch)
		until(t, "the server takes the commit", func() bool {
			_, err := b.db.Exec("XA COMMIT " + xidOf(branch))
			return err == nil
		})
		closing.Wait()
		seen, err := p.look(bounded(t), m.GID())
		if err != nil {
			t.Fatal(err)
		}
		if !seen.visible {
			return branch
		}
		commit(t, p, branch)
		b.exec(t, "DELETE FROM counter")
	}
	t.Skipf("the server has lost none of %d branches: it does not have the fault", tries)
	return participants.Branch{}
}

// Two participants on two databases of one server: XA RECOVER shows both of them
// everything, and each lists its own.
func TestTwoDatabasesOfOneServer(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	one, two := newBank(t, server), newBank(t, server)
	p, q := one.open(t, ""), two.open(t, "")
	mine, theirs := newBranch(add("x")), newBranch(add("x"))
	theirs.TxID, theirs.Number = mine.TxID, 2
	prepare(t, p, mine)
	prepare(t, q, theirs)
	for _, tc := range []struct {
		p    *participant
		want int
	}{{p, 1}, {q, 2}} {
		found, err := tc.p.Recover(bounded(t), cluster)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range found {
			if b.TxID == mine.TxID && b.Number != tc.want {
				t.Errorf("participant %d lists branch %d", tc.want, b.Number)
			}
		}
		if len(found) == 0 {
			t.Errorf("participant %d lists nothing", tc.want)
		}
	}
	abort(t, p, theirs) // as an orphan scan that looked at a list of everything would
	commit(t, p, mine)
	commit(t, q, theirs)
	if n := one.count(t, "x") + two.count(t, "x"); n != 2 {
		t.Errorf("%d effects, want 2", n)
	}
}

// The connection breaks while the branch's work is under way, and XA PREPARE was
// not sent: whatever the server makes of it, the abort is the end of it.
func TestCutInTheMiddleOfTheWork(t *testing.T) {
	server := databases.Shared(t, databases.MariaDB)
	b := newBank(t, server)
	for i := range 10 {
		wire := participanttest.NewWire(t, "unix", socketOf(t, server))
		p := b.openAt(t, "root@unix("+wire.Addr()+")/"+url.PathEscape(b.database), "")
		branch := newBranch(add("x"))
		wire.CutAt([]string{"XA START", "XA END", "XA COMMIT"}[i%3], i%2 == 0)
		v, err := p.Prepare(bounded(t), branch)
		if i%3 == 2 {
			if err != nil || v.Kind != txn.VoteCommit {
				t.Fatalf("prepare: %s %q, %v", v.Kind, v.Reason, err)
			}
			if err := persist(t, "commit", func() error { return p.Commit(bounded(t), branch) }); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err == nil && v.Kind != txn.VoteAbort {
			t.Fatalf("prepare: %s, though the connection broke", v.Kind)
		}
		abort(t, p, branch)
		refused(t, p, branch)
	}
	audit(t, b, 3)
}

// R10: a request cannot free the lock by which others find the session that holds
// its branch: its end, from another node, would wait for as long as that lives.
func TestRequestsCannotHideTheirOwner(t *testing.T) {
	b := newBank(t, databases.Shared(t, databases.MariaDB))
	r := b.registered(t, b.server.DSN(b.database), rawSQL)
	owner, ender := openAs(t, r), openAs(t, r)
	branch := newBranch(raw("INSERT INTO counter SELECT 'x', `RELEASE_ALL_LOCKS`()"))
	if v, err := owner.Prepare(bounded(t), branch); err != nil || v.Kind != txn.VoteAbort {
		t.Errorf("prepare: %s, %v; want a no", v.Kind, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lookTimeout)
	defer cancel()
	if err := ender.Abort(ctx, branch); err != nil {
		t.Errorf("abort: %v", err)
	}
}
