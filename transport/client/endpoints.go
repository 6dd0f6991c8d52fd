package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/transport/api/decree/submitmany"
)

const (
	// leaderService is the health service that only the leader serves.
	leaderService = "decree.leader"

	// reconnectCap is short, because a restarted node is worth finding quickly and
	// there are few of them.
	reconnectCap = time.Second
	// connectTimeout bounds one attempt to connect; a node that does not answer in
	// that time is passed over.
	connectTimeout = 2 * time.Second
	// pingAfter and pingTimeout find a connection that died silently. Servers
	// refuse pings more frequent than every five seconds.
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second
	// rewatchDelay is the pause before a node's health is watched again after the
	// stream ended, jittered; a stream opens only on a connection that works.
	rewatchDelay = 200 * time.Millisecond
	// whyTimeout bounds asking why a connection does not stand.
	whyTimeout = 250 * time.Millisecond
	// maxAnswerBytes bounds an answer: a page of a thousand transactions.
	maxAnswerBytes = 64 << 20
)

// endpoint is one node's API.
type endpoint struct {
	address string
	conn    *grpc.ClientConn
	line    *submitmany.Line // for submissions

	// guarded by endpoints.mu
	up bool // its health is being heard
}

// endpoints follows which nodes are up and which one leads, by a health stream
// to each.
type endpoints struct {
	// set once by newEndpoints
	all    []*endpoint
	life   context.Context // ends with the client
	cancel context.CancelFunc
	work   sync.WaitGroup // the health streams

	mu     sync.Mutex
	next   int                // round robin; guarded by mu
	last   *endpoint          // guarded by mu; the last leader that was known, whose reign it is
	leader *endpoint          // guarded by mu; nil while none is known
	reign  context.Context    // guarded by mu; ends once another endpoint leads
	depose context.CancelFunc // guarded by mu; ends reign
	news   chan struct{}      // guarded by mu; closed when another endpoint leads
}

// errDeposed cancels an attempt whose endpoint no longer leads.
var errDeposed = errors.New("another node leads now")

func newEndpoints(addresses []string, options []grpc.DialOption) (*endpoints, error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &endpoints{life: ctx, cancel: cancel, news: make(chan struct{})}
	p.reign, p.depose = context.WithCancel(context.Background())
	for _, address := range addresses {
		conn, err := grpc.NewClient(address, append(dialOptions(), options...)...)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("decree: endpoint %q: %w", address, err)
		}
		e := &endpoint{address: address, conn: conn}
		e.line = submitmany.New(ctx, conn, e.ready)
		p.all = append(p.all, e)
	}
	p.next = rand.IntN(len(p.all)) // so that clients started together spread out
	for _, e := range p.all {
		p.work.Go(func() { p.follow(ctx, e) })
	}
	return p, nil
}

func dialOptions() []grpc.DialOption {
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay = 50 * time.Millisecond
	reconnect.MaxDelay = reconnectCap
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithDisableServiceConfig(),
	}
}

// close ends the streams, waits for them, and closes the connections.
func (p *endpoints) close() error {
	p.cancel()
	var errs []error
	for _, e := range p.all {
		errs = append(errs, e.conn.Close())
		e.line.Close()
	}
	p.work.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.depose()
	return errors.Join(errs...)
}

// follow watches the endpoint's health until ctx ends.
func (p *endpoints) follow(ctx context.Context, e *endpoint) {
	for ctx.Err() == nil {
		p.watch(ctx, e)
		p.heard(e, false, false)
		sleep(ctx, rewatchDelay/2+rand.N(rewatchDelay))
	}
}

func (p *endpoints) watch(ctx context.Context, e *endpoint) {
	stream, err := healthv1.NewHealthClient(e.conn).Watch(ctx,
		&healthv1.HealthCheckRequest{Service: leaderService}, grpc.WaitForReady(true))
	for err == nil {
		var answer *healthv1.HealthCheckResponse
		if answer, err = stream.Recv(); err == nil {
			p.heard(e, true, answer.GetStatus() == healthv1.HealthCheckResponse_SERVING)
		}
	}
}

// heard records what an endpoint's health said. The latest to say that it leads
// is believed: a leader that hangs goes on saying so.
func (p *endpoints) heard(e *endpoint, up, leads bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.up = up
	switch {
	case leads && p.leader != e:
		p.depose()
		if p.last != nil {
			p.last.line.Cut(errDeposed)
		}
		p.reign, p.depose = context.WithCancel(context.Background())
		p.leader, p.last = e, e
		close(p.news)
		p.news = make(chan struct{})
	case !leads && p.leader == e:
		p.leader = nil // its calls go on: it may still answer them
	}
}

// pick chooses the endpoint for an attempt: the leader, else one that is up, else
// any; but not avoid, which has just failed, unless there is nothing better.
func (p *endpoints) pick(avoid *endpoint) choice {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.leader
	if e == nil || e == avoid {
		e = p.choose(avoid)
	}
	c := choice{endpoint: e, news: p.news}
	if e == p.leader {
		c.reign = p.reign
	}
	return c
}

// choice is where an attempt goes.
type choice struct {
	*endpoint
	// reign ends once another endpoint leads; nil where the choice was not the leader,
	// since a follower forwards to whoever leads.
	reign context.Context
	// news is closed once another endpoint leads than at the choice.
	news <-chan struct{}
}

// choose goes round robin; mu is held.
func (p *endpoints) choose(avoid *endpoint) *endpoint {
	var down *endpoint
	for range p.all {
		e := p.all[p.next]
		p.next = (p.next + 1) % len(p.all)
		switch {
		case e == avoid:
		case e.up:
			return e
		case down == nil:
			down = e
		}
	}
	if down == nil || (avoid != nil && avoid.up) {
		return avoid
	}
	return down
}

// find is the endpoint with that address.
func (p *endpoints) find(address string) (*endpoint, bool) {
	for _, e := range p.all {
		if e.address == address {
			return e, true
		}
	}
	return nil, false
}

// ready waits until the endpoint is connected. It fails as soon as one attempt to
// connect has, so that what follows may have run and what fails here has not.
func (e *endpoint) ready(ctx context.Context) error {
	for {
		state := e.conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return &unreachableError{address: e.address, state: state, why: e.why(ctx)}
		case connectivity.Idle:
			e.conn.Connect()
		}
		if !e.conn.WaitForStateChange(ctx, state) {
			return &unreachableError{address: e.address, state: state, err: ctx.Err()}
		}
	}
}

// why is what the last attempt to connect came to, as gRPC tells it to a call: which
// fails at once while no connection stands, and asks for nothing that matters where one
// has come to stand meanwhile.
func (e *endpoint) why(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	_, err := healthv1.NewHealthClient(e.conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable {
		return ""
	}
	why := status.Convert(err).Message()
	for _, wrapping := range []string{"connection error: desc = ", `"`, "transport: ", "Error while dialing: ", "dial tcp " + e.address + ": ", "connect: "} {
		why = strings.TrimPrefix(why, wrapping) // gRPC's and the system's
	}
	why = strings.ReplaceAll(strings.TrimSuffix(why, `"`), `\"`, `"`)
	if strings.Contains(why, "looked like an HTTP/1.1 header") { // what a node answers to plain text
		return "it speaks TLS, and this client plain text: name the cluster's authorities (CA)"
	}
	return why
}

// unreachableError is definite: nothing was sent.
type unreachableError struct {
	address string
	state   connectivity.State
	why     string // in gRPC's words, where they are known
	err     error  // of the context, if that ended first
}

func (e *unreachableError) Error() string {
	if e.why != "" {
		return fmt.Sprintf("cannot connect to %s: %s", e.address, plainly(e.why, e.address))
	}
	return fmt.Sprintf("cannot connect to %s (%s)", e.address, e.state)
}

func (e *unreachableError) Unwrap() error { return e.err }

// plainly leaves out what gRPC and net say before the cause: that they dialled, and whom.
func plainly(why, address string) string {
	why = strings.Trim(why, `"`)
	why = strings.TrimPrefix(why, "transport: Error while dialing: ")
	return strings.TrimPrefix(why, "dial tcp "+address+": ")
}

// sleep returns after d or when ctx ends, whichever is first.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
