package grpcparticipant_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// unaryOnly is a service of the time before streams.
type unaryOnly struct {
	participantv1.ParticipantServer
}

func (unaryOnly) CallMany(grpc.BidiStreamingServer[participantv1.CallManyRequest, participantv1.CallManyResponse]) error {
	return status.Error(codes.Unimplemented, "method CallMany not implemented")
}

// BenchmarkCall measures what the wire costs: prepares of a participant that does
// nothing, over loopback, one after the other and by many at once. Both ends are in
// this process, so that cpu-ns/op and the allocations are those of both.
func BenchmarkCall(b *testing.B) {
	idle := &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) { return participants.Yes(), nil },
	}
	service := grpcparticipant.NewServer(idle)
	for _, wire := range []struct {
		name    string
		service participantv1.ParticipantServer
	}{{"unary", unaryOnly{service}}, {"stream", service}} {
		for _, callers := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("wire=%s/callers=%d", wire.name, callers), func(b *testing.B) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				serveRaw(b, l, wire.service)
				measureCalls(b, open(b, l.Addr().String()), callers)
			})
		}
	}
}

func measureCalls(b *testing.B, p participants.Participant, callers int) {
	branch := newBranch(`{"ops":[{"op":"add","key":"alice","amount":1}]}`)
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	call := func() {
		if _, err := p.Prepare(ctx, branch); err != nil {
			b.Errorf("prepare: %v", err)
		}
	}
	warm := time.Now()
	for time.Since(warm) < 200*time.Millisecond {
		_, _ = p.Prepare(b.Context(), branch) // until connection and stream stand
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	before := processorTime(b)
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				call()
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
