// These tests prove that somebody whom a node does not know can't have it hold much: it is
// refused before it has said what it wants, and health is answered whoever stalls.
package transport

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// stall calls a method and does not say what for.
func stall(t *testing.T, ctx context.Context, conn *grpc.ClientConn, method string) grpc.ClientStream {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStrangersAreRefusedBeforeTheySpeak(t *testing.T) {
	c := newCastle(t)
	n := c.leaderNode("n1")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for who, want := range map[string]codes.Code{"": codes.Unauthenticated, "reader/eve": codes.PermissionDenied} {
		s := stall(t, ctx, c.dial(n, who), decreev1.Transactions_Submit_FullMethodName)
		if err := s.RecvMsg(&decreev1.SubmitResponse{}); status.Code(err) != want || reasonOf(err) == "" {
			t.Errorf("%q: %v, want %s", who, err, want)
		}
	}
}

func TestHealthIsAnsweredWhoeverStalls(t *testing.T) {
	c := newCastle(t)
	n := c.leaderNode("n1")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn := c.dial(n, "")
	probe := healthv1.NewHealthClient(c.dial(n, ""))
	watch, err := probe.Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	first := stall(t, ctx, conn, healthv1.Health_Check_FullMethodName)
	for range maxStrangers + 1 { // the last may come before the first
		stall(t, ctx, conn, healthv1.Health_Check_FullMethodName)
	}
	if err := first.RecvMsg(&healthv1.HealthCheckResponse{}); status.Code(err) == codes.DeadlineExceeded {
		t.Errorf("whoever stalled first is still waited for: %v", err)
	}
	if _, err := probe.Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
		t.Errorf("a probe: %v", err)
	}
	n.Retire()
	if answer, err := watch.Recv(); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a watch that was answered: %v, %v", answer, err)
	}
}
