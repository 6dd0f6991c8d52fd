package mysql

// What is proven here: what lies before the horizon is forgotten, and nothing
// else (rules R7, R10, R11); and a pool that is not needed shrinks.

import (
	"testing"
	"time"

	"github.com/decree-tx/decree/participants/participanttest/databases"
)

func TestForgettingSparesWhatWaits(t *testing.T) {
	b := newBank(t, databases.Shared(t, databases.MariaDB))
	p := b.open(t, "")
	finished, waiting, young, stranger := newBranch(add("a")), newBranch(add("b")), newBranch(add("c")), newBranch(add("d"))
	gone := newBranch(add("e"))
	stranger.Cluster = cluster + "2" // its name begins like ours
	young.TxID[0]++                  // centuries later
	prepare(t, p, finished)
	commit(t, p, finished)
	abort(t, p, gone)
	prepare(t, p, waiting)
	prepare(t, p, young)
	commit(t, p, young)
	prepare(t, p, stranger)
	commit(t, p, stranger)
	// More rows than one statement deletes.
	b.exec(t, "INSERT INTO decree_branch (gid, state) SELECT CONCAT('decree_c1_00000000-0000-7000-8000-', LPAD(seq, 12, '0'), '_1'), 'aborted' FROM seq_1_to_1200")

	if err := p.forget(bounded(t), cluster, finished.TxID.Time().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := b.number(t, "SELECT COUNT(*) FROM decree_branch"); n != 2 {
		t.Errorf("%d rows are left, want that of the young branch and that of the other cluster", n)
	}
	commit(t, p, waiting)
	commit(t, p, young)
	if n := b.number(t, "SELECT SUM(n) FROM counter"); n != 4 {
		t.Errorf("%d effects, want 4", n)
	}
}

func TestIdleSessionsAreClosed(t *testing.T) {
	b := newBank(t, databases.Shared(t, databases.MariaDB))
	p := b.open(t, "")
	branch := newBranch(add("a"))
	prepare(t, p, branch)
	p.branches.trim(time.Now().Add(2 * idleFor)) // what holds a branch is not idle
	commit(t, p, branch)
	if n := len(p.branches.idle); n != 1 {
		t.Fatalf("%d idle sessions, want 1", n)
	}
	p.branches.trim(time.Now())
	if n := len(p.branches.idle); n != 1 {
		t.Errorf("%d idle sessions after a moment, want 1", n)
	}
	p.branches.trim(time.Now().Add(2 * idleFor))
	if n := len(p.branches.idle); n != 0 {
		t.Errorf("%d idle sessions after a long time, want none", n)
	}
}
