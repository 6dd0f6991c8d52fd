package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/transport/api/decree/submitmany"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

const (
	// helloTimeout bounds asking a peer for its API address: a round trip.
	helloTimeout = time.Second
	// helloPause is the time between two such questions while the peer can't be
	// reached, whatever the number of calls that wait for it.
	helloPause = 250 * time.Millisecond
	// peerReconnectCap is short, because a call waits for it.
	peerReconnectCap = 500 * time.Millisecond
	// peerPingAfter and peerPingTimeout find a dead connection to the leader. A new
	// leader is noticed sooner; this is for a link that is cut in one direction.
	peerPingAfter   = 10 * time.Second
	peerPingTimeout = 3 * time.Second
)

// peerLink is the one connection to the leader's API. It is kept for as long as
// that node leads.
type peerLink struct {
	// set once
	node     Node
	max      int // bytes of a message
	security credentials.TransportCredentials

	turn chan struct{} // holds a token while someone looks at what follows

	leader  cluster.Peer
	address string // its API's
	conn    *grpc.ClientConn
	lines   atomic.Pointer[peerLine] // conn's; read without the token
	asked   time.Time                // when it was last asked for the address
	err     error                    // of that

	closing sync.Once
	closed  chan struct{}
}

func newPeerLink(node Node, maxBytes int, s Security) *peerLink {
	security := insecure.NewCredentials()
	if s.Certificates != nil {
		security = s.Certificates.DialPeerGRPC()
	}
	return &peerLink{node: node, max: maxBytes, security: security, turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// connect returns a connection that is up. Its errors wrap errUnreachable: nothing
// was sent.
func (p *peerLink) connect(ctx context.Context, leader cluster.Peer) (*grpc.ClientConn, error) {
	conn, err := p.to(ctx, leader)
	if err == nil {
		err = ready(ctx, conn)
	}
	if errors.Is(err, errStopping) {
		return nil, err
	}
	if err != nil {
		// The cause is told and not wrapped: whatever it is, the answer to it is to
		// wait for a leader.
		return nil, fmt.Errorf("%w: %s at %s: %s", errUnreachable, leader.ID, leader.RaftAddress, err)
	}
	return conn, nil
}

// to returns the connection to a leader, made anew when the leader is another one
// or serves at another address than before.
func (p *peerLink) to(ctx context.Context, leader cluster.Peer) (*grpc.ClientConn, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-p.closed:
		return nil, errStopping
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.isClosed() {
		return nil, errStopping
	}
	if p.leader == leader && !p.stale() {
		return p.conn, p.err
	}
	p.ask(ctx, leader)
	return p.conn, p.err
}

// stale reports whether the address should be asked for again.
func (p *peerLink) stale() bool {
	broken := p.conn == nil || p.conn.GetState() == connectivity.TransientFailure
	return broken && time.Since(p.asked) > helloPause
}

// ask learns the address and connects to it. What it learns serves all callers,
// so one that goes away must not spoil it.
func (p *peerLink) ask(ctx context.Context, leader cluster.Peer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), helloTimeout)
	defer cancel()
	address, err := p.node.APIAddress(ctx, leader.RaftAddress)
	if err == nil && address == "" {
		err = fmt.Errorf("node %s does not tell its API address", leader.ID)
	}
	if p.conn != nil && (err != nil || address != p.address || leader != p.leader) {
		p.hangUp() // its calls fail, and are sent again
	}
	p.leader, p.address, p.asked, p.err = leader, address, time.Now(), err
	if err == nil && p.conn == nil {
		p.conn, p.err = p.dial(address)
		if p.err == nil {
			p.lines.Store(newPeerLine(p.conn))
		}
	}
}

// peerLine is the way that submissions take over a connection.
type peerLine struct {
	*submitmany.Line
	conn *grpc.ClientConn
}

func newPeerLine(conn *grpc.ClientConn) *peerLine {
	ctx := metadata.AppendToOutgoingContext(context.Background(), metadataHop, "1")
	return &peerLine{conn: conn, Line: submitmany.New(ctx, conn, func(ctx context.Context) error {
		if err := ready(ctx, conn); err != nil {
			return fmt.Errorf("%w: %s", errUnreachable, err)
		}
		return nil
	})}
}

// submit sends a submission to the leader over a connection to it.
func (p *peerLink) submit(ctx context.Context, conn *grpc.ClientConn, req *decreev1.SubmitRequest) (*decreev1.Result, error) {
	if l := p.lines.Load(); l != nil && l.conn == conn {
		r, err := l.SubmitFor(ctx, nil, callerOf(ctx).String(), req) // whose reign ends ctx
		var broken *submitmany.BrokenError
		switch {
		case errors.Is(err, submitmany.ErrByCall):
		case errors.As(err, &broken) && !broken.Sent:
			return nil, fmt.Errorf("%w: %s", errUnreachable, err)
		default:
			return r, err
		}
	}
	answer, err := leaderClient(conn).Submit(ctx, req)
	return answer.GetResult(), err
}

// hangUp ends the connection; the token is held.
func (p *peerLink) hangUp() {
	p.conn.Close() //nolint:errcheck,gosec // nothing is left to be told
	if l := p.lines.Swap(nil); l != nil {
		l.Close()
	}
	p.conn = nil
}

func (p *peerLink) dial(address string) (*grpc.ClientConn, error) {
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay = 50 * time.Millisecond
	reconnect.MaxDelay = peerReconnectCap
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(p.security),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: helloTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: peerPingAfter, Timeout: peerPingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(p.max), grpc.MaxCallSendMsgSize(p.max)),
		grpc.WithNoProxy(),      // nodes reach each other directly
		grpc.WithDisableRetry(), // the calls are repeated where they were received
		grpc.WithDisableServiceConfig(),
	)
}

func (p *peerLink) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// close ends the connection; calls over it fail.
func (p *peerLink) close() {
	p.closing.Do(func() { close(p.closed) })
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if p.conn != nil {
		p.hangUp()
	}
}

// ready waits until the connection is up, and fails as soon as an attempt to
// connect has.
func ready(ctx context.Context, conn *grpc.ClientConn) error {
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return fmt.Errorf("connection is in state %s", state)
		case connectivity.Idle:
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
}
