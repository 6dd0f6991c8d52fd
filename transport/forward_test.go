// These tests prove that a client gets one definite outcome from any node: calls
// reach the leader, are repeated under one txid through a change of leader (rules
// R5 and R11), never travel in circles, and end in time, with an error that says
// exactly as much as is known.
package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

func TestFollowerForwardsUnderItsOwnTxID(t *testing.T) {
	w := &world{}
	leader := w.leader(t, "n1")
	follower := w.serve(t, "n2", nil)
	follower.node.believe("n1")

	answer, err := follower.client(t).Submit(t.Context(), submission())
	if err != nil {
		t.Fatal(err)
	}
	ids := leader.coordinator.ids()
	if len(ids) != 1 || answer.GetResult().GetTxid() != ids[0].String() {
		t.Errorf("leader ran %v, client was told %s", ids, answer.GetResult().GetTxid())
	}
	if len(follower.coordinator.ids()) != 0 {
		t.Error("the follower's coordinator was asked")
	}
}

// callsOnly is a leader without SubmitMany, as an older version is.
type callsOnly struct {
	decreev1.UnimplementedTransactionsServer
	got chan string
}

func (c *callsOnly) Submit(ctx context.Context, req *decreev1.SubmitRequest) (*decreev1.SubmitResponse, error) {
	c.got <- fmt.Sprint(hops(ctx), req.GetTxid() != "")
	return &decreev1.SubmitResponse{Result: &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_COMMITTED}}, nil
}

// Followers forward submissions by a stream; to a leader that has none, as calls.
func TestOlderLeaderGetsCalls(t *testing.T) {
	w := &world{}
	l, g, leader := listen(t), grpc.NewServer(), &callsOnly{got: make(chan string, 2)}
	decreev1.RegisterTransactionsServer(g, leader)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	w.set("raft-n1", l.Addr().String())
	follower := w.serve(t, "n2", nil)
	follower.node.believe("n1")
	for range 2 {
		if _, err := follower.client(t).Submit(t.Context(), submission()); err != nil {
			t.Fatal(err)
		}
		if got := <-leader.got; got != "1 true" {
			t.Errorf("the leader got hops and txid %s", got)
		}
	}
}

func TestEveryMutatingCallIsForwarded(t *testing.T) {
	w := &world{}
	w.leader(t, "n1")
	follower := w.serve(t, "n2", nil)
	follower.node.believe("n1")
	conn := follower.dial(t)
	c, p, n := decreev1.NewTransactionsClient(conn), decreev1.NewParticipantsClient(conn), decreev1.NewClusterClient(conn)
	id := txid(t).String()
	participant := &decreev1.Participant{Name: "bank-a", Driver: "fake"}
	for name, send := range map[string]func(ctx context.Context) error{
		"begin": func(ctx context.Context) error {
			_, err := c.Begin(ctx, &decreev1.BeginRequest{})
			return err
		},
		"enlist": func(ctx context.Context) error {
			_, err := c.Enlist(ctx, &decreev1.EnlistRequest{Txid: id, Branch: submission().GetBranches()[0]})
			return err
		},
		"commit": func(ctx context.Context) error {
			_, err := c.Commit(ctx, &decreev1.CommitRequest{Txid: id})
			return err
		},
		"abort": func(ctx context.Context) error {
			_, err := c.Abort(ctx, &decreev1.AbortRequest{Txid: id})
			return err
		},
		"inquire": func(ctx context.Context) error {
			_, err := c.Inquire(ctx, &decreev1.InquireRequest{Txid: id})
			return err
		},
		"put": func(ctx context.Context) error {
			_, err := p.Put(ctx, &decreev1.PutRequest{Participant: participant})
			return err
		},
		"delete": func(ctx context.Context) error {
			_, err := p.Delete(ctx, &decreev1.DeleteRequest{Name: "bank-a"})
			return err
		},
		"check": func(ctx context.Context) error {
			_, err := p.Check(ctx, &decreev1.CheckRequest{Name: "bank-a"})
			return err
		},
		"add node": func(ctx context.Context) error {
			_, err := n.AddNode(ctx, &decreev1.AddNodeRequest{Id: "n9"})
			return err
		},
		"remove node": func(ctx context.Context) error {
			_, err := n.RemoveNode(ctx, &decreev1.RemoveNodeRequest{Id: "n9"})
			return err
		},
		"transfer": func(ctx context.Context) error {
			_, err := n.TransferLeadership(ctx, &decreev1.TransferLeadershipRequest{})
			return err
		},
	} {
		if err := send(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A transfer of the leadership ends the reign under which it was sent, and its
// answer comes after that.
func TestTransferIsNotCutByItsOwnSuccess(t *testing.T) {
	w := &world{}
	old := w.leader(t, "n1")
	follower := w.serve(t, "n2", nil)
	follower.follow("n1")
	reign := follower.observer.view().reign
	old.node.transfer = func(ctx context.Context, _ string) error {
		follower.node.believe("n3")
		<-reign.Done()
		select { // a call that was cut by it learns of that from its connection
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
			return nil
		}
	}
	n := decreev1.NewClusterClient(follower.dial(t))
	if _, err := n.TransferLeadership(t.Context(), &decreev1.TransferLeadershipRequest{}); err != nil {
		t.Error(err)
	}
}

// The leader hangs, as a paused process does, and another one is elected: the
// call is cut, and sent to the new leader under the same txid.
func TestCallMovesFromALeaderThatHangs(t *testing.T) {
	w := &world{}
	old, next := w.leader(t, "n1"), w.serve(t, "n3", nil)
	arrived := make(chan struct{})
	old.coordinator.submit = func(ctx context.Context, _ coordinator.Submission) (coordinator.Result, error) {
		close(arrived)
		<-ctx.Done()
		return coordinator.Result{}, coordinator.ErrOutcomeUnknown
	}
	follower := w.serve(t, "n2", nil)
	follower.node.believe("n1")

	go func() {
		<-arrived
		next.coordinator.lead(true)
		next.node.believe("n3")
		follower.node.believe("") // an election
		follower.node.believe("n3")
	}()
	answer, err := follower.client(t).Submit(t.Context(), submission())
	if err != nil {
		t.Fatal(err)
	}
	if ids := append(old.coordinator.ids(), next.coordinator.ids()...); len(ids) != 2 || ids[0] != ids[1] ||
		answer.GetResult().GetTxid() != ids[0].String() {
		t.Errorf("one call ran as %v and was answered as %s", ids, answer.GetResult().GetTxid())
	}
}

// The leader loses its leadership in the middle of a call that it received
// itself: it becomes a follower, and passes the same txid on.
func TestDeposedLeaderPassesItsCallsOn(t *testing.T) {
	w := &world{}
	old, next := w.leader(t, "n1"), w.serve(t, "n2", nil)
	next.coordinator.lead(true)
	next.node.believe("n2")
	old.coordinator.submit = func(context.Context, coordinator.Submission) (coordinator.Result, error) {
		old.coordinator.lead(false)
		old.node.believe("n2")
		return coordinator.Result{}, coordinator.ErrOutcomeUnknown
	}
	if _, err := old.client(t).Submit(t.Context(), submission()); err != nil {
		t.Fatal(err)
	}
	if a, b := old.coordinator.ids(), next.coordinator.ids(); len(a) != 1 || len(b) != 1 || a[0] != b[0] {
		t.Errorf("ran as %v, then as %v", a, b)
	}
}

// The leader's process dies in the middle of a call.
func TestCallSurvivesTheDeathOfTheLeader(t *testing.T) {
	w := &world{}
	old, next := w.leader(t, "n1"), w.serve(t, "n3", nil)
	follower := w.serve(t, "n2", nil)
	follower.node.believe("n1")
	died := make(chan struct{})
	old.coordinator.submit = func(ctx context.Context, _ coordinator.Submission) (coordinator.Result, error) {
		go func() {
			old.Abort()
			close(died)
		}()
		<-ctx.Done()
		return coordinator.Result{}, coordinator.ErrOutcomeUnknown
	}
	go func() {
		<-died
		next.coordinator.lead(true)
		next.node.believe("n3")
		follower.node.believe("n3")
	}()
	answer, err := follower.client(t).Submit(t.Context(), submission())
	if err != nil {
		t.Fatal(err)
	}
	if answer.GetResult().GetOutcome() != decreev1.Outcome_OUTCOME_COMMITTED || len(next.coordinator.ids()) != 1 {
		t.Errorf("got %v, the new leader ran %v", answer, next.coordinator.ids())
	}
}

// A leader that was restarted serves at another address.
func TestForwardingFindsARestartedLeader(t *testing.T) {
	w := &world{}
	first := w.leader(t, "n1")
	follower := w.serve(t, "n2", nil)
	follower.node.believe("n1")
	c := follower.client(t)
	if _, err := c.Submit(t.Context(), submission()); err != nil {
		t.Fatal(err)
	}
	first.Abort()
	w.leader(t, "n1")
	if _, err := c.Submit(t.Context(), submission()); err != nil {
		t.Fatal(err)
	}
}

// Two nodes that take each other for the leader don't play ping-pong.
func TestNoCallTravelsInCircles(t *testing.T) {
	w := &world{}
	a, b := w.serve(t, "n1", nil), w.serve(t, "n2", nil)
	a.node.believe("n2")
	b.node.believe("n1")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := a.client(t).Submit(ctx, submission())
	// An attempt that the deadline cut off leaves nothing definite to say.
	if r := reasonOf(err); r != reasonNotLeader && r != reasonOutcomeUnknown {
		t.Fatal(err)
	}
	if ran := append(a.coordinator.ids(), b.coordinator.ids()...); len(ran) != 0 {
		t.Errorf("ran %v", ran)
	}

	for _, hops := range []string{"1", "2", "-1", "nonsense"} {
		passedOn := metadata.AppendToOutgoingContext(t.Context(), metadataHop, hops)
		_, err = b.client(t).Submit(passedOn, submission())
		wantReason(t, err, codes.Unavailable, reasonNotLeader)
	}
}

// Passed on once too often, a call is refused even by the leader.
func TestLeaderRefusesASecondHop(t *testing.T) {
	w := &world{}
	leader := w.leader(t, "n1")
	c := leader.client(t)
	if _, err := c.Submit(metadata.AppendToOutgoingContext(t.Context(), metadataHop, "1"), submission()); err != nil {
		t.Fatal(err)
	}
	_, err := c.Submit(metadata.AppendToOutgoingContext(t.Context(), metadataHop, "2"), submission())
	wantReason(t, err, codes.Unavailable, reasonNotLeader)
}

func wantReason(t *testing.T, err error, code codes.Code, reason string) *status.Status {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != code || reasonOf(err) != reason {
		t.Fatalf("got %s %s (%v), want %s %s", st.Code(), reasonOf(err), err, code, reason)
	}
	return st
}

// A commit is sent twice, and the second attempt meets the abort that the first
// one led to: that is the outcome and no error.
func TestRepeatedCommitIsToldItsOwnAbort(t *testing.T) {
	w := &world{}
	n := w.leader(t, "n1")
	attempts := 0
	n.coordinator.commit = func(context.Context, txn.TxID, []txn.BranchVote, coordinator.Wait) (coordinator.Result, error) {
		if attempts++; attempts == 1 {
			return coordinator.Result{}, coordinator.ErrOutcomeUnknown
		}
		return coordinator.Result{}, coordinator.ErrAborted
	}
	n.coordinator.inquire = func(_ context.Context, id txn.TxID) (coordinator.Result, error) {
		return aborted(id, txn.Reason{Code: txn.ReasonTimeout}), nil
	}
	c := n.client(t)
	answer, err := c.Commit(t.Context(), &decreev1.CommitRequest{Txid: someTxID})
	if err != nil || answer.GetResult().GetReason().GetCode() != decreev1.AbortCode_ABORT_CODE_TIMEOUT {
		t.Fatal(answer, err)
	}
	_, err = c.Commit(t.Context(), &decreev1.CommitRequest{Txid: someTxID})
	wantReason(t, err, codes.FailedPrecondition, reasonAborted)
}

func TestRepeatedDeleteIsTold(t *testing.T) {
	w := &world{}
	n := w.leader(t, "n1")
	attempts := 0
	n.registrar.delete = func(string) error {
		if attempts++; attempts == 1 {
			return coordinator.ErrOutcomeUnknown
		}
		return coordinator.ErrUnknownParticipant
	}
	p := decreev1.NewParticipantsClient(n.dial(t))
	if _, err := p.Delete(t.Context(), &decreev1.DeleteRequest{Name: "bank-a"}); err != nil {
		t.Fatal(err)
	}
	_, err := p.Delete(t.Context(), &decreev1.DeleteRequest{Name: "bank-a"})
	wantReason(t, err, codes.NotFound, reasonUnknownParticipant)
}

// A leader that does not answer hello yet is waited out, as one that is being
// elected is.
func TestSilentLeaderIsWaitedOut(t *testing.T) {
	w := &world{}
	leader := w.leader(t, "n1")
	w.set("raft-n1", "")
	follower := w.serve(t, "n2", nil)
	follower.follow("n1")
	time.AfterFunc(100*time.Millisecond, func() { w.set("raft-n1", leader.api) })
	if _, err := follower.client(t).Submit(t.Context(), submission()); err != nil {
		t.Fatal(err)
	}
}

// A connection that is refused is definite: nothing was sent.
func TestUnreachableLeaderIsDefinite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	w := &world{}
	w.set("raft-n1", l.Addr().String())
	follower := w.serve(t, "n2", nil)
	follower.node.believe("n1")
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	_, err = follower.client(t).Submit(ctx, submission())
	wantReason(t, err, codes.Unavailable, reasonNotLeader)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Error("the answer came after the deadline")
	}
}
