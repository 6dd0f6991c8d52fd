package bankday

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/transport/client"
)

// What is proven here: what a day tells of itself is what happened, and a
// configuration that cannot be run is refused whole.

func TestConfigTellsAllThatIsWrong(t *testing.T) {
	good := Config{For: time.Minute, Workers: 1, Accounts: 1}
	if err := good.Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	bad := Config{
		For: -1, Workers: 0, Accounts: maxAccounts + 1, KillLeaderEvery: time.Second,
		Faults: AllKinds(), FaultEvery: time.Millisecond, Failovers: -1, Pace: time.Hour,
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, want := range []string{"for -1ns", "workers 0", "accounts 10001", "kill the leader every 1s: want 0 or", "where faults strike", "a fault every 1ms", "failovers -1", "pace 1h0m0s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
}

func answered(took time.Duration, expect bank.Expectation, r client.Result, err error) bank.Entry {
	now := time.Now()
	return bank.Entry{Order: bank.Order{Expect: expect}, Result: r, Err: err, Submitted: now, Answered: now.Add(took)}
}

func aborted(code client.AbortCode) client.Result {
	return client.Result{Outcome: client.Aborted, Reason: client.AbortReason{Code: code}}
}

func TestReasonsAreToldApart(t *testing.T) {
	for _, tt := range []struct {
		expect bank.Expectation
		code   client.AbortCode
		want   string
	}{
		{bank.MustAbort, client.AbortVote, askedTooMuch},
		{bank.MustAbort, client.AbortUnavailable, notReached},
		{bank.Either, client.AbortVote, refused},
		{bank.Either, client.AbortTimeout, outOfTime},
		{bank.Either, client.AbortPresumed, presumed},
	} {
		if got := reason(answered(0, tt.expect, aborted(tt.code), nil)); got != tt.want {
			t.Errorf("%v %s is %q, want %q", tt.expect, tt.code, got, tt.want)
		}
	}
}

func TestWatchCountsAnswers(t *testing.T) {
	var w watch
	w.add(answered(time.Millisecond, bank.Either, client.Result{Outcome: client.Committed}, nil))
	w.add(answered(time.Second, bank.Either, aborted(client.AbortVote), nil))
	w.add(answered(time.Minute, bank.Either, client.Result{}, errors.New("lost")))
	total, recent := w.take()
	if total != (counts{1, 1, 1}) || len(recent) != 3 {
		t.Errorf("%+v, %d recent", total, len(recent))
	}
	if total, recent = w.take(); total != (counts{1, 1, 1}) || len(recent) != 0 {
		t.Errorf("then %+v, %d recent", total, len(recent))
	}
	if a, b := w.wrong(), w.wrong(); a != 1 || b != 2 {
		t.Errorf("wrong answers %d, %d", a, b)
	}
}

func TestOutage(t *testing.T) {
	began := time.Now()
	at := func(d time.Duration, err error) bank.Entry { return bank.Entry{Answered: began.Add(d), Err: err} }
	entries := []bank.Entry{
		at(-1, nil), at(3*time.Second, nil), at(4*time.Second, nil), at(6*time.Second, errors.New("lost")), at(8*time.Second, nil), at(time.Minute, nil),
	}
	s := shift{began: began, ended: began.Add(9 * time.Second)}
	if got := outage(s, entries); got != 4*time.Second {
		t.Errorf("the longest time without an answer is %s, want 4s: no outcome is no answer", got)
	}
	if got := outage(s, entries[:3]); got != 5*time.Second {
		t.Errorf("of a shift that ended in silence it is %s, want 5s", got)
	}
}

// TestReplay holds that the command of a day is one that makes such a day.
func TestReplay(t *testing.T) {
	cfg := Config{
		Seed: 7, For: time.Minute, Workers: 3, Accounts: 5, Pace: time.Millisecond,
		Faults: []Kind{KillLeader, CutLink}, FaultEvery: 2 * time.Second, Failovers: 9, TLS: true,
	}
	want := "decree bank --seed 7 --for 1m0s --workers 3 --accounts 5 --pace 1ms --faults leader,link --fault-every 2s --failovers 9 --tls"
	if got := cfg.command(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	cfg = Config{Seed: 7, For: time.Minute, Workers: 3, Accounts: 5, KillLeaderEvery: time.Minute}
	if got := cfg.command(); got != "decree bank --seed 7 --for 1m0s --workers 3 --accounts 5 --kill-leader-every 1m0s" {
		t.Errorf("%s", got)
	}
}

func TestQuantiles(t *testing.T) {
	var took []time.Duration
	for n := 100; n > 0; n-- {
		took = append(took, time.Duration(n))
	}
	if got := quantiles(took); got != (latencies{51, 100, 100}) {
		t.Errorf("of 1..100: %v", got)
	}
	if got := quantiles(nil); got != (latencies{}) {
		t.Errorf("of nothing: %v", got)
	}
}

func TestResultInWords(t *testing.T) {
	r := Result{
		Findings: 25, Orders: 3, Seconds: 1.5, PerSecond: 2, Committed: 1, Aborted: 1, Unknown: 1, P50: 1.25, P99: 2, Worst: 30,
		AbortReasons: map[string]int{refused: 1}, FailoversMS: []float64{901.4, 870},
		Failovers: 2, Faults: map[Kind]int{CutLink: 1, KillLeader: 4}, WorstOutage: 4321, RestMS: []float64{12, 7}, Wall: 61.2, Replay: "decree bank --seed 1",
		Checks: []Check{{Name: "nodes", Passed: true, Text: "agree"}, {Name: "money", Findings: 25, Examples: []string{"a coin is gone"}}},
	}
	var b bytes.Buffer
	r.print(newSpeaker(&b))
	for _, want := range []string{
		"3 orders in 1.5s, 2 a second: 1 committed, 1 aborted (1 refused by a participant), 1 unknown",
		"answered after 1.2ms (p50), 2.0ms (p99), 30.0ms (worst)",
		"leaders killed: 2; the next client was answered after 901 870 ms",
		"2 failovers; 5 faults: 4 leader, 1 link", "without an answer 4321.0ms; at rest 12.0ms after the end at the latest, of 2 times; 61s in all", "again: decree bank --seed 1",
		"  ok     nodes      agree", "  WRONG  money      a coin is gone", "  WRONG  money      ... and 24 more", "FAILED: 25 findings",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, &b)
		}
	}
	text, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(text), `"passed":false`) || !strings.Contains(string(text), `"p50_ms":1.25`) {
		t.Errorf("JSON %s (%v)", text, err)
	}
}
