// These tests prove that a server comes and goes cleanly: its health follows
// leadership, it answers what it has begun, cuts what does not end in time, and
// leaves no goroutine behind.
package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

func TestConfigTellsEveryProblem(t *testing.T) {
	_, err := New(Config{MaxCalls: -1, MaxTimeout: -time.Second})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"Coordinator", "Node", "Machine", "Registrar", "MaxCalls", "MaxTimeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %s in %v", want, err)
		}
	}
}

// R14: those who wait for a participant that does not answer, as many as the coordinator
// takes, leave room for all others, at the node and in a stream.
func TestDefaultsLeaveRoomBesideAParticipantThatIsDown(t *testing.T) {
	const quota = 16384 // of coordinator.Config.MaxUnfinishedPerParticipant
	c := Config{}.withDefaults()
	if c.MaxCalls < 2*quota || c.MaxPerStream < 2*quota {
		t.Errorf("%d calls at a node and %d in a stream, and one participant takes %d", c.MaxCalls, c.MaxPerStream, quota)
	}
}

func TestHealthFollowsLeadership(t *testing.T) {
	n := (&world{}).serve(t, "n1", nil)
	h := healthv1.NewHealthClient(n.dial(t))
	if got, err := h.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatal(got, err)
	}
	stream, err := h.Watch(t.Context(), &healthv1.HealthCheckRequest{Service: leaderService})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		got, err := stream.Recv()
		if err != nil || got.GetStatus() != want {
			t.Fatalf("got %v %v, want %s", got, err, want)
		}
	}
	expect(healthv1.HealthCheckResponse_NOT_SERVING)
	n.coordinator.lead(true)
	n.node.believe("n1")
	expect(healthv1.HealthCheckResponse_SERVING)
	n.coordinator.lead(false)
	n.node.believe("n2")
	expect(healthv1.HealthCheckResponse_NOT_SERVING)
	n.coordinator.lead(true)
	n.node.believe("n1")
	expect(healthv1.HealthCheckResponse_SERVING)
	n.Retire()
	expect(healthv1.HealthCheckResponse_NOT_SERVING)
	if got, err := h.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Error("a node that goes away is healthy", got, err)
	}
}

func TestReflection(t *testing.T) {
	n := (&world{}).serve(t, "n1", nil)
	stream, err := reflectionv1.NewServerReflectionClient(n.dial(t)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: "*"},
	}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, want := range []string{"decree.v1.Transactions", "decree.v1.Participants", "decree.v1.Cluster"} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("%s is not among %v", want, names)
		}
	}
}

func TestStopAnswersWhatHasBegun(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	begun, release := make(chan struct{}), make(chan struct{})
	n.coordinator.submit = func(_ context.Context, s coordinator.Submission) (coordinator.Result, error) {
		close(begun)
		<-release
		return committed(s.ID), nil
	}
	answered := make(chan error, 1)
	c := n.client(t)
	go func() {
		_, err := c.Submit(context.Background(), submission())
		answered <- err
	}()
	<-begun
	watch, err := n.client(t).Watch(t.Context(), &decreev1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// A client's health streams have no end either.
	healths, err := healthv1.NewHealthClient(n.dial(t)).Watch(t.Context(), &healthv1.HealthCheckRequest{Service: leaderService})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := healths.Recv(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- n.Stop(t.Context()) }()
	_, err = watch.Recv() // a watch has no end: it is cut, with the reason
	wantReason(t, err, codes.Unavailable, reasonShuttingDown)
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("a call was cut: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A leader hands over and stops: the calls that are left at it follow the new one.
func TestDrainingCallsFollowTheLeader(t *testing.T) {
	w := &world{}
	old, next := w.leader(t, "n1"), w.leader(t, "n2")
	begun := make(chan struct{})
	old.coordinator.submit = func(context.Context, coordinator.Submission) (coordinator.Result, error) {
		close(begun)
		<-old.ended.Done() // Stop has begun
		old.coordinator.lead(false)
		old.node.believe("n2")
		return coordinator.Result{}, coordinator.ErrOutcomeUnknown
	}
	answered := make(chan error, 1)
	c := old.client(t)
	go func() {
		_, err := c.Submit(context.Background(), submission())
		answered <- err
	}()
	<-begun
	if err := old.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-answered; err != nil || len(next.coordinator.ids()) != 1 {
		t.Errorf("%v, the new leader ran %v", err, next.coordinator.ids())
	}
}

func TestStopCutsWhatDoesNotEnd(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	begun := make(chan struct{})
	n.coordinator.submit = func(ctx context.Context, _ coordinator.Submission) (coordinator.Result, error) {
		close(begun)
		<-ctx.Done()
		return coordinator.Result{}, coordinator.ErrOutcomeUnknown
	}
	answered := make(chan error, 1)
	c := n.client(t)
	go func() {
		_, err := c.Submit(context.Background(), submission())
		answered <- err
	}()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stop: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("answered")
	}
}

func TestServeFailsWhenAListenerDoes(t *testing.T) {
	for _, broken := range []string{"gRPC", "HTTP"} {
		n := (&world{}).leader(t, "n1")
		s, err := New(n.cfg)
		if err != nil {
			t.Fatal(err)
		}
		g, h := listen(t), listen(t)
		if broken == "gRPC" {
			g.Close()
		} else {
			h.Close()
		}
		if err := s.Serve(g, h); err == nil || !strings.Contains(err.Error(), broken) {
			t.Errorf("%s: %v", broken, err)
		}
	}
}

func TestStopBeforeServe(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	s, err := New(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Serve(listen(t), listen(t)); err != nil {
		t.Error(err)
	}
}

func TestWatchesAreBounded(t *testing.T) {
	n := (&world{}).serve(t, "n1", func(c *Config) { c.MaxWatches = 1 })
	n.log.register("bank-a")
	id := txid(t)
	n.log.apply(txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank-a", nil)}, Timeout: 1e9})
	first, err := n.client(t).Watch(t.Context(), &decreev1.WatchRequest{Txid: id.String()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recv(); err != nil { // it is in
		t.Fatal(err)
	}
	second, err := n.client(t).Watch(t.Context(), &decreev1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = second.Recv()
	wantReason(t, err, codes.ResourceExhausted, reasonBusy)
}

// A watch that begins in the middle neither misses nor repeats a state, and one
// of a transaction that is over ends at once.
func TestWatchOfOneTransaction(t *testing.T) {
	n := (&world{}).serve(t, "n1", nil)
	n.log.register("bank-a", "bank-b")
	id := txid(t)
	s := &transactions{Server: n.Server}
	see := func(steps ...[]fsm.Command) (seen []string) {
		err := s.follow(t.Context(), &id, func(tx *txn.Transaction) error {
			seen = append(seen, tx.State.String())
			if len(steps) > 0 {
				for _, c := range steps[0] {
					n.log.apply(c)
				}
				steps = steps[1:]
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return seen
	}
	n.log.apply(txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank-a", nil), txn.NewBranch("bank-b", nil)}, Timeout: 1e9})
	ack := func(branch int) fsm.Command {
		return txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: branch, Receipt: txn.Done}}}
	}
	got := strings.Join(see([]fsm.Command{txn.Decide{ID: id, Decision: txn.Commit}, ack(1)}, nil, []fsm.Command{ack(2)}), " ")
	if want := "Preparing Committing Committing Committed"; got != want {
		t.Errorf("saw %s, want %s", got, want)
	}
	if got := see(); len(got) != 1 || got[0] != "Committed" {
		t.Errorf("of a transaction that is over: %v", got)
	}
}

func TestLaterStates(t *testing.T) {
	tx := func(state txn.State, receipts ...txn.Receipt) *txn.Transaction {
		t := &txn.Transaction{State: state}
		for _, r := range receipts {
			t.Branches = append(t.Branches, txn.Branch{Receipt: r})
		}
		return t
	}
	order := []*txn.Transaction{
		tx(txn.Active), tx(txn.Aborted), tx(txn.Preparing, 0), tx(txn.Aborting, 0),
		tx(txn.Aborting, 0, 0), tx(txn.Aborting, 0, txn.Done), tx(txn.Aborted, txn.Done, txn.Done),
	}
	for i, a := range order {
		for j, b := range order {
			if later(b, a) != (j > i) {
				t.Errorf("state %d after %d: %v", j, i, later(b, a))
			}
		}
	}
}

// A follower that has not applied a transaction, or not its decision, asks the
// leader; without one it says what it knows.
func TestGetAsksTheLeader(t *testing.T) {
	w := &world{}
	leader, follower := w.leader(t, "n1"), w.serve(t, "n2", nil)
	follower.follow("n1")
	for _, n := range []*testNode{leader, follower} {
		n.log.register("bank-a")
	}
	id := txid(t)
	stage := txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank-a", nil)}, Timeout: 1e9}
	c := follower.client(t)
	get := func() (decreev1.State, error) {
		answer, err := c.Get(t.Context(), &decreev1.GetRequest{Txid: id.String()})
		return answer.GetTransaction().GetState(), err
	}
	if _, err := get(); reasonOf(err) != reasonNotFound {
		t.Fatal(err)
	}
	leader.log.apply(stage)
	if st, err := get(); st != decreev1.State_STATE_PREPARING {
		t.Fatal(st, err)
	}
	follower.log.apply(stage)
	leader.log.apply(txn.Decide{ID: id, Decision: txn.Commit})
	if st, err := get(); st != decreev1.State_STATE_COMMITTING {
		t.Fatal(st, err)
	}
	follower.follow("")
	if st, err := get(); st != decreev1.State_STATE_PREPARING {
		t.Fatal(st, err)
	}
	follower.log.apply(txn.Decide{ID: id, Decision: txn.Commit})
	if st, err := get(); st != decreev1.State_STATE_COMMITTING {
		t.Fatal(st, err)
	}
}

// The bubble of synctest ends only when every goroutine has: nothing of a server
// that ran calls, streams and forwarding is left behind.
func TestNothingIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &testNode{
			coordinator: &fakeCoordinator{leading: true},
			node:        &fakeNode{id: "n1", world: &world{}},
			machine:     fsm.New(fsm.Options{}),
		}
		n.node.believe("n1")
		var err error
		n.Server, err = New(Config{Coordinator: n.coordinator, Node: n.node, Machine: n.machine, Registrar: &fakeRegistrar{}})
		if err != nil {
			t.Fatal(err)
		}
		g, h := bufconn.Listen(1<<16), bufconn.Listen(1<<16)
		served := make(chan error, 1)
		go func() { served <- n.Serve(g, h) }()

		conn, err := grpc.NewClient("passthrough:///n1", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decreev1.NewTransactionsClient(conn).Submit(t.Context(), submission()); err != nil {
			t.Error(err)
		}
		watch, err := decreev1.NewTransactionsClient(conn).Watch(t.Context(), &decreev1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		web := &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return h.DialContext(ctx) },
		}}
		res, err := web.Post("http://n1/v1/transactions", "application/json", strings.NewReader(twoBranches))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()

		if err := n.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if _, err := watch.Recv(); err == nil {
			t.Error("the watch went on")
		}
		conn.Close()
		web.CloseIdleConnections()
	})
}

// A participant that can't be reached is an answer of Check; one that is not
// registered is an error.
func TestCheckTellsWhatIsWrong(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	var fail error
	n.coordinator.check = func(context.Context, string) (coordinator.Inspection, error) { return coordinator.Inspection{}, fail }
	c := decreev1.NewParticipantsClient(n.dial(t))
	fail = errors.New("connection refused")
	answer, err := c.Check(t.Context(), &decreev1.CheckRequest{Name: "bank-a"})
	if err != nil || answer.GetReachable() || answer.GetError() != "connection refused" {
		t.Error(answer, err)
	}
	fail = coordinator.ErrUnknownParticipant
	_, err = c.Check(t.Context(), &decreev1.CheckRequest{Name: "bank-a"})
	wantReason(t, err, codes.NotFound, reasonUnknownParticipant)
}

// A txid before the horizon may have been forgotten: that is not "never was".
func TestGetOfAForgottenTransaction(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	old := txid(t)
	data, err := fsm.Encode(fsm.Entry{Header: txn.Header{Epoch: 1, Time: old.Time().Add(time.Second), Horizon: old.Time().Add(time.Millisecond)}})
	if err != nil {
		t.Fatal(err)
	}
	n.machine.Apply(&raft.Log{Type: raft.LogCommand, Index: 2, Term: 1, Data: data})
	_, err = n.client(t).Get(t.Context(), &decreev1.GetRequest{Txid: old.String()})
	wantReason(t, err, codes.OutOfRange, reasonExpired)
}
