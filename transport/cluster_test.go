// These tests prove the whole of it on three real nodes in one process, with the
// real Raft over links that can be cut, and real clients over loopback: from any
// node, a client learns one definite outcome of each txid through failures of
// leaders, links and servers (rules R1, R5, R11), and a transaction takes effect
// once or not at all. The participants are fakes that hold every call to the
// contract.
package transport_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants/participanttest"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func TestEveryNodeServesEveryone(t *testing.T) {
	x := newTrio(t)
	for _, m := range x.members {
		id := newID(t)
		answer, err := m.dial(t).Submit(x.ctx(), transferRequest(id))
		if err != nil || answer.GetResult().GetOutcome() != decreev1.Outcome_OUTCOME_COMMITTED || !answer.GetResult().GetDelivered() {
			t.Fatalf("%s: %v, %v", m.id, answer, err)
		}
		x.audit(id, client.Committed)

		id = newID(t)
		code, got, err := m.curl(x.ctx(), "/v1/transactions", fmt.Sprintf(
			`{"txid":%q,"branches":[{"participant":"a","json":{"x":1}},{"participant":"b","json":{"x":2}}]}`, id))
		if err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d %v %v", m.id, code, got, err)
		}
		x.audit(id, client.Committed)
	}
}

// curl says how long it waits with a header, and gets its answer before that.
func TestCurlMayHaveADeadline(t *testing.T) {
	x := newTrio(t)
	id := newID(t)
	x.fakes["b"].Script(participanttest.Commit, id, participanttest.Answer{Err: errors.New("disk full"), Stay: true})
	soonerThanDelivery(func(d time.Duration) (late bool) {
		req, err := http.NewRequestWithContext(x.ctx(), http.MethodPost, x.follower().web+"/v1/transactions", strings.NewReader(fmt.Sprintf(
			`{"txid":%q,"branches":[{"participant":"a"},{"participant":"b"}]}`, id)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Grpc-Timeout", fmt.Sprintf("%dS", int(d.Seconds())))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer struct {
			Result struct {
				Outcome   string
				Delivered bool
			}
		}
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if late = res.StatusCode == http.StatusGatewayTimeout; late {
			return late
		}
		if res.StatusCode != http.StatusOK || answer.Result.Outcome != "OUTCOME_COMMITTED" || answer.Result.Delivered {
			t.Errorf("%s %+v", res.Status, answer)
		}
		return false
	})
	x.fakes["b"].Unscript(participanttest.Commit, id)
	x.audit(id, client.Committed)
}

// soonerThanDelivery makes a call with a deadline of two seconds, before which the node
// is to tell the decision. Where a busy machine needed longer it is made again, with
// twice the time, up to a minute.
func soonerThanDelivery(call func(d time.Duration) (late bool)) {
	for d := 2 * time.Second; call(d) && d < time.Minute; d *= 2 {
	}
}

// One txid is sent to all nodes at once, as bytes and through the SDK, while
// participants fail their commits: it is one run, nobody is told "delivered"
// before every branch has acknowledged, and all are told the same.
func TestOneTxIDAtEveryNodeWhileCommitsFail(t *testing.T) {
	x := newTrio(t)
	id := newID(t)
	x.fakes["b"].Script(participanttest.Commit, id, participanttest.Answer{Err: errors.New("disk full"), Stay: true})
	answers := make(chan *decreev1.Result, 6)
	var senders sync.WaitGroup
	for _, m := range x.members {
		for _, wait := range []decreev1.Wait{decreev1.Wait_WAIT_DECISION, decreev1.Wait_WAIT_DELIVERY} {
			c := m.dial(t)
			senders.Go(func() {
				req := transferRequest(id)
				req.Wait = wait
				var answer *decreev1.SubmitResponse
				soonerThanDelivery(func(d time.Duration) (late bool) {
					ctx, cancel := context.WithTimeout(x.ctx(), d)
					defer cancel()
					var err error
					if answer, err = c.Submit(ctx, req); err != nil && status.Code(err) != codes.DeadlineExceeded {
						t.Errorf("%s: %v", m.id, err)
					}
					return status.Code(err) == codes.DeadlineExceeded
				})
				answers <- answer.GetResult()
			})
		}
	}
	senders.Wait()
	for range cap(answers) {
		r := <-answers
		if r.GetOutcome() != decreev1.Outcome_OUTCOME_COMMITTED || r.GetDelivered() || r.GetTxid() != id.String() {
			t.Errorf("told %v", r)
		}
	}
	if n := x.fakes["b"].Count(participanttest.Prepare, id); n != 1 {
		t.Errorf("%d runs", n)
	}
	x.fakes["b"].Unscript(participanttest.Commit, id)
	r, err := x.client.Submit(x.ctx(), transfer(id))
	if err != nil || r.Outcome != client.Committed || !r.Delivered {
		t.Errorf("%+v, %v", r, err)
	}
	x.audit(id, client.Committed)
}

// The leader is cut off, again and again, while clients go on at all nodes, by
// gRPC, by JSON and through the SDK: each call ends with one definite outcome.
func TestClientsNeverNoticeAFailover(t *testing.T) {
	x := newTrio(t)
	type run struct {
		id   txn.TxID
		told client.Outcome
	}
	var mu sync.Mutex
	var runs []run
	done := func(id txn.TxID, told client.Outcome) {
		mu.Lock()
		defer mu.Unlock()
		runs = append(runs, run{id, told})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(runs)
	}
	var stop atomic.Bool
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for !stop.Load() {
				id := newID(t)
				r, err := x.client.Submit(x.ctx(), transfer(id))
				if err != nil {
					t.Errorf("SDK: %v", err)
				}
				done(id, r.Outcome)
			}
		})
	}
	for _, m := range x.members {
		c := m.dial(t)
		clients.Go(func() {
			for n := 0; !stop.Load(); n++ {
				id := newID(t)
				if n%2 == 0 {
					answer, err := c.Submit(x.ctx(), transferRequest(id))
					if err != nil {
						t.Errorf("gRPC at %s: %v", m.id, err)
					}
					done(id, client.Outcome(answer.GetResult().GetOutcome()))
					continue
				}
				code, answer, err := m.curl(x.ctx(), "/v1/transactions", fmt.Sprintf(
					`{"txid":%q,"timeout":"60s","branches":[{"participant":"a","payload":"dGFrZQ=="},{"participant":"b","payload":"Z2l2ZQ=="}]}`, id))
				if err != nil || code != http.StatusOK {
					t.Errorf("JSON at %s: %d %v %v", m.id, code, answer, err)
					continue
				}
				told := client.Aborted
				if answer["result"].(map[string]any)["outcome"] == "OUTCOME_COMMITTED" {
					told = client.Committed
				}
				done(id, told)
			}
		})
	}
	for range 5 {
		before := count()
		x.await("transactions between two failures", func() bool { return count() > before+20 })
		old := x.leader(nil)
		x.net.Isolate(old.id)
		x.leader(old)
		x.net.Network.Heal()
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d transactions through 5 failovers", len(runs))
	for _, r := range runs {
		x.audit(r.id, r.told)
	}
}

// A node goes away in good order, the leader even, and its clients notice nothing:
// no error, and no abort that Run does not make good. A submission whose staging
// met the change of leader may be presumed aborted (R6).
func TestGracefulStopUnderLoad(t *testing.T) {
	x := newTrio(t)
	var stop atomic.Bool
	var done atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				r, err := x.client.Run(x.ctx(), client.Policy{Attempts: 10}, func() client.Transaction { return transfer(newID(t)) })
				if err != nil || r.Outcome != client.Committed {
					t.Errorf("%+v, %v", r, err)
				}
				done.Add(1)
			}
		})
	}
	x.await("load", func() bool { return done.Load() > 50 })
	old := x.leader(nil)
	old.server.Retire()
	if err := old.node.Cluster.TransferLeadership(x.ctx(), ""); err != nil {
		t.Log(err) // another election was faster
	}
	if err := old.server.Stop(x.ctx()); err != nil {
		t.Error(err)
	}
	before := done.Load()
	x.await("load without it", func() bool { return done.Load() > before+50 })
	stop.Store(true)
	clients.Wait()
}

// Bad input that only the leader's state shows: asked at a follower, each has its
// reason, and leaves nothing behind.
func TestRefusalsByState(t *testing.T) {
	x := newTrio(t)
	submit := func(tx client.Transaction) error {
		_, err := x.client.Submit(x.ctx(), tx)
		return err
	}
	check := func(what string, err error, want client.Reason) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %s", what, err, string(want))
		}
	}
	unknown := transfer(newID(t))
	unknown.Branches = append(unknown.Branches, client.Bytes("nobody", nil))
	check("unknown participant", submit(unknown), client.ErrUnknownParticipant)

	large := transfer(newID(t))
	large.Branches[0] = client.Bytes("a", make([]byte, 1<<20+1))
	check("oversized payload", submit(large), client.ErrTooLarge)
	large.Branches[0] = client.Bytes("a", make([]byte, 8<<20))
	check("payload that no message holds", submit(large), client.ErrTooLarge)

	old, future := newID(t), newID(t)
	old[0], old[1] = 0, 0 // 1970
	future[0] = 0x7f      // the far future
	check("txid of the far future", submit(transfer(future)), client.ErrFuture)
	if err := submit(transfer(old)); err != nil && !errors.Is(err, client.ErrExpired) {
		t.Errorf("old txid: %v", err)
	}

	id := newID(t)
	if err := submit(transfer(id)); err != nil {
		t.Fatal(err)
	}
	other := transfer(id)
	other.Branches[0] = client.Bytes("a", []byte("take more"))
	check("same txid, other content", submit(other), client.ErrReused)
	if _, err := x.client.Resume(id.String()).Abort(x.ctx(), "too late"); !errors.Is(err, client.ErrCommitted) {
		t.Errorf("abort of a committed transaction: %v", err)
	}

	tx, err := x.client.Begin(x.ctx(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Enlist(x.ctx(), client.Bytes("a", []byte("take"))); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Enlist(x.ctx(), client.Bytes("a", []byte("take more")))
	check("a second branch at one participant", err, client.ErrDuplicateBranch)
	first, err := tx.Commit(x.ctx())
	if err != nil || first.Outcome != client.Committed {
		t.Fatal(first, err)
	}
	_, err = tx.Enlist(x.ctx(), client.Bytes("b", nil))
	check("enlist after commit", err, client.ErrSealed)
	if again, err := tx.Commit(x.ctx()); err != nil || again.Outcome != client.Committed {
		t.Errorf("a second commit is answered with the first: %+v, %v", again, err)
	}

	tx, err = x.client.Begin(x.ctx(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := tx.Abort(x.ctx(), "changed my mind"); err != nil || r.Reason.Detail != "changed my mind" {
		t.Fatal(r, err)
	}
	_, err = tx.Commit(x.ctx())
	check("commit of an aborted transaction", err, client.ErrAborted)
	check("delete of an unknown participant", x.client.DeleteParticipant(x.ctx(), "nobody"), client.ErrUnknownParticipant)
	_, err = x.client.Get(x.ctx(), newID(t).String())
	check("get of nothing", err, client.ErrNotFound)
	for _, m := range x.members {
		for _, id := range []txn.TxID{txn.TxID(uuid.MustParse(unknown.TxID)), txn.TxID(uuid.MustParse(large.TxID)), future} {
			if tx, ok := m.node.Machine.Transaction(id); ok {
				t.Errorf("%s: a refused transaction left %v behind", m.id, tx.State)
			}
		}
	}
}

// What is known as aborted can never run: R6 through the API.
func TestInquiryMakesAnAbortThatStands(t *testing.T) {
	x := newTrio(t)
	id := newID(t)
	r, err := x.client.Inquire(x.ctx(), id.String())
	if err != nil || r.Outcome != client.Aborted || r.Reason.Code != client.AbortPresumed {
		t.Fatal(r, err)
	}
	if r, err = x.client.Submit(x.ctx(), transfer(id)); err != nil || r.Outcome != client.Aborted {
		t.Errorf("%+v, %v", r, err)
	}
	x.audit(id, client.Aborted)
}

func TestClusterOverTheAPI(t *testing.T) {
	x := newTrio(t)
	x.await("one leader in every view", func() bool {
		leaders := make(map[string]bool)
		for _, m := range x.members {
			st, err := x.client.NodeStatus(x.ctx(), m.api)
			if err != nil || len(st.GetNodes()) != 3 || st.GetLeader() == "" || st.GetCluster() == "" {
				return false
			}
			leaders[st.GetLeader()] = true
		}
		return len(leaders) == 1
	})
	old := x.leader(nil)
	if err := x.client.TransferLeadership(x.ctx(), ""); err != nil {
		t.Fatal(err)
	}
	x.leader(old)
	if err := x.client.RemoveNode(x.ctx(), "n9"); !errors.Is(err, client.ErrUnknownNode) && !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	check, err := x.client.CheckParticipant(x.ctx(), "a")
	if err != nil || !check.GetReachable() || !check.GetRecovers() {
		t.Errorf("%v, %v", check, err)
	}
}

func TestWatchAtAFollower(t *testing.T) {
	x := newTrio(t)
	c := x.follower().dial(t)
	id := newID(t)
	stream, err := c.Watch(x.ctx(), &decreev1.WatchRequest{Txid: id.String()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.client.Submit(x.ctx(), transfer(id)); err != nil {
		t.Fatal(err)
	}
	last := decreev1.State_STATE_UNSPECIFIED
	for last != decreev1.State_STATE_COMMITTED {
		event, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := event.GetTransaction().GetState(); got < last {
			t.Fatalf("%s after %s", got, last)
		} else {
			last = got
		}
	}
}
