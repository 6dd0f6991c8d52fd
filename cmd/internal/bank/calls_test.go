package bank

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/participants"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// What is proven here: the history holds what clients were told and what nodes and
// resources show, the judge finds in it a decision that flipped or was lost (rules
// R1 and R5), and an outcome that was not learnt in time is learnt later.

// told is a history of a world: its orders, and all that can be looked at.
func (w *world) told() []history.Op {
	h := history.NewRecorder()
	teller := &Teller{History: h}
	for _, e := range w.entries {
		teller.calls(0, history.Run, e.TxID)(e.Result, e.Err)
	}
	RecordViews(h, 1, w.views)
	RecordBooks(h, 1+len(w.views), w.books)
	return h.Ops()
}

func TestHistoryOfAGoodWorld(t *testing.T) {
	w := newWorld()
	if f, _ := AuditHistory(w.told()); f.Count != 0 {
		t.Errorf("found: %s", f.Texts)
	}
	w.entries[1].Err = errors.New("lost") // unknown is an outcome, whatever became of it
	w.books[0].Fates[Branch{"transfer", 1}] = participants.StatusPrepared
	if f, _ := AuditHistory(w.told()); f.Count != 0 {
		t.Errorf("found where an outcome is unknown: %s", f.Texts)
	}
}

// TestJudgeFindsAFlip forges each kind of answer in turn.
func TestJudgeFindsAFlip(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*world)
		want  string
	}{
		{"to a client", func(w *world) { w.entries[1].Result.Outcome = client.Aborted }, "run transfer -> aborted"},
		{"at a node", func(w *world) {
			w.views[1].Transactions["transfer"] = logged("transfer", decreev1.State_STATE_ABORTING)
		}, "observe transfer at n2 -> aborted"},
		{"in a resource", func(w *world) {
			w.books[0].Fates[Branch{"overdraft", 2}] = participants.StatusCommitted
		}, "observe overdraft at bank-a, branch 2 -> committed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			tt.spoil(w)
			f, violations := AuditHistory(w.told())
			if f.Count != 1 || len(violations) != 1 || !strings.Contains(f.Texts[0], tt.want) {
				t.Errorf("found %d: %s, want %q", f.Count, f.Texts, tt.want)
			}
		})
	}
}

// scripted is a node that answers as it is told.
type scripted struct {
	decreev1.UnimplementedTransactionsServer
	submit  func(ctx context.Context, txid string) (*decreev1.Result, error)
	inquire func() (*decreev1.Result, error)
	get     func() (*decreev1.Transaction, error)
}

func (s *scripted) Submit(ctx context.Context, req *decreev1.SubmitRequest) (*decreev1.SubmitResponse, error) {
	r, err := s.submit(ctx, req.GetTxid())
	return &decreev1.SubmitResponse{Result: r}, err
}

func (s *scripted) Inquire(context.Context, *decreev1.InquireRequest) (*decreev1.InquireResponse, error) {
	r, err := s.inquire()
	return &decreev1.InquireResponse{Result: r}, err
}

func (s *scripted) Get(context.Context, *decreev1.GetRequest) (*decreev1.GetResponse, error) {
	seen, err := s.get()
	return &decreev1.GetResponse{Transaction: seen}, err
}

func committed() *decreev1.Result {
	return &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_COMMITTED, Delivered: true}
}

// tellerAt is a teller whose cluster is one scripted node.
func tellerAt(t *testing.T, node *scripted) *Teller {
	t.Helper()
	l := listen(t)
	server := grpc.NewServer()
	decreev1.RegisterTransactionsServer(server, node)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	c, err := client.New(client.Config{Endpoints: []string{l.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() }) //nolint:errcheck // nothing is under way
	teller := newTeller()
	teller.Client, teller.Patience, teller.History = c, 30*time.Second, history.NewRecorder()
	teller.Courier = ""
	teller.Offices = map[string]Office{}
	for _, name := range teller.Banks {
		teller.Offices[name] = &kvOffice{}
	}
	return teller
}

// TestUnknownIsResolved: an order whose client waited in vain gets the outcome that
// stands, and is remembered as one that came late; one that was refused is not
// asked about.
func TestUnknownIsResolved(t *testing.T) {
	teller := tellerAt(t, &scripted{
		submit: func(ctx context.Context, txid string) (*decreev1.Result, error) {
			if txid == "reused" {
				return nil, status.Error(codes.FailedPrecondition, "other content")
			}
			<-ctx.Done()
			return nil, ctx.Err()
		},
		inquire: func() (*decreev1.Result, error) { return committed(), nil },
	})
	unknown, err := teller.serve(t.Context(), Traffic{Seed: 1, Hasty: 50 * time.Millisecond}, 0, 1)
	if err != nil || !errors.Is(unknown.Err, client.ErrOutcomeUnknown) {
		t.Fatalf("%v, %v: want an outcome that is not known", unknown.Err, err)
	}
	o := teller.Transfer(1, 0)
	o.TxID = "reused"
	if _, err := teller.Submit(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	teller.Resolve(t.Context())
	entries := teller.Ledger.Entries()
	if e := entries[0]; e.Err != nil || !e.Late || !e.Committed() {
		t.Errorf("resolved: %+v", e)
	}
	if e := entries[1]; e.Err == nil || e.Late {
		t.Errorf("refused: %+v", e)
	}
	var story []string
	for _, o := range teller.History.Ops() {
		story = append(story, string(o.Kind)+" "+string(o.Answer))
	}
	if got := strings.Join(story, ", "); got != "run unknown, run unknown, inquire committed" {
		t.Errorf("history: %s", got)
	}
}

// TestMeddling: another client meddles with the order under the same txid, its
// answers stand in the history, and a refusal is a finding.
func TestMeddling(t *testing.T) {
	teller := tellerAt(t, &scripted{
		submit: func(_ context.Context, txid string) (*decreev1.Result, error) {
			if txid == "reused" {
				return nil, status.Error(codes.FailedPrecondition, "other content")
			}
			return committed(), nil
		},
		inquire: func() (*decreev1.Result, error) { return committed(), nil },
		get: func() (*decreev1.Transaction, error) {
			return &decreev1.Transaction{State: decreev1.State_STATE_COMMITTING}, nil
		},
	})
	for n := range 12 {
		e, err := teller.serve(t.Context(), Traffic{Seed: 3, Workers: 1, MeddleEvery: 1}, 0, n)
		if err != nil || e.Err != nil {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	seen := map[history.Kind]int{}
	for _, o := range teller.History.Ops() {
		if o.Client == 1 && o.Answer == history.Committed {
			seen[o.Kind]++
		}
	}
	if seen[history.Run] == 0 || seen[history.Inquire] == 0 || seen[history.Observe] == 0 || len(teller.Ledger.Refusals()) != 0 {
		t.Errorf("meddling by kind: %v; refusals %v", seen, teller.Ledger.Refusals())
	}

	o := teller.Transfer(1, 0)
	o.TxID = "reused"
	teller.meddle(t.Context(), 1, repeat, 0, o)
	if f := AuditMeddling(teller.Ledger.Refusals()); f.Count != 1 || !strings.Contains(f.Texts[0], "reused, submitted again, is refused") {
		t.Errorf("found %v", f)
	}
}
