package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// The first byte of a connection says what it carries.
const (
	kindRaft    byte = 'R' // Raft's messages, for as long as the connection lives
	kindHello   byte = 'H' // one hello request and its answer
	kindLineage byte = 'L' // as R, in a cluster that has begun again: its lineage comes first
)

const (
	// maxConns bounds what strangers can make this node hold. A peer needs fewer
	// than ten.
	maxConns = 512
	// greetTimeout bounds how long a connection may stay silent before it says
	// what it carries, and how long a hello may take.
	greetTimeout = 5 * time.Second
	// acceptPause is how long to wait after a failed accept: out of file
	// descriptors, most likely.
	acceptPause = 50 * time.Millisecond
)

// port is the one address at which the other nodes reach this one. It tells
// Raft's connections from hellos, and owns every connection in either direction,
// so that closing it ends them all.
type port struct {
	network   Network
	listener  net.Listener
	advertise address
	serve     func(net.Conn) // answers one hello; set once by open
	log       hclog.Logger

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup // accept loop and greetings

	mu   sync.Mutex
	raft chan net.Conn // guarded by mu; nil until Raft runs
	// lineage is guarded by mu. Raft's connections are refused where theirs is another:
	// a node from before a restore would else be followed, or elected, with a log that
	// the cluster has given up (rule R15).
	lineage string
	conns   map[*portConn]struct{}
	closed  bool // guarded by mu
	called  bool // guarded by mu: a Raft peer called before Raft ran
}

// listen takes the address. Nobody is answered before open.
func listen(cfg Config) (*port, error) {
	l, err := cfg.Network.Listen(cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("listen for the other nodes: %w", err)
	}
	advertise, err := advertised(cfg, l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &port{
		network: cfg.Network, listener: l, advertise: address(advertise), log: cfg.Logger,
		ctx: ctx, cancel: cancel, conns: make(map[*portConn]struct{}),
	}
	return p, nil
}

// open begins to serve hellos. Raft's connections are closed until openStreams.
func (p *port) open(serve func(net.Conn)) {
	p.serve = serve
	p.wg.Go(p.accept)
}

// advertised is what the others dial: as configured, else the bound address.
func advertised(cfg Config, bound string) (string, error) {
	if cfg.Advertise != "" {
		return cfg.Advertise, nil
	}
	if self, ok := cfg.self(); ok && self.RaftAddress != "" {
		return self.RaftAddress, nil
	}
	if err := checkDialable(bound); err != nil {
		return "", fmt.Errorf("no address is advertised, and the bound one does not do: %w", err)
	}
	return bound, nil
}

func (p *port) accept() {
	for {
		conn, err := p.listener.Accept()
		switch {
		case p.ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return
		case err != nil:
			p.log.Error("accept a connection from a node", "error", err)
			select {
			case <-time.After(acceptPause):
			case <-p.ctx.Done():
			}
		default:
			p.wg.Go(func() { p.greet(conn) })
		}
	}
}

// greet reads what the connection carries and hands it on.
func (p *port) greet(raw net.Conn) {
	conn, err := p.own(raw)
	if err != nil {
		p.log.Warn("refused a connection", "from", raw.RemoteAddr(), "error", err)
		return
	}
	var kind [1]byte
	conn.SetDeadline(time.Now().Add(greetTimeout))
	if _, err := conn.Read(kind[:]); err != nil {
		// With TLS this is also the handshake, which somebody who is no node fails.
		p.log.Debug("a connection ended before it said what it carries", "from", raw.RemoteAddr(), "error", err)
		conn.Close()
		return
	}
	switch kind[0] {
	case kindHello:
		p.serve(conn)
		conn.Close()
	case kindRaft, kindLineage:
		if err := p.kin(conn, kind[0]); err != nil {
			p.log.Warn("refused a Raft peer", "from", raw.RemoteAddr(), "error", err)
			conn.Close()
			return
		}
		conn.SetDeadline(time.Time{})
		p.handToRaft(conn)
	default:
		p.log.Warn("refused a connection that is not a node's", "from", raw.RemoteAddr())
		conn.Close()
	}
}

// lineageBytes is the length of a lineage.
const lineageBytes = 2 * incarnationBytes

// belongTo sets the lineage, before Raft runs.
func (p *port) belongTo(lineage string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lineage = lineage
}

func (p *port) ownLineage() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lineage
}

var errOtherLineage = errors.New("it belongs to the cluster from before a restore, or after one: stop that node for good")

// kin reads the lineage of a Raft connection, and refuses another one's.
func (p *port) kin(conn net.Conn, kind byte) error {
	var theirs string
	if kind == kindLineage {
		var raw [lineageBytes]byte
		if _, err := io.ReadFull(conn, raw[:]); err != nil {
			return err
		}
		theirs = string(raw[:])
	}
	if theirs != p.ownLineage() {
		return errOtherLineage
	}
	return nil
}

// greeting is what a Raft connection begins with.
func (p *port) greeting() []byte {
	if lineage := p.ownLineage(); lineage != "" {
		return append([]byte{kindLineage}, lineage...)
	}
	return []byte{kindRaft}
}

func (p *port) handToRaft(conn net.Conn) {
	p.mu.Lock()
	accepted, first := p.raft, !p.called
	p.called = true
	p.mu.Unlock()
	if accepted == nil {
		// This node neither votes nor follows yet (rule R15).
		if first {
			p.log.Info("a Raft peer calls, but this node is not admitted yet", "from", conn.RemoteAddr())
		}
		conn.Close()
		return
	}
	select {
	case accepted <- conn:
	case <-p.ctx.Done():
		conn.Close()
	}
}

// openStreams lets Raft's connections in.
func (p *port) openStreams() streamLayer {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.raft = make(chan net.Conn)
	return streamLayer{port: p, accepted: p.raft}
}

// dial opens a connection that carries what the greeting says.
func (p *port) dial(ctx context.Context, to string, greeting []byte) (net.Conn, error) {
	raw, err := p.network.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	conn, err := p.own(raw)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(greeting); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return conn, nil
}

var errTooManyConns = fmt.Errorf("more than %d connections", maxConns)

// own takes charge of a connection, or closes it.
func (p *port) own(raw net.Conn) (*portConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, errors.Join(net.ErrClosed, raw.Close())
	case len(p.conns) >= maxConns:
		return nil, errors.Join(errTooManyConns, raw.Close())
	}
	c := &portConn{Conn: raw, port: p}
	p.conns[c] = struct{}{}
	return c, nil
}

// close ends the port and every connection. It does not wait; see wait.
func (p *port) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.cancel()
	err := p.listener.Close()
	for c := range p.conns {
		c.Conn.Close()
	}
	return err
}

// wait returns once the port's goroutines have ended. Call it after close.
func (p *port) wait() { p.wg.Wait() }

// portConn is a connection that its port closes when it closes.
type portConn struct {
	net.Conn
	port *port
}

func (c *portConn) Close() error {
	c.port.mu.Lock()
	delete(c.port.conns, c)
	c.port.mu.Unlock()
	return c.Conn.Close()
}
