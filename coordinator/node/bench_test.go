package node

// What a transaction costs in the nodes themselves: the whole path from Submit to
// the last receipt, with participants that answer at once and without a wire to
// them or to the clients. Run it with
//
//	go test -run '^$' -bench BenchmarkSubmit -benchmem ./coordinator/node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// BenchmarkSubmit runs two-branch transactions of clients who each wait for the
// decision. Memory disks leave the CPU's cost, which files hide behind fsyncs.
func BenchmarkSubmit(b *testing.B) {
	for _, disks := range []string{"memory", "files"} {
		for _, clients := range []int{1, 64, 256, 1024} {
			b.Run(fmt.Sprintf("disks=%s/clients=%d", disks, clients), func(b *testing.B) {
				leader := startBench(b, 3, disks == "memory")
				before := leader.Machine.Stats()
				b.ReportAllocs()
				b.ResetTimer()
				took := submit(b, leader, clients, b.N)
				b.StopTimer()
				awaitDelivered(b, leader)
				after := leader.Machine.Stats()
				b.ReportMetric(float64(after.Entries-before.Entries)/float64(b.N), "entries/tx")
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tx/s")
			})
		}
	}
}

// submit runs n transactions from a number of clients, and returns how long each
// decision took.
func submit(b testing.TB, leader *Node, clients, n int) []time.Duration {
	b.Helper()
	took := make([]time.Duration, n)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := c; i < n; i += clients {
				start := time.Now()
				id := txn.TxID(uuid.Must(uuid.NewV7()))
				r, err := leader.Coordinator.Submit(context.Background(), coordinator.Submission{
					ID: id, Wait: coordinator.WaitDecision,
					Branches: []txn.Branch{txn.NewBranch("a", payload), txn.NewBranch("b", payload)},
				})
				if err != nil || r.Decision() != txn.Commit {
					b.Errorf("%s: %v, %v", id, r.Transaction, err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	return took
}

var payload = make([]byte, 100)

func startBench(b testing.TB, nodes int, memory bool) *Node {
	b.Helper()
	net := clustertest.Prepare(b, clustertest.Options{
		Nodes: nodes, Memory: memory,
		FSM: func(string) raft.FSM { return nil }, // the node brings its own
	})
	opened := make(chan *Node, nodes)
	for _, id := range net.IDs() {
		go func() {
			n, err := Open(context.Background(), Config{
				Cluster: net.Config(id),
				Drivers: participants.Drivers{"instant": instant{}, "mute": mute{}},
				Logger:  hclog.NewNullLogger(),
			})
			if err != nil {
				b.Error(err)
			}
			opened <- n
		}()
	}
	var all []*Node
	for range nodes {
		if n := <-opened; n != nil {
			all = append(all, n)
			b.Cleanup(func() { _ = n.Close(context.Background()) })
		}
	}
	leader := awaitLeader(b, all)
	for _, name := range []string{"a", "b"} {
		r := participants.Registration{Name: name, Driver: "instant", Config: []byte("{}")}
		if _, err := leader.PutParticipant(context.Background(), fsm.Operator{}, r); err != nil {
			b.Fatal(err)
		}
	}
	submit(b, leader, 8, 64) // opens the participants
	awaitDelivered(b, leader)
	return leader
}

func awaitLeader(b testing.TB, all []*Node) *Node {
	b.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		for _, n := range all {
			if n.Coordinator.Leads() {
				return n
			}
		}
	}
	b.Fatal("nobody leads")
	return nil
}

func awaitDelivered(b testing.TB, leader *Node) {
	b.Helper()
	await(b, func() bool {
		open := false
		leader.Machine.Open(func(*txn.Transaction) bool { open = true; return false })
		return !open
	})
}

// await waits for something that is looked for now and then.
func await(b testing.TB, so func() bool) {
	b.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if so() {
			return
		}
	}
	b.Fatal("it does not come")
}

// instant is a participant that does nothing, at once.
type instant struct{}

func (instant) Check([]byte) error { return nil }
func (instant) Open(context.Context, participants.Registration, hclog.Logger) (participants.Participant, error) {
	return instant{}, nil
}
func (instant) Prepare(context.Context, participants.Branch) (participants.Vote, error) {
	return participants.Yes(), nil
}
func (instant) Commit(context.Context, participants.Branch) error { return nil }
func (instant) Abort(context.Context, participants.Branch) error  { return nil }
func (instant) Recover(context.Context, string) ([]participants.Branch, error) {
	return nil, nil
}
func (instant) Recovers() bool { return true }
func (instant) Close() error   { return nil }

// BenchmarkApply is the figure to hold BenchmarkSubmit against: one entry of some
// hundred bytes through the same Raft, by one caller.
func BenchmarkApply(b *testing.B) {
	for _, disks := range []string{"memory", "files"} {
		b.Run("disks="+disks, func(b *testing.B) {
			net := clustertest.New(b, clustertest.Options{
				Memory: disks == "memory",
				FSM:    func(string) raft.FSM { return idle{} },
			})
			leader := net.WaitLeader()
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, _, err := leader.Apply(make([]byte, 300)).Wait(context.Background()); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}

// idle is a state machine that does nothing.
type idle struct{ raft.FSM }

func (idle) Apply(*raft.Log) any { return nil }
func (idle) ApplyBatch(logs []*raft.Log) []any {
	return make([]any, len(logs))
}
