package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// fakeNode scripts what a cluster answers, and keeps what it was asked. Set the
// answers before it serves; read the requests after the command has ended.
type fakeNode struct {
	result      *decreev1.Result // of submit, commit, abort and inquire
	refusal     error            // of every call, if set
	transaction *decreev1.Transaction
	timeline    *decreev1.GetTimelineResponse // nil: of a version without
	list        []*decreev1.Transaction
	events      []*decreev1.Transaction
	status      *decreev1.StatusResponse
	live        *decreev1.View // nil: of a version without
	check       *decreev1.CheckResponse

	mu       sync.Mutex
	requests []any // guarded by mu
}

func (f *fakeNode) heard(request any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, request)
	return f.refusal
}

// asked gives the last request of a type.
func asked[R any](t *testing.T, f *fakeNode) R {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.requests) - 1; i >= 0; i-- {
		if r, ok := f.requests[i].(R); ok {
			return r
		}
	}
	var none R
	t.Fatalf("no %T among the requests %v", none, f.requests)
	return none
}

type fakeTransactions struct {
	decreev1.UnimplementedTransactionsServer
	*fakeNode
}

func (f fakeTransactions) Submit(_ context.Context, r *decreev1.SubmitRequest) (*decreev1.SubmitResponse, error) {
	return &decreev1.SubmitResponse{Result: f.result}, f.heard(r)
}

func (f fakeTransactions) Begin(_ context.Context, r *decreev1.BeginRequest) (*decreev1.BeginResponse, error) {
	return &decreev1.BeginResponse{Txid: r.GetTxid(), Deadline: &timestamppb.Timestamp{Seconds: 1}}, f.heard(r)
}

func (f fakeTransactions) Enlist(_ context.Context, r *decreev1.EnlistRequest) (*decreev1.EnlistResponse, error) {
	return &decreev1.EnlistResponse{Branch: 2, Cluster: "c1", Epoch: 3}, f.heard(r)
}

func (f fakeTransactions) Commit(_ context.Context, r *decreev1.CommitRequest) (*decreev1.CommitResponse, error) {
	return &decreev1.CommitResponse{Result: f.result}, f.heard(r)
}

func (f fakeTransactions) Abort(_ context.Context, r *decreev1.AbortRequest) (*decreev1.AbortResponse, error) {
	return &decreev1.AbortResponse{Result: f.result}, f.heard(r)
}

func (f fakeTransactions) Inquire(_ context.Context, r *decreev1.InquireRequest) (*decreev1.InquireResponse, error) {
	return &decreev1.InquireResponse{Result: f.result}, f.heard(r)
}

func (f fakeTransactions) Get(_ context.Context, r *decreev1.GetRequest) (*decreev1.GetResponse, error) {
	return &decreev1.GetResponse{Transaction: f.transaction}, f.heard(r)
}

func (f fakeTransactions) List(_ context.Context, r *decreev1.ListRequest) (*decreev1.ListResponse, error) {
	return &decreev1.ListResponse{Transactions: f.list}, f.heard(r)
}

func (f fakeTransactions) Watch(r *decreev1.WatchRequest, s grpc.ServerStreamingServer[decreev1.WatchResponse]) error {
	for _, t := range f.events {
		if err := s.Send(&decreev1.WatchResponse{Transaction: t}); err != nil {
			return err
		}
	}
	return f.heard(r)
}

type fakeParticipants struct {
	decreev1.UnimplementedParticipantsServer
	*fakeNode
}

func (f fakeParticipants) Put(_ context.Context, r *decreev1.PutRequest) (*decreev1.PutResponse, error) {
	p := r.GetParticipant()
	stored := &decreev1.Participant{Name: p.GetName(), Driver: p.GetDriver(), Config: p.GetConfig(), Revision: 1}
	return &decreev1.PutResponse{Participant: stored}, f.heard(r)
}

func (f fakeParticipants) Get(_ context.Context, r *decreev1.ParticipantsGetRequest) (*decreev1.ParticipantsGetResponse, error) {
	config, err := structpb.NewStruct(map[string]any{"dsn": "env:ORDERS_DSN", "catalogue": map[string]any{"debit": map[string]any{"sql": "a < b" + strings.Repeat("x", 100)}}})
	return &decreev1.ParticipantsGetResponse{Participant: &decreev1.Participant{
		Name: r.GetName(), Driver: "postgres", Config: config, Revision: 3, Unfinished: 2, Identity: "postgresql:7/orders",
	}}, errors.Join(err, f.heard(r))
}

func (f fakeParticipants) List(ctx context.Context, r *decreev1.ParticipantsListRequest) (*decreev1.ParticipantsListResponse, error) {
	one, err := f.Get(ctx, &decreev1.ParticipantsGetRequest{Name: "orders"})
	return &decreev1.ParticipantsListResponse{Participants: []*decreev1.Participant{one.GetParticipant()}}, err
}

func (f fakeParticipants) Check(_ context.Context, r *decreev1.CheckRequest) (*decreev1.CheckResponse, error) {
	return f.check, f.heard(r)
}

func (f fakeParticipants) Delete(_ context.Context, r *decreev1.DeleteRequest) (*decreev1.DeleteResponse, error) {
	return &decreev1.DeleteResponse{}, f.heard(r)
}

type fakeCluster struct {
	decreev1.UnimplementedClusterServer
	*fakeNode
}

func (f fakeCluster) Status(_ context.Context, r *decreev1.StatusRequest) (*decreev1.StatusResponse, error) {
	return f.status, f.heard(r)
}

func (f fakeCluster) AddNode(_ context.Context, r *decreev1.AddNodeRequest) (*decreev1.AddNodeResponse, error) {
	return &decreev1.AddNodeResponse{}, f.heard(r)
}

// serve runs the node on a free port until the test ends.
func (f *fakeNode) serve(t *testing.T) (endpoint string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	decreev1.RegisterTransactionsServer(s, fakeTransactions{fakeNode: f})
	decreev1.RegisterParticipantsServer(s, fakeParticipants{fakeNode: f})
	decreev1.RegisterClusterServer(s, fakeCluster{fakeNode: f})
	decreev1.RegisterLiveServer(s, fakeLive{fakeNode: f})
	decreev1.RegisterTimelinesServer(s, fakeTimelines{fakeNode: f})
	alive := health.NewServer()
	alive.SetServingStatus("decree.leader", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(s, alive)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return l.Addr().String()
}

// refuse makes an error as the servers do.
func refuse(code codes.Code, reason, message string) error {
	st, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{
		Domain: "decree", Reason: reason, Metadata: map[string]string{"txid": someTxID},
	})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// ran is what a command left behind.
type ran struct {
	exit           int
	stdout, stderr string
}

// run runs a command line against f, or against no cluster when f is nil.
func run(t *testing.T, f *fakeNode, stdin string, args ...string) ran {
	t.Helper()
	endpoint := "127.0.0.1:1" // nobody is there
	if f != nil {
		endpoint = f.serve(t)
	}
	t.Setenv(endpointsEnv, endpoint)
	var stdout, stderr bytes.Buffer
	exit := Run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return ran{exit, stdout.String(), stderr.String()}
}
