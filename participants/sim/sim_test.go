package sim

// The simulated service passes the conformance suite, and its chance and delays
// do what its configuration says, in virtual time.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

func TestConformance(t *testing.T) {
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		var mu sync.Mutex
		counts := map[string]int{}
		s := NewService(func(payload []byte) {
			mu.Lock()
			defer mu.Unlock()
			counts[string(payload)]++
		})
		p, err := s.Participant(Config{}, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		return &participanttest.Subject{
			Participant: p,
			Effect:      func(counter string) []byte { return []byte(counter) },
			Count: func(_ *testing.T, counter string) int {
				mu.Lock()
				defer mu.Unlock()
				return counts[counter]
			},
			Refused:  func() []byte { return []byte(`{"vote": "abort", "reason": "sold out"}`) },
			ReadOnly: func() []byte { return []byte(`{"vote": "read-only"}`) },
		}
	}})
}

func open(t *testing.T, d *Driver, config string) participants.Participant {
	t.Helper()
	p, err := d.Open(t.Context(), participants.Registration{Name: "s", Driver: "sim", Config: []byte(config)}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func newBranch(payload string) participants.Branch {
	return participants.Branch{
		Cluster: "c",
		TxID:    participanttest.NewTxID(txn.Time(time.Now().UnixNano())),
		Number:  1,
		Digest:  txn.NewBranch("s", []byte(payload)).Digest,
		Payload: []byte(payload),
	}
}

func vote(t *testing.T, p participants.Participant, b participants.Branch) participants.Vote {
	t.Helper()
	v, err := p.Prepare(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The rate is what it says, and a refusal stands: asked again, the same no.
func TestPrepareSuccessRate(t *testing.T) {
	p := open(t, new(Driver), `{"prepare_success_rate": 0.3, "commit_success_rate": 0, "seed": 7}`)
	const n = 2000
	yes := 0
	for range n {
		b := newBranch("x")
		v := vote(t, p, b)
		if again := vote(t, p, b); again != v {
			t.Fatalf("first %v, then %v", v, again)
		}
		if v.Kind == txn.VoteCommit {
			yes++
		}
	}
	if yes < n*25/100 || yes > n*35/100 {
		t.Fatalf("%d of %d prepares succeeded at a rate of 0.3", yes, n)
	}
}

// R10: a commit success rate of 0 never finishes, and the branch stays visible.
// Any other rate does in the end, and repeats its way there for the same seed.
func TestCommitSuccessRate(t *testing.T) {
	never := open(t, new(Driver), `{"commit_success_rate": 0}`)
	b := newBranch("x")
	vote(t, never, b)
	for range 1000 {
		if err := never.Commit(t.Context(), b); !errors.Is(err, errChance) {
			t.Fatalf("commit = %v, want a failure", err)
		}
	}
	if list, err := never.Recover(t.Context(), "c"); err != nil || len(list) != 1 || list[0].Name() != b.Name() {
		t.Fatalf("recover = %v, %v; want the branch", list, err)
	}

	attempts := func(b participants.Branch) (n int) {
		p := open(t, new(Driver), `{"success_rate": 0.2, "prepare_success_rate": 1, "seed": 11}`)
		vote(t, p, b)
		for n = 1; p.Commit(t.Context(), b) != nil; n++ {
		}
		return n
	}
	total := 0
	for range 50 {
		b := newBranch("x")
		first := attempts(b)
		if second := attempts(b); second != first {
			t.Fatalf("%d attempts, then %d with the same seed", first, second)
		}
		total += first
	}
	if total < 150 || total > 400 {
		t.Fatalf("50 branches took %d attempts at a rate of 0.2", total)
	}
}

// An abort of a branch that is not known is drawn anew at each attempt as well.
func TestAbortOfUnknownSucceedsInTheEnd(t *testing.T) {
	p := open(t, new(Driver), `{"abort_success_rate": 0.1, "seed": 3}`)
	b := newBranch("x")
	for n := 1; p.Abort(t.Context(), b) != nil; n++ {
		if n == 1000 {
			t.Fatal("1000 attempts at a rate of 0.1")
		}
	}
	if v := vote(t, p, b); v.Kind != txn.VoteAbort {
		t.Fatalf("prepare after abort: %s", v.Kind)
	}
}

// Delays are drawn below delay_max, added to the fixed ones, and to what the
// payload wishes for; an ended context cuts them short and stages nothing.
func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := func(call func()) time.Duration {
			start := time.Now()
			call()
			return time.Since(start)
		}
		random := open(t, new(Driver), `{"delay_max": "100ms", "seed": 5}`)
		var least, most time.Duration = time.Hour, 0
		for range 200 {
			d := took(func() { vote(t, random, newBranch("x")) })
			least, most = min(least, d), max(most, d)
		}
		if least > 5*time.Millisecond || most < 95*time.Millisecond || most > 100*time.Millisecond {
			t.Errorf("200 delays between %s and %s, want 0 to 100ms", least, most)
		}

		fixed := open(t, new(Driver), `{"prepare_delay": "2s", "commit_delay": "3s"}`)
		b := newBranch(`{"delay": "1s", "commit_delay": "4s"}`)
		if d := took(func() { vote(t, fixed, b) }); d != 3*time.Second {
			t.Errorf("prepare took %s, want 3s", d)
		}
		if d := took(func() {
			if err := fixed.Commit(t.Context(), b); err != nil {
				t.Error(err)
			}
		}); d != 7*time.Second {
			t.Errorf("commit took %s, want 7s", d)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late := newBranch("x")
		if d := took(func() {
			if _, err := fixed.Prepare(ctx, late); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("prepare = %v, want the context's end", err)
			}
		}); d != time.Second {
			t.Errorf("prepare came back after %s, want 1s", d)
		}
		if list, _ := fixed.Recover(t.Context(), "c"); len(list) != 0 {
			t.Errorf("%d branches are staged, want none", len(list))
		}
	})
}

// R8: a no stands, though the service has become better meanwhile.
func TestNoStands(t *testing.T) {
	d := new(Driver)
	b := newBranch("x")
	for _, config := range []string{`{"success_rate": 0}`, `{"success_rate": 1}`} {
		if v := vote(t, open(t, d, config), b); v.Kind != txn.VoteAbort {
			t.Fatalf("with %s: %s, want a no", config, v.Kind)
		}
	}
}

// The service of a name outlives its participants within the process, and takes
// a new configuration with it.
func TestReopenFindsTheService(t *testing.T) {
	d := new(Driver)
	b := newBranch("x")
	vote(t, open(t, d, `{"commit_success_rate": 0}`), b)
	if err := open(t, d, `{}`).Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := d.services["s"].Counts(); got != (Counts{Prepared: 1, Committed: 1}) {
		t.Fatalf("counts = %+v", got)
	}
}

// R11 and R14: what the horizon has passed is forgotten, what waits is not.
func TestMemoryFollowsTheHorizon(t *testing.T) {
	s := NewService(nil)
	p, err := s.Participant(Config{}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	waiting := newBranch("x")
	vote(t, p, waiting)
	for i := range 10 * sweepFrom {
		b := newBranch("x")
		b.TxID = participanttest.NewTxID(waiting.TxID.Time().Add(time.Duration(i+1) * time.Millisecond))
		b.Horizon = b.TxID.Time() // all older ones are finished
		if err := p.Abort(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.branches); n > 4*sweepFrom {
		t.Errorf("%d branches are remembered", n)
	}
	if list, _ := p.Recover(t.Context(), "c"); len(list) != 1 || list[0].Name() != waiting.Name() {
		t.Errorf("recover = %v, want the one that waits", list)
	}
}

func TestCheckReportsEveryProblem(t *testing.T) {
	d := new(Driver)
	for _, good := range []string{``, `{}`, `{"success_rate": 0.5, "delay_max": "100ms", "seed": 18446744073709551615}`} {
		if err := d.Check([]byte(good)); err != nil {
			t.Errorf("Check(%s) = %v", good, err)
		}
	}
	for _, tc := range []struct {
		config string
		want   []string
	}{
		{`{"success_rate": 1.5, "commit_success_rate": -1, "delay_max": "101ms"}`, []string{"success_rate", "commit_success_rate", "delay_max"}},
		{`{"abort_delay": "-1s"}`, []string{"abort_delay"}},
		{`{"delay_max": 5}`, []string{"duration"}},
		{`{"succes_rate": 1}`, []string{"succes_rate"}},
		{`{} {}`, []string{"follows"}},
		{`[]`, []string{"sim configuration"}},
	} {
		err := d.Check([]byte(tc.config))
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Check(%s) = %v, want a word about %s", tc.config, err, want)
			}
		}
		if _, err := d.Open(t.Context(), participants.Registration{Config: []byte(tc.config)}, hclog.NewNullLogger()); err == nil {
			t.Errorf("Open with %s succeeded", tc.config)
		}
	}
}

// A payload may ask for a vote; what it cannot ask for is a no and no surprise.
func TestPayloadWishes(t *testing.T) {
	p := open(t, new(Driver), ``)
	for _, tc := range []struct {
		payload string
		want    txn.Vote
		reason  string
	}{
		{``, txn.VoteCommit, ""},
		{"\xff\x00", txn.VoteCommit, ""},
		{`[1, 2]`, txn.VoteCommit, ""},
		{`{"room": 12}`, txn.VoteCommit, ""},
		{`{"vote": "commit"}`, txn.VoteCommit, ""},
		{`{"vote": "read-only"}`, txn.VoteReadOnly, ""},
		{`{"vote": "abort"}`, txn.VoteAbort, "asks for it"},
		{`{"vote": "abort", "reason": "sold out"}`, txn.VoteAbort, "sold out"},
		{`{"vote": "maybe"}`, txn.VoteAbort, "none of"},
		{`{"delay": "2h"}`, txn.VoteAbort, "delay"},
		{`{"delay": 3}`, txn.VoteAbort, "duration"},
	} {
		t.Run(fmt.Sprintf("%.20q", tc.payload), func(t *testing.T) {
			v := vote(t, p, newBranch(tc.payload))
			if v.Kind != tc.want || !strings.Contains(v.Reason, tc.reason) {
				t.Fatalf("%s %q, want %s %q", v.Kind, v.Reason, tc.want, tc.reason)
			}
		})
	}
}
