package branch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

const (
	// maxStreams bounds the calls under way on one connection; a leader opens one
	// connection, and waits with its own queue past this.
	maxStreams = 1024
	// minPing is how often a client may ask whether the server lives.
	minPing = 5 * time.Second
	// wrapping is what a message adds to its payload, generously.
	wrapping = 64 << 10
)

// Serve answers decree on l until ctx ends, with health and reflection. It then
// takes no more calls, gives those under way Config.Grace, cuts the rest, and
// returns nil once none is left. It returns an error when the listener fails, or
// when a commit to the file does: what the file holds is then unknown until it is
// opened again, so end the process and start anew. l is closed in any case.
//
// opts add to the server's options, credentials for example. Most calls come as
// messages of one stream, the rpc CallMany, and pass no unary interceptor: what such a
// one keeps out, a stream interceptor has to keep out too.
func (s *Server) Serve(ctx context.Context, l net.Listener, opts ...grpc.ServerOption) error {
	opts = append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.cfg.MaxPayload + wrapping),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true), // so that the file can be closed when Serve returns
	}, opts...)
	server := grpc.NewServer(opts...)
	participantv1.RegisterParticipantServer(server, s)
	alive := health.NewServer()
	alive.SetServingStatus(participantv1.Participant_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(server, alive)
	reflection.Register(server)

	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		server.Stop()
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-s.engine.broken():
		server.Stop()
		return errors.Join(s.engine.failure(), <-served)
	case <-ctx.Done():
	}
	alive.Shutdown()
	cut := time.AfterFunc(s.cfg.Grace, server.Stop)
	server.GracefulStop()
	cut.Stop()
	return <-served
}
