package grpcparticipant

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// oracle is a service that answers every call with the same bytes, whatever they
// mean, or with an error whose details they are.
type oracle struct {
	code codes.Code // OK: the bytes are the answer
	raw  []byte
}

func (o oracle) answer(into proto.Message) error {
	if o.code == codes.OK {
		if err := proto.Unmarshal(o.raw, into); err != nil {
			return status.Error(codes.Internal, err.Error()) // as grpc-go has it
		}
		return nil
	}
	details := new(spb.Status)
	if proto.Unmarshal(o.raw, details) != nil {
		details = &spb.Status{Message: string(o.raw), Details: []*anypb.Any{{Value: o.raw}}}
	}
	details.Code = int32(o.code) //nolint:gosec // any code
	return status.FromProto(details).Err()
}

func ask[A any, M interface {
	*A
	proto.Message
}](o oracle) (M, error) {
	m := M(new(A))
	if err := o.answer(m); err != nil {
		return nil, err
	}
	return m, nil
}

func (o oracle) Prepare(context.Context, *participantv1.PrepareRequest, ...grpc.CallOption) (*participantv1.PrepareResponse, error) {
	return ask[participantv1.PrepareResponse](o)
}

func (o oracle) Commit(context.Context, *participantv1.CommitRequest, ...grpc.CallOption) (*participantv1.CommitResponse, error) {
	return ask[participantv1.CommitResponse](o)
}

func (o oracle) Abort(context.Context, *participantv1.AbortRequest, ...grpc.CallOption) (*participantv1.AbortResponse, error) {
	return ask[participantv1.AbortResponse](o)
}

func (o oracle) Status(context.Context, *participantv1.StatusRequest, ...grpc.CallOption) (*participantv1.StatusResponse, error) {
	return ask[participantv1.StatusResponse](o)
}

func (o oracle) Recover(context.Context, *participantv1.RecoverRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[participantv1.RecoverResponse], error) {
	return &page{oracle: o}, nil
}

func (o oracle) CallMany(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[participantv1.CallManyRequest, participantv1.CallManyResponse], error) {
	return nil, status.Error(codes.Unimplemented, "only RPCs")
}

// page is a stream of one answer.
type page struct {
	grpc.ClientStream
	oracle
	read bool
}

func (p *page) Recv() (*participantv1.RecoverResponse, error) {
	if p.read {
		return nil, io.EOF
	}
	p.read = true
	return ask[participantv1.RecoverResponse](p.oracle)
}

// FuzzAnswer holds that whatever a service answers, a call ends in one of the
// contract's outcomes: a vote, a receipt or a status that is known; a heuristic that
// contradicts what was asked, with a text that fits the log; or an error. A list
// holds branches of the cluster that was asked for, or nothing. An answer that names
// no vote or receipt is never a yes.
func FuzzAnswer(f *testing.F) {
	for _, m := range []proto.Message{
		&participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_COMMIT},
		&participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_ABORT, Reason: "sold out"},
		&participantv1.CommitResponse{Receipt: participantv1.Receipt_RECEIPT_HEURISTIC_HAZARD, Detail: "é"},
		&participantv1.PrepareResponse{Vote: 99},
		&participantv1.RecoverResponse{Branches: []*participantv1.Branch{{Txid: "01890a5d-ac96-774b-bcce-b302099a8057", Number: 1}}},
		&participantv1.RecoverResponse{Branches: []*participantv1.Branch{{Cluster: "another", Txid: "x", Number: 1 << 31}}},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint32(codes.OK), raw)
	}
	stale, err := proto.Marshal(status.Convert(statusError(participants.ErrStaleEpoch)).Proto())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(codes.FailedPrecondition), stale)
	f.Add(uint32(codes.Unknown), stale)
	f.Add(uint32(codes.Unimplemented), []byte("no such method"))
	f.Add(uint32(codes.DeadlineExceeded), []byte{})
	f.Add(uint32(1<<31), []byte{0xff})
	f.Fuzz(func(t *testing.T, code uint32, raw []byte) {
		o := oracle{codes.Code(code), raw}
		c := &client{api: o, log: hclog.NewNullLogger()}
		b := participants.Branch{Cluster: "c1", TxID: txn.TxID{6: 0x70, 8: 0x80}, Number: 1, Epoch: 3}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()

		vote, err := c.Prepare(ctx, b)
		known := vote.Kind == txn.VoteCommit || vote.Kind == txn.VoteReadOnly || vote.Kind == txn.VoteAbort
		if known != (err == nil) || known && o.code != codes.OK {
			t.Fatalf("prepare: %+v, %v", vote, err)
		}
		mustFit(t, vote.Reason)
		checkReceipt(t, o, c.Commit(ctx, b), txn.HeuristicAbort)
		checkReceipt(t, o, c.Abort(ctx, b), txn.HeuristicCommit)
		if fate, err := c.Status(ctx, b); err != nil && fate != participants.StatusUnknown {
			t.Fatalf("status: %s, %v", fate, err)
		}
		listed, err := c.Recover(ctx, b.Cluster)
		if err != nil && listed != nil {
			t.Fatalf("recover: %d branches, %v", len(listed), err)
		}
		for _, l := range listed {
			if l.Cluster != b.Cluster || l.TxID.Validate() != nil || l.Number < 1 || l.Number > txn.MaxBranches {
				t.Fatalf("recover: %+v", l)
			}
		}
	})
}

// oneMessage is a stream on which the service, once it has read three calls, says one
// thing and ends.
type oneMessage struct {
	grpc.ClientStream
	raw   []byte
	calls int
	asked chan struct{}
	said  bool
}

func (w *oneMessage) Send(m *participantv1.CallManyRequest) error {
	if w.calls += len(m.GetCalls()); w.calls == 3 {
		close(w.asked)
	}
	return nil
}

func (w *oneMessage) CloseSend() error { return nil }

func (w *oneMessage) Recv() (*participantv1.CallManyResponse, error) {
	<-w.asked
	m := new(participantv1.CallManyResponse)
	if err := proto.Unmarshal(w.raw, m); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if w.said {
		return nil, io.EOF
	}
	w.said = true
	return m, nil
}

// FuzzAnswers holds the same of whatever a service sends on a stream: each call on it
// ends once, in an outcome of the contract, and a vote or a receipt comes only from an
// answer that is the call's.
func FuzzAnswers(f *testing.F) {
	answers := []*participantv1.CallAnswer{
		{Sequence: 1, Prepare: &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_ABORT, Reason: "sold out"}},
		{Sequence: 2, Commit: &participantv1.CommitResponse{Receipt: participantv1.Receipt_RECEIPT_DONE}},
		{Sequence: 3, Abort: &participantv1.AbortResponse{Receipt: participantv1.Receipt_RECEIPT_HEURISTIC_HAZARD, Detail: "é"}},
		{Sequence: 1, Error: &participantv1.Error{Code: int32(codes.FailedPrecondition), Details: status.Convert(statusError(participants.ErrStaleEpoch)).Proto().GetDetails()}},
		{Sequence: 2, Error: &participantv1.Error{}},
		{Sequence: 2, Prepare: &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_COMMIT}},
		{Sequence: 1 << 63},
	}
	for n := range answers {
		raw, err := proto.Marshal(&participantv1.CallManyResponse{Answers: answers[n:]})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := new(participantv1.CallManyResponse)
		votes, receipts := false, false
		if proto.Unmarshal(raw, m) == nil {
			for _, a := range m.GetAnswers() {
				votes = votes || a.GetPrepare() != nil
				receipts = receipts || a.GetCommit() != nil || a.GetAbort() != nil
			}
		}
		c := &client{api: oracle{codes.Unavailable, nil}, log: hclog.NewNullLogger()}
		c.streams.calls.New = func() any { return &call{ended: make(chan result, 1)} }
		s := newStream(&oneMessage{raw: raw, asked: make(chan struct{})}, 0)
		c.streams.current.Store(s)
		b := participants.Branch{Cluster: "c1", TxID: txn.TxID{6: 0x70, 8: 0x80}, Number: 1, Epoch: 3}
		var all sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		all.Go(func() {
			vote, err := c.Prepare(ctx, b)
			known := vote.Kind == txn.VoteCommit || vote.Kind == txn.VoteReadOnly || vote.Kind == txn.VoteAbort
			if known != (err == nil) || known && !votes {
				t.Errorf("prepare: %+v, %v", vote, err)
			}
			mustFit(t, vote.Reason)
		})
		code := codes.OK
		if !receipts {
			code = codes.Unavailable
		}
		all.Go(func() { checkReceipt(t, oracle{code: code}, c.Commit(ctx, b), txn.HeuristicAbort) })
		all.Go(func() { checkReceipt(t, oracle{code: code}, c.Abort(ctx, b), txn.HeuristicCommit) })
		sending, stop := context.WithCancel(t.Context())
		var sender sync.WaitGroup
		sender.Go(func() { s.send(sending) })
		_, _ = s.receive()
		all.Wait()
		stop()
		sender.Wait()
	})
}

func checkReceipt(t *testing.T, o oracle, err error, against txn.Receipt) {
	t.Helper()
	var damage *participants.Heuristic
	switch {
	case err == nil && o.code != codes.OK:
		t.Errorf("%s counts as done", o.code)
	case errors.As(err, &damage):
		if damage.Receipt != against && damage.Receipt != txn.HeuristicHazard {
			t.Errorf("heuristic %s, where only %s makes sense", damage.Receipt, against)
		}
		mustFit(t, damage.Detail)
	}
}

func mustFit(t *testing.T, text string) {
	t.Helper()
	if len(text) > txn.MaxReasonDetail || !utf8.ValidString(text) {
		t.Errorf("a text of %d bytes, UTF-8 %v", len(text), utf8.ValidString(text))
	}
}
