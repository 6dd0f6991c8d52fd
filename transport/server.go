package transport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"github.com/decree-tx/decree/coordinator"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

const (
	// leaderService is the health service that serves only while this node leads.
	leaderService = "decree.leader"

	// handshakeTimeout bounds the start of a connection.
	handshakeTimeout = 10 * time.Second
	// idleConnection closes connections without calls; clients make new ones.
	idleConnection = 15 * time.Minute
	// pingAfter and pingTimeout find clients that are gone, so that their calls and
	// watches end.
	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
	// leastPing is the pace of pings that clients may keep; grpc-go's least is 10s.
	leastPing = 5 * time.Second
	// maxHeaderBytes bounds the metadata of a call.
	maxHeaderBytes = 64 << 10
	// maxAnswerBytes bounds an answer: a page of a thousand transactions.
	maxAnswerBytes = 64 << 20

	// busyDelay is what a client is told when this node has too many calls.
	busyDelay = 500 * time.Millisecond
)

// Server serves one node's API.
type Server struct {
	// set once by New
	cfg      Config
	logger   hclog.Logger
	grpc     *grpc.Server
	http     *http.Server
	health   *health.Server
	observer *observer
	link     *peerLink
	around   neighbours
	guard    *guard            // nil where callers are not asked who they are
	inward   *bufconn.Listener // the gateway's way to grpc
	gateway  *grpc.ClientConn
	calls    chan struct{}   // a token for each mutating call under way
	watches  chan struct{}   // a token for each watch
	crew     *crew           // carries out what comes in streams
	ended    context.Context // ends when Stop begins; streams end with it
	end      context.CancelFunc
	drained  context.Context // ends when no call is left: until then they follow the leader
	release  context.CancelFunc

	starting sync.Mutex     // keeps the start of Serve apart from that of Stop
	work     sync.WaitGroup // every goroutine of Serve's
	retired  atomic.Bool    // health is off
	stopOnce sync.Once
	stopped  chan struct{} // closed when Stop is through
}

// New makes a server. It starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg:     cfg,
		logger:  cfg.Logger.Named("transport"),
		health:  health.NewServer(),
		link:    newPeerLink(cfg.Node, maxAnswerBytes, cfg.Security),
		guard:   newGuard(cfg.Security),
		inward:  bufconn.Listen(inwardBuffer),
		calls:   make(chan struct{}, cfg.MaxCalls),
		watches: make(chan struct{}, cfg.MaxWatches),
		crew:    &crew{},
		stopped: make(chan struct{}),
	}
	s.around.open = func() *peerLink { return newPeerLink(cfg.Node, maxAnswerBytes, cfg.Security) }
	s.ended, s.end = context.WithCancel(context.Background())
	s.drained, s.release = context.WithCancel(context.Background())
	s.observer = newObserver(cfg.Node, cfg.Coordinator.Leads, s.showLeadership)
	s.showLeadership(false)
	s.grpc = s.newGRPC()
	if err := s.openGateway(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) newGRPC() *grpc.Server {
	options := []grpc.ServerOption{
		grpc.Creds(newDoorman(s.cfg.Security, s.logger)),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxRecvMsgSize(s.cfg.MaxRequestBytes),
		grpc.MaxSendMsgSize(maxAnswerBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(uint32(min(s.cfg.MaxStreams, math.MaxUint32))), //nolint:gosec // bounded
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleConnection, Time: pingAfter, Timeout: pingTimeout,
		}),
		grpc.StreamInterceptor(s.endStream),
		grpc.WaitForHandlers(true), // Stop returns after the last of them
	}
	if s.guard != nil {
		options = append(options, grpc.ChainUnaryInterceptor(s.guard.unary), grpc.ChainStreamInterceptor(s.guard.stream), grpc.InTapHandle(s.guard.knock))
	}
	g := grpc.NewServer(options...)
	decreev1.RegisterTransactionsServer(g, &transactions{Server: s})
	decreev1.RegisterTimelinesServer(g, &timelines{Server: s})
	decreev1.RegisterLiveServer(g, &live{Server: s})
	decreev1.RegisterParticipantsServer(g, &registry{Server: s})
	decreev1.RegisterClusterServer(g, &nodes{Server: s})
	decreev1.RegisterOperationsServer(g, &operations{Server: s})
	decreev1.RegisterSnapshotsServer(g, newSnapshots(s))
	decreev1.RegisterUnresolvedServer(g, &unresolved{Server: s})
	decreev1.RegisterGroupsServer(g, &groups{Server: s})
	healthv1.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// endStream ends every stream when Stop begins: watches, those of health too, have
// no end of their own, and Stop would wait for them. A stream of submissions has
// one, as its calls are answered first.
func (s *Server) endStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info.FullMethod == decreev1.Transactions_SubmitMany_FullMethodName {
		return handler(srv, stream)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ended, cancel)()
	return handler(srv, endingStream{stream, ctx})
}

// endingStream is a stream with a context that may end before its client's.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endingStream) Context() context.Context { return s.ctx }

// showLeadership tells the health service.
func (s *Server) showLeadership(leads bool) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if leads {
		state = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(leaderService, state)
}

// Serve serves gRPC and HTTP on the two listeners until Stop, which makes it
// return nil, or until one of them fails. It closes both. It is called once.
func (s *Server) Serve(grpcListener, httpListener net.Listener) error {
	grpcListener = netutil.LimitListener(grpcListener, s.cfg.MaxConnections)
	httpListener = netutil.LimitListener(httpListener, s.cfg.MaxConnections)

	failed := make(chan error, 3)
	if !s.begin(func() { s.observer.run(s.drained) },
		func() { failed <- s.serveGRPC(inwardListener{s.inward}) },
		func() { failed <- s.serveGRPC(grpcListener) },
		func() { failed <- s.serveHTTP(httpListener) }) {
		return errors.Join(grpcListener.Close(), httpListener.Close())
	}
	select {
	case err := <-failed:
		if err != nil {
			s.Abort()
			return err
		}
	case <-s.ended.Done():
	}
	<-s.stopped
	s.work.Wait()
	return nil
}

// begin starts the server's goroutines, unless Stop was first.
func (s *Server) begin(work ...func()) bool {
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.ended.Err() != nil {
		return false
	}
	for _, f := range work {
		s.work.Go(f)
	}
	return true
}

func (s *Server) serveGRPC(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && s.ended.Err() == nil {
		return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
	}
	return nil
}

func (s *Server) serveHTTP(l net.Listener) error {
	serve := s.http.Serve
	if s.http.TLSConfig != nil {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

// Retire turns the node's health off, for good, and changes nothing else: clients
// look elsewhere while calls are still served. It is meant to come some time
// before leadership is handed over and Stop.
func (s *Server) Retire() {
	s.retired.Store(true)
	s.health.Shutdown()
}

// Stop ends serving: health first, then watches, and then no new calls while those
// under way are answered; clients that submit by a stream are asked to close it. When ctx ends first they are cut. It returns after the
// last goroutine has ended; the error is ctx's where calls were cut. It may be
// called more than once and before Serve.
func (s *Server) Stop(ctx context.Context) error {
	var err error
	s.stopOnce.Do(func() {
		defer close(s.stopped)
		s.Retire()
		s.starting.Lock()
		s.end()
		s.starting.Unlock()
		err = s.drain(ctx)
		s.release()
		s.gateway.Close() //nolint:errcheck,gosec // in memory
		s.inward.Close()  //nolint:errcheck,gosec // in memory
		s.link.close()
		s.around.close()
		s.crew.close()
		s.work.Wait()
	})
	<-s.stopped
	return err
}

// Abort is Stop without patience.
func (s *Server) Abort() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Stop(ctx) //nolint:errcheck,gosec // it says that calls were cut
}

// drain waits for the calls under way. HTTP goes first, for its calls arrive
// through gRPC.
func (s *Server) drain(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close() //nolint:errcheck,gosec // nothing is left to be told
	}
	cut := context.AfterFunc(ctx, s.grpc.Stop)
	s.grpc.GracefulStop()
	if !cut() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("calls were cut: %w", err)
	}
	return nil
}

// enter admits a mutating call; leave ends it.
func (s *Server) enter() error {
	select {
	case s.calls <- struct{}{}:
		return nil
	default:
		return &coordinator.BusyError{What: "too many calls at this node", RetryAfter: busyDelay}
	}
}

func (s *Server) leave() { <-s.calls }
