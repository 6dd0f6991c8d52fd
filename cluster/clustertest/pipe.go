package clustertest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeCapacity is how much a connection takes before writes block: a socket's
// buffers, about.
const pipeCapacity = 256 << 10

// conn is one end of a connection: a pipe in, a pipe out.
type conn struct {
	in, out  *pipe
	from, to addr

	readDeadline, writeDeadline deadline

	disown func() // set once by the host that has it; nil before
	once   sync.Once
}

// connect makes a connection between two hosts and returns its ends.
func connect(n *Network, from, to string) (near, far *conn) {
	there, back := newPipe(n, from, to), newPipe(n, to, from)
	return newConn(back, there, from, to), newConn(there, back, to, from)
}

func newConn(in, out *pipe, from, to string) *conn {
	return &conn{
		in: in, out: out, from: addr(from), to: addr(to),
		readDeadline: newDeadline(), writeDeadline: newDeadline(),
	}
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p, &c.readDeadline) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p, &c.writeDeadline) }

// Close ends both directions. The other end reads what was written, then EOF, both
// once the link lets them through; what it writes from now on fails.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.out.closeWrite()
		c.in.closeRead()
		c.SetDeadline(time.Time{}) // stops the timers
		if c.disown != nil {
			c.disown()
		}
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.from }
func (c *conn) RemoteAddr() net.Addr { return c.to }

func (c *conn) SetDeadline(t time.Time) error {
	c.readDeadline.set(t)
	c.writeDeadline.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	return nil
}

// pipe carries bytes in one direction, over one link.
type pipe struct {
	network  *Network
	from, to string

	mu      sync.Mutex
	changed chan struct{} // guarded by mu: closed and replaced by each change
	buf     []byte        // guarded by mu
	ended   bool          // guarded by mu: the writer has closed
	broken  bool          // guarded by mu: the reader has closed
}

func newPipe(n *Network, from, to string) *pipe {
	return &pipe{network: n, from: from, to: to, changed: make(chan struct{})}
}

// tell wakes everyone who waits for the pipe. p.mu must be held.
func (p *pipe) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) read(b []byte, d *deadline) (int, error) {
	for {
		if d.isOver() {
			return 0, os.ErrDeadlineExceeded
		}
		works, healed := p.network.link(p.from, p.to)
		n, changed, err := p.take(b, works)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-healed:
		case <-changed:
		case <-d.passed():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// take moves bytes out of the pipe, if its link works.
func (p *pipe) take(b []byte, works bool) (n int, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.broken:
		return 0, nil, net.ErrClosed
	case works && len(p.buf) > 0:
		n = copy(b, p.buf)
		p.buf = p.buf[n:]
		p.tell()
		return n, nil, nil
	case works && p.ended:
		return 0, nil, io.EOF
	}
	return 0, p.changed, nil
}

func (p *pipe) write(b []byte, d *deadline) (written int, err error) {
	for {
		if d.isOver() {
			return written, os.ErrDeadlineExceeded
		}
		n, changed, err := p.put(b[written:])
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
		select {
		case <-changed:
		case <-d.passed():
			return written, os.ErrDeadlineExceeded
		}
	}
}

// put moves bytes into the pipe, as far as there is room.
func (p *pipe) put(b []byte) (n int, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
		return 0, nil, net.ErrClosed
	case p.broken:
		return 0, nil, io.ErrClosedPipe
	}
	n = min(len(b), pipeCapacity-len(p.buf))
	p.buf = append(p.buf, b[:n]...)
	if n > 0 {
		p.tell()
	}
	return n, p.changed, nil
}

func (p *pipe) closeWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.tell()
}

func (p *pipe) closeRead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken, p.buf = true, nil
	p.tell()
}

// deadline is a moment that can be moved.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer   // guarded by mu; nil without a deadline
	over  chan struct{} // guarded by mu: closed when the deadline has passed
}

func newDeadline() deadline { return deadline{over: make(chan struct{})} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // it is firing
	}
	d.timer = nil
	select {
	case <-d.over:
		d.over = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	over := d.over
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(over) })
	} else {
		close(over)
	}
}

// isOver reports whether the deadline has passed: then not even what is there is
// read, as net.Conn asks.
func (d *deadline) isOver() bool {
	select {
	case <-d.passed():
		return true
	default:
		return false
	}
}

// passed returns a channel that is closed when the deadline has passed.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}
