package transport_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
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
	x := newEmptyTrio(t)
	x.register()
	return x
}

// newEmptyTrio is one without participants.
func newEmptyTrio(t *testing.T) *trio {
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
	return x
}

func (x *trio) register() {
	x.t.Helper()
	for name := range x.fakes {
		if _, err := x.client.PutParticipant(x.ctx(), &decreev1.Participant{Name: name, Driver: "fake"}); err != nil {
			x.t.Fatal(err)
		}
	}
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
