package httpparticipant_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
)

// patience bounds what a test waits for; it is reached only by a failure.
const patience = 30 * time.Second

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until polls for what has no event to wait on.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := bounded(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never came: %s", what)
		}
	}
}

// open opens a driver as a node does.
func open(t *testing.T, config httpparticipant.Config) participants.Participant {
	t.Helper()
	return openLogged(t, config, hclog.NewNullLogger())
}

func openLogged(t testing.TB, config httpparticipant.Config, log hclog.Logger) participants.Participant {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	p, err := httpparticipant.Driver{}.Open(t.Context(),
		participants.Registration{Name: "p", Driver: "http", Config: text}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

// openKnown opens a driver and waits until it knows that the service lists its
// branches, so that the suite looks at the lists.
func openKnown(t *testing.T, config httpparticipant.Config) participants.Participant {
	t.Helper()
	p := open(t, config)
	until(t, "Recovers", p.Recovers)
	return p
}

// serve runs a service, in the clear on loopback, and gives its url.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// openOver puts a participant behind the wire and opens it from the other side.
func openOver(t *testing.T, p participants.Participant) participants.Participant {
	t.Helper()
	return open(t, httpparticipant.Config{URL: serve(t, httpparticipant.Handler(p, httpparticipant.Options{}))})
}

// says is a service that gives one answer to everything, whoever asks.
func says(code int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		w.Write([]byte(body)) //nolint:errcheck // the caller notices
	}
}

func saysJSON(code int, body string) http.HandlerFunc { return says(code, "application/json", body) }

// scripted is a participant whose every answer a test writes.
type scripted struct {
	prepare  func(context.Context, participants.Branch) (participants.Vote, error)
	commit   func(context.Context, participants.Branch) error
	abort    func(context.Context, participants.Branch) error
	list     func(context.Context, string) ([]participants.Branch, error)
	status   func(context.Context, participants.Branch) (participants.Status, error)
	recovers bool
}

func (s *scripted) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	return s.prepare(ctx, b)
}
func (s *scripted) Commit(ctx context.Context, b participants.Branch) error { return s.commit(ctx, b) }
func (s *scripted) Abort(ctx context.Context, b participants.Branch) error  { return s.abort(ctx, b) }
func (s *scripted) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	if s.list == nil {
		return nil, nil
	}
	return s.list(ctx, cluster)
}
func (s *scripted) Status(ctx context.Context, b participants.Branch) (participants.Status, error) {
	return s.status(ctx, b)
}
func (s *scripted) Recovers() bool { return s.recovers }
func (s *scripted) Close() error   { return nil }

func newBranch(payload string) participants.Branch {
	return participants.Branch{
		Cluster: "c1",
		TxID:    txn.TxID(uuid.Must(uuid.NewV7())),
		Number:  3,
		Epoch:   7,
		Horizon: 1_000_000_000,
		Digest:  sha256.Sum256([]byte(payload)),
		Payload: []byte(payload),
	}
}

// calls makes each of the three calls once and gives their errors.
func calls(ctx context.Context, p participants.Participant, b participants.Branch) map[string]error {
	_, err := p.Prepare(ctx, b)
	return map[string]error{"prepare": err, "commit": p.Commit(ctx, b), "abort": p.Abort(ctx, b)}
}

// mustBeAmbiguous fails unless err is an error without a meaning.
func mustBeAmbiguous(t *testing.T, what string, err error) {
	t.Helper()
	var h *participants.Heuristic
	if err == nil || errors.Is(err, participants.ErrStaleEpoch) || errors.As(err, &h) {
		t.Errorf("%s: %v; want an ambiguous error", what, err)
	}
}
