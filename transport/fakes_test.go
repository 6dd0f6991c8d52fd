package transport

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// fakeCoordinator answers with what a test scripts; a method that is not scripted
// commits.
type fakeCoordinator struct {
	mu      sync.Mutex
	leading bool
	submits []coordinator.Submission

	submit     func(ctx context.Context, s coordinator.Submission) (coordinator.Result, error)
	begin      func(ctx context.Context, id txn.TxID, timeout time.Duration) (*txn.Transaction, error)
	enlist     func(ctx context.Context, id txn.TxID, b txn.Branch) (*txn.Transaction, error)
	commit     func(ctx context.Context, id txn.TxID, votes []txn.BranchVote, w coordinator.Wait) (coordinator.Result, error)
	abort      func(ctx context.Context, id txn.TxID, reason string, w coordinator.Wait) (coordinator.Result, error)
	inquire    func(ctx context.Context, id txn.TxID) (coordinator.Result, error)
	check      func(ctx context.Context, participant string) (coordinator.Inspection, error)
	deliveries []coordinator.Delivery
	timelines  []coordinator.Timeline
	loads      []coordinator.Load

	started started
	calls   bool // it cannot be started, only called
}

// started makes a Start of a Submit, for coordinators that are fakes.
type started struct {
	mu      sync.Mutex
	cancels map[*coordinator.Following]context.CancelCauseFunc // guarded by mu
}

func (s *started) start(
	submit func(context.Context, coordinator.Submission) (coordinator.Result, error),
	sub coordinator.Submission, f *coordinator.Following, to coordinator.Listener,
) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancels == nil {
		s.cancels = make(map[*coordinator.Following]context.CancelCauseFunc)
	}
	s.cancels[f] = cancel
	go func() {
		to.Answered(submit(ctx, sub))
		s.leave(f, context.Canceled)
	}()
}

func (s *started) leave(f *coordinator.Following, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.cancels[f]; cancel != nil {
		cancel(cause)
		delete(s.cancels, f)
	}
}

func (c *fakeCoordinator) Start(s coordinator.Submission, f *coordinator.Following, to coordinator.Listener) error {
	if c.calls {
		return coordinator.ErrNotLeader
	}
	c.started.start(c.Submit, s, f, to)
	return nil
}

func (c *fakeCoordinator) Leave(f *coordinator.Following, cause error) { c.started.leave(f, cause) }

func (c *fakeCoordinator) Submit(ctx context.Context, s coordinator.Submission) (coordinator.Result, error) {
	c.mu.Lock()
	c.submits = append(c.submits, s)
	submit := c.submit
	c.mu.Unlock()
	if submit == nil {
		return committed(s.ID), nil
	}
	return submit(ctx, s)
}

func (c *fakeCoordinator) Begin(ctx context.Context, id txn.TxID, timeout time.Duration) (*txn.Transaction, error) {
	if c.begin == nil {
		return &txn.Transaction{ID: id, State: txn.Active, Interactive: true, Timeout: timeout}, nil
	}
	return c.begin(ctx, id, timeout)
}

func (c *fakeCoordinator) Enlist(ctx context.Context, id txn.TxID, b txn.Branch) (*txn.Transaction, error) {
	if c.enlist == nil {
		return &txn.Transaction{ID: id, State: txn.Active, Branches: []txn.Branch{b}}, nil
	}
	return c.enlist(ctx, id, b)
}

func (c *fakeCoordinator) Commit(ctx context.Context, id txn.TxID, votes []txn.BranchVote, w coordinator.Wait) (coordinator.Result, error) {
	if c.commit == nil {
		return committed(id), nil
	}
	return c.commit(ctx, id, votes, w)
}

func (c *fakeCoordinator) Abort(ctx context.Context, id txn.TxID, reason string, w coordinator.Wait) (coordinator.Result, error) {
	if c.abort == nil {
		return aborted(id, txn.Reason{Code: txn.ReasonClient, Detail: reason}), nil
	}
	return c.abort(ctx, id, reason, w)
}

func (c *fakeCoordinator) Unresolved(context.Context) ([]coordinator.Unresolved, map[string]error, bool, error) {
	return nil, nil, false, nil
}

func (c *fakeCoordinator) Evidence(_ context.Context, id txn.TxID) (coordinator.Unresolved, error) {
	return coordinator.Unresolved{ID: id}, txn.ErrNotLost
}

func (c *fakeCoordinator) Arbitrate(context.Context, []txn.Command) ([]*txn.Transaction, error) {
	return nil, txn.ErrNotLost
}

func (c *fakeCoordinator) Inquire(ctx context.Context, id txn.TxID) (coordinator.Result, error) {
	if c.inquire == nil {
		return aborted(id, txn.Reason{Code: txn.ReasonPresumed}), nil
	}
	return c.inquire(ctx, id)
}

func (c *fakeCoordinator) Check(ctx context.Context, participant string) (coordinator.Inspection, error) {
	if c.check == nil {
		return coordinator.Inspection{Recovers: true, Prepared: 2}, nil
	}
	return c.check(ctx, participant)
}

func (c *fakeCoordinator) Examine(context.Context, txn.TxID, int) (*txn.Transaction, coordinator.Evidence, error) {
	return nil, coordinator.Evidence{}, txn.ErrUnknown
}

func (c *fakeCoordinator) Deliveries(txn.TxID) []coordinator.Delivery { return c.deliveries }

func (c *fakeCoordinator) Loads() []coordinator.Load { return c.loads }

func (c *fakeCoordinator) Timelines(txn.TxID) []coordinator.Timeline { return c.timelines }

func (c *fakeCoordinator) Leads() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leading
}

func (c *fakeCoordinator) lead(leads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leading = leads
}

// ids are the txids that were submitted here.
func (c *fakeCoordinator) ids() []txn.TxID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []txn.TxID
	for _, s := range c.submits {
		ids = append(ids, s.ID)
	}
	return ids
}

func committed(id txn.TxID) coordinator.Result {
	return coordinator.Result{Transaction: &txn.Transaction{ID: id, State: txn.Committed}, Delivered: true}
}

func aborted(id txn.TxID, why txn.Reason) coordinator.Result {
	return coordinator.Result{Transaction: &txn.Transaction{ID: id, State: txn.Aborted, Reason: why}, Delivered: true}
}

// fakeNode believes what a test tells it about who leads.
type fakeNode struct {
	id    string
	world *world

	mu       sync.Mutex
	leader   cluster.Peer
	watchers map[chan struct{}]struct{}

	addNode, removeNode, transfer func(ctx context.Context, id string) error
}

func (n *fakeNode) Leader() (cluster.Peer, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader, n.leader != cluster.Peer{}
}

// believe tells this node who leads; "" is nobody.
func (n *fakeNode) believe(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leader = cluster.Peer{}
	if id != "" {
		n.leader = cluster.Peer{ID: id, RaftAddress: "raft-" + id}
	}
	for w := range n.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (n *fakeNode) LeaderChanges() (<-chan struct{}, func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watchers == nil {
		n.watchers = make(map[chan struct{}]struct{})
	}
	w := make(chan struct{}, 1)
	n.watchers[w] = struct{}{}
	return w, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.watchers, w)
	}
}

func (n *fakeNode) APIAddress(_ context.Context, raftAddress string) (string, error) {
	return n.world.address(raftAddress)
}

func (n *fakeNode) Status() cluster.Status {
	leader, _ := n.Leader()
	room := cluster.Disk{Free: 3 << 30, Reserve: 64 << 20, Low: true}
	return cluster.Status{ID: n.id, Leader: leader, Term: 7, CommitIndex: 41, LastIndex: 42, Disk: room, Members: []cluster.Member{
		{Peer: cluster.Peer{ID: n.id, RaftAddress: "raft-" + n.id}, Voter: true, Leader: leader.ID == n.id},
	}}
}

func (n *fakeNode) AddNode(ctx context.Context, p cluster.Peer) error {
	return call(n.addNode)(ctx, p.ID)
}
func (n *fakeNode) RemoveNode(ctx context.Context, id string) error {
	return call(n.removeNode)(ctx, id)
}
func (n *fakeNode) Barrier(context.Context) error { return nil }
func (n *fakeNode) TransferLeadership(ctx context.Context, id string) error {
	return call(n.transfer)(ctx, id)
}

func call(f func(context.Context, string) error) func(context.Context, string) error {
	if f == nil {
		return func(context.Context, string) error { return nil }
	}
	return f
}

// fakeRegistrar applies to the machine, as the leader's log would.
type fakeRegistrar struct {
	put    func(participants.Registration) (participants.Registration, error)
	delete func(name string) error
	noted  []string // "who action target detail why"
	note   error
}

func (r *fakeRegistrar) Note(_ context.Context, by fsm.Operator, action, target, detail string) error {
	r.noted = append(r.noted, strings.Join([]string{by.Who, action, target, detail, by.Why}, ", "))
	return r.note
}

func (r *fakeRegistrar) SetGroup(context.Context, fsm.Operator, group.Group) error {
	return coordinator.ErrNotLeader
}

func (r *fakeRegistrar) Resolve(context.Context, fsm.Operator, txn.Resolve) (*txn.Transaction, error) {
	return nil, txn.ErrUnknown
}

func (r *fakeRegistrar) PutParticipant(_ context.Context, _ fsm.Operator, p participants.Registration) (participants.Registration, error) {
	if r.put == nil {
		p.Revision = 9
		return p, nil
	}
	return r.put(p)
}

func (r *fakeRegistrar) DeleteParticipant(_ context.Context, _ fsm.Operator, name string) error {
	if r.delete == nil {
		return nil
	}
	return r.delete(name)
}

// world is where nodes find each other.
type world struct {
	mu   sync.Mutex
	apis map[string]string // by raft address
}

func (w *world) address(raft string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.apis[raft]; a != "" {
		return a, nil
	}
	return "", fmt.Errorf("%w: %s", cluster.ErrUnreachable, raft)
}

func (w *world) set(raft, api string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.apis == nil {
		w.apis = make(map[string]string)
	}
	w.apis[raft] = api
}

// testNode is one served node.
type testNode struct {
	*Server
	coordinator *fakeCoordinator
	node        *fakeNode
	machine     *fsm.Machine
	registrar   *fakeRegistrar
	api, web    string // addresses
	log         *testLog
}

// serve starts a node called id; edit may be nil.
func (w *world) serve(t testing.TB, id string, edit func(*Config)) *testNode {
	t.Helper()
	n := &testNode{
		coordinator: &fakeCoordinator{},
		node:        &fakeNode{id: id, world: w},
		machine:     fsm.New(fsm.Options{}),
		registrar:   &fakeRegistrar{},
	}
	n.log = newTestLog(t, n.machine)
	cfg := Config{
		Coordinator: n.coordinator, Node: n.node, Machine: n.machine, Registrar: n.registrar,
		Drivers: participants.Drivers{"fake": fakeDriver{}}, Version: "v0.0.0-test",
	}
	if edit != nil {
		edit(&cfg)
	}
	var err error
	if n.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	g, h := listen(t), listen(t)
	n.api, n.web = g.Addr().String(), "http://"+h.Addr().String()
	w.set("raft-"+id, n.api)
	served := make(chan error, 1)
	go func() { served <- n.Serve(g, h) }()
	t.Cleanup(func() {
		n.Server.Abort()
		if err := <-served; err != nil {
			t.Errorf("serve %s: %v", id, err)
		}
	})
	return n
}

// leader starts a node that leads and knows it.
func (w *world) leader(t *testing.T, id string) *testNode {
	t.Helper()
	n := w.serve(t, id, nil)
	n.coordinator.lead(true)
	n.node.believe(id)
	return n
}

// follow has the node believe that id leads, and returns once its server knows.
func (n *testNode) follow(id string) {
	n.node.believe(id)
	for {
		now := n.observer.view()
		if now.leader.ID == id {
			return
		}
		<-now.changed
	}
}

// client is a plain gRPC client of the node.
func (n *testNode) client(t *testing.T) decreev1.TransactionsClient {
	t.Helper()
	return decreev1.NewTransactionsClient(n.dial(t))
}

func (n *testNode) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(n.api, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fakeDriver accepts any configuration without the key "wrong".
type fakeDriver struct{ participants.Driver }

func (fakeDriver) Check(config []byte) error {
	if string(config) == `{"wrong":true}` {
		return fmt.Errorf("wrong: no such setting")
	}
	return nil
}

// testLog applies entries to a machine, as a leader of epoch 1 would.
type testLog struct {
	t       testing.TB
	machine *fsm.Machine
	index   uint64
}

func newTestLog(t testing.TB, m *fsm.Machine) *testLog {
	l := &testLog{t: t, machine: m}
	l.apply(fsm.Lead{Node: "n1", Cluster: "test"})
	return l
}

func (l *testLog) apply(commands ...fsm.Command) {
	l.t.Helper()
	data, err := fsm.Encode(fsm.Entry{Header: txn.Header{Epoch: 1, Time: txn.Time(time.Now().UnixNano())}, Commands: commands})
	if err != nil {
		l.t.Fatal(err)
	}
	l.index++
	applied := l.machine.Apply(&raft.Log{Type: raft.LogCommand, Index: l.index, Term: 1, Data: data}).(fsm.Applied)
	if applied.Err != nil {
		l.t.Fatal(applied.Err)
	}
	for _, r := range applied.Results {
		if r.Err != nil {
			l.t.Fatal(r.Err)
		}
	}
}

// register makes participants known.
func (l *testLog) register(names ...string) {
	l.t.Helper()
	for _, name := range names {
		l.apply(fsm.PutParticipant{Participant: fsm.Participant{Name: name, Driver: "fake", Config: []byte("{}")}})
	}
}

func txid(t *testing.T) txn.TxID {
	t.Helper()
	id, err := newTxID(group.Group{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// submission is a valid request.
func submission() *decreev1.SubmitRequest {
	return &decreev1.SubmitRequest{Branches: []*decreev1.NewBranch{
		{Participant: "bank-a", Content: &decreev1.NewBranch_Payload{Payload: []byte("debit")}},
		{Participant: "bank-b", Content: &decreev1.NewBranch_Payload{Payload: []byte("credit")}},
	}}
}
