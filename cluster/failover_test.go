package cluster_test

// How long a failover takes: from the moment a leader dies to the moment the next
// one has passed its barrier and its work begins. A figure, with no assertion on it.

import (
	"context"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/decree-tx/decree/cluster"
)

var failovers = flag.Int("failovers", 3, "how many failovers to measure")

// ports are so many addresses that were free a moment ago.
func ports(t *testing.T, n int) []string {
	t.Helper()
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// Three nodes over TCP, with real disks. The leader is stopped without handing over,
// which to the others is a process that was killed: its connections close.
func TestFailoverIsMeasured(t *testing.T) {
	dir := t.TempDir()
	var peers []cluster.Peer
	for i, address := range ports(t, 3) {
		peers = append(peers, cluster.Peer{ID: fmt.Sprintf("n%d", i+1), RaftAddress: address})
	}
	leads := make(chan string, 10)
	nodes := make(map[string]*cluster.Node)
	start := func(p cluster.Peer) (*cluster.Node, error) {
		n, err := cluster.Open(within(t, time.Minute), cluster.Config{
			ID: p.ID, Bind: p.RaftAddress, Dir: filepath.Join(dir, p.ID), Peers: peers, FSM: &journal{},
			Exit: func(err error) { t.Errorf("exit: %v", err) },
		})
		if err != nil {
			return nil, err
		}
		n.Lead(func(ctx context.Context, _ uint64) {
			leads <- p.ID
			<-ctx.Done()
		})
		return n, nil
	}
	type opened struct {
		id   string
		node *cluster.Node
		err  error
	}
	ready := make(chan opened)
	for _, p := range peers {
		go func() {
			n, err := start(p)
			ready <- opened{p.ID, n, err}
		}()
	}
	for range peers {
		o := <-ready
		if o.err != nil {
			t.Fatal(o.err)
		}
		nodes[o.id] = o.node
	}
	dead, kill := context.WithCancel(context.Background())
	kill()
	defer func() {
		for _, n := range nodes {
			n.Close(dead)
		}
	}()

	var took []time.Duration
	leader := <-leads
	for range *failovers {
		if _, _, err := nodes[leader].Apply([]byte("a")).Wait(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		go nodes[leader].Close(dead)
		next := <-leads
		took = append(took, time.Since(began))
		nodes[leader].Close(dead)
		i := slices.IndexFunc(peers, func(p cluster.Peer) bool { return p.ID == leader })
		n, err := start(peers[i])
		if err != nil {
			t.Fatal(err)
		}
		nodes[leader], leader = n, next
	}
	slices.Sort(took)
	t.Logf("%d failovers: median %s, worst %s", len(took), took[len(took)/2], took[len(took)-1])
}
