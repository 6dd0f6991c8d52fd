package clustertest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Network is an in-memory network whose links can be cut, in one direction or
// both, take their time, and break connections. It behaves as TCP does over a link
// that loses everything: what was written waits, and arrives when the link heals,
// unless the connection was given up meanwhile; so late messages happen here too.
// Packets that a link loses now and then are, to a user of TCP, a delay: see Delay.
//
// Under testing/synctest its blocking is durable.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener // guarded by mu: by address
	cut       map[[2]string]bool   // guarded by mu: from, to
	changed   chan struct{}        // guarded by mu: closed and replaced by each change of cut

	delay func(from, to string) time.Duration // set once by Delay; nil for none
}

// NewNetwork returns a network on which every link works.
func NewNetwork() *Network {
	return &Network{
		listeners: make(map[string]*listener),
		cut:       make(map[[2]string]bool),
		changed:   make(chan struct{}),
	}
}

// Host is the network as one process sees it: a cluster.Network. Its name is what
// stands before the colon of its address; a process that starts again gets a Host
// of its own.
func (n *Network) Host(name string) *Host {
	return &Host{network: n, name: name, conns: make(map[*conn]struct{})}
}

// Delay has what is written arrive so much later, each write by what delay says of
// it; what was written first arrives first. Call it before the network is used.
// delay is called by many goroutines at once.
func (n *Network) Delay(delay func(from, to string) time.Duration) { n.delay = delay }

// arrival is when what is written now gets there.
func (n *Network) arrival(from, to string) time.Time {
	if n.delay == nil {
		return time.Time{}
	}
	return time.Now().Add(n.delay(from, to))
}

// Cut loses everything from one host to another from now on; the other direction
// is not touched. It may be given several times.
func (n *Network) Cut(from, to string) { n.set(true, [2]string{from, to}) }

// CutBoth cuts both directions.
func (n *Network) CutBoth(a, b string) { n.set(true, [2]string{a, b}, [2]string{b, a}) }

// Heal repairs every link; what was written into it arrives.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.tell()
}

func (n *Network) set(cut bool, links ...[2]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range links {
		n.cut[l] = cut
	}
	n.tell()
}

// tell wakes everyone who waits for a link. n.mu must be held.
func (n *Network) tell() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// link reports whether a link works, and a channel that is closed when that may
// have changed.
func (n *Network) link(from, to string) (works bool, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[[2]string{from, to}], n.changed
}

// Host is one process's side of a Network.
type Host struct {
	network *Network
	name    string

	mu       sync.Mutex
	dead     bool               // guarded by mu
	listener *listener          // guarded by mu: the last one
	conns    map[*conn]struct{} // guarded by mu
}

// Kill ends the process's connections at once, as the kernel does when a process
// dies. It has none after that.
func (h *Host) Kill() {
	h.mu.Lock()
	h.dead = true
	l, conns := h.listener, h.conns
	h.conns = make(map[*conn]struct{})
	h.mu.Unlock()
	if l != nil {
		l.Close()
	}
	for c := range conns {
		c.Close()
	}
}

// Reset breaks the process's connections with another host at once, as a router that
// has forgotten them does: what is on its way is lost, and both ends see an error.
func (h *Host) Reset(other string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if string(c.to) == other {
			c.in.reset()
			c.out.reset()
		}
	}
}

// own makes a connection the process's, or closes it if that is dead.
func (h *Host) own(c *conn) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		c.Close()
		return net.ErrClosed
	}
	h.conns[c] = struct{}{}
	c.disown = func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.conns, c)
	}
	return nil
}

// Listen takes an address; its host must be this one's.
func (h *Host) Listen(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if host != h.name {
		return nil, fmt.Errorf("listen %s: this host is %s", address, h.name)
	}
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("listen %s: address already in use", address)
	}
	l := &listener{host: h, address: addr(address), queue: make(chan *conn), closed: make(chan struct{})}
	n.listeners[address] = l
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listener = l
	return l, nil
}

// Dial connects. Over a cut link, in either direction, it waits until the link
// heals or ctx ends, as a TCP handshake would.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if err := h.await(ctx, host); err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	n := h.network
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: connection refused", address)
	}
	near, far := connect(n, h.name, host)
	if err := h.own(near); err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	select {
	case l.queue <- far:
		return near, nil
	case <-l.closed:
		near.Close()
		return nil, fmt.Errorf("dial %s: connection refused", address)
	case <-ctx.Done():
		near.Close()
		return nil, fmt.Errorf("dial %s: %w", address, ctx.Err())
	}
}

// await returns once both directions work.
func (h *Host) await(ctx context.Context, host string) error {
	for {
		there, changed := h.network.link(h.name, host)
		back, _ := h.network.link(host, h.name)
		if there && back {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type listener struct {
	host    *Host
	address addr
	queue   chan *conn
	closed  chan struct{}
	once    sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		if err := l.host.own(c); err != nil {
			return nil, err
		}
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		n := l.host.network
		n.mu.Lock()
		defer n.mu.Unlock()
		close(l.closed)
		delete(n.listeners, string(l.address))
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.address }

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }
