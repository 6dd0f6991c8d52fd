package branch_test

// These tests prove what the conformance suite cannot see from outside: what the
// service's functions are given, when they are called again and when never more,
// and what is undone.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	"github.com/decree-tx/decree/transport/branch"
)

// script is a Foreign service whose functions a test writes; what is nil says yes.
type script struct {
	prepare func(context.Context, branch.Branch) (branch.Vote, error)
	commit  func(context.Context, branch.Branch) error
	abort   func(context.Context, branch.Branch) error
}

func (s *script) Prepare(ctx context.Context, b branch.Branch) (branch.Vote, error) {
	if s.prepare == nil {
		return branch.Yes(), nil
	}
	return s.prepare(ctx, b)
}

func (s *script) Commit(ctx context.Context, b branch.Branch) error {
	if s.commit == nil {
		return nil
	}
	return s.commit(ctx, b)
}

func (s *script) Abort(ctx context.Context, b branch.Branch) error {
	if s.abort == nil {
		return nil
	}
	return s.abort(ctx, b)
}

// inFile is the same as a Local service.
type inFile struct {
	prepare func(*branch.Tx, branch.Branch) (branch.Vote, error)
	commit  func(*branch.Tx, branch.Branch) error
	abort   func(*branch.Tx, branch.Branch) error
}

func (s *inFile) Prepare(tx *branch.Tx, b branch.Branch) (branch.Vote, error) {
	if s.prepare == nil {
		return branch.Yes(), nil
	}
	return s.prepare(tx, b)
}

func (s *inFile) Commit(tx *branch.Tx, b branch.Branch) error {
	if s.commit == nil {
		return nil
	}
	return s.commit(tx, b)
}

func (s *inFile) Abort(tx *branch.Tx, b branch.Branch) error {
	if s.abort == nil {
		return nil
	}
	return s.abort(tx, b)
}

func newFile(t *testing.T) *bbolt.DB {
	t.Helper()
	db := openFile(t, filepath.Join(t.TempDir(), "service.db"))
	t.Cleanup(func() { db.Close() })
	return db
}

func newForeign(t *testing.T, s *script, c branch.Config) *branch.Server {
	t.Helper()
	server, err := branch.NewForeign(newFile(t), s, c)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func newLocal(t *testing.T, db *bbolt.DB, s branch.Local, c branch.Config) *branch.Server {
	t.Helper()
	server, err := branch.NewLocal(db, s, c)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// The calls of a leader, straight to the server, in short.

func prepare(t *testing.T, s *branch.Server, b *participantv1.Branch, payload string) (string, error) {
	t.Helper()
	answer, err := s.Prepare(t.Context(), prepareRequest(b, payload))
	if err != nil {
		return "", err
	}
	name := strings.TrimPrefix(answer.GetVote().String(), "VOTE_")
	if answer.GetReason() != "" {
		name += ": " + answer.GetReason()
	}
	return name, nil
}

func votes(t *testing.T, s *branch.Server, b *participantv1.Branch, payload, want string) {
	t.Helper()
	if got, err := prepare(t, s, b, payload); err != nil || got != want {
		t.Errorf("prepare: %q, %v; want %q", got, err, want)
	}
}

func commits(t *testing.T, s *branch.Server, b *participantv1.Branch, want participantv1.Receipt) {
	t.Helper()
	if got, err := s.Commit(t.Context(), &participantv1.CommitRequest{Branch: b}); err != nil || got.GetReceipt() != want {
		t.Errorf("commit: %v, %v; want %s", got, err, want)
	}
}

func aborts(t *testing.T, s *branch.Server, b *participantv1.Branch, want participantv1.Receipt) {
	t.Helper()
	if got, err := s.Abort(t.Context(), &participantv1.AbortRequest{Branch: b}); err != nil || got.GetReceipt() != want {
		t.Errorf("abort: %v, %v; want %s", got, err, want)
	}
}

func fails(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v; want %s with %q", what, err, code, text)
	}
}

const (
	done   = participantv1.Receipt_RECEIPT_DONE
	hazard = participantv1.Receipt_RECEIPT_HEURISTIC_HAZARD
	hAbort = participantv1.Receipt_RECEIPT_HEURISTIC_ABORT
)

// Commit and Abort see the payload that Prepare saw, although their messages
// carry none, and the same name.
func TestPayloadIsRemembered(t *testing.T) {
	var seen []string
	see := func(_ context.Context, b branch.Branch) error {
		seen = append(seen, b.Name()+" "+string(b.Payload))
		return nil
	}
	s := newForeign(t, &script{
		prepare: func(ctx context.Context, b branch.Branch) (branch.Vote, error) { return branch.Yes(), see(ctx, b) },
		commit:  see,
		abort:   see,
	}, branch.Config{})
	b, c := newBranch(1), newBranch(1)
	votes(t, s, b, "seat 12", "COMMIT")
	votes(t, s, c, "seat 13", "COMMIT")
	commits(t, s, b, done)
	aborts(t, s, c, done)
	one, other := "c1/"+b.GetTxid()+"/1 seat 12", "c1/"+c.GetTxid()+"/1 seat 13"
	if got, want := fmt.Sprint(seen), fmt.Sprint([]string{one, other, one, other}); got != want {
		t.Errorf("seen %s\nwant %s", got, want)
	}
}

// R8: an error of Prepare is no vote. The branch is listed, because its Prepare
// may have left something; the abort reaches the service; a prepare instead would
// have run Prepare again.
func TestForeignPrepareThatFailed(t *testing.T) {
	calls, fail := 0, errors.New("no answer from the bank")
	var aborted []string
	s := newForeign(t, &script{
		prepare: func(context.Context, branch.Branch) (branch.Vote, error) {
			calls++
			if calls%2 == 1 {
				return branch.Vote{}, fail
			}
			return branch.Yes(), nil
		},
		abort: func(_ context.Context, b branch.Branch) error { aborted = append(aborted, b.TxID); return nil },
	}, branch.Config{})
	target, stop := serve(t, s)
	defer stop()
	driver := openDriver(t, target)
	defer driver.Close()

	again := newBranch(1)
	_, err := prepare(t, s, again, "x")
	fails(t, "a failed prepare", err, codes.Unknown, "no answer from the bank")
	votes(t, s, again, "x", "COMMIT")
	commits(t, s, again, done)

	gone := newBranch(1)
	_, err = prepare(t, s, gone, "x")
	fails(t, "a failed prepare", err, codes.Unknown, "no answer from the bank")
	if open, err := driver.Recover(t.Context(), "c1"); err != nil || len(open) != 1 || open[0].TxID.String() != gone.GetTxid() {
		t.Errorf("recover: %v, %v; want the branch whose prepare failed", open, err)
	}
	commits(t, s, gone, hazard) // R9: it never voted
	aborts(t, s, gone, done)
	aborts(t, s, gone, done)
	if len(aborted) != 1 || aborted[0] != gone.GetTxid() {
		t.Errorf("aborted %v, want %s once", aborted, gone.GetTxid())
	}
	votes(t, s, gone, "x", "ABORT: the branch was aborted before")
	if calls != 3 {
		t.Errorf("Prepare ran %d times, want 3", calls)
	}
}

// A function that has returned its answer is not called again: not for a repeated
// message, not for a branch that was never prepared.
func TestFunctionsAreNotCalledAgain(t *testing.T) {
	var calls atomic.Int64
	count := func(context.Context, branch.Branch) error { calls.Add(1); return nil }
	s := newForeign(t, &script{
		prepare: func(ctx context.Context, b branch.Branch) (branch.Vote, error) { return branch.Yes(), count(ctx, b) },
		commit:  count,
		abort:   count,
	}, branch.Config{})
	b := newBranch(1)
	for range 3 {
		votes(t, s, b, "x", "COMMIT")
	}
	for range 3 {
		commits(t, s, b, done)
	}
	votes(t, s, b, "x", "COMMIT")
	votes(t, s, b, "y", "ABORT: the branch is committed with other content")
	never := newBranch(1)
	aborts(t, s, never, done)
	commits(t, s, never, hAbort)
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls of the service's functions, want 2", n)
	}
}

// Commit and Abort are called until they have returned nil.
func TestEndingIsRetried(t *testing.T) {
	left := 2
	s := newForeign(t, &script{commit: func(context.Context, branch.Branch) error {
		if left--; left >= 0 {
			return errors.New("busy")
		}
		return nil
	}}, branch.Config{})
	b := newBranch(1)
	votes(t, s, b, "x", "COMMIT")
	for range 2 {
		_, err := s.Commit(t.Context(), &participantv1.CommitRequest{Branch: b})
		fails(t, "a failed commit", err, codes.Unknown, "busy")
	}
	commits(t, s, b, done)
}

// R9: what the service calls damage is recorded, answered from then on, and the
// service is not asked again. A word that is no answer to the question is none.
func TestHeuristicsAreFinal(t *testing.T) {
	for name, c := range map[string]struct {
		answer error
		end    string
		want   participantv1.Receipt // DONE: an error
	}{
		"commit finds it rolled back": {branch.HeuristicAbort("rolled back by hand"), "commit", hAbort},
		"commit finds no trace":       {branch.HeuristicHazard("restored"), "commit", hazard},
		"abort finds it committed":    {branch.HeuristicCommit("paid out"), "abort", participantv1.Receipt_RECEIPT_HEURISTIC_COMMIT},
		"abort finds no trace":        {branch.HeuristicHazard("restored"), "abort", hazard},
		"commit says committed":       {branch.HeuristicCommit(""), "commit", done},
		"abort says aborted":          {branch.HeuristicAbort(""), "abort", done},
	} {
		for _, kind := range []string{"foreign", "local"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				calls, answer := 0, fmt.Errorf("wrapped: %w", c.answer)
				db := newFile(t)
				s := newForeign(t, &script{
					commit: func(context.Context, branch.Branch) error { calls++; return answer },
					abort:  func(context.Context, branch.Branch) error { calls++; return answer },
				}, branch.Config{})
				if kind == "local" {
					end := func(tx *branch.Tx, _ branch.Branch) error {
						calls++
						return errors.Join(add(tx.Tx, "ended", 1), answer)
					}
					s = newLocal(t, db, &inFile{commit: end, abort: end}, branch.Config{})
				}
				b := newBranch(1)
				votes(t, s, b, "x", "COMMIT")
				for range 2 {
					var err error
					switch {
					case c.want == done && c.end == "commit":
						_, err = s.Commit(t.Context(), &participantv1.CommitRequest{Branch: b})
						fails(t, "commit", err, codes.Unknown, "no answer to it")
					case c.want == done:
						_, err = s.Abort(t.Context(), &participantv1.AbortRequest{Branch: b})
						fails(t, "abort", err, codes.Unknown, "no answer to it")
					case c.end == "commit":
						commits(t, s, b, c.want)
					default:
						aborts(t, s, b, c.want)
					}
				}
				if want := map[bool]int{true: 2, false: 1}[c.want == done]; calls != want {
					t.Errorf("the service was asked %d times, want %d", calls, want)
				}
				if n := count(t, db, "ended"); n != 0 {
					t.Errorf("what the function wrote against its own word is there %d times", n)
				}
			})
		}
	}
}

// A vote of no promises that nothing was kept: what the function wrote is undone,
// and so it is with an error, with read-only, and with no answer at all.
func TestLocalKeepsNothingWithoutAYes(t *testing.T) {
	for name, c := range map[string]struct {
		vote branch.Vote
		err  error
		want string
	}{
		"no":        {branch.No("sold out"), nil, "ABORT: sold out"},
		"read-only": {branch.ReadOnly(), nil, "READ_ONLY"},
		"error":     {branch.Yes(), errors.New("bug"), ""},
		"nothing":   {branch.Vote{}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			db := newFile(t)
			s := newLocal(t, db, &inFile{prepare: func(tx *branch.Tx, _ branch.Branch) (branch.Vote, error) {
				if err := errors.Join(tx.Hold("seat"), add(tx.Tx, "reserved", 1)); err != nil {
					return branch.Vote{}, err
				}
				return c.vote, c.err
			}}, branch.Config{})
			for range 2 { // the second branch finds the seat free
				b := newBranch(1)
				for range 2 {
					got, err := prepare(t, s, b, "x")
					if got != c.want || (err != nil) != (c.want == "") {
						t.Errorf("prepare: %q, %v; want %q", got, err, c.want)
					}
				}
			}
			if n := count(t, db, "reserved"); n != 0 {
				t.Errorf("what was written is there %d times", n)
			}
		})
	}
}

// R8: even where the service fails, the newer leader was heard of.
func TestFenceIsRaisedByAFailedCall(t *testing.T) {
	s := newLocal(t, newFile(t), &inFile{prepare: func(*branch.Tx, branch.Branch) (branch.Vote, error) {
		return branch.Vote{}, errors.New("bug")
	}}, branch.Config{})
	_, err := prepare(t, s, newBranch(5), "x")
	fails(t, "prepare", err, codes.Unknown, "bug")
	_, err = prepare(t, s, newBranch(4), "x")
	fails(t, "prepare of an older epoch", err, codes.FailedPrecondition, "heard of 5")
}

// A hold keeps a name from every other branch, of any cluster, until its branch
// has ended, and a hold that cannot be is an error.
func TestHold(t *testing.T) {
	var misuse error
	s := newLocal(t, newFile(t), &inFile{
		prepare: func(tx *branch.Tx, b branch.Branch) (branch.Vote, error) {
			for _, name := range strings.Fields(string(b.Payload)) {
				if err := tx.Hold(name); err != nil {
					return branch.No("held: %v", errors.Is(err, branch.ErrHeld)), nil
				}
			}
			return branch.Yes(), nil
		},
		commit: func(tx *branch.Tx, _ branch.Branch) error { misuse = tx.Hold("late"); return nil },
	}, branch.Config{})
	first := newBranch(1)
	votes(t, s, first, "a b a", "COMMIT")
	second := newBranch(1)
	votes(t, s, second, "c b", "ABORT: held: true")
	sameTxID := proto.CloneOf(first)
	sameTxID.Cluster = "c2"
	votes(t, s, sameTxID, "a", "ABORT: held: true")
	third := newBranch(1)
	votes(t, s, third, "c", "COMMIT") // second kept nothing
	commits(t, s, first, done)
	if misuse == nil {
		t.Error("a hold in Commit was granted")
	}
	votes(t, s, newBranch(1), "a b", "COMMIT")
	aborts(t, s, third, done)
	votes(t, s, newBranch(1), "c", "COMMIT")
	votes(t, s, newBranch(1), strings.Repeat("x", 2000), "ABORT: held: false")
	var many strings.Builder
	for i := range 1025 {
		fmt.Fprintf(&many, "n%d ", i)
	}
	votes(t, s, newBranch(1), many.String(), "ABORT: held: false")
}

// A prepare that is cut in the middle holds up the abort of its branch, and no
// other's: the abort's effect never comes before the prepare's end.
func TestAbortWaitsForThePrepareUnderWay(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	var order []string
	s := newForeign(t, &script{
		prepare: func(_ context.Context, b branch.Branch) (branch.Vote, error) {
			if string(b.Payload) == "slow" {
				close(begun)
				<-release
				order = append(order, "prepared")
			}
			return branch.Yes(), nil
		},
		abort: func(_ context.Context, b branch.Branch) error {
			if string(b.Payload) == "slow" {
				order = append(order, "aborted")
			}
			return nil
		},
	}, branch.Config{})
	slow := newBranch(1)
	ctx, cut := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Prepare(ctx, prepareRequest(slow, "slow"))
		ended <- err
	}()
	<-begun
	cut()
	impatient, leave := context.WithCancel(t.Context())
	leave()
	if _, err := s.Abort(impatient, &participantv1.AbortRequest{Branch: slow}); status.Code(err) != codes.Canceled {
		t.Errorf("an abort with an ended context: %v", err)
	}
	other := newBranch(1)
	votes(t, s, other, "quick", "COMMIT")
	aborts(t, s, other, done)
	aborted := make(chan struct{})
	go func() {
		defer close(aborted)
		aborts(t, s, slow, done)
	}()
	close(release)
	<-ended
	<-aborted
	if fmt.Sprint(order) != "[prepared aborted]" {
		t.Errorf("order %v", order)
	}
	votes(t, s, slow, "slow", "ABORT: the branch was aborted before")
}
