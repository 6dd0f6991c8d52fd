package cluster

// What a write costs in either log store, on the disk of the temporary directory: one
// append, and one entry through three nodes of this process over loopback TCP. Times
// are for people; nothing is held.
//
//	go test ./cluster -run - -bench 'StoreLogs|Replicate' -benchtime 3s

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// percentiles reports how long each of many took.
func percentiles(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(0, "ns/op") // mostly waiting
}

func BenchmarkStoreLogs(b *testing.B) {
	for _, size := range []int{300, 16 << 10, 256 << 10} {
		for _, log := range []LogStore{BoltDB, WAL} {
			b.Run(fmt.Sprintf("%d/%s", size, log), func(b *testing.B) {
				s, err := files{dir: b.TempDir(), log: log}.Open(hclog.NewNullLogger())
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				entry := &raft.Log{Type: raft.LogCommand, Term: 1, Data: make([]byte, size), AppendedAt: time.Now()}
				const kept = 4096 // as Raft keeps behind a snapshot
				var took []time.Duration
				for b.Loop() {
					entry.Index++
					began := time.Now()
					if err := s.StoreLogs([]*raft.Log{entry}); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
					if entry.Index%kept == 0 && entry.Index > kept {
						if err := s.DeleteRange(entry.Index-2*kept+1, entry.Index-kept); err != nil {
							b.Fatal(err)
						}
					}
				}
				percentiles(b, took)
			})
		}
	}
}

func BenchmarkReplicate(b *testing.B) {
	for _, callers := range []int{1, 64} {
		for _, log := range []LogStore{BoltDB, WAL} {
			b.Run(fmt.Sprintf("%d/%s", callers, log), func(b *testing.B) {
				leader := threeNodes(b, log)
				data := make([]byte, 300)
				var mu sync.Mutex
				var took []time.Duration
				b.ResetTimer()
				began := time.Now()
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						var mine []time.Duration
						for range (b.N + callers - 1) / callers {
							at := time.Now()
							if _, _, err := leader.Apply(data).Wait(context.Background()); err != nil {
								b.Error(err)
								return
							}
							mine = append(mine, time.Since(at))
						}
						mu.Lock()
						defer mu.Unlock()
						took = append(took, mine...)
					})
				}
				wg.Wait()
				b.ReportMetric(float64(len(took))/time.Since(began).Seconds(), "entries/s")
				percentiles(b, took)
			})
		}
	}
}

// threeNodes runs a cluster until the benchmark ends, and returns its leader.
func threeNodes(b *testing.B, log LogStore) *Node {
	b.Helper()
	var peers []Peer
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		peers = append(peers, Peer{ID: fmt.Sprintf("n%d", i+1), RaftAddress: l.Addr().String()})
		l.Close()
	}
	leads := make(chan *Node, len(peers))
	dir := b.TempDir()
	var wg sync.WaitGroup
	for _, p := range peers {
		wg.Go(func() {
			n, err := Open(context.Background(), Config{
				ID: p.ID, Bind: p.RaftAddress, Dir: filepath.Join(dir, p.ID), Peers: peers, LogStore: log, FSM: nothing{},
				SnapshotThreshold: 1 << 40,
				Exit:              func(err error) { b.Errorf("exit: %v", err) },
			})
			if err != nil {
				b.Error(err)
				return
			}
			b.Cleanup(func() { n.Close(context.Background()) })
			n.Lead(func(ctx context.Context, _ uint64) {
				leads <- n
				<-ctx.Done()
			})
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return <-leads
}
