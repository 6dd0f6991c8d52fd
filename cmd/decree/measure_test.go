package main

// The figures of the README: failover, and the latency of a transaction beside
// that of one bare entry of the same Raft on the same disk. Run them with
//
//	go test -run '^$' -bench . -benchtime 20x ./cmd/decree
//
// They assert nothing about time: a busy machine is not a bug.

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/transport/client"
)

// BenchmarkFailover kills the leader (kill -9) under a trickle of transactions and
// measures until the first decision of its successor: from the kill to the answer
// of the first transaction that was submitted after it.
func BenchmarkFailover(b *testing.B) {
	x := startBench(b)
	x.deposit("bank-a", "alice", 1)
	var took []time.Duration
	for b.Loop() {
		leader, epoch := x.leader(0, nil)
		at := x.at(x.other(leader))
		if err := commit(at, client.WaitDecision); err != nil { // its connections are up
			b.Fatal(err)
		}
		start := time.Now()
		leader.kill()
		if err := commit(at, client.WaitDecision); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))

		b.StopTimer()
		x.leader(epoch, leader)
		leader.start()
		x.await("the killed node's return", func(ctx context.Context) bool {
			st, err := x.client.NodeStatus(ctx, leader.grpc)
			return err == nil && st.GetLeader() != "" && st.GetAppliedIndex() > 0
		})
		b.StartTimer()
	}
	report(b, took)
}

// BenchmarkTransaction is one client, two kv participants in processes of their
// own, three servers in theirs.
func BenchmarkTransaction(b *testing.B) {
	x := startBench(b)
	x.deposit("bank-a", "alice", 1)
	leader, _ := x.leader(0, nil)
	at := x.at(leader)
	b.Run("decision", func(b *testing.B) {
		timed(b, func() error { return commit(at, client.WaitDecision) })
	})
	b.Run("delivery", func(b *testing.B) {
		timed(b, func() error { return commit(at, client.WaitDelivery) })
	})
	b.Run("begin", func(b *testing.B) { // one call that writes one entry
		timed(b, func() error {
			_, err := at.Begin(context.Background(), time.Minute)
			return err
		})
	})
	b.Run("bare-apply", func(b *testing.B) {
		leader := bareRaft(b)
		timed(b, func() error {
			_, _, err := leader.Apply(make([]byte, 256)).Wait(context.Background())
			return err
		})
	})
}

func timed(b *testing.B, do func() error) {
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := do(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
	b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
	b.ReportMetric(ms(took[len(took)-1]), "worst-ms")
	b.ReportMetric(0, "ns/op") // a mean over kills and restarts says nothing
}

// commit runs a transaction on an account of its own: one that waits for the
// decision only could else find the account still held by the one before it.
func commit(c *client.Client, wait client.Wait) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	txid, err := client.NewTxID()
	if err != nil {
		return err
	}
	r, err := c.Submit(ctx, client.Transaction{TxID: txid, Wait: wait, Timeout: patience, Branches: []client.Branch{
		client.JSON("bank-a", add(txid, 1)), client.JSON("bank-b", add(txid, 1)),
	}})
	if err != nil {
		return err
	}
	return r.Err()
}

func (b *bench) other(s *server) *server {
	for _, o := range b.servers {
		if o != s {
			return o
		}
	}
	panic("a cluster of one")
}

// bareRaft is three nodes of package cluster over loopback TCP, with a state
// machine that does nothing.
func bareRaft(b *testing.B) *cluster.Node {
	b.Helper()
	var peers []cluster.Peer
	for i, address := range freePorts(b, 3) {
		peers = append(peers, cluster.Peer{ID: fmt.Sprintf("n%d", i+1), RaftAddress: address})
	}
	led := make(chan *cluster.Node, len(peers))
	for _, p := range peers {
		dir := b.TempDir()
		go func() {
			n, err := cluster.Open(context.Background(), cluster.Config{ID: p.ID, Bind: p.RaftAddress, Dir: dir, Peers: peers, FSM: nothing{}})
			if err != nil {
				b.Error(err)
				return
			}
			b.Cleanup(func() { _ = n.Close(context.Background()) })
			n.Lead(func(ctx context.Context, _ uint64) {
				led <- n
				<-ctx.Done()
			})
		}()
	}
	return <-led
}

type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}
