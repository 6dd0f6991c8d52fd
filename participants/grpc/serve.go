package grpcparticipant

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

const (
	// maxStreams bounds the calls under way on one connection; a leader opens one
	// connection, and waits with its own queue past this.
	maxStreams = 1024
	// minPing is how often a client may ask whether the server lives.
	minPing = 5 * time.Second
	// stopGrace is how long calls under way may take to end when the server stops.
	// Callers ask again elsewhere or later, so it is short.
	stopGrace = 5 * time.Second
)

// Serve answers for p on l until ctx ends, with health and reflection, as a
// participant's process does. It then stops taking calls, gives those under way
// a few seconds, cuts the rest, and returns nil once none is left. An error
// means that the listener failed. l is closed in either case; p is not. Most calls
// come as messages of one stream and pass no unary interceptor that opts may hold.
func Serve(ctx context.Context, l net.Listener, p participants.Participant, opts ...grpc.ServerOption) error {
	opts = append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true), // so that p can be closed when Serve returns
	}, opts...)
	s := grpc.NewServer(opts...)
	participantv1.RegisterParticipantServer(s, NewServer(p))
	alive := health.NewServer()
	alive.SetServingStatus(participantv1.Participant_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(s, alive)
	reflection.Register(s)

	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	select {
	case err := <-served:
		s.Stop()
		return fmt.Errorf("serve participant on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	alive.Shutdown()
	cut := time.AfterFunc(stopGrace, s.Stop)
	s.GracefulStop()
	cut.Stop()
	return <-served
}
