package callmany_test

// These tests prove that a call on a stream is to its handler what an RPC would be,
// that none waits for another, and that neither a caller nor a handler can make the
// stream keep more than it should (rule R14). They run in virtual time over a
// stream of channels; the driver's tests use real ones.

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/decree-tx/decree/transport/api/decree/participant/callmany"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// wire is a stream whose caller is the test.
type wire struct {
	ctx     context.Context
	asked   chan *participantv1.CallManyRequest // closed: the caller has closed its side
	answers chan *participantv1.CallManyResponse
	refuse  atomic.Bool // to send
}

func newWire(ctx context.Context) *wire {
	return &wire{
		ctx: ctx, asked: make(chan *participantv1.CallManyRequest), answers: make(chan *participantv1.CallManyResponse),
	}
}

func (w *wire) Recv() (*participantv1.CallManyRequest, error) {
	select {
	case m, ok := <-w.asked:
		if !ok {
			return nil, io.EOF
		}
		return proto.CloneOf(m), nil
	case <-w.ctx.Done():
		return nil, status.FromContextError(w.ctx.Err()).Err()
	}
}

func (w *wire) Send(m *participantv1.CallManyResponse) error {
	if w.refuse.Load() {
		return status.Error(codes.ResourceExhausted, "too large a message")
	}
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	back := &participantv1.CallManyResponse{}
	if err := proto.Unmarshal(raw, back); err != nil {
		return err
	}
	select {
	case w.answers <- back:
		return nil
	case <-w.ctx.Done():
		return status.FromContextError(w.ctx.Err()).Err()
	}
}

func (w *wire) Context() context.Context     { return w.ctx }
func (w *wire) SetHeader(metadata.MD) error  { return nil }
func (w *wire) SendHeader(metadata.MD) error { return nil }
func (w *wire) SetTrailer(metadata.MD)       {}
func (w *wire) SendMsg(any) error            { panic("not used") }
func (w *wire) RecvMsg(any) error            { panic("not used") }

// handler is a service whose answers a test writes.
type handler struct {
	prepare func(context.Context, *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error)
	commit  func(*participantv1.CommitRequest) (*participantv1.CommitResponse, error)
	abort   func(*participantv1.AbortRequest) (*participantv1.AbortResponse, error)
}

func (h handler) Prepare(ctx context.Context, r *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
	return h.prepare(ctx, r)
}
func (h handler) Commit(_ context.Context, r *participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
	return h.commit(r)
}
func (h handler) Abort(_ context.Context, r *participantv1.AbortRequest) (*participantv1.AbortResponse, error) {
	return h.abort(r)
}

func yes() *participantv1.PrepareResponse {
	return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_COMMIT}
}

func prepare(sequence uint64) *participantv1.Call {
	return &participantv1.Call{Sequence: sequence, Prepare: &participantv1.PrepareRequest{Branch: &participantv1.Branch{Txid: "t", Number: 1}}}
}

// serving is a stream that is being served.
type serving struct {
	*wire
	t     *testing.T
	cut   context.CancelFunc
	ended chan error
}

// serve has h answer a stream, and takes its greeting.
func serve(t *testing.T, h callmany.Handler) *serving {
	t.Helper()
	ctx, cut := context.WithCancel(t.Context())
	s := &serving{newWire(ctx), t, cut, make(chan error, 1)}
	go func() { s.ended <- callmany.Serve(s.wire, h) }()
	if m := <-s.answers; m.GetWindow() != callmany.Window || len(m.GetAnswers()) != 0 {
		t.Errorf("greeted with %v", m)
	}
	return s
}

func (s *serving) ask(calls ...*participantv1.Call) {
	s.asked <- &participantv1.CallManyRequest{Calls: calls}
}

// take gives n answers by their sequence.
func (s *serving) take(n int) map[uint64]*participantv1.CallAnswer {
	s.t.Helper()
	got := map[uint64]*participantv1.CallAnswer{}
	for len(got) < n {
		for _, a := range (<-s.answers).GetAnswers() {
			if got[a.GetSequence()] != nil {
				s.t.Errorf("%d is answered twice", a.GetSequence())
			}
			got[a.GetSequence()] = a
		}
	}
	return got
}

// close closes the caller's side, and wants a good end.
func (s *serving) close() {
	s.t.Helper()
	close(s.asked)
	if err := <-s.ended; err != nil {
		s.t.Errorf("the stream ended with %v", err)
	}
	s.cut()
}

// Each kind of call reaches its method with all of its request, and its response or
// error comes back whole. What is no call is refused as one.
func TestCallsAreAnsweredAsRPCs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stale, err := status.New(codes.FailedPrecondition, "epoch 6, heard of 7").
			WithDetails(&errdetails.ErrorInfo{Domain: "decree", Reason: "STALE_EPOCH"})
		if err != nil {
			t.Fatal(err)
		}
		branch := &participantv1.Branch{Cluster: "c1", Txid: "t", Number: 3, Epoch: 7, Horizon: 9}
		requests := make(chan proto.Message, 3)
		s := serve(t, handler{
			prepare: func(_ context.Context, r *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
				requests <- r
				return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_ABORT, Reason: "sold out"}, nil
			},
			commit: func(r *participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
				requests <- r
				return &participantv1.CommitResponse{Receipt: participantv1.Receipt_RECEIPT_HEURISTIC_ABORT, Detail: "é"}, nil
			},
			abort: func(r *participantv1.AbortRequest) (*participantv1.AbortResponse, error) {
				requests <- r
				return nil, stale.Err()
			},
		})
		short := &participantv1.Branch{Txid: "t", Number: 3}
		for _, c := range []struct {
			call    *participantv1.Call
			request proto.Message
			answer  *participantv1.CallAnswer
		}{
			{
				&participantv1.Call{Prepare: &participantv1.PrepareRequest{Branch: short, Payload: []byte("p"), Digest: []byte("d")}},
				&participantv1.PrepareRequest{Branch: branch, Payload: []byte("p"), Digest: []byte("d")},
				&participantv1.CallAnswer{Prepare: &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_ABORT, Reason: "sold out"}},
			},
			{
				&participantv1.Call{Sequence: 1 << 60, Commit: &participantv1.CommitRequest{Branch: short}},
				&participantv1.CommitRequest{Branch: branch},
				&participantv1.CallAnswer{Sequence: 1 << 60, Commit: &participantv1.CommitResponse{Receipt: participantv1.Receipt_RECEIPT_HEURISTIC_ABORT, Detail: "é"}},
			},
			{
				&participantv1.Call{Sequence: 5, Abort: &participantv1.AbortRequest{Branch: short}},
				&participantv1.AbortRequest{Branch: branch},
				&participantv1.CallAnswer{Sequence: 5, Error: &participantv1.Error{Code: 9, Message: "epoch 6, heard of 7", Details: stale.Proto().GetDetails()}},
			},
			{
				&participantv1.Call{Sequence: 6},
				nil,
				&participantv1.CallAnswer{Sequence: 6, Error: &participantv1.Error{Code: 3, Message: "the call has no request that is known here"}},
			},
		} {
			s.asked <- &participantv1.CallManyRequest{Calls: []*participantv1.Call{c.call}, Cluster: "c1", Epoch: 7, Horizon: 9}
			if got := s.take(1)[c.answer.GetSequence()]; !proto.Equal(got, c.answer) {
				t.Errorf("answered %v, want %v", got, c.answer)
			}
			if c.request == nil {
				continue
			}
			if got := <-requests; !proto.Equal(got, c.request) {
				t.Errorf("the handler saw %v, want %v", got, c.request)
			}
		}
		s.close()
	})
}

// An error that is no status means what gRPC makes of it.
func TestErrorsBecomeStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer error
		s := serve(t, handler{prepare: func(context.Context, *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
			return nil, answer
		}})
		for i, c := range []struct {
			err  error
			code codes.Code
		}{
			{errors.New("disk"), codes.Unknown},
			{context.DeadlineExceeded, codes.DeadlineExceeded},
			{context.Canceled, codes.Canceled},
		} {
			answer = c.err
			s.ask(prepare(uint64(i)))
			if got := s.take(1)[uint64(i)]; got.GetError().GetCode() != int32(c.code) || got.GetPrepare() != nil {
				t.Errorf("%v is answered as %v", c.err, got)
			}
		}
		s.close()
	})
}

// Calls do not wait for each other: as many as a message holds are under way at once,
// those that can be answered are, and the slow ones follow when they are done.
func TestSlowCallHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 300
		gates := map[uint64]chan struct{}{}
		var calls []*participantv1.Call
		for i := range uint64(many) {
			gates[i] = make(chan struct{})
			calls = append(calls, prepare(i))
			calls[i].Prepare.Branch.Number = uint32(i)
		}
		s := serve(t, handler{prepare: func(_ context.Context, r *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
			<-gates[uint64(r.GetBranch().GetNumber())]
			return yes(), nil
		}})
		s.ask(calls...)
		for i := many - 1; i >= 0; i-- {
			close(gates[uint64(i)])
			if got := s.take(1); got[uint64(i)] == nil {
				t.Errorf("answered %v, want %d", got, i)
			}
		}
		s.close()
	})
}

// A call's context ends with its patience, with its cancellation, and with the
// stream; and Serve returns when the handlers have, not before.
func TestContextsOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		contexts := make(chan context.Context, 3)
		var underWay atomic.Int64
		s := serve(t, handler{prepare: func(ctx context.Context, _ *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
			underWay.Add(1)
			defer underWay.Add(-1)
			contexts <- ctx
			<-ctx.Done()
			time.Sleep(time.Second) // it has to tidy up
			return nil, ctx.Err()
		}})
		patient := prepare(1)
		patient.PatienceUs = 5_000_000
		s.ask(patient)
		began := time.Now()
		if at, ok := (<-contexts).Deadline(); !ok || at.Sub(began) != 5*time.Second {
			t.Errorf("deadline in %s, %v", at.Sub(began), ok)
		}
		if got := s.take(1)[1]; codes.Code(got.GetError().GetCode()) != codes.DeadlineExceeded || time.Since(began) != 6*time.Second {
			t.Errorf("after %s: %v", time.Since(began), got)
		}

		s.ask(prepare(2))
		if _, ok := (<-contexts).Deadline(); ok {
			t.Error("a deadline that nobody gave")
		}
		s.asked <- &participantv1.CallManyRequest{Cancelled: []uint64{1, 2, 99}}
		if got := s.take(1)[2]; codes.Code(got.GetError().GetCode()) != codes.Canceled {
			t.Errorf("cancelled: %v", got)
		}

		s.ask(prepare(3))
		ctx := <-contexts
		s.cut()
		if err := <-s.ended; status.Code(err) != codes.Canceled {
			t.Errorf("the stream ended with %v", err)
		}
		if ctx.Err() == nil || underWay.Load() != 0 {
			t.Errorf("the stream ended before its calls: %d under way", underWay.Load())
		}
	})
}

// R14: a caller that asks for more than the window and reads no answers is not read
// any further. Nothing is lost once it reads.
func TestCallerThatDoesNotHeedTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		s := serve(t, handler{prepare: func(context.Context, *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
			begun.Add(1)
			return yes(), nil
		}})
		const many = 5 * callmany.Window
		go func() {
			for i := range uint64(many / 100) {
				var calls []*participantv1.Call
				for n := range uint64(100) {
					calls = append(calls, prepare(100*i+n))
				}
				s.ask(calls...)
			}
			s.ask(prepare(many))
		}()
		synctest.Wait()
		if n := begun.Load(); n != callmany.Window {
			t.Errorf("%d calls were carried out for a caller that reads nothing, want %d", n, callmany.Window)
		}
		s.take(many/100*100 + 1)
		s.close()
	})
}

// R14: a caller that has stopped reading and goes leaves nothing behind.
func TestCallerThatLeavesAFullStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, handler{prepare: func(context.Context, *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
			return yes(), nil
		}})
		var calls []*participantv1.Call
		for i := range uint64(2 * callmany.Window) {
			calls = append(calls, prepare(i))
		}
		s.ask(calls...)
		synctest.Wait()
		s.cut()
		if err := <-s.ended; err == nil {
			t.Error("the stream ended well")
		}
	})
}

// An answer that cannot be sent ends the stream, so that its caller and all others
// learn that none will come, and with it the calls under way.
func TestAnswerThatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan context.Context, 1)
		s := serve(t, handler{
			prepare: func(ctx context.Context, _ *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
				slow <- ctx
				<-ctx.Done()
				return nil, ctx.Err()
			},
			commit: func(*participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
				return &participantv1.CommitResponse{}, nil
			},
		})
		defer s.cut()
		s.ask(prepare(1))
		ctx := <-slow
		s.refuse.Store(true)
		s.ask(&participantv1.Call{Sequence: 2, Commit: &participantv1.CommitRequest{}})
		if err := <-s.ended; status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the stream ended with %v", err)
		}
		if ctx.Err() == nil {
			t.Error("a call of the stream goes on")
		}
	})
}

// A caller that gives two open calls one name would not know its answers.
func TestSequenceInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, handler{prepare: func(ctx context.Context, _ *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		defer s.cut()
		s.ask(prepare(1))
		s.ask(prepare(1))
		go func() {
			for range s.answers {
				continue
			}
		}()
		defer close(s.answers)
		if err := <-s.ended; status.Code(err) != codes.InvalidArgument {
			t.Errorf("the stream ended with %v", err)
		}
	})
}

// What a handler says badly, or at length, is its own call's affair: a message that
// cannot be sent would break the stream for all.
func TestTextsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, long := "\xff", strings.Repeat("é", 1<<20)
		s := serve(t, handler{
			prepare: func(_ context.Context, r *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
				return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_ABORT, Reason: string(r.GetPayload())}, nil
			},
			commit: func(*participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
				return &participantv1.CommitResponse{Receipt: participantv1.Receipt_RECEIPT_HEURISTIC_HAZARD, Detail: bad + long}, nil
			},
			abort: func(*participantv1.AbortRequest) (*participantv1.AbortResponse, error) {
				s := status.New(codes.Internal, "x").Proto()
				s.Message = bad + long
				s.Details = []*anypb.Any{{TypeUrl: bad}, {Value: []byte(long)}}
				return nil, status.FromProto(s).Err()
			},
		})
		a, b := prepare(1), prepare(2)
		a.Prepare.Payload, b.Prepare.Payload = []byte(bad), []byte(long)
		s.ask(a, b, &participantv1.Call{Sequence: 3, Commit: &participantv1.CommitRequest{}}, &participantv1.Call{Sequence: 4, Abort: &participantv1.AbortRequest{}})
		got := s.take(4)
		for i, text := range []string{
			got[1].GetPrepare().GetReason(), got[2].GetPrepare().GetReason(), got[3].GetCommit().GetDetail(), got[4].GetError().GetMessage(),
		} {
			if len(text) == 0 || len(text) > 1024 || !utf8.ValidString(text) {
				t.Errorf("text %d: %d bytes, UTF-8 %v", i+1, len(text), utf8.ValidString(text))
			}
		}
		if v, r := got[2].GetPrepare().GetVote(), got[3].GetCommit().GetReceipt(); v != participantv1.Vote_VOTE_ABORT || r != participantv1.Receipt_RECEIPT_HEURISTIC_HAZARD {
			t.Errorf("clipping lost the vote or the receipt: %s, %s", v, r)
		}
		s.close()
	})
}

// Under many callers at once every call gets its answer, whatever its handler does.
func TestManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, handler{prepare: func(ctx context.Context, r *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
			switch n := r.GetBranch().GetNumber(); n % 4 {
			case 0:
				time.Sleep(time.Duration(n) * time.Microsecond)
			case 1:
				child, cancel := context.WithTimeout(ctx, time.Duration(n)*time.Microsecond)
				defer cancel()
				<-child.Done()
			}
			return yes(), nil
		}})
		const many = 5000
		var reader sync.WaitGroup
		reader.Go(func() { s.take(many) })
		for i := uint64(0); i < many; {
			m := &participantv1.CallManyRequest{}
			for range 1 + i%97 {
				if i < many {
					m.Calls = append(m.Calls, prepare(i))
					m.Calls[len(m.Calls)-1].Prepare.Branch.Number = uint32(i)
					i++
				}
			}
			s.asked <- m
		}
		reader.Wait()
		s.close()
	})
}
