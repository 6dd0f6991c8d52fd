// These tests prove that the wire keeps the classes of the participant contract
// apart: what is certain on one side is certain on the other, and everything
// else, from a cut connection to an answer that makes no sense, is ambiguous.
package grpcparticipant_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

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

// raw is a service that answers whatever a test writes, beyond what NewServer
// would ever say.
type raw struct {
	participantv1.UnimplementedParticipantServer
	prepare func(*participantv1.PrepareRequest) (*participantv1.PrepareResponse, error)
	commit  func(*participantv1.CommitRequest) (*participantv1.CommitResponse, error)
	abort   func(*participantv1.AbortRequest) (*participantv1.AbortResponse, error)
	list    func(grpc.ServerStreamingServer[participantv1.RecoverResponse]) error
	status  func() (*participantv1.StatusResponse, error)
}

func (r *raw) Prepare(_ context.Context, q *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
	return r.prepare(q)
}
func (r *raw) Commit(_ context.Context, q *participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
	return r.commit(q)
}
func (r *raw) Abort(_ context.Context, q *participantv1.AbortRequest) (*participantv1.AbortResponse, error) {
	return r.abort(q)
}
func (r *raw) Recover(q *participantv1.RecoverRequest, out grpc.ServerStreamingServer[participantv1.RecoverResponse]) error {
	if r.list == nil {
		return r.UnimplementedParticipantServer.Recover(q, out)
	}
	return r.list(out)
}
func (r *raw) Status(ctx context.Context, q *participantv1.StatusRequest) (*participantv1.StatusResponse, error) {
	if r.status == nil {
		return r.UnimplementedParticipantServer.Status(ctx, q)
	}
	return r.status()
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveRaw runs a service that is not ours; the server is stopped at the end.
func serveRaw(t testing.TB, l net.Listener, svc participantv1.ParticipantServer) *grpc.Server {
	t.Helper()
	s := grpc.NewServer()
	participantv1.RegisterParticipantServer(s, svc)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() { s.Stop(); <-done })
	return s
}

// serve runs p as a participant process does and returns its address.
func serve(t *testing.T, p participants.Participant) string {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- grpcparticipant.Serve(ctx, l, p) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func open(t testing.TB, target string) participants.Participant {
	t.Helper()
	config, err := json.Marshal(grpcparticipant.Config{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	p, err := grpcparticipant.Driver{}.Open(t.Context(),
		participants.Registration{Name: "p", Driver: "grpc", Config: config}, hclog.NewNullLogger())
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

func newBranch(payload string) participants.Branch {
	return participants.Branch{
		Cluster: "c1",
		TxID:    txn.TxID(uuid.Must(uuid.NewV7())),
		Number:  3,
		Epoch:   7,
		Horizon: 1_000_000_007,
		Digest:  sha256.Sum256([]byte(payload)),
		Payload: []byte(payload),
	}
}

// patience bounds what a test waits for; it is reached only by a failure.
const patience = 30 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A branch reaches the participant as it left the coordinator, and each of the
// three votes comes back as it was given.
func TestBranchAndVotesCrossTheWire(t *testing.T) {
	sent := newBranch("debit 30")
	votes := make(chan participants.Vote, 1)
	arrived := make(chan participants.Branch, 1)
	p := open(t, serve(t, &scripted{
		prepare: func(_ context.Context, b participants.Branch) (participants.Vote, error) {
			arrived <- b
			return <-votes, nil
		},
	}))
	for _, want := range []participants.Vote{
		participants.Yes(), participants.ReadOnly(), participants.No("balance is %d", 12),
	} {
		votes <- want
		vote, err := p.Prepare(bounded(t), sent)
		if err != nil || vote != want {
			t.Errorf("vote %v, %v; want %v", vote, err, want)
		}
		if got := <-arrived; fmt.Sprint(got) != fmt.Sprint(sent) {
			t.Errorf("the participant saw\n%+v\nof\n%+v", got, sent)
		}
	}
}

// A service's word is bounded: a reason longer than the log keeps is cut between
// two characters.
func TestReasonIsBounded(t *testing.T) {
	p := open(t, serve(t, &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) {
			return participants.No("x%s", strings.Repeat("é", txn.MaxReasonDetail)), nil
		},
	}))
	vote, err := p.Prepare(bounded(t), newBranch(""))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(vote.Reason); n != txn.MaxReasonDetail-1 || !strings.HasSuffix(vote.Reason, "é") {
		t.Errorf("%d bytes ending in %q", n, vote.Reason[n-2:])
	}
}

// R8, R5: a stale epoch is the one error that has a meaning on this wire; the
// same code without our domain and reason is as ambiguous as any other.
func TestStaleEpochAndOnlyThat(t *testing.T) {
	stale := fmt.Errorf("%w: epoch 6, heard of 7", participants.ErrStaleEpoch)
	ours := open(t, serve(t, &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) {
			return participants.Vote{}, stale
		},
		commit: func(context.Context, participants.Branch) error { return stale },
		abort:  func(context.Context, participants.Branch) error { return stale },
	}))
	b := newBranch("")
	for call, err := range calls(bounded(t), ours, b) {
		if !errors.Is(err, participants.ErrStaleEpoch) || !strings.Contains(err.Error(), "heard of 7") {
			t.Errorf("%s: %v; want a stale epoch with its text", call, err)
		}
	}

	foreign := errorInfo(t, codes.FailedPrecondition, "example.com", "STALE_EPOCH")
	for _, answer := range []error{
		foreign,
		errorInfo(t, codes.FailedPrecondition, "decree", "OTHER"),
		errorInfo(t, codes.Aborted, "decree", "STALE_EPOCH"),
		status.Error(codes.FailedPrecondition, "STALE_EPOCH"),
		status.Error(codes.Aborted, "no"),
		status.Error(codes.NotFound, "no such branch"),
	} {
		l := listen(t, "127.0.0.1:0")
		serveRaw(t, l, &raw{
			prepare: func(*participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) { return nil, answer },
			commit:  func(*participantv1.CommitRequest) (*participantv1.CommitResponse, error) { return nil, answer },
			abort:   func(*participantv1.AbortRequest) (*participantv1.AbortResponse, error) { return nil, answer },
		})
		for call, err := range calls(bounded(t), open(t, l.Addr().String()), b) {
			mustBeAmbiguous(t, fmt.Sprintf("%s answered with %v", call, answer), err)
		}
	}
}

func errorInfo(t *testing.T, code codes.Code, domain, reason string) error {
	t.Helper()
	s, err := status.New(code, "refused").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
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

// R9: damage crosses the wire with its evidence, and as damage.
func TestHeuristicsCrossTheWire(t *testing.T) {
	commit := &participants.Heuristic{Receipt: txn.HeuristicAbort, Detail: "nothing shows a commit"}
	abort := &participants.Heuristic{Receipt: txn.HeuristicHazard, Detail: "forgotten"}
	p := open(t, serve(t, &scripted{
		commit: func(context.Context, participants.Branch) error { return fmt.Errorf("wrapped: %w", commit) },
		abort:  func(context.Context, participants.Branch) error { return abort },
	}))
	var got *participants.Heuristic
	if err := p.Commit(bounded(t), newBranch("")); !errors.As(err, &got) || *got != *commit {
		t.Errorf("commit: %v; want %v", err, commit)
	}
	if err := p.Abort(bounded(t), newBranch("")); !errors.As(err, &got) || *got != *abort {
		t.Errorf("abort: %v; want %v", err, abort)
	}
}

// A service that answers nonsense has answered nothing: no vote, no receipt, a
// heuristic that agrees with the decision, a status from the future.
func TestNonsenseIsNoAnswer(t *testing.T) {
	b := newBranch("")
	for _, vote := range []participantv1.Vote{participantv1.Vote_VOTE_UNSPECIFIED, 99} {
		l := listen(t, "127.0.0.1:0")
		serveRaw(t, l, &raw{prepare: func(*participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
			return &participantv1.PrepareResponse{Vote: vote}, nil
		}})
		got, err := open(t, l.Addr().String()).Prepare(bounded(t), b)
		mustBeAmbiguous(t, fmt.Sprintf("vote %d read as %v", vote, got), err)
	}
	for call, receipts := range map[string][]participantv1.Receipt{
		"commit": {0, participantv1.Receipt_RECEIPT_HEURISTIC_COMMIT, 99},
		"abort":  {0, participantv1.Receipt_RECEIPT_HEURISTIC_ABORT, 99},
	} {
		for _, receipt := range receipts {
			l := listen(t, "127.0.0.1:0")
			serveRaw(t, l, &raw{
				commit: func(*participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
					return &participantv1.CommitResponse{Receipt: receipt}, nil
				},
				abort: func(*participantv1.AbortRequest) (*participantv1.AbortResponse, error) {
					return &participantv1.AbortResponse{Receipt: receipt}, nil
				},
			})
			p := open(t, l.Addr().String())
			err := p.Commit(bounded(t), b)
			if call == "abort" {
				err = p.Abort(bounded(t), b)
			}
			mustBeAmbiguous(t, fmt.Sprintf("%s answered with %s", call, receipt), err)
		}
	}
	l := listen(t, "127.0.0.1:0")
	serveRaw(t, l, &raw{status: func() (*participantv1.StatusResponse, error) {
		return &participantv1.StatusResponse{Status: 99}, nil
	}})
	if got, err := open(t, l.Addr().String()).(participants.StatusReporter).Status(bounded(t), b); err == nil {
		t.Errorf("status 99 read as %v", got)
	}
}

// A server that is killed in the middle of prepare has not answered: the branch
// may be prepared. When it is back on its address, the same driver finds it.
func TestServerKilledInPrepare(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	arrived, gone := make(chan struct{}), make(chan struct{})
	defer close(gone)
	s := serveRaw(t, l, &raw{prepare: func(*participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
		close(arrived)
		<-gone
		return nil, errors.New("too late")
	}})
	p := open(t, addr)
	answer := make(chan error, 1)
	go func() {
		_, err := p.Prepare(bounded(t), newBranch(""))
		answer <- err
	}()
	<-arrived
	s.Stop() // closes every connection at once, as the kernel does for a dead process
	mustBeAmbiguous(t, "killed in prepare", <-answer)

	_, err := p.Prepare(bounded(t), newBranch(""))
	mustBeAmbiguous(t, "prepare while the service is down", err)

	serveRaw(t, listen(t, addr), &raw{prepare: func(*participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
		return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_COMMIT}, nil
	}})
	until(t, "the driver has found the restarted service", func() bool {
		vote, err := p.Prepare(bounded(t), newBranch(""))
		return err == nil && vote == participants.Yes()
	})
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

// A connection that is cut under an answer leaves it unknown.
func TestConnectionCutUnderTheAnswer(t *testing.T) {
	arrived, cut := make(chan struct{}), make(chan struct{})
	backend := serve(t, &scripted{prepare: func(context.Context, participants.Branch) (participants.Vote, error) {
		close(arrived)
		<-cut
		return participants.Yes(), nil
	}})
	front := listen(t, "127.0.0.1:0")
	defer front.Close()
	sever := relay(t, front, backend)
	p := open(t, front.Addr().String())
	answer := make(chan error, 1)
	go func() {
		_, err := p.Prepare(bounded(t), newBranch(""))
		answer <- err
	}()
	<-arrived
	front.Close()
	sever()
	close(cut) // the yes is on its way to nobody
	mustBeAmbiguous(t, "cut under the answer", <-answer)
}

// relay copies bytes between clients of front and the backend until sever.
func relay(t *testing.T, front net.Listener, backend string) (sever func()) {
	conns := make(chan net.Conn, 64)
	go func() {
		for {
			in, err := front.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", backend)
			if err != nil {
				t.Errorf("relay: %v", err)
				return
			}
			conns <- in
			conns <- out
			go pipe(in, out)
			go pipe(out, in)
		}
	}()
	return func() {
		for len(conns) > 0 {
			(<-conns).Close()
		}
	}
}

func pipe(dst, src net.Conn) {
	defer dst.Close()
	buf := make([]byte, 4096)
	for {
		n, err := src.Read(buf)
		if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// A slow service costs its caller no more than the caller's deadline, and the
// end of the deadline reaches the service.
func TestDeadlineReachesASlowService(t *testing.T) {
	arrived, ended := make(chan struct{}, 1), make(chan error, 1)
	p := open(t, serve(t, &scripted{prepare: func(ctx context.Context, _ participants.Branch) (participants.Vote, error) {
		arrived <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return participants.Vote{}, ctx.Err()
	}}))
	// The first deadlines may pass before the connection stands: only one that
	// reaches the service counts.
	for deadline := 50 * time.Millisecond; ; deadline *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		_, err := p.Prepare(ctx, newBranch(""))
		mustBeAmbiguous(t, "past the deadline", err)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v; want the deadline in it", err)
		}
		select {
		case <-arrived:
		default:
			cancel()
			continue
		}
		if heard := <-ended; heard == nil {
			t.Error("the service's context ended without an error")
		}
		cancel()
		return
	}
}
