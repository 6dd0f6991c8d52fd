package branch

// These tests prove that sharing a commit changes nothing for anybody: each unit
// counts once or not at all, a neighbour's failure is the neighbour's, and a file
// that failed is not written again.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

const patience = 30 * time.Second // reached only by a failure

func openDB(t *testing.T, o *bbolt.Options) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "group.db"), 0o600, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// commits is how many transactions of the file were committed so far; one that is
// rolled back leaves no number behind.
func commits(t *testing.T, db *bbolt.DB) (n int) {
	t.Helper()
	if err := db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func put(tx *bbolt.Tx, key string) error {
	b, err := tx.CreateBucketIfNotExists([]byte("b"))
	if err != nil {
		return err
	}
	return b.Put([]byte(key), []byte(key))
}

func has(t *testing.T, db *bbolt.DB, key string) (found bool) {
	t.Helper()
	err := db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("b"))
		found = b != nil && b.Get([]byte(key)) != nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func writes(key string) work {
	return func(tx *bbolt.Tx) (bool, error) { return true, put(tx, key) }
}

// crowd holds the pen while others queue up behind it, then lets go: the others
// are one batch, in the order given. It returns their errors.
func crowd(t *testing.T, g *group, units ...work) []error {
	t.Helper()
	writing, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		err := g.do(t.Context(), func(*bbolt.Tx) (bool, error) {
			close(writing)
			<-release
			return false, nil
		})
		if err != nil {
			t.Errorf("the holder of the pen: %v", err)
		}
	})
	<-writing
	errs := make([]error, len(units))
	for i, u := range units {
		all.Go(func() { errs[i] = g.do(t.Context(), u) })
		waitQueued(t, g, i+1)
	}
	close(release)
	all.Wait()
	return errs
}

func waitQueued(t *testing.T, g *group, n int) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	for {
		g.mu.Lock()
		queued := len(g.queue)
		g.mu.Unlock()
		if queued == n {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d units queued, want %d", queued, n)
		}
	}
}

// Whoever waits while a commit is under way shares the next one.
func TestWaitersShareOneCommit(t *testing.T) {
	db := openDB(t, nil)
	g := newGroup(db)
	before := commits(t, db)
	var units []work
	for i := range maxGroup {
		units = append(units, writes(fmt.Sprint(i)))
	}
	for i, err := range crowd(t, g, units...) {
		if err != nil || !has(t, db, fmt.Sprint(i)) {
			t.Errorf("unit %d: %v, written %v", i, err, has(t, db, fmt.Sprint(i)))
		}
	}
	if n := commits(t, db) - before; n != 1 {
		t.Errorf("%d units took %d commits, want 1", maxGroup, n)
	}
}

// A unit that changes nothing costs no commit.
func TestNothingChangedIsNotCommitted(t *testing.T) {
	db := openDB(t, nil)
	g := newGroup(db)
	before := commits(t, db)
	refused := errors.New("refused")
	if err := g.do(t.Context(), func(*bbolt.Tx) (bool, error) { return false, refused }); !errors.Is(err, refused) {
		t.Errorf("%v; want its own error", err)
	}
	if n := commits(t, db) - before; n != 0 {
		t.Errorf("%d commits", n)
	}
}

// A unit that fails after it wrote is undone and alone in that; its neighbours
// are committed, and each ran last in a transaction without its writes.
func TestFailureIsUndoneAndPrivate(t *testing.T) {
	db := openDB(t, nil)
	g := newGroup(db)
	before := commits(t, db)
	bad := errors.New("bad")
	sawTraces := false
	errs := crowd(t, g,
		writes("first"),
		func(tx *bbolt.Tx) (bool, error) { return true, errors.Join(put(tx, "spoilt"), bad) },
		func(tx *bbolt.Tx) (bool, error) {
			sawTraces = tx.Bucket([]byte("b")).Get([]byte("spoilt")) != nil
			return true, put(tx, "last")
		},
	)
	if errs[0] != nil || !errors.Is(errs[1], bad) || errs[2] != nil {
		t.Errorf("errors %v", errs)
	}
	if !has(t, db, "first") || has(t, db, "spoilt") || !has(t, db, "last") || sawTraces {
		t.Errorf("first %v, spoilt %v, last %v, traces %v",
			has(t, db, "first"), has(t, db, "spoilt"), has(t, db, "last"), sawTraces)
	}
	if n := commits(t, db) - before; n != 1 {
		t.Errorf("%d commits, want 1", n)
	}
}

// A unit may take back what it wrote and leave something else in its place.
func TestRetreatStandsInForWhatIsUndone(t *testing.T) {
	db := openDB(t, nil)
	g := newGroup(db)
	errs := crowd(t, g,
		func(tx *bbolt.Tx) (bool, error) {
			return true, errors.Join(put(tx, "spoilt"), &retreat{writes("instead")})
		},
		writes("neighbour"),
	)
	if errs[0] != nil || errs[1] != nil {
		t.Errorf("errors %v", errs)
	}
	if has(t, db, "spoilt") || !has(t, db, "instead") || !has(t, db, "neighbour") {
		t.Errorf("spoilt %v, instead %v, neighbour %v", has(t, db, "spoilt"), has(t, db, "instead"), has(t, db, "neighbour"))
	}
}

// Who has gone is not served: the caller returns at once, and the work that was
// still queued is not begun.
func TestCallerWhoLeft(t *testing.T) {
	db := openDB(t, nil)
	g := newGroup(db)
	writing, release, held := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		held <- g.do(t.Context(), func(*bbolt.Tx) (bool, error) {
			close(writing)
			<-release
			return false, nil
		})
	}()
	<-writing
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- g.do(ctx, writes("ghost")) }()
	waitQueued(t, g, 1)
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want the context's end", err)
	}
	close(release)
	if err := errors.Join(<-held, g.do(t.Context(), writes("next"))); err != nil {
		t.Fatal(err)
	}
	if has(t, db, "ghost") {
		t.Error("the work of a caller who had left was begun")
	}
}

// After a commit that failed nobody knows what is on disk: everyone hears of it,
// and nothing is written until the file is opened again.
func TestFailedCommitStopsTheFile(t *testing.T) {
	db := openDB(t, &bbolt.Options{MaxSize: 64 << 10})
	g := newGroup(db)
	errs := crowd(t, g,
		writes("neighbour"),
		func(tx *bbolt.Tx) (bool, error) {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			return true, errors.Join(err, b.Put([]byte("large"), make([]byte, 1<<20)))
		},
		func(*bbolt.Tx) (bool, error) { return false, nil },
	)
	for i, err := range errs {
		if err == nil {
			t.Errorf("unit %d was told that it is durable", i)
		}
	}
	select {
	case <-g.broken:
	default:
		t.Error("broken is open")
	}
	before := commits(t, db)
	if err := g.do(t.Context(), writes("later")); err == nil || commits(t, db) != before {
		t.Errorf("after the failure: %v, %d commits", err, commits(t, db)-before)
	}
}

// Calls for one branch take turns; those for others do not wait for them.
func TestTurns(t *testing.T) {
	turns := turns{taken: map[string]chan struct{}{}}
	leave, err := turns.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := turns.take(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.take(ended, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a taken turn: %v; want the context's end", err)
	}
	inside := 0
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			leave, err := turns.take(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			inside++ // the race detector sees two at once
			leave()
		})
	}
	leave()
	all.Wait()
	if inside != 16 || len(turns.taken) != 0 {
		t.Errorf("%d turns were taken, %d are left", inside, len(turns.taken))
	}
}

// A record of a newer version is not guessed at.
func TestUnknownStateIsAnError(t *testing.T) {
	for _, raw := range []string{`{"state":"paused"}`, `{"state":"unknown"}`, `{`, ``} {
		if r, err := unmarshalRecord([]byte(raw)); err == nil {
			t.Errorf("%q was read as %v", raw, r)
		}
	}
	for s := stateIntent; int(s) < len(stateNames); s++ {
		raw, err := Record{State: s, Reason: "why"}.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if r, err := unmarshalRecord(raw); err != nil || r.State != s || r.Reason != "why" {
			t.Errorf("%s came back as %v, %v", s, r, err)
		}
	}
}
