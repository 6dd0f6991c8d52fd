package httpparticipant_test

// These tests prove that the wire keeps the classes of the participant contract
// apart: what is certain on one side is certain on the other, and everything else
// is ambiguous.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
)

// A branch reaches the participant as it left the coordinator, and each of the
// three votes comes back as it was given.
func TestBranchAndVotesCrossTheWire(t *testing.T) {
	sent := newBranch(`{"debit":30}`)
	votes := make(chan participants.Vote, 1)
	arrived := make(chan participants.Branch, 1)
	p := openOver(t, &scripted{prepare: func(_ context.Context, b participants.Branch) (participants.Vote, error) {
		arrived <- b
		return <-votes, nil
	}})
	for _, want := range []participants.Vote{
		participants.Yes(), participants.ReadOnly(), participants.No("balance is %d", 12),
	} {
		votes <- want
		vote, err := p.Prepare(bounded(t), sent)
		if err != nil || vote != want {
			t.Errorf("vote %v, %v; want %v", vote, err, want)
		}
		if got := <-arrived; !reflect.DeepEqual(got, sent) {
			t.Errorf("the participant saw\n%+v\nof\n%+v", got, sent)
		}
	}
}

// A payload that is JSON crosses as JSON and keeps every digit; any other crosses
// byte by byte.
func TestPayloadsCrossTheWire(t *testing.T) {
	arrived := make(chan string, 1)
	p := openOver(t, &scripted{prepare: func(_ context.Context, b participants.Branch) (participants.Vote, error) {
		arrived <- string(b.Payload)
		return participants.Yes(), nil
	}})
	for sent, want := range map[string]string{
		``:                          ``,
		`null`:                      `null`,
		`"text"`:                    `"text"`,
		`{"n":12345678901234567.1}`: `{"n":12345678901234567.1}`,
		` {"a" : ["<&>", "é"]} `:    `{"a":["<&>","é"]}`, // the same value
		`{"twice":1,"twice":2}`:     `{"twice":1,"twice":2}`,
		`{"cut":`:                   `{"cut":`,
		"{\"no utf-8\":\"\xff\"}":   "{\"no utf-8\":\"\xff\"}",
		"\x00\xff bytes":            "\x00\xff bytes",
		strings.Repeat("[", 20000):  strings.Repeat("[", 20000),
	} {
		if _, err := p.Prepare(bounded(t), newBranch(sent)); err != nil {
			t.Errorf("prepare of %.40q: %v", sent, err)
			continue
		}
		if got := <-arrived; got != want {
			t.Errorf("%.40q arrived as %.40q", sent, got)
		}
	}
}

// The driver sends what it documents: JSON, and a payload that is part of it.
func TestRequestOnTheWire(t *testing.T) {
	type seen struct {
		header http.Header
		body   map[string]any
	}
	requests := make(chan seen, 1)
	p := open(t, httpparticipant.Config{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/decree/prepare" {
			s := seen{header: r.Header}
			if err := json.NewDecoder(r.Body).Decode(&s.body); err != nil {
				t.Errorf("body: %v", err)
			}
			requests <- s
		}
		w.Header().Set("Set-Cookie", "session=1")
		saysJSON(200, `{"vote": "commit"}`)(w, r)
	})) + "/v1/decree/"})
	b := newBranch(`{"debit":30}`)
	for range 2 { // the second time with what a cookie jar would have kept
		if _, err := p.Prepare(bounded(t), b); err != nil {
			t.Fatal(err)
		}
		got := <-requests
		if want := map[string]any{
			"cluster": "c1", "txid": b.TxID.String(), "branch": 3.0, "epoch": 7.0, "horizon_ms": 1000.0,
			"digest": fmt.Sprintf("%x", b.Digest), "payload": map[string]any{"debit": 30.0},
		}; !reflect.DeepEqual(got.body, want) {
			t.Errorf("the service saw\n%v\nwant\n%v", got.body, want)
		}
		got.header.Del("Content-Length")
		if want := (http.Header{
			"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"decree"},
		}); !reflect.DeepEqual(got.header, want) {
			t.Errorf("headers %v, want %v", got.header, want)
		}
	}
}

// What the wire would change on its way is not sent.
func TestWhatTheWireCannotCarry(t *testing.T) {
	p := open(t, httpparticipant.Config{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/recover" {
			t.Errorf("%s was sent", r.URL.Path)
		}
		http.NotFound(w, r)
	}))})
	b := newBranch("")
	b.Epoch = 1 << 53
	for call, err := range calls(bounded(t), p, b) {
		mustBeAmbiguous(t, call+" with an epoch that JavaScript would round", err)
	}
	b = newBranch("")
	b.Cluster = "c\xff"
	for call, err := range calls(bounded(t), p, b) {
		mustBeAmbiguous(t, call+" of a cluster whose name JSON cannot spell", err)
	}
}

// R8: a stale epoch crosses the wire as itself.
func TestStaleEpoch(t *testing.T) {
	stale := fmt.Errorf("%w: epoch 6, heard of 7", participants.ErrStaleEpoch)
	p := openOver(t, &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) {
			return participants.Vote{}, stale
		},
		commit: func(context.Context, participants.Branch) error { return stale },
		abort:  func(context.Context, participants.Branch) error { return stale },
	})
	for call, err := range calls(bounded(t), p, newBranch("")) {
		if !errors.Is(err, participants.ErrStaleEpoch) || !strings.HasSuffix(err.Error(), ": the caller's epoch is over: epoch 6, heard of 7") {
			t.Errorf("%s: %v; want a stale epoch with its text", call, err)
		}
	}
}

// R9: damage crosses the wire with its evidence, and as damage.
func TestHeuristicsCrossTheWire(t *testing.T) {
	commit := &participants.Heuristic{Receipt: txn.HeuristicAbort, Detail: "nothing shows a commit"}
	abort := &participants.Heuristic{Receipt: txn.HeuristicHazard, Detail: "forgotten"}
	p := openOver(t, &scripted{
		commit: func(context.Context, participants.Branch) error { return fmt.Errorf("wrapped: %w", commit) },
		abort:  func(context.Context, participants.Branch) error { return abort },
	})
	var got *participants.Heuristic
	if err := p.Commit(bounded(t), newBranch("")); !errors.As(err, &got) || *got != *commit {
		t.Errorf("commit: %v; want %v", err, commit)
	}
	if err := p.Abort(bounded(t), newBranch("")); !errors.As(err, &got) || *got != *abort {
		t.Errorf("abort: %v; want %v", err, abort)
	}
}

// R5, R9: a participant that breaks its contract, or fails, has not answered.
func TestFailuresCrossTheWireAsAmbiguous(t *testing.T) {
	for name, failure := range map[string]error{
		"an error":            errors.New("disk"),
		"an ended context":    context.Canceled,
		"a passed deadline":   context.DeadlineExceeded,
		"what it cannot do":   errors.ErrUnsupported,
		"a heuristic of done": &participants.Heuristic{Receipt: txn.Done},
	} {
		p := openOver(t, &scripted{
			prepare: func(context.Context, participants.Branch) (participants.Vote, error) {
				return participants.Vote{}, failure
			},
			commit: func(context.Context, participants.Branch) error { return failure },
			abort:  func(context.Context, participants.Branch) error { return failure },
		})
		for call, err := range calls(bounded(t), p, newBranch("")) {
			mustBeAmbiguous(t, call+" answered with "+name, err)
		}
	}
	p := openOver(t, &scripted{prepare: func(context.Context, participants.Branch) (participants.Vote, error) {
		return participants.Vote{}, nil
	}})
	_, err := p.Prepare(bounded(t), newBranch(""))
	mustBeAmbiguous(t, "no vote", err)
}

func TestStatusCrossesTheWire(t *testing.T) {
	for _, want := range []participants.Status{
		participants.StatusUnknown, participants.StatusPrepared, participants.StatusCommitted, participants.StatusAborted,
	} {
		p := openOver(t, &scripted{status: func(context.Context, participants.Branch) (participants.Status, error) {
			return want, nil
		}})
		got, err := p.(participants.StatusReporter).Status(bounded(t), newBranch(""))
		if err != nil || got != want {
			t.Errorf("status %s, %v; want %s", got, err, want)
		}
	}
	p := openOver(t, &scripted{status: func(context.Context, participants.Branch) (participants.Status, error) {
		return 99, nil
	}})
	if got, err := p.(participants.StatusReporter).Status(bounded(t), newBranch("")); err == nil {
		t.Errorf("status 99 read as %v", got)
	}
}

// What a service says goes into the replicated log and onto terminals: it is
// bounded, whole characters, and can neither break a line nor paint over one.
func TestHostileReasons(t *testing.T) {
	for said, want := range map[string]string{
		"sold out\r\nlevel=ERROR":                         `sold out\r\nlevel=ERROR`,
		"\x1b[2Jgone\x07":                                 `\x1b[2Jgone\a`,
		"pay \u202e03 only":                               `pay \u202e03 only`,
		"nul \x00":                                        `nul \x00`,
		"zero\u200bwidth":                                 `zero\u200bwidth`,
		"größer als 5 €":                                  "größer als 5 €",
		strings.Repeat("é", txn.MaxReasonDetail):          strings.Repeat("é", txn.MaxReasonDetail/2),
		"x" + strings.Repeat("é", txn.MaxReasonDetail):    "x" + strings.Repeat("é", txn.MaxReasonDetail/2-1),
		strings.Repeat("x", txn.MaxReasonDetail-1) + "\n": strings.Repeat("x", txn.MaxReasonDetail-1),
	} {
		body, err := json.Marshal(map[string]string{"vote": "abort", "reason": said})
		if err != nil {
			t.Fatal(err)
		}
		p := open(t, httpparticipant.Config{URL: serve(t, saysJSON(409, string(body)))})
		vote, err := p.Prepare(bounded(t), newBranch(""))
		if err != nil || vote.Kind != txn.VoteAbort || vote.Reason != want {
			t.Errorf("%.60q came as %s %.60q, %v; want %.60q", said, vote.Kind, vote.Reason, err, want)
		}
		if len(vote.Reason) > txn.MaxReasonDetail || !utf8.ValidString(vote.Reason) {
			t.Errorf("%d bytes of reason, UTF-8 %v", len(vote.Reason), utf8.ValidString(vote.Reason))
		}
	}
}
