package participanttest

// What the fake adds to the contract: scripted answers, calls that are lost, held
// up or late, and its eye on the caller. All of it runs in virtual time.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

func fakeBranch() participants.Branch {
	return participants.Branch{Cluster: "c", TxID: NewTxID(txn.Time(time.Now().UnixNano())), Number: 1, Epoch: 1, Payload: []byte("x")}
}

func TestScriptedAnswersComeInOrder(t *testing.T) {
	f := NewFake()
	b, other := fakeBranch(), fakeBranch()
	errDisk := errors.New("disk on fire")
	f.Script(Prepare, b.TxID, Answer{Err: errDisk, Fate: Dropped}, Answer{Vote: participants.No("sold out")})
	f.Script(Prepare, AnyTx, Answer{Vote: participants.ReadOnly(), Stay: true})
	if _, err := f.Prepare(t.Context(), b); !errors.Is(err, errDisk) {
		t.Errorf("first prepare: %v", err)
	}
	if v, err := f.Prepare(t.Context(), b); err != nil || v.Reason != "sold out" {
		t.Errorf("second prepare: %v, %v", v, err)
	}
	for range 2 {
		if v, err := f.Prepare(t.Context(), other); err != nil || v != participants.ReadOnly() {
			t.Errorf("prepare of another transaction: %v, %v", v, err)
		}
	}
	f.Unscript(Prepare, AnyTx)
	if v, err := f.Prepare(t.Context(), fakeBranch()); err != nil || v != participants.Yes() {
		t.Errorf("prepare without a script: %v, %v", v, err)
	}
	var transcript []string
	for _, c := range f.Calls() {
		transcript = append(transcript, c.String())
	}
	want := []string{
		"prepare branch=1 epoch=1 error: disk on fire",
		"prepare branch=1 epoch=1 abort",
		"prepare branch=1 epoch=1 read-only",
		"prepare branch=1 epoch=1 read-only",
		"prepare branch=1 epoch=1 commit",
	}
	if fmt.Sprint(transcript) != fmt.Sprint(want) {
		t.Errorf("transcript:\n%s", strings.Join(transcript, "\n"))
	}
	f.Verify(t)
}

// A lost request leaves nothing, a lost answer leaves the work; both look alike.
func TestLostRequestAndLostAnswer(t *testing.T) {
	f := NewFake()
	request, answer := fakeBranch(), fakeBranch()
	f.Script(Prepare, request.TxID, Answer{Fate: Dropped})
	f.Script(Prepare, answer.TxID, Answer{Err: ErrCut})
	for _, b := range []participants.Branch{request, answer} {
		if v, err := f.Prepare(t.Context(), b); !errors.Is(err, ErrCut) || v != (participants.Vote{}) {
			t.Errorf("prepare: %v, %v", v, err)
		}
	}
	if f.State(request) != participants.StatusUnknown || f.State(answer) != participants.StatusPrepared || f.Held() != 1 {
		t.Errorf("states %s and %s", f.State(request), f.State(answer))
	}
}

// A held call waits for its release or for its context; a delay is virtual time.
func TestHeldAndDelayedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		b, hold := fakeBranch(), make(chan struct{})
		f.Script(Prepare, b.TxID, Answer{Hold: hold, Delay: time.Minute}, Answer{Hold: make(chan struct{})})
		start := time.Now()
		answered := make(chan error)
		go func() { _, err := f.Prepare(t.Context(), b); answered <- err }()
		if err := f.Await(t.Context(), Prepare, b.TxID, 1); err != nil {
			t.Error(err)
		}
		if c := f.Calls()[0]; c.Ended || c.String() != "prepare branch=1 epoch=1 ..." {
			t.Errorf("the held call is %s", c)
		}
		<-time.After(time.Second) // virtual: nothing else moves
		close(hold)
		if err := <-answered; err != nil || time.Since(start) != time.Minute+time.Second {
			t.Errorf("answered %v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Prepare(ctx, b); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("held past its context: %v", err)
		}
		if err := f.Await(ctx, Commit, AnyTx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("await of what never comes: %v", err)
		}
		f.Verify(t)
	})
}

// R8: a prepare that is carried out after its caller has gone, and after the
// abort, finds the tombstone; without an abort it stays prepared.
func TestBelatedPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		aborted, orphan := fakeBranch(), fakeBranch()
		hold := make(chan struct{})
		f.Script(Prepare, aborted.TxID, Answer{Fate: Belated, Hold: hold, Err: ErrCut})
		f.Script(Prepare, orphan.TxID, Answer{Fate: Belated, Hold: hold})
		if _, err := f.Prepare(t.Context(), aborted); !errors.Is(err, ErrCut) {
			t.Errorf("prepare: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Prepare(ctx, orphan); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("prepare: %v", err)
		}
		if err := f.Abort(t.Context(), aborted); err != nil {
			t.Error(err)
		}
		close(hold)
		synctest.Wait()
		list, err := f.Recover(t.Context(), "c")
		if err != nil || len(list) != 1 || list[0].TxID != orphan.TxID {
			t.Errorf("recover: %v, %v; want the orphan alone", list, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		f.Verify(t)
	})
}

// Close ends what is on its way, and waits for it: the bubble would tell.
func TestCloseEndsBelatedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		b := fakeBranch()
		f.Script(Prepare, b.TxID, Answer{Fate: Belated, Hold: make(chan struct{}), Err: ErrCut})
		f.Prepare(t.Context(), b) //nolint:errcheck // it is cut
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if f.State(b) != participants.StatusUnknown {
			t.Error("the call was carried out after Close")
		}
	})
}

// The caller's side of the contract is watched.
func TestViolations(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(t *testing.T, f *Fake, b participants.Branch)
		want string // part of the first violation; empty for none
	}{
		{"a good run", func(t *testing.T, f *Fake, b participants.Branch) {
			f.Prepare(t.Context(), b) //nolint:errcheck // the violations are what counts here
			f.Commit(t.Context(), b)  //nolint:errcheck
			f.Commit(t.Context(), b)  //nolint:errcheck
		}, ""},
		{"an enlisted branch", func(t *testing.T, f *Fake, b participants.Branch) {
			f.Stage(b)
			f.Commit(t.Context(), b) //nolint:errcheck
		}, ""},
		{"commit without a vote", func(t *testing.T, f *Fake, b participants.Branch) {
			f.Commit(t.Context(), b) //nolint:errcheck
		}, "never voted yes"},
		{"commit though the yes was lost", func(t *testing.T, f *Fake, b participants.Branch) {
			f.Script(Prepare, b.TxID, Answer{Err: ErrCut})
			f.Prepare(t.Context(), b) //nolint:errcheck
			f.Commit(t.Context(), b)  //nolint:errcheck
		}, "never voted yes"},
		{"both decisions", func(t *testing.T, f *Fake, b participants.Branch) {
			f.Prepare(t.Context(), b) //nolint:errcheck
			f.Commit(t.Context(), b)  //nolint:errcheck
			f.Abort(t.Context(), b)   //nolint:errcheck
		}, "told to commit before"},
		{"prepare after commit", func(t *testing.T, f *Fake, b participants.Branch) {
			f.Prepare(t.Context(), b) //nolint:errcheck
			f.Commit(t.Context(), b)  //nolint:errcheck
			f.Prepare(t.Context(), b) //nolint:errcheck
		}, "told to commit before"},
		{"a deposed leader is refused and not judged", func(t *testing.T, f *Fake, b participants.Branch) {
			f.Prepare(t.Context(), b) //nolint:errcheck
			b.Epoch = 2
			f.Commit(t.Context(), b) //nolint:errcheck
			b.Epoch = 1
			f.Abort(t.Context(), b) //nolint:errcheck
		}, ""},
		{"a nameless branch", func(t *testing.T, f *Fake, b participants.Branch) {
			b.Number = 0
			f.Abort(t.Context(), b) //nolint:errcheck
		}, "branch number 0"},
		{"a call after Close", func(t *testing.T, f *Fake, b participants.Branch) {
			f.Close()               //nolint:errcheck
			f.Abort(t.Context(), b) //nolint:errcheck
		}, "closed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := NewFake()
			tc.play(t, f, fakeBranch())
			got := strings.Join(f.Violations(), "; ")
			if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
				t.Errorf("violations %q, want %q", got, tc.want)
			}
		})
	}
}

// R9 and R4: a branch that an operator removed, and a resource that cannot list.
func TestLoseAndMute(t *testing.T) {
	f := NewFake()
	b := fakeBranch()
	f.Prepare(t.Context(), b) //nolint:errcheck // looked at below
	f.Mute(true)
	if list, err := f.Recover(t.Context(), "c"); err != nil || len(list) != 0 || f.Recovers() {
		t.Errorf("a mute fake lists %v, %v", list, err)
	}
	f.Mute(false)
	if list, _ := f.Recover(t.Context(), "c"); len(list) != 1 || !f.Recovers() {
		t.Errorf("recover: %v", list)
	}
	f.Lose(b)
	var h *participants.Heuristic
	if err := f.Commit(t.Context(), b); !errors.As(err, &h) || h.Receipt != txn.HeuristicAbort || f.Effects(b) != 0 {
		t.Errorf("commit of a lost branch: %v", err)
	}
	f.Verify(t)
}

// Fakes is a driver whose participants share a fake; each hold promises not to be
// used after its Close.
func TestFakesAreHeld(t *testing.T) {
	f := NewFake()
	drivers := participants.Drivers{"fake": Fakes{"bank": f}}
	r := participants.Registration{Name: "bank", Driver: "fake"}
	one, err := drivers.Open(t.Context(), r, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	two, err := drivers.Open(t.Context(), r, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	b := fakeBranch()
	one.Prepare(t.Context(), b) //nolint:errcheck // looked at below
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if err := two.Commit(t.Context(), b); err != nil || f.Effects(b) != 1 {
		t.Errorf("commit through the second hold: %v", err)
	}
	f.Verify(t)
	one.Abort(t.Context(), fakeBranch()) //nolint:errcheck // the violation is what counts
	if got := f.Violations(); len(got) != 1 || !strings.Contains(got[0], "bank: abort after Close") {
		t.Errorf("violations %q", got)
	}
	if _, err := drivers.Open(t.Context(), participants.Registration{Name: "none", Driver: "fake"}, hclog.NewNullLogger()); err == nil {
		t.Error("opened a fake that is not there")
	}
}
