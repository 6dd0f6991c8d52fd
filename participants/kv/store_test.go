package kv

// What the store adds to the contract: checks that stay true until the decision,
// group commit, audits, and a memory that follows the horizon.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// A check is shared between branches and holds off all who would change the key,
// from prepare to the decision; a refusal names the holder.
func TestChecksHoldTrueUntilTheDecision(t *testing.T) {
	s := newStore(t)
	do(t, s, `{"op": "put", "key": "limit", "value": "10"}`)
	first := branch(`{"op": "check", "key": "limit", "value": "10"}, {"op": "put", "key": "a", "value": "1"}`)
	second := branch(`{"op": "check", "key": "limit", "value": "10"}, {"op": "put", "key": "b", "value": "1"}`)
	prepare(t, s, first)
	prepare(t, s, second)
	raise := `{"op": "put", "key": "limit", "value": "20"}`
	if why := refused(t, s, branch(raise)); !strings.Contains(why, "checked") {
		t.Errorf("refused with %q", why)
	}
	if err := s.Commit(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if why := refused(t, s, branch(raise)); !strings.Contains(why, second.TxID.String()) {
		t.Errorf("refused with %q, want the holder %s", why, second.TxID)
	}
	if err := s.Abort(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	third := branch(raise)
	prepare(t, s, third)
	if why := refused(t, s, branch(`{"op": "check", "key": "limit", "value": "10"}`)); !strings.Contains(why, third.TxID.String()) {
		t.Errorf("a check against a change under way: refused with %q", why)
	}
	if n := len(s.locks); n != 1 {
		t.Errorf("%d keys are locked, want 1", n)
	}
}

// Commit writes down what each operation came to, and abort none of it.
func TestCommitCarriesOutEveryOperation(t *testing.T) {
	s := newStore(t)
	do(t, s, `{"op": "put", "key": "a", "value": "1"}, {"op": "put", "key": "b", "value": "2"}`)
	b := branch(`{"op": "delete", "key": "a"}, {"op": "add", "key": "b", "amount": 3}, {"op": "put", "key": "c", "value": ""}`)
	prepare(t, s, b)
	if err := s.Abort(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if a, b, c := value(t, s, "a"), value(t, s, "b"), value(t, s, "c"); a != "1" || b != "2" || c != "(absent)" {
		t.Errorf("after abort: a=%s b=%s c=%s", a, b, c)
	}
	do(t, s, `{"op": "delete", "key": "a"}, {"op": "add", "key": "b", "amount": 3}, {"op": "put", "key": "c", "value": ""}`)
	if a, b, c := value(t, s, "a"), value(t, s, "b"), value(t, s, "c"); a != "(absent)" || b != "5" || c != "" {
		t.Errorf("after commit: a=%s b=%s c=%s", a, b, c)
	}
}

// A refusal takes no lock, not even of the keys before the one that failed.
func TestRefusalTakesNoLock(t *testing.T) {
	s := newStore(t)
	refused(t, s, branch(`{"op": "put", "key": "a", "value": "1"}, {"op": "check", "key": "b", "value": "x"}`))
	do(t, s, `{"op": "put", "key": "a", "value": "2"}`)
	if got := value(t, s, "a"); got != "2" {
		t.Errorf("a = %s", got)
	}
}

// R8: a no stands, though its reason has gone away meanwhile.
func TestNoStands(t *testing.T) {
	s := newStore(t)
	b := branch(`{"op": "add", "key": "alice", "amount": -1, "min": 0}`)
	first := refused(t, s, b)
	do(t, s, `{"op": "add", "key": "alice", "amount": 50}`)
	if again := refused(t, s, b); again != first {
		t.Errorf("first %q, then %q", first, again)
	}
	malformed := b
	malformed.TxID, malformed.Payload = participanttest.NewTxID(b.TxID.Time()), []byte("{")
	refused(t, s, malformed)
	malformed.Payload = b.Payload
	refused(t, s, malformed)
}

// Group commit: callers who wait together share one commit, for each of the three
// calls. The store does not run until all have lined up.
func TestWaitingCallsShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 100
		s, err := open(t.Context(), filepath.Join(t.TempDir(), "kv.db"), hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		commits := 0
		real := s.commitTx
		s.commitTx = func(tx *bbolt.Tx) error { commits++; return real(tx) }
		branches := make([]participants.Branch, callers)
		for i := range branches {
			branches[i] = branch(fmt.Sprintf(`{"op": "add", "key": "account-%d", "amount": 1}`, i))
		}
		gate := make(chan struct{})
		go func() { // the store's goroutine, which comes late
			<-gate
			s.run()
		}()
		release := func() { close(gate) }
		share := func(what string, call func(participants.Branch) error) {
			before := commits
			var all sync.WaitGroup
			for _, b := range branches {
				all.Go(func() {
					if err := call(b); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				})
			}
			synctest.Wait() // every caller waits for an answer
			release()
			all.Wait()
			if n := commits - before; n != 1 {
				t.Errorf("%d callers of %s took %d commits, want 1", callers, what, n)
			}
			// The next round lines up behind a call that holds the store.
			held, entered := make(chan struct{}), make(chan struct{})
			go s.do(t.Context(), func(*session) error { //nolint:errcheck // it has no result
				close(entered)
				<-held
				return nil
			})
			<-entered
			release = func() { close(held) }
		}
		share("prepare", func(b participants.Branch) error {
			v, err := s.Prepare(t.Context(), b)
			if err == nil && v.Kind != txn.VoteCommit {
				return errors.New(v.Reason)
			}
			return err
		})
		share("commit", func(b participants.Branch) error { return s.Commit(t.Context(), b) })
		for i := range branches {
			branches[i] = branch(fmt.Sprintf(`{"op": "add", "key": "account-%d", "amount": 1}`, i))
		}
		share("abort", func(b participants.Branch) error { return s.Abort(t.Context(), b) })
		release()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A batch without anything to write asks nothing of the disk: reads, copies of
// what is done, read-only branches.
func TestNothingWrittenNothingSynced(t *testing.T) {
	s := newStore(t)
	b := branch(`{"op": "put", "key": "a", "value": "1"}`)
	prepare(t, s, b)
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	before := lastTx(t, s)
	for range 3 {
		if err := s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if v, err := s.Prepare(t.Context(), branch(`{"op": "check", "key": "a", "value": "1"}`)); err != nil || v.Kind != txn.VoteReadOnly {
			t.Fatal(v, err)
		}
	}
	if after := lastTx(t, s); after != before {
		t.Errorf("%d commits, want none", after-before)
	}
}

// A caller that leaves while it waits is not carried out at all.
func TestLeavingTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := open(t.Context(), filepath.Join(t.TempDir(), "kv.db"), hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b := branch(`{"op": "put", "key": "a", "value": "1"}`)
		if _, err := s.Prepare(ctx, b); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("prepare = %v, want the context's end", err)
		}
		go s.run()
		if got, err := s.Status(t.Context(), b); err != nil || got != participants.StatusUnknown {
			t.Errorf("status = %s, %v", got, err)
		}
		if err := s.Abort(t.Context(), branch(`{}`)); err != nil { // the queue is served
			t.Error(err)
		}
		if got, _ := s.Status(t.Context(), b); got != participants.StatusUnknown {
			t.Errorf("status = %s after its caller had gone", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Abort(t.Context(), b); !errors.Is(err, ErrClosed) {
			t.Errorf("abort of a closed store: %v", err)
		}
		if _, _, err := s.Get(t.Context(), "a"); !errors.Is(err, ErrClosed) {
			t.Errorf("get of a closed store: %v", err)
		}
	})
}

// R7 and R10: after a failed fsync nothing is known: the store answers nobody, not even
// readers, until it is opened anew. What was acknowledged before is still there.
func TestFailedSyncEndsTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	s := openStore(t, path)
	do(t, s, `{"op": "put", "key": "a", "value": "1"}`)
	b := branch(`{"op": "put", "key": "a", "value": "2"}`)
	s.commitTx = func(tx *bbolt.Tx) error { return syscall.EIO } // nothing is under way
	if _, err := s.Prepare(t.Context(), b); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("prepare = %v, want ErrFailed", err)
	}
	s.commitTx = (*bbolt.Tx).Commit
	if err := s.Abort(t.Context(), b); !errors.Is(err, ErrFailed) {
		t.Errorf("abort = %v, want ErrFailed", err)
	}
	if _, _, err := s.Get(t.Context(), "a"); !errors.Is(err, ErrFailed) {
		t.Errorf("get = %v, want ErrFailed", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, path)
	if got := value(t, again, "a"); got != "1" {
		t.Errorf("a = %s", got)
	}
	prepare(t, again, b)
}

// A full disk fails the call and nothing else: locks are those of the file again,
// and the store goes on once there is room.
func TestFullDiskIsNoDamage(t *testing.T) {
	s := newStore(t)
	held := branch(`{"op": "put", "key": "held", "value": "1"}`)
	prepare(t, s, held)
	b := branch(`{"op": "put", "key": "a", "value": "1"}`)
	s.commitTx = func(tx *bbolt.Tx) error { return bolterrors.ErrMaxSizeReached } // nothing is under way
	if _, err := s.Prepare(t.Context(), b); !errors.Is(err, bolterrors.ErrMaxSizeReached) {
		t.Fatalf("prepare = %v, want ErrMaxSizeReached", err)
	}
	if err := s.Commit(t.Context(), held); !errors.Is(err, bolterrors.ErrMaxSizeReached) {
		t.Fatalf("commit = %v, want ErrMaxSizeReached", err)
	}
	s.commitTx = (*bbolt.Tx).Commit
	refused(t, s, branch(`{"op": "put", "key": "held", "value": "2"}`))
	do(t, s, `{"op": "put", "key": "a", "value": "2"}`)
	refused(t, s, branch(`{"op": "put", "key": "held", "value": "2"}`))
	if err := s.Commit(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	if n := len(s.locks); n != 0 || s.prepared != 0 {
		t.Errorf("%d keys locked and %d branches counted as prepared, want none", n, s.prepared)
	}
}

// R14: prepared branches are bounded, by a no; read-only ones do not count.
func TestPreparedBranchesAreBounded(t *testing.T) {
	s := newStore(t)
	s.prepared = maxPrepared - 1
	prepare(t, s, branch(`{"op": "put", "key": "a", "value": "1"}`))
	if why := refused(t, s, branch(`{"op": "put", "key": "b", "value": "1"}`)); !strings.Contains(why, "16384") {
		t.Errorf("refused with %q", why)
	}
	if v, err := s.Prepare(t.Context(), branch(`{"op": "check", "key": "c", "absent": true}`)); err != nil || v.Kind != txn.VoteReadOnly {
		t.Errorf("a check at the bound: %v, %v", v, err)
	}
}

// R11: what the horizon has passed leaves the file a little with every call; what
// is prepared stays, and so does what another cluster's horizon has not passed.
func TestOutcomesAreForgottenBehindTheHorizon(t *testing.T) {
	s := newStore(t)
	base := txn.Time(time.Now().UnixNano())
	at := func(minute int, cluster string) participants.Branch {
		b := branch(`{"op": "put", "key": "` + cluster + fmt.Sprint(minute) + `", "value": "1"}`)
		b.Cluster = cluster
		b.TxID = participanttest.NewTxID(base.Add(time.Duration(minute) * time.Minute))
		return b
	}
	waiting := at(0, "c")
	prepare(t, s, waiting)
	const old = 5 * forgetAtOnce
	for i := range old {
		for _, cluster := range []string{"c", "cc"} {
			if err := s.Abort(t.Context(), at(i, cluster)); err != nil {
				t.Fatal(err)
			}
		}
	}
	remembered := func(cluster string) (n int) {
		err := s.Read(t.Context(), func(at Snapshot) error {
			return at.Outcomes(func(o Outcome) bool {
				if o.Branch.Cluster == cluster && o.Status != participants.StatusPrepared {
					n++
				}
				return true
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 10 {
		b := at(1000+i, "c")
		b.Horizon = base.Add(old * time.Minute)
		if err := s.Abort(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if want := old - min(old, (i+1)*forgetAtOnce) + i + 1; remembered("c") != want {
			t.Fatalf("after %d calls %d outcomes are remembered, want %d", i+1, remembered("c"), want)
		}
	}
	if n := remembered("cc"); n != old {
		t.Errorf("the other cluster's %d outcomes have become %d", old, n)
	}
	if err := s.Commit(t.Context(), waiting); err != nil {
		t.Errorf("commit of the branch that waited: %v", err)
	}
	gone := at(1, "c")
	refused(t, s, gone)
	if err := s.Commit(t.Context(), gone); !isHeuristic(err, txn.HeuristicHazard) {
		t.Errorf("commit of a forgotten branch: %v, want a hazard", err)
	}
}

// A reader is told of nothing that a power loss could still undo: between the
// write of the new state and the end of its fsync, no snapshot can be taken.
func TestReadersWaitForTheSync(t *testing.T) {
	s := newStore(t)
	syncs := 0
	s.commitTx = func(tx *bbolt.Tx) error { // nothing is under way
		err := tx.Commit()
		// Here bbolt would already show the new state.
		if s.visible.TryRLock() {
			s.visible.RUnlock()
			t.Error("a snapshot can be taken before the commit has returned")
		}
		syncs++
		return err
	}
	do(t, s, `{"op": "put", "key": "a", "value": "1"}`)
	if got := value(t, s, "a"); got != "1" || syncs != 2 {
		t.Errorf("a = %s after %d commits", got, syncs)
	}
}

// A snapshot shows one moment while transfers go on: the sum is constant.
func TestSnapshotIsOneMoment(t *testing.T) {
	s := newStore(t)
	const accounts = 8
	for i := range accounts {
		do(t, s, fmt.Sprintf(`{"op": "add", "key": "acct/%d", "amount": 100}`, i))
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				b := branch(fmt.Sprintf(`{"op": "add", "key": "acct/%d", "amount": -1}, {"op": "add", "key": "acct/%d", "amount": 1}`, i, i+accounts/2))
				if v, err := s.Prepare(t.Context(), b); err != nil || v.Kind != txn.VoteCommit {
					t.Error(v, err)
					return
				}
				if err := s.Commit(t.Context(), b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 200 {
		err := s.Read(t.Context(), func(at Snapshot) error {
			sum, err := at.Sum("acct/")
			if err == nil && sum != accounts*100 {
				err = fmt.Errorf("the accounts hold %d", sum)
			}
			return err
		})
		if err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	all.Wait()
}

func TestSnapshotTellsAll(t *testing.T) {
	s := newStore(t)
	do(t, s, `{"op": "put", "key": "acct/a", "value": "9223372036854775807"}, {"op": "put", "key": "acct/b", "value": "0"}, {"op": "put", "key": "z", "value": "?"}`)
	waiting := branch(`{"op": "put", "key": "y", "value": "1"}`)
	prepare(t, s, waiting)
	no := branch(`{"op": "check", "key": "y", "value": "1"}`)
	why := refused(t, s, no)
	err := s.Read(t.Context(), func(at Snapshot) error {
		if sum, err := at.Sum("acct/"); err != nil || sum != 9223372036854775807 {
			t.Errorf("sum = %d, %v", sum, err)
		}
		if _, err := at.Sum(""); err == nil || !strings.Contains(err.Error(), `"z"`) {
			t.Errorf("sum of all = %v, want a word about z", err)
		}
		var keys []string
		at.Range("", func(key, _ string) bool { keys = append(keys, key); return len(keys) < 2 })
		if fmt.Sprint(keys) != "[acct/a acct/b]" {
			t.Errorf("the first two keys are %v", keys)
		}
		var outcomes []Outcome
		if err := at.Outcomes(func(o Outcome) bool { outcomes = append(outcomes, o); return true }); err != nil {
			return err
		}
		if len(outcomes) != 3 || outcomes[0].Branch.Name() != waiting.Name() || outcomes[0].Status != participants.StatusPrepared ||
			outcomes[1].Status != participants.StatusCommitted || outcomes[2].Reason != why {
			t.Errorf("outcomes = %+v", outcomes)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	do(t, s, `{"op": "add", "key": "acct/b", "amount": 1}`)
	err = s.Read(t.Context(), func(at Snapshot) error { _, err := at.Sum("acct/"); return err })
	if err == nil || !strings.Contains(err.Error(), "64 bits") {
		t.Errorf("a sum past 64 bits: %v", err)
	}
}

// A branch without a proper name is an error, and no vote.
func TestNamelessBranchIsAnError(t *testing.T) {
	s := newStore(t)
	b := branch(`{"op": "put", "key": "a", "value": "1"}`)
	b.Number = 0
	if _, err := s.Prepare(t.Context(), b); err == nil {
		t.Error("prepare voted")
	}
	if err := s.Commit(t.Context(), b); err == nil || isHeuristic(err, txn.HeuristicAbort) {
		t.Errorf("commit = %v", err)
	}
	if list, err := s.Recover(t.Context(), strings.Repeat("c", 256)); err != nil || len(list) != 0 {
		t.Errorf("recover of a cluster that cannot be: %v, %v", list, err)
	}
}
