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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// Submissions travel in a stream, and as calls to a node that has none; what they
// come to is the same.
func TestSubmissions(t *testing.T) {
	for _, way := range []struct {
		name  string
		start starter
	}{
		{"by stream", cluster},
		{"by call", func(t *testing.T, n int) ([]*node, *client.Client) { t.Helper(); return start(t, n, true) }},
	} {
		for name, test := range map[string]func(*testing.T, starter){
			"submit sends exact content":            submitSendsExactContent,
			"submit repeats under one tx id":        submitRepeatsUnderOneTxID,
			"submit survives the death of its node": submitSurvivesTheDeathOfItsNode,
			"submissions go to the leader":          submissionsGoToTheLeader,
			"submission leaves a leader that hangs": submissionLeavesALeaderThatHangs,
			"unknown is said plainly":               unknownIsSaidPlainly,
			"refusals are not repeated":             refusalsAreNotRepeated,
			"broken text reaches the server":        brokenTextReachesTheServer,
			"abort is an answer":                    abortIsAnAnswer,
			"damage is told of a commit":            damageIsToldOfACommit,
			"run repeats by policy":                 runRepeatsByPolicy,
			"run never follows an unknown outcome":  runNeverFollowsAnUnknownOutcome,
		} {
			t.Run(name+" "+way.name, func(t *testing.T) { test(t, way.start) })
		}
	}
}

func submitSendsExactContent(t *testing.T, cluster starter) {
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

// R5 and R11: what is not known is asked again, under the same txid.
func submitRepeatsUnderOneTxID(t *testing.T, cluster starter) {
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
func submitSurvivesTheDeathOfItsNode(t *testing.T, cluster starter) {
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

func submissionsGoToTheLeader(t *testing.T, cluster starter) {
	nodes, c := cluster(t, 3)
	nodes[1].lead(true)
	others := func() int { return len(nodes[0].seen()) + len(nodes[2].seen()) }
	// Until the client has heard, any node is right, and they take turns: three in a
	// row at one node are at the leader.
	for last, row := 0, 0; row < 3; row++ {
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
		if n := others(); n != last {
			last, row = n, -1
		}
	}
	before := others()
	for range 20 {
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
	}
	if after := others(); after != before {
		t.Errorf("%d of 20 submissions went to followers", after-before)
	}
}

// The leader hangs with the call, as a stopped process does, and another node
// begins to lead: the call moves on.
func submissionLeavesALeaderThatHangs(t *testing.T, cluster starter) {
	nodes, _ := cluster(t, 2)
	nodes[0].lead(true)
	// A client that asks nodes[1] first comes to nodes[0] only once it has heard that
	// it leads.
	var c *client.Client
	for c == nil {
		fresh, err := client.New(client.Config{Endpoints: []string{nodes[0].addr, nodes[1].addr}})
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		if _, err := fresh.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
		if len(nodes[1].seen()) > 0 {
			c = fresh
		}
	}
	for before := len(nodes[0].seen()); len(nodes[0].seen()) == before; {
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

// R5: an outcome that could not be learnt is told as that.
func unknownIsSaidPlainly(t *testing.T, cluster starter) {
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
	nodes, c = cluster(t, 1) // the last attempt above may still be on its way
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

func refusalsAreNotRepeated(t *testing.T, cluster starter) {
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

// gRPC calls text that is not UTF-8 an internal error, which is ambiguous; the
// server must be the one to refuse it.
func brokenTextReachesTheServer(t *testing.T, cluster starter) {
	nodes, c := cluster(t, 1)
	malformed := answer(refusal(codes.InvalidArgument, "MALFORMED_TXID", 0))
	nodes[0].script(malformed, malformed)
	tx := transfer()
	tx.TxID, tx.Branches = "\xff", append(tx.Branches, client.Bytes("\xff", nil))
	if _, err := c.Submit(within(t, 10*time.Second), tx); !errors.Is(err, client.ErrMalformedTxID) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Resume("\xff").Commit(within(t, 10*time.Second)); !errors.Is(err, client.ErrMalformedTxID) {
		t.Errorf("got %v", err)
	}
}

func abortIsAnAnswer(t *testing.T, cluster starter) {
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

func damageIsToldOfACommit(t *testing.T, cluster starter) {
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

func runRepeatsByPolicy(t *testing.T, cluster starter) {
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
func runNeverFollowsAnUnknownOutcome(t *testing.T, cluster starter) {
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
