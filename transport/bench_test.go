// This benchmark measures what a submission costs the SDK and the server together,
// over loopback: the coordinator is a fake that answers at once, or all who wait
// each half millisecond, as one that groups its commits does. cpu-us/op is the
// processor time of both ends.
//
//	go test ./transport -run - -bench Submit -benchmem
package transport

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// benchCoordinator commits everything.
type benchCoordinator struct {
	*fakeCoordinator
	round atomic.Pointer[chan struct{}] // closed when those who wait are answered; nil where nobody waits
}

func (c *benchCoordinator) Submit(ctx context.Context, s coordinator.Submission) (coordinator.Result, error) {
	if r := c.round.Load(); r != nil {
		select {
		case <-*r:
		case <-ctx.Done():
		}
	}
	return coordinator.Result{Transaction: &txn.Transaction{ID: s.ID, State: txn.Committed, Branches: s.Branches}, Delivered: true}, nil
}

func (c *benchCoordinator) Start(s coordinator.Submission, f *coordinator.Following, to coordinator.Listener) error {
	c.started.start(c.Submit, s, f, to)
	return nil
}

func (c *benchCoordinator) Leads() bool { return true }

// rounds answers who waits until stop is closed.
func (c *benchCoordinator) rounds(stop <-chan struct{}) {
	for {
		next := make(chan struct{})
		last := c.round.Swap(&next)
		if last != nil {
			close(*last)
		}
		select {
		case <-time.After(500 * time.Microsecond):
		case <-stop:
			c.round.Store(nil)
			close(next)
			return
		}
	}
}

func BenchmarkSubmit(b *testing.B) {
	for _, pace := range []string{"at once", "in rounds"} {
		for _, at := range []string{"leader", "follower"} {
			for _, way := range []string{"call", "stream"} {
				for _, callers := range []int{1, 64, 256, 1024} {
					if at == "follower" && pace == "in rounds" {
						continue
					}
					b.Run(fmt.Sprintf("%s/%s/%s/%d", pace, at, way, callers), func(b *testing.B) {
						benchmarkSubmit(b, pace == "in rounds", at == "follower", way == "call", callers)
					})
				}
			}
		}
	}
}

func benchmarkSubmit(b *testing.B, rounds, follower, calls bool, callers int) {
	w := &world{}
	fake := &benchCoordinator{fakeCoordinator: &fakeCoordinator{}}
	n := w.serve(b, "n1", func(c *Config) { c.Coordinator = fake })
	n.node.believe("n1")
	if rounds {
		stop := make(chan struct{})
		var pace sync.WaitGroup
		pace.Go(func() { fake.rounds(stop) })
		b.Cleanup(pace.Wait)
		b.Cleanup(func() { close(stop) })
	}
	if follower {
		n = w.serve(b, "n2", nil)
		n.node.believe("n1")
	}
	cfg := client.Config{Endpoints: []string{n.api}}
	if calls {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainStreamInterceptor(withoutSubmitMany))
	}
	c, err := client.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	payload := make([]byte, 100)
	branches := []client.Branch{client.Bytes("bank-a", payload), client.Bytes("bank-b", payload)}
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	submit := func() {
		if r, err := c.Submit(ctx, client.Transaction{Branches: branches}); err != nil || r.Outcome != client.Committed {
			b.Error(r, err)
		}
	}
	submit()
	b.ReportAllocs()
	before := processorTime(b)
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var work sync.WaitGroup
	for range callers {
		work.Go(func() {
			for left.Add(-1) >= 0 {
				submit()
			}
		})
	}
	work.Wait()
	b.StopTimer()
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
}

// maxAllocations is what a submission by the stream may take of both ends together;
// it took 25 when this was written, 193 as a call.
const maxAllocations = 40

// What a submission costs is held, in what does not depend on the machine.
func TestSubmissionAllocations(t *testing.T) {
	w := &world{}
	n := w.serve(t, "n1", func(c *Config) { c.Coordinator = &benchCoordinator{fakeCoordinator: &fakeCoordinator{}} })
	n.node.believe("n1")
	c, err := client.New(client.Config{Endpoints: []string{n.api}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	const callers, each = 64, 100
	submit := func() {
		var work sync.WaitGroup
		for range callers {
			work.Go(func() {
				for range each {
					if _, err := c.Submit(ctx, client.Transaction{Branches: []client.Branch{client.Bytes("a", nil), client.Bytes("b", nil)}}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		work.Wait()
	}
	submit() // what is made once
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	submit()
	runtime.ReadMemStats(&after)
	if got := (after.Mallocs - before.Mallocs) / (callers * each); got > maxAllocations {
		t.Errorf("%d allocations for each submission, at most %d", got, maxAllocations)
	}
}

// withoutSubmitMany makes every node one that has no SubmitMany.
func withoutSubmitMany(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if method == decreev1.Transactions_SubmitMany_FullMethodName {
		return nil, status.Error(codes.Unimplemented, "")
	}
	return streamer(ctx, desc, cc, method, opts...)
}

// processorTime is what this process has used so far.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
