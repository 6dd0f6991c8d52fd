package daemon

// What is proven here: a node that stops says so to load balancers before it turns
// anybody away, and finds a node to lead in its place where the first choice is down.

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/sim"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func TestStopServesOnWithoutHealth(t *testing.T) {
	ports := freeAddresses(t, 3)
	cfg := config.Default()
	cfg.NodeID, cfg.DataDir, cfg.Peers = "n1", filepath.Join(t.TempDir(), "n1"), config.Peers{{ID: "n1", Addr: ports[0]}}
	cfg.RaftAddr, cfg.GRPCAddr, cfg.HTTPAddr = ports[0], ports[1], ports[2]
	cfg.StopTimeout, cfg.DrainDelay = time.Hour, time.Hour-time.Second // until the test ends it
	d, err := Open(t.Context(), cfg, Options{
		Drivers: participants.Drivers{"sim": &sim.Driver{}}, Logger: hclog.NewNullLogger(), Exit: func(err error) { panic(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	served, stopped := make(chan error, 1), make(chan struct{})
	go func() { served <- d.server.Serve(d.listeners.grpc, d.listeners.http) }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	submitAnew(ctx, t, cfg.GRPCAddr, "before")
	if code := readiness(t, cfg.HTTPAddr); code != http.StatusOK {
		t.Errorf("readiness is %d before the stop", code)
	}
	bound, end := context.WithCancel(t.Context())
	go func() {
		defer close(stopped)
		d.stop(bound)
	}()
	awaitUnhealthy(ctx, t, cfg.GRPCAddr)
	if code := readiness(t, cfg.HTTPAddr); code != http.StatusServiceUnavailable {
		t.Errorf("readiness is %d in the stop", code)
	}
	submitAnew(ctx, t, cfg.GRPCAddr, "while it stops")
	end()
	select {
	case <-stopped:
	case <-ctx.Done():
		t.Fatal("it does not stop")
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// submitAnew runs a transaction over a connection of its own.
func submitAnew(ctx context.Context, t *testing.T, endpoint, when string) {
	t.Helper()
	c, err := client.New(client.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.PutParticipant(ctx, &decreev1.Participant{Name: "dice", Driver: "sim"}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Submit(ctx, client.Transaction{Branches: []client.Branch{client.JSON("dice", struct{}{})}})
	if err != nil || r.Outcome != client.Committed {
		t.Errorf("%s: %s, %v", when, r.Outcome, err)
	}
}

// awaitUnhealthy returns once the node's own health is off.
func awaitUnhealthy(ctx context.Context, t *testing.T, endpoint string) {
	t.Helper()
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		switch answer, err := health.Recv(); {
		case err != nil:
			t.Fatal(err)
		case answer.GetStatus() == healthv1.HealthCheckResponse_NOT_SERVING:
			return
		}
	}
}

func readiness(t *testing.T, address string) int {
	t.Helper()
	answer, err := http.Get("http://" + address + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

// Raft hands over to the node whose log is furthest. Where nothing is written that may
// be one that has just gone.
func TestStoppingLeaderPassesOverANodeThatIsDown(t *testing.T) {
	members, c := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	leader := awaitLeader(ctx, t, members, nil)
	if err := leader.daemon.handOver(ctx); err != nil {
		t.Fatal(err)
	}
	choice := awaitLeader(ctx, t, members, leader)
	if err := c.TransferLeadership(ctx, leader.id); err != nil {
		t.Fatal(err)
	}
	awaitLeader(ctx, t, members, choice)
	if err := choice.end(t); err != nil {
		t.Fatal(err)
	}
	if err := leader.daemon.handOver(ctx); err != nil {
		t.Errorf("with %s down: %v", choice.id, err)
	}
}

// awaitLeader waits until a node other than one drives transactions.
func awaitLeader(ctx context.Context, t *testing.T, members []*member, except *member) *member {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, m := range members {
			if m != except && m.daemon.node.Coordinator.Leads() {
				return m
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nobody leads")
		}
	}
}
