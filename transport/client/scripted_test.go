package client_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// node is one scripted node. A step that is nil, or past the end, commits.
type node struct {
	decreev1.UnimplementedTransactionsServer
	decreev1.UnimplementedParticipantsServer
	decreev1.UnimplementedClusterServer
	grpc   *grpc.Server
	health *health.Server
	addr   string
	calls  bool // it has no SubmitMany, as nodes once had none

	window uint32        // that its streams tell; 0 for none
	say    chan struct{} // has a stream say draining
	cut    chan struct{} // has a stream break

	mu       sync.Mutex
	steps    []step
	txids    []string
	got      []*decreev1.SubmitRequest
	streams  int // that were opened
	streamed int // submissions that came by stream

	group  client.Group
	asked  int // for its status
	behind int // so many answers more tell neither group nor leader
}

func (n *node) count() (streams, streamed int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.streams, n.streamed
}

type step func(ctx context.Context, n *node) (*decreev1.Result, error)

func (n *node) next(ctx context.Context, txid string) (*decreev1.Result, error) {
	n.mu.Lock()
	var s step
	if len(n.steps) > 0 {
		s, n.steps = n.steps[0], n.steps[1:]
	}
	n.txids = append(n.txids, txid)
	n.mu.Unlock()
	if s != nil {
		r, err := s(ctx, n)
		if r != nil {
			r.Txid = txid
		}
		return r, err
	}
	return &decreev1.Result{Txid: txid, Outcome: decreev1.Outcome_OUTCOME_COMMITTED, Delivered: true}, nil
}

func (n *node) script(steps ...step) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.steps = steps
}

func (n *node) seen() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.txids...)
}

func (n *node) Submit(ctx context.Context, req *decreev1.SubmitRequest) (*decreev1.SubmitResponse, error) {
	n.mu.Lock()
	n.got = append(n.got, req)
	n.mu.Unlock()
	r, err := n.next(ctx, req.GetTxid())
	return &decreev1.SubmitResponse{Result: r}, err
}

// SubmitMany is Submit of each, all at once.
func (n *node) SubmitMany(stream grpc.BidiStreamingServer[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse]) error {
	n.mu.Lock()
	n.streams++
	n.mu.Unlock()
	if n.calls {
		return n.UnimplementedTransactionsServer.SubmitMany(stream)
	}
	var mu sync.Mutex
	send := func(frame *decreev1.SubmitManyResponse) {
		mu.Lock()
		defer mu.Unlock()
		stream.Send(frame)
	}
	if n.window > 0 {
		send(&decreev1.SubmitManyResponse{Window: n.window})
	}
	ended := make(chan error, 1)
	go func() { ended <- n.answerAll(stream, send) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-n.say:
			send(&decreev1.SubmitManyResponse{Draining: true})
		case <-n.cut:
			return status.Error(codes.Unavailable, "cut")
		}
	}
}

func (n *node) answerAll(stream grpc.BidiStreamingServer[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse], send func(*decreev1.SubmitManyResponse)) error {
	var work sync.WaitGroup
	defer work.Wait()
	for {
		frame, err := stream.Recv()
		if err != nil {
			return nil
		}
		for _, one := range frame.GetSubmissions() {
			n.mu.Lock()
			n.streamed++
			n.mu.Unlock()
			work.Go(func() {
				send(&decreev1.SubmitManyResponse{Answers: []*decreev1.SubmissionAnswer{n.answer(stream.Context(), one)}})
			})
		}
	}
}

func (n *node) answer(ctx context.Context, one *decreev1.Submission) *decreev1.SubmissionAnswer {
	if us := one.GetPatienceUs(); us > 0 {
		within, cancel := context.WithTimeout(ctx, time.Duration(us)*time.Microsecond)
		defer cancel()
		ctx = within
	}
	a := &decreev1.SubmissionAnswer{Sequence: one.GetSequence()}
	r, err := n.Submit(ctx, one.GetRequest())
	if err != nil {
		st := status.Convert(err).Proto()
		a.Error = &decreev1.Error{Code: st.GetCode(), Message: st.GetMessage(), Details: st.GetDetails()}
		return a
	}
	a.Result = r.GetResult()
	return a
}

func (n *node) Commit(ctx context.Context, req *decreev1.CommitRequest) (*decreev1.CommitResponse, error) {
	r, err := n.next(ctx, req.GetTxid())
	return &decreev1.CommitResponse{Result: r}, err
}

func (n *node) Inquire(ctx context.Context, req *decreev1.InquireRequest) (*decreev1.InquireResponse, error) {
	r, err := n.next(ctx, req.GetTxid())
	return &decreev1.InquireResponse{Result: r}, err
}

func (n *node) Begin(ctx context.Context, req *decreev1.BeginRequest) (*decreev1.BeginResponse, error) {
	_, err := n.next(ctx, req.GetTxid())
	return &decreev1.BeginResponse{Txid: req.GetTxid()}, err
}

func (n *node) Enlist(ctx context.Context, req *decreev1.EnlistRequest) (*decreev1.EnlistResponse, error) {
	_, err := n.next(ctx, req.GetTxid())
	if req.GetExternal() != (req.GetBranch().GetContent() == nil) {
		return nil, status.Error(codes.InvalidArgument, "content")
	}
	return &decreev1.EnlistResponse{Branch: 1, Cluster: "c", Epoch: 3}, err
}

func (n *node) Get(ctx context.Context, req *decreev1.GetRequest) (*decreev1.GetResponse, error) {
	_, err := n.next(ctx, req.GetTxid())
	return &decreev1.GetResponse{Transaction: &decreev1.Transaction{Txid: req.GetTxid()}}, err
}

// List serves three pages of one transaction each.
func (n *node) List(_ context.Context, req *decreev1.ListRequest) (*decreev1.ListResponse, error) {
	next := req.GetPageToken() + "x"
	answer := &decreev1.ListResponse{Transactions: []*decreev1.Transaction{{Txid: next}}, NextPageToken: next}
	if next == "xxx" {
		answer.NextPageToken = ""
	}
	return answer, nil
}

func (n *node) Watch(req *decreev1.WatchRequest, stream grpc.ServerStreamingServer[decreev1.WatchResponse]) error {
	r, err := n.next(stream.Context(), req.GetTxid())
	if err != nil {
		return err
	}
	return stream.Send(&decreev1.WatchResponse{Transaction: &decreev1.Transaction{Txid: r.GetTxid(), State: decreev1.State_STATE_COMMITTED}})
}

func (n *node) Delete(ctx context.Context, req *decreev1.DeleteRequest) (*decreev1.DeleteResponse, error) {
	_, err := n.next(ctx, req.GetName())
	return &decreev1.DeleteResponse{}, err
}

func (n *node) AddNode(ctx context.Context, req *decreev1.AddNodeRequest) (*decreev1.AddNodeResponse, error) {
	_, err := n.next(ctx, req.GetId())
	return &decreev1.AddNodeResponse{}, err
}

// Status is as of a leader, unless the node is behind.
func (n *node) Status(context.Context, *decreev1.StatusRequest) (*decreev1.StatusResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	answer := &decreev1.StatusResponse{Node: n.addr}
	if n.behind > 0 {
		n.behind--
		return answer, nil
	}
	answer.Leader = n.addr
	if n.group != (client.Group{}) {
		answer.Group = &decreev1.Group{Number: uint32(n.group.Number), Of: uint32(n.group.Of)}
	}
	return answer, nil
}

// lead sets the node's health.
func (n *node) lead(leads bool) {
	st := healthv1.HealthCheckResponse_NOT_SERVING
	if leads {
		st = healthv1.HealthCheckResponse_SERVING
	}
	n.health.SetServingStatus("decree.leader", st)
}

func (n *node) serve(l net.Listener) {
	n.grpc, n.health = grpc.NewServer(), health.NewServer()
	n.addr = l.Addr().String()
	decreev1.RegisterTransactionsServer(n.grpc, n)
	decreev1.RegisterParticipantsServer(n.grpc, participantsOf{n})
	decreev1.RegisterClusterServer(n.grpc, clusterOf{n})
	healthv1.RegisterHealthServer(n.grpc, n.health)
	n.lead(false)
	go n.grpc.Serve(l)
}

// The services share names of methods, so each needs a view of its own.
type participantsOf struct{ *node }

func (p participantsOf) Get(context.Context, *decreev1.ParticipantsGetRequest) (*decreev1.ParticipantsGetResponse, error) {
	return nil, status.Error(codes.Unimplemented, "")
}

func (p participantsOf) List(context.Context, *decreev1.ParticipantsListRequest) (*decreev1.ParticipantsListResponse, error) {
	return nil, status.Error(codes.Unimplemented, "")
}

type clusterOf struct{ *node }

// starter starts n nodes and a client of them all.
type starter func(t *testing.T, n int) ([]*node, *client.Client)

// cluster is the starter of today's nodes.
func cluster(t *testing.T, n int) ([]*node, *client.Client) { return start(t, n, false) }

func start(t *testing.T, n int, calls bool) ([]*node, *client.Client) {
	t.Helper()
	var nodes []*node
	var cfg client.Config
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nd := &node{calls: calls, say: make(chan struct{}), cut: make(chan struct{})}
		nd.serve(l)
		t.Cleanup(nd.grpc.Stop)
		nodes = append(nodes, nd)
		cfg.Endpoints = append(cfg.Endpoints, nd.addr)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return nodes, c
}

// refusal is a status as transport/status.go makes it.
func refusal(code codes.Code, reason string, wait time.Duration) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: "decree", Reason: reason}}
	if wait > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	}
	st, err := status.New(code, reason).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func answer(err error) step {
	return func(context.Context, *node) (*decreev1.Result, error) { return nil, err }
}

func abort(code decreev1.AbortCode) step {
	return func(context.Context, *node) (*decreev1.Result, error) {
		return &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_ABORTED, Delivered: true, Reason: &decreev1.AbortReason{
			Code: code, Branch: 1, Participant: "bank-a", Detail: "insufficient funds"}}, nil
	}
}

var (
	notLeader      = refusal(codes.Unavailable, "NOT_LEADER", time.Millisecond)
	busy           = refusal(codes.ResourceExhausted, "BUSY", time.Millisecond)
	outcomeUnknown = refusal(codes.DeadlineExceeded, "OUTCOME_UNKNOWN", 0)
)

func transfer() client.Transaction {
	return client.Transaction{Branches: []client.Branch{
		client.JSON("bank-a", map[string]any{"add": int64(-9007199254740993)}),
		client.Bytes("bank-b", []byte{0xff}),
	}}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
