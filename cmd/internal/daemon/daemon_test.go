package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/sim"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// What is proven here: a node that is told to stop hands its work over. A client
// whose transaction is being prepared by the leader that stops gets its outcome
// (rules R5 and R13), from the next leader, and the node gives its ports free.

// patience bounds every wait. It only has to be longer than a busy machine takes.
const patience = 60 * time.Second

// member is one node that runs.
type member struct {
	id     string
	cfg    config.Server
	daemon *Daemon
	stop   context.CancelFunc
	ended  chan error
}

// startCluster runs three nodes with a simulated service, until the test ends.
func startCluster(t *testing.T) (members []*member, c *client.Client) {
	t.Helper()
	drivers := participants.Drivers{"sim": &sim.Driver{}}
	var peers config.Peers
	for i, addr := range freeAddresses(t, 3) {
		peers = append(peers, config.Peer{ID: fmt.Sprintf("n%d", i+1), Addr: addr})
	}
	dir := t.TempDir()
	daemons := make([]*Daemon, len(peers))
	var opening sync.WaitGroup
	for i, peer := range peers {
		cfg := config.Default()
		cfg.NodeID, cfg.DataDir, cfg.Peers = peer.ID, filepath.Join(dir, peer.ID), peers
		cfg.RaftAddr, cfg.GRPCAddr, cfg.HTTPAddr = peer.Addr, "127.0.0.1:0", ""
		members = append(members, &member{id: peer.ID, cfg: cfg, ended: make(chan error, 1)})
		opening.Go(func() {
			var err error
			daemons[i], err = Open(t.Context(), cfg, Options{
				Drivers: drivers, Logger: hclog.NewNullLogger(), Version: "test",
				Exit: func(err error) { panic(err) },
			})
			if err != nil {
				t.Errorf("open %s: %v", peer.ID, err)
			}
		})
	}
	opening.Wait()
	if t.Failed() {
		t.FailNow()
	}
	var endpoints []string
	for i, d := range daemons {
		ctx, stop := context.WithCancel(context.Background())
		m := members[i]
		m.daemon, m.stop = d, stop
		m.cfg.GRPCAddr = d.GRPC.String()
		endpoints = append(endpoints, d.GRPC.String())
		go func() { m.ended <- d.Run(ctx) }()
		t.Cleanup(func() {
			if err := m.end(t); err != nil {
				t.Errorf("%s: %v", m.id, err)
			}
		})
	}
	c, err := client.New(client.Config{Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return members, c
}

// end stops the node and gives what Run returned.
func (m *member) end(t *testing.T) error {
	t.Helper()
	m.stop()
	select {
	case err := <-m.ended:
		m.ended <- err // for those who ask again
		return err
	case <-time.After(patience):
		t.Fatalf("%s does not stop", m.id)
		return nil
	}
}

func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // held until all are known, so that none comes twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

func TestStoppingLeaderHandsItsWorkOver(t *testing.T) {
	members, c := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := c.PutParticipant(ctx, &decreev1.Participant{Name: "slow", Driver: "sim"}); err != nil {
		t.Fatal(err)
	}
	txid, err := client.NewTxID()
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		result client.Result
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		r, err := c.Submit(ctx, client.Transaction{TxID: txid, Branches: []client.Branch{
			client.JSON("slow", map[string]string{"delay": "5s"}),
		}})
		answered <- answer{r, err}
	}()
	leader := leaderOf(ctx, t, c, txid, members)
	if err := leader.end(t); err != nil {
		t.Errorf("the leader's stop: %v", err)
	}
	select {
	case a := <-answered:
		if a.err != nil || a.result.Outcome != client.Committed {
			t.Errorf("the client is told %s, %v; want committed", a.result.Outcome, a.err)
		}
	case <-ctx.Done():
		t.Fatal("the client is told nothing")
	}
	t1, err := c.Get(ctx, txid)
	if err != nil || t1.GetDecided().GetEpoch() <= t1.GetStaged().GetEpoch() {
		t.Errorf("staged in epoch %d, decided in %d (%v); want another leader to have decided",
			t1.GetStaged().GetEpoch(), t1.GetDecided().GetEpoch(), err)
	}
	l, err := net.Listen("tcp", leader.cfg.GRPCAddr)
	if err != nil {
		t.Fatalf("the port was not given free: %v", err)
	}
	l.Close()
}

// leaderOf waits until the transaction is staged, and gives the node that leads
// then.
func leaderOf(ctx context.Context, t *testing.T, c *client.Client, txid string, members []*member) *member {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		tx, err := c.Get(ctx, txid)
		if err == nil && tx.GetState() == decreev1.State_STATE_PREPARING {
			break
		}
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it was never staged")
		}
	}
	status, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.id == status.GetLeader() {
			return m
		}
	}
	t.Fatalf("the leader is %q", status.GetLeader())
	return nil
}

// TestOpenLeavesNothingBehind opens nodes that cannot start, at each stage.
func TestOpenLeavesNothingBehind(t *testing.T) {
	options := Options{Logger: hclog.NewNullLogger(), Exit: func(err error) { panic(err) }}
	valid := func(t *testing.T) config.Server {
		ports := freeAddresses(t, 3)
		cfg := config.Default()
		cfg.NodeID, cfg.DataDir = "n1", filepath.Join(t.TempDir(), "n1")
		cfg.Peers = config.Peers{{ID: "n1", Addr: ports[0]}}
		cfg.RaftAddr, cfg.GRPCAddr, cfg.HTTPAddr = ports[0], ports[1], ports[2]
		return cfg
	}
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close()
	taken := occupied.Addr().String()

	for name, spoil := range map[string]func(*config.Server){
		"a setting":     func(c *config.Server) { c.LogLevel = "loud" },
		"gRPC's port":   func(c *config.Server) { c.GRPCAddr = taken },
		"HTTP's port":   func(c *config.Server) { c.HTTPAddr = taken },
		"Raft's port":   func(c *config.Server) { c.RaftAddr, c.Peers[0].Addr = taken, taken },
		"the directory": func(c *config.Server) { c.DataDir = "/dev/null/n1" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := valid(t)
			spoil(&cfg)
			d, err := Open(t.Context(), cfg, options)
			if err == nil {
				d.Abandon()
				t.Fatal("it opened")
			}
			for _, address := range []string{cfg.RaftAddr, cfg.GRPCAddr, cfg.HTTPAddr} {
				if address == taken {
					if !errors.Is(err, ErrPortInUse) {
						t.Errorf("error %v, want that the port is in use", err)
					}
					continue
				}
				l, err := net.Listen("tcp", address)
				if err != nil {
					t.Errorf("%s was not given free: %v", address, err)
					continue
				}
				l.Close()
			}
		})
	}
}
