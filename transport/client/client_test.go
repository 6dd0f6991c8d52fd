// These tests prove that the SDK turns a cluster that fails into one definite
// outcome: it sends the same txid again, elsewhere, for as long as its context
// allows (rules R5 and R11), and otherwise says that the outcome is not known. The
// cluster is scripted; its nodes die for real.
package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
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

	mu    sync.Mutex
	steps []step
	txids []string
	got   []*decreev1.SubmitRequest
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

func (n *node) Status(context.Context, *decreev1.StatusRequest) (*decreev1.StatusResponse, error) {
	return &decreev1.StatusResponse{Node: n.addr}, nil
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

// cluster starts n nodes and a client of them all.
func cluster(t *testing.T, n int) ([]*node, *client.Client) {
	t.Helper()
	var nodes []*node
	var cfg client.Config
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nd := &node{}
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

func TestSubmitSendsExactContent(t *testing.T) {
	nodes, c := cluster(t, 1)
	r, err := c.Submit(within(t, 10*time.Second), transfer())
	if err != nil || r.Outcome != client.Committed || !r.Delivered || r.Err() != nil {
		t.Fatal(r, err)
	}
	req := nodes[0].got[0]
	if got := string(req.GetBranches()[0].GetPayload()); got != `{"add":-9007199254740993}` {
		t.Errorf("JSON lost precision: %s", got)
	}
	if req.GetTxid() == "" || req.GetTxid() != r.TxID || req.GetTimeout() != nil {
		t.Errorf("sent %v", req)
	}
}

func TestSubmitRepeatsUnderOneTxID(t *testing.T) {
	nodes, c := cluster(t, 1)
	nodes[0].script(answer(notLeader), answer(busy), answer(outcomeUnknown), answer(status.Error(codes.Unavailable, "cut")))
	r, err := c.Submit(within(t, 10*time.Second), transfer())
	if err != nil || r.Outcome != client.Committed {
		t.Fatal(r, err)
	}
	seen := nodes[0].seen()
	if len(seen) != 5 {
		t.Errorf("%d attempts", len(seen))
	}
	for _, id := range seen {
		if id != r.TxID {
			t.Errorf("one Submit ran as %v", seen)
		}
	}
}

// The node dies with the call in its hands; the next one has the outcome.
func TestSubmitSurvivesTheDeathOfItsNode(t *testing.T) {
	nodes, c := cluster(t, 3)
	die := func(_ context.Context, n *node) (*decreev1.Result, error) {
		n.grpc.Stop() // cuts this very call
		return nil, errors.New("dead")
	}
	var killed sync.Once
	for _, n := range nodes {
		n.script(func(ctx context.Context, n *node) (*decreev1.Result, error) {
			dies := false
			killed.Do(func() { dies = true })
			if dies {
				return die(ctx, n)
			}
			return &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_COMMITTED}, nil
		})
	}
	r, err := c.Submit(within(t, 20*time.Second), transfer())
	if err != nil || r.Outcome != client.Committed {
		t.Fatal(r, err)
	}
	var all []string
	for _, n := range nodes {
		all = append(all, n.seen()...)
	}
	if len(all) != 2 || all[0] != all[1] {
		t.Errorf("ran as %v", all)
	}
}

func TestCallsGoToTheLeader(t *testing.T) {
	nodes, c := cluster(t, 3)
	nodes[1].lead(true)
	// Until the client has heard, any node is right; then it stays with the leader.
	for len(nodes[1].seen()) == 0 {
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
	}
	before := len(nodes[0].seen()) + len(nodes[2].seen())
	for range 20 {
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
	}
	if after := len(nodes[0].seen()) + len(nodes[2].seen()); after > before+2 { // two more may have been round robin's
		t.Errorf("%d of 20 calls went to followers", after-before)
	}
}

// The leader hangs with the call, as a stopped process does, and another node
// begins to lead: the call moves on.
func TestCallLeavesALeaderThatHangs(t *testing.T) {
	nodes, c := cluster(t, 2)
	nodes[0].lead(true)
	for len(nodes[0].seen()) < 2 { // it is followed
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
	}
	nodes[0].script(func(ctx context.Context, _ *node) (*decreev1.Result, error) {
		nodes[1].lead(true) // while nodes[0] goes on saying that it leads
		<-ctx.Done()
		return nil, ctx.Err()
	})
	r, err := c.Submit(within(t, 20*time.Second), transfer())
	if err != nil || r.Outcome != client.Committed {
		t.Fatal(r, err)
	}
	if got := nodes[1].seen(); len(got) == 0 || got[len(got)-1] != r.TxID {
		t.Errorf("the new leader saw %v", got)
	}
}

func TestUnknownIsSaidPlainly(t *testing.T) {
	nodes, c := cluster(t, 1)
	forever := make([]step, 1000)
	for i := range forever {
		forever[i] = answer(notLeader)
	}
	forever[0] = answer(outcomeUnknown) // it may have run: no later refusal takes that back
	nodes[0].script(forever...)
	r, err := c.Submit(within(t, 200*time.Millisecond), transfer())
	var unknown *client.UnknownError
	if !errors.As(err, &unknown) || unknown.TxID != r.TxID || r.TxID == "" ||
		!errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}

	// Refused, and told to come back after the deadline: certainly nothing ran.
	nodes[0].script(answer(refusal(codes.ResourceExhausted, "BUSY", time.Hour)))
	if _, err = c.Submit(within(t, 200*time.Millisecond), transfer()); errors.As(err, &unknown) || !errors.Is(err, client.ErrBusy) {
		t.Errorf("nothing ran, and yet: %v", err)
	}
}

func TestNobodyAtHomeIsDefinite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c, err := client.New(client.Config{Endpoints: []string{l.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var unknown *client.UnknownError
	if _, err = c.Submit(within(t, 200*time.Millisecond), transfer()); !errors.Is(err, client.ErrUnavailable) || errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
	if _, err = c.Get(t.Context(), "x"); !errors.Is(err, client.ErrUnavailable) { // without a deadline
		t.Errorf("got %v", err)
	}
}

func TestRefusalsAreNotRepeated(t *testing.T) {
	nodes, c := cluster(t, 1)
	nodes[0].script(answer(refusal(codes.NotFound, "UNKNOWN_PARTICIPANT", 0)))
	_, err := c.Submit(within(t, 10*time.Second), transfer())
	var e *client.Error
	if !errors.Is(err, client.ErrUnknownParticipant) || !errors.As(err, &e) || e.Code != codes.NotFound || errors.Is(err, client.ErrSealed) {
		t.Fatalf("got %v", err)
	}
	if n := len(nodes[0].seen()); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestAbortIsAnAnswer(t *testing.T) {
	nodes, c := cluster(t, 1)
	nodes[0].script(abort(decreev1.AbortCode_ABORT_CODE_VOTE))
	r, err := c.Submit(within(t, 10*time.Second), transfer())
	if err != nil {
		t.Fatal(err)
	}
	var aborted *client.AbortedError
	if !errors.As(r.Err(), &aborted) || aborted.Reason.Code != client.AbortVote || !errors.Is(r.Err(), client.ErrAborted) ||
		!strings.Contains(r.Err().Error(), `vote by "bank-a": insufficient funds`) {
		t.Errorf("got %v", r.Err())
	}
}

func TestDamageIsToldOfACommit(t *testing.T) {
	nodes, c := cluster(t, 1)
	nodes[0].script(func(context.Context, *node) (*decreev1.Result, error) {
		return &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_COMMITTED, Damage: decreev1.Receipt_RECEIPT_HEURISTIC_ABORT}, nil
	})
	r, err := c.Submit(within(t, 10*time.Second), transfer())
	if err != nil || r.Damage != client.HeuristicAbort || !errors.Is(r.Err(), client.ErrDamaged) {
		t.Errorf("%+v %v", r, err)
	}
}

func TestInteractive(t *testing.T) {
	nodes, c := cluster(t, 1)
	ctx := within(t, 10*time.Second)
	tx, err := c.Begin(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	nodes[0].script(answer(notLeader)) // every step repeats itself
	if _, err := tx.Enlist(ctx, client.JSON("bank-a", 1)); err != nil {
		t.Fatal(err)
	}
	e, err := tx.Enlist(ctx, client.External("orders"))
	if err != nil || e.Branch != 1 || e.Cluster != "c" || e.Epoch != 3 {
		t.Fatal(e, err)
	}
	r, err := tx.Commit(ctx, client.BranchVote{Branch: e.Branch, Vote: client.VoteCommit})
	if err != nil || r.Outcome != client.Committed {
		t.Fatal(r, err)
	}
	for _, id := range nodes[0].seen() {
		if id != tx.ID {
			t.Errorf("one transaction ran as %v", nodes[0].seen())
		}
	}
	if _, err := c.Submit(ctx, client.Transaction{Branches: []client.Branch{client.External("orders")}}); err == nil {
		t.Error("an external branch in a one-shot transaction")
	}
	if _, err := tx.Commit(ctx, client.BranchVote{}); err == nil {
		t.Error("a vote of branch 0")
	}
	if _, err := tx.Enlist(ctx, client.JSON("bank-a", make(chan int))); err == nil {
		t.Error("a payload that is no JSON")
	}
}

// A commit that is repeated meets the abort that its first attempt led to.
func TestRepeatedCommitIsToldItsOwnAbort(t *testing.T) {
	nodes, c := cluster(t, 1)
	aborted := refusal(codes.FailedPrecondition, "TRANSACTION_ABORTED", 0)
	nodes[0].script(answer(outcomeUnknown), answer(aborted), abort(decreev1.AbortCode_ABORT_CODE_TIMEOUT))
	r, err := c.Resume("t").Commit(within(t, 10*time.Second))
	if err != nil || r.Outcome != client.Aborted || r.Reason.Code != client.AbortTimeout {
		t.Fatal(r, err)
	}
	nodes[0].script(answer(aborted))
	if _, err := c.Resume("t").Commit(within(t, 10*time.Second)); !errors.Is(err, client.ErrAborted) {
		t.Fatal(err)
	}
}

func TestListPages(t *testing.T) {
	_, c := cluster(t, 1)
	var got []string
	for tx, err := range c.List(within(t, 10*time.Second), client.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, tx.GetTxid())
	}
	if strings.Join(got, " ") != "x xx xxx" {
		t.Errorf("got %v", got)
	}
	for range c.List(t.Context(), client.Filter{}) {
		break // an iterator may be left
	}
}

func TestWatchOfOneGoesOnElsewhere(t *testing.T) {
	nodes, c := cluster(t, 1)
	cut := status.Error(codes.Unavailable, "cut")
	nodes[0].script(answer(cut), answer(cut))
	n := 0
	for tx, err := range c.Watch(within(t, 10*time.Second), "t") {
		if err != nil || tx.GetState() != decreev1.State_STATE_COMMITTED {
			t.Fatal(tx, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d events", n)
	}
	// Events of all that were missed between two streams could not be told.
	nodes[0].script(answer(cut))
	for _, err := range c.Watch(within(t, 10*time.Second), "") {
		if !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	for range c.Watch(within(t, 10*time.Second), "t") {
		break
	}
}

func TestAdministrationIsNotRepeatedBlindly(t *testing.T) {
	nodes, c := cluster(t, 1)
	nodes[0].script(answer(notLeader), answer(outcomeUnknown))
	if err := c.AddNode(within(t, 10*time.Second), "n4", "x:1"); !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if n := len(nodes[0].seen()); n != 2 {
		t.Errorf("%d attempts", n)
	}
	nodes[0].script(answer(outcomeUnknown), answer(refusal(codes.NotFound, "UNKNOWN_PARTICIPANT", 0)))
	if err := c.DeleteParticipant(within(t, 10*time.Second), "bank-a"); err != nil {
		t.Errorf("an earlier attempt deleted it: %v", err)
	}
}

func TestNodeStatus(t *testing.T) {
	nodes, c := cluster(t, 2)
	for _, n := range nodes {
		st, err := c.NodeStatus(within(t, 10*time.Second), n.addr)
		if err != nil || st.GetNode() != n.addr {
			t.Error(st, err)
		}
	}
	if _, err := c.NodeStatus(t.Context(), "elsewhere:1"); err == nil {
		t.Error("an endpoint that is none")
	}
}

func TestRunRepeatsByPolicy(t *testing.T) {
	nodes, c := cluster(t, 1)
	policy := client.Policy{Attempts: 3, Base: time.Millisecond}
	timeout, vote := abort(decreev1.AbortCode_ABORT_CODE_TIMEOUT), abort(decreev1.AbortCode_ABORT_CODE_VOTE)
	for _, story := range []struct {
		name  string
		steps []step
		runs  int
		err   error
		retry func(client.AbortReason) bool
	}{
		{"bad luck passes", []step{timeout, timeout}, 3, nil, nil},
		{"bad luck stays", []step{timeout, timeout, timeout, timeout}, 3, client.ErrAborted, nil},
		{"a no is a no", []step{vote}, 1, client.ErrAborted, nil},
		{"unless the policy says so", []step{vote}, 2, nil, client.OnCodes(client.AbortVote)},
		{"a refusal is an error", []step{answer(refusal(codes.NotFound, "UNKNOWN_PARTICIPANT", 0))}, 1, client.ErrUnknownParticipant, nil},
	} {
		t.Run(story.name, func(t *testing.T) {
			nodes[0].script(story.steps...)
			before, built := len(nodes[0].seen()), 0
			policy.Retry = story.retry
			_, err := c.Run(within(t, 10*time.Second), policy, func() client.Transaction { built++; return transfer() })
			if !errors.Is(err, story.err) || (err == nil) != (story.err == nil) {
				t.Errorf("got %v", err)
			}
			seen := nodes[0].seen()[before:]
			if len(seen) != story.runs || built != story.runs {
				t.Errorf("%d runs, %d built, want %d", len(seen), built, story.runs)
			}
			distinct := make(map[string]bool)
			for _, id := range seen {
				distinct[id] = true
			}
			if len(distinct) != len(seen) {
				t.Errorf("a txid was used again: %v", seen)
			}
		})
	}
}

// R5: the first attempt may yet commit, so there is no second.
func TestRunNeverFollowsAnUnknownOutcome(t *testing.T) {
	nodes, c := cluster(t, 1)
	forever := make([]step, 1000)
	for i := range forever {
		forever[i] = answer(outcomeUnknown)
	}
	nodes[0].script(forever...)
	_, err := c.Run(within(t, 150*time.Millisecond), client.Policy{}, transfer)
	if !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Fatal(err)
	}
	seen := nodes[0].seen()
	for _, id := range seen {
		if id != seen[0] {
			t.Errorf("ran as %v", seen)
		}
	}
}

func TestConfigTellsEveryProblem(t *testing.T) {
	if _, err := client.New(client.Config{}); err == nil {
		t.Error("no endpoints")
	}
	_, err := client.New(client.Config{Endpoints: []string{"a", "b:1", "b:1"}})
	if err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("got %v", err)
	}
}

// The bubble of synctest ends only when every goroutine has.
func TestCloseLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(1 << 16)
		n := &node{}
		n.serve(l)
		c, err := client.New(client.Config{
			Endpoints: []string{"127.0.0.1:1", "127.0.0.1:2"},
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				if addr == "127.0.0.1:2" {
					return nil, io.ErrUnexpectedEOF // a node that is down
				}
				return l.DialContext(ctx)
			})},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.Submit(ctx, transfer()); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		n.grpc.Stop()
	})
}
