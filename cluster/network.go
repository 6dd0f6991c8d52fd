package cluster

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Network is how a node listens and dials. It is where TLS goes, around the whole
// connection, and where tests cut links. Both methods are called concurrently.
type Network interface {
	Listen(address string) (net.Listener, error)
	Dial(ctx context.Context, address string) (net.Conn, error)
}

type tcp struct{}

func (tcp) Listen(address string) (net.Listener, error) { return net.Listen("tcp", address) }

func (tcp) Dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

const (
	// maxPool is how many idle connections Raft keeps to a peer: one replicates,
	// one heartbeats, one votes.
	maxPool = 3
	// maxRPCsInFlight is 1 because pipelined replication can deadlock. After a
	// follower has refused one append, the goroutine that sends and the one that
	// decodes wait for each other; heartbeats go on, so nothing heals it (upstream
	// #612). One in flight also cures the tail latency of a loaded leader.
	maxRPCsInFlight = 1
)

// transport is Raft's network transport without its heartbeat path.
//
// NetworkTransport hands heartbeats to a handler on the connection's own
// goroutine. There they raise the term while the main loop, still a leader in its
// own eyes, waits for the next entry, which it then logs under the term of the new
// leader: two different entries with the same term and index, and state machines
// that differ (upstream #695). Without a handler heartbeats take their turn in the
// main loop like every other message.
//
// What comes from the other nodes passes through a [receiver].
type transport struct {
	*raft.NetworkTransport
	toRaft chan raft.RPC
}

// Consumer implements [raft.Transport].
func (t transport) Consumer() <-chan raft.RPC { return t.toRaft }

// SetHeartbeatHandler drops the handler; see [transport].
func (transport) SetHeartbeatHandler(func(raft.RPC)) {}

// RequestPreVote asks a peer whether it would vote for this node.
func (t transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, m *raft.RequestPreVoteRequest, answer *raft.RequestPreVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestPreVote(id, to, m, answer) })
}

// RequestVote asks a peer for its vote; to be asked twice changes nothing.
func (t transport) RequestVote(id raft.ServerID, to raft.ServerAddress, m *raft.RequestVoteRequest, answer *raft.RequestVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestVote(id, to, m, answer) })
}

// TimeoutNow hands the leadership to a peer.
func (t transport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, m *raft.TimeoutNowRequest, answer *raft.TimeoutNowResponse) error {
	return again(func() error { return t.NetworkTransport.TimeoutNow(id, to, m, answer) })
}

// again repeats a call where an idle connection turns out to be closed: the pool may hold
// nothing but connections to a peer's life before its restart. Raft itself tries none of
// these calls again, so that a restart would cost the next election a second round. A
// peer that does not answer in time is not asked again.
func again(call func() error) error {
	var err error
	for range maxPool + 1 {
		err = call()
		if slow, ok := errors.AsType[net.Error](err); err == nil || ok && slow.Timeout() {
			return err
		}
	}
	return err
}

func newTransport(p *port, timeout time.Duration, log hclog.Logger) transport {
	return transport{newNetworkTransport(p, maxRPCsInFlight, timeout, log), make(chan raft.RPC)}
}

// newNetworkTransport is the bare transport. It takes the number in flight so that
// tests can show what upstream #612 does.
func newNetworkTransport(p *port, inFlight int, timeout time.Duration, log hclog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:          p.openStreams(),
		Logger:          log,
		MaxPool:         maxPool,
		MaxRPCsInFlight: inFlight,
		Timeout:         timeout,
	})
}

// streamLayer is the port as Raft's transport sees it.
type streamLayer struct {
	port     *port
	accepted <-chan net.Conn
}

func (s streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.port.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the whole port: the transport is the last to need it.
func (s streamLayer) Close() error { return s.port.close() }

func (s streamLayer) Addr() net.Addr { return s.port.advertise }

func (s streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.port.ctx, timeout)
	defer cancel()
	return s.port.dial(ctx, string(address), s.port.greeting())
}

// address is a net.Addr that says what the others dial.
type address string

func (address) Network() string  { return "decree" }
func (a address) String() string { return string(a) }
