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
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/coordinator/node"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/transport"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// patience bounds waits for what must happen; nothing is measured by it.
const patience = time.Minute

// member is one node with its server.
type member struct {
	id       string
	node     *node.Node
	server   *transport.Server
	api, web string
	served   chan error
}

// trio is three members that share two fakes, "a" and "b".
type trio struct {
	t       *testing.T
	net     *clustertest.Cluster
	fakes   participanttest.Fakes
	members map[string]*member // set once by newTrio
	client  *client.Client     // of all three
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	x := &trio{t: t, members: make(map[string]*member), fakes: participanttest.Fakes{
		"a": participanttest.NewFake(), "b": participanttest.NewFake(),
	}}
	x.net = clustertest.Prepare(t, clustertest.Options{
		FSM:       func(string) raft.FSM { return nil }, // the node brings its own
		Configure: func(c *cluster.Config) { c.RPCTimeout = 500 * time.Millisecond },
	})
	t.Cleanup(x.close)
	var mu sync.Mutex
	var starts sync.WaitGroup
	for _, id := range x.net.IDs() {
		starts.Go(func() {
			if m := x.start(id); m != nil {
				mu.Lock()
				defer mu.Unlock()
				x.members[id] = m
			}
		})
	}
	starts.Wait()
	if len(x.members) != 3 {
		t.FailNow()
	}
	var cfg client.Config
	for _, m := range x.members {
		cfg.Endpoints = append(cfg.Endpoints, m.api)
	}
	var err error
	if x.client, err = client.New(cfg); err != nil {
		t.Fatal(err)
	}
	for name := range x.fakes {
		if _, err := x.client.PutParticipant(x.ctx(), &decreev1.Participant{Name: name, Driver: "fake"}); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

func (x *trio) start(id string) *member {
	g, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		x.t.Error(err)
		return nil
	}
	h, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		x.t.Error(err)
		return nil
	}
	m := &member{id: id, api: g.Addr().String(), web: "http://" + h.Addr().String(), served: make(chan error, 1)}
	member := x.net.Config(id)
	member.APIAddress = m.api
	drivers := participants.Drivers{"fake": x.fakes}
	m.node, err = node.Open(x.ctx(), node.Config{Cluster: member, Drivers: drivers, Coordinator: coordinator.Config{
		DeliveryTimeout: time.Second, BackoffCap: 100 * time.Millisecond, ScanInterval: 200 * time.Millisecond,
	}})
	if err != nil {
		x.t.Errorf("open %s: %v", id, err)
		return nil
	}
	m.server, err = transport.New(transport.Config{
		Coordinator: m.node.Coordinator, Node: m.node.Cluster, Machine: m.node.Machine, Registrar: m.node, Drivers: drivers,
	})
	if err != nil {
		x.t.Error(err)
		return nil
	}
	go func() { m.served <- m.server.Serve(g, h) }()
	return m
}

func (x *trio) close() {
	x.net.Network.Heal()
	if x.client != nil {
		x.client.Close()
	}
	for _, m := range x.members {
		m.server.Abort()
		if err := <-m.served; err != nil {
			x.t.Errorf("serve %s: %v", m.id, err)
		}
		if err := m.node.Close(x.ctx()); err != nil {
			x.t.Errorf("close %s: %v", m.id, err)
		}
	}
	for _, f := range x.fakes {
		f.Verify(x.t)
		if err := f.Close(); err != nil {
			x.t.Error(err)
		}
	}
}

func (x *trio) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	x.t.Cleanup(cancel)
	return ctx
}

// await polls for what no event announces.
func (x *trio) await(what string, holds func() bool) {
	x.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ctx := x.ctx()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			x.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// leader waits for a member other than except that drives transactions.
func (x *trio) leader(except *member) (found *member) {
	x.t.Helper()
	x.await("a leader", func() bool {
		for _, m := range x.members {
			if m != except && m.node.Coordinator.Leads() {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// follower is any member that does not lead.
func (x *trio) follower() *member {
	leader := x.leader(nil)
	for _, m := range x.members {
		if m != leader {
			return m
		}
	}
	panic("unreachable")
}

func (m *member) dial(t *testing.T) decreev1.TransactionsClient {
	t.Helper()
	conn, err := grpc.NewClient(m.api, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return decreev1.NewTransactionsClient(conn)
}

// curl posts JSON.
func (m *member) curl(ctx context.Context, path, body string) (int, map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.web+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	var answer map[string]any
	return res.StatusCode, answer, json.NewDecoder(res.Body).Decode(&answer)
}

func newID(t *testing.T) txn.TxID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return txn.TxID(id)
}

func transfer(id txn.TxID) client.Transaction {
	return client.Transaction{TxID: id.String(), Timeout: patience, Branches: []client.Branch{
		client.Bytes("a", []byte("take")), client.Bytes("b", []byte("give")),
	}}
}

func transferRequest(id txn.TxID) *decreev1.SubmitRequest {
	req := &decreev1.SubmitRequest{Txid: id.String(), Timeout: durationpb.New(patience)}
	for name, payload := range map[string]string{"a": "take", "b": "give"} {
		req.Branches = append(req.Branches, &decreev1.NewBranch{Participant: name, Content: &decreev1.NewBranch_Payload{Payload: []byte(payload)}})
	}
	if req.GetBranches()[0].GetParticipant() != "a" {
		req.Branches[0], req.Branches[1] = req.GetBranches()[1], req.GetBranches()[0]
	}
	return req
}

// audit waits until every member has finished the transaction, and checks that
// all tell the outcome that its client was told, and that it took effect so.
func (x *trio) audit(id txn.TxID, told client.Outcome) {
	x.t.Helper()
	for _, m := range x.members {
		x.await("the end everywhere", func() bool {
			tx, ok := m.node.Machine.Transaction(id)
			return ok && tx.State.Finished()
		})
		tx, _ := m.node.Machine.Transaction(id)
		if client.Outcome(tx.Decision()) != told {
			x.t.Errorf("%s: the client was told %s, %s says %s", id, told, m.id, tx.State)
		}
	}
	want := 0
	if told == client.Committed {
		want = 1
	}
	name := x.leader(nil).node.Machine.ClusterID()
	for i, f := range []string{"a", "b"} {
		b := participants.Branch{Cluster: name, TxID: id, Number: i + 1}
		if got := x.fakes[f].Effects(b); got != want {
			x.t.Errorf("%s: %s took effect %d times, want %d", id, f, got, want)
		}
	}
}

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
				ctx, cancel := context.WithTimeout(x.ctx(), 2*time.Second) // sooner than delivery
				defer cancel()
				answer, err := c.Submit(ctx, req)
				if err != nil {
					t.Errorf("%s: %v", m.id, err)
				}
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
				r, err := x.client.Run(x.ctx(), client.Policy{}, func() client.Transaction { return transfer(newID(t)) })
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
