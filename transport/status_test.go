// These tests prove that every error keeps its meaning on the wire: wrapped
// anywhere, it becomes one code and one reason, and the SDK turns that reason back
// into the sentinel that a caller branches on.
package transport

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const someTxID = "01890a5d-ac96-774b-bcce-b302099a8057"

// rows are all errors that have a meaning on the wire.
func rows() []refusal {
	all := append([]refusal(nil), refusals[:]...)
	return append(all,
		refusal{&coordinator.BusyError{What: "too much", RetryAfter: 3 * time.Second}, codes.ResourceExhausted, reasonBusy},
		refusal{fsm.ErrTooManyWatches, codes.ResourceExhausted, reasonBusy},
		refusal{invalidError{{reasonEmpty, "branches", "none"}}, codes.InvalidArgument, reasonEmpty},
		refusal{errors.New("what nobody thought of"), codes.Internal, reasonInternal},
	)
}

func TestEveryErrorHasOneCodeAndReason(t *testing.T) {
	for _, row := range rows() {
		wrapped := fmt.Errorf("submit: %w", fmt.Errorf("deeper: %w", row.err))
		st := status.Convert(refuse(wrapped, someTxID))
		info, ok := infoOf(st)
		switch {
		case !ok:
			t.Errorf("%v: no ErrorInfo", row.err)
		case st.Code() != row.code || info.GetReason() != row.reason:
			t.Errorf("%v: got %s %s, want %s %s", row.err, st.Code(), info.GetReason(), row.code, row.reason)
		case info.GetMetadata()["txid"] != someTxID:
			t.Errorf("%v: the txid is lost", row.err)
		case !strings.Contains(st.Message(), "deeper"):
			t.Errorf("%v: the message lost its context: %q", row.err, st.Message())
		}
		if again := refuse(fmt.Errorf("forwarded: %w", st.Err()), ""); reasonOf(again) != row.reason {
			t.Errorf("%v: forwarding turned %s into %s", row.err, row.reason, reasonOf(again))
		}
	}
}

// An error that wraps two rows tells the one that says more.
func TestForgottenIsExpired(t *testing.T) {
	both := fmt.Errorf("%w: %w", txn.ErrUnknown, txn.ErrExpired) // as the coordinator says it
	if reasonOf(both) != reasonExpired {
		t.Errorf("got %s", reasonOf(both))
	}
}

// R5: what is ambiguous must never read as definite. The direction of each error
// is written down here by hand.
func TestFateOfEveryReason(t *testing.T) {
	want := map[string]fate{
		reasonNotLeader: notRun, reasonUnreachable: notRun, reasonBusy: notRun,
		reasonOutcomeUnknown: mayHaveRun, reasonShuttingDown: mayHaveRun, reasonCanceled: mayHaveRun,
		reasonInternal: mayHaveRun,
	}
	for _, row := range rows() {
		for _, err := range []error{row.err, refuse(row.err, "")} { // local, and from another node
			if got, _ := judge(err); got != want[row.reason] {
				t.Errorf("%v (%s): judged %d, want %d", err, row.reason, got, want[row.reason])
			}
		}
	}
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		got, _ := judge(status.Error(c, "gRPC's own"))
		definite := c == codes.ResourceExhausted || c == codes.Unimplemented || c == codes.InvalidArgument
		if (got == answered) != definite || got == notRun {
			t.Errorf("foreign %s: judged %d", c, got)
		}
	}
}

// R14: past a bound the client hears RESOURCE_EXHAUSTED and a delay.
func TestBusyTellsWhenToComeBack(t *testing.T) {
	err := refuse(fmt.Errorf("admit: %w", &coordinator.BusyError{What: "too much", RetryAfter: 3 * time.Second}), "")
	if _, wait := judge(err); wait != 3*time.Second {
		t.Errorf("got %s", wait)
	}
}

func TestMessagesAreBoundedAndUTF8(t *testing.T) {
	err := refuse(errors.New("\xff"+strings.Repeat("x", 10*maxMessage)), "\xfe")
	if n := len(status.Convert(err).Message()); n > maxMessage+16 {
		t.Errorf("%d bytes", n)
	}
}

// scripted answers every Submit with one error.
type scripted struct {
	decreev1.UnimplementedTransactionsServer
	err atomic.Value
}

func (s *scripted) Submit(context.Context, *decreev1.SubmitRequest) (*decreev1.SubmitResponse, error) {
	return nil, s.err.Load().(struct{ error }).error
}

func TestSDKKnowsEveryReason(t *testing.T) {
	l := listen(t)
	backend := &scripted{}
	g := grpc.NewServer()
	decreev1.RegisterTransactionsServer(g, backend)
	go g.Serve(l)
	defer g.Stop()
	c := sdk(t, l)

	for _, row := range rows() {
		backend.err.Store(struct{ error }{refuse(row.err, someTxID)})
		// What the SDK retries ends with the context.
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if f, _ := judge(row.err); f != answered {
			ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
		}
		_, err := c.Submit(ctx, client.Transaction{TxID: someTxID, Branches: []client.Branch{client.Bytes("bank-a", nil)}})
		cancel()
		want := client.Reason(row.reason)
		if f, _ := judge(row.err); f == mayHaveRun {
			want = client.ErrOutcomeUnknown
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: the SDK says %v", row.reason, err)
		}
		var unknown *client.UnknownError
		if errors.As(err, &unknown) && unknown.TxID != someTxID {
			t.Errorf("%s: unknown outcome of %q", row.reason, unknown.TxID)
		}
	}
}

// The SDK's sentinels are constants, so this reads its source.
func TestSDKHasASentinelForEveryReason(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "client/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	sentinels := make(map[string]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				sentinels[s] = true
			}
		}
		return true
	})
	for _, row := range rows() {
		if !sentinels[row.reason] && row.reason != reasonUnreachable { // which stays inside
			t.Errorf("transport/client has no sentinel for %s", row.reason)
		}
	}
}

func sdk(t *testing.T, listeners ...net.Listener) *client.Client {
	t.Helper()
	var cfg client.Config
	for _, l := range listeners {
		cfg.Endpoints = append(cfg.Endpoints, l.Addr().String())
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
