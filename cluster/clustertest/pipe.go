package clustertest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
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

	mu       sync.Mutex
	changed  chan struct{} // guarded by mu: closed and replaced by each change
	buf      []byte        // guarded by mu
	arrivals []arrival     // guarded by mu: of what is in buf and still on its way
	ended    bool          // guarded by mu: the writer has closed
	broken   bool          // guarded by mu: the reader has closed
	lost     bool          // guarded by mu: the connection was reset
}

// arrival says that bytes get there at a moment.
type arrival struct {
	at    time.Time
	bytes int
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
		n, next, changed, err := p.take(b, works)
		if n > 0 || err != nil {
			return n, err
		}
		if !p.await(next, healed, changed, d) {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// await returns at a moment, if there is one, or at an event before it; false once
// the deadline has passed.
func (p *pipe) await(next time.Time, healed, changed <-chan struct{}, d *deadline) bool {
	var arrived <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		arrived = timer.C
	}
	select {
	case <-arrived:
	case <-healed:
	case <-changed:
	case <-d.passed():
		return false
	}
	return true
}

// take moves bytes out of the pipe, if its link works. next is when the first of
// those that are on their way arrive, if none has.
func (p *pipe) take(b []byte, works bool) (n int, next time.Time, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.lost:
		return 0, next, nil, syscall.ECONNRESET
	case p.broken:
		return 0, next, nil, net.ErrClosed
	case works && len(p.buf) > 0:
		there, next := p.arrived()
		if there == 0 {
			return 0, next, p.changed, nil
		}
		n = copy(b, p.buf[:there])
		p.remove(n)
		p.tell()
		return n, next, nil, nil
	case works && p.ended:
		return 0, next, nil, io.EOF
	}
	return 0, next, p.changed, nil
}

// arrived is how many bytes have, and when the next ones will. p.mu must be held.
func (p *pipe) arrived() (there int, next time.Time) {
	if len(p.arrivals) == 0 {
		return len(p.buf), time.Time{}
	}
	now := time.Now()
	for _, a := range p.arrivals {
		if a.at.After(now) {
			return there, a.at
		}
		there += a.bytes
	}
	return there, time.Time{}
}

// remove takes the first n bytes out. p.mu must be held.
func (p *pipe) remove(n int) {
	if p.buf = p.buf[n:]; len(p.buf) == 0 {
		p.buf = nil
	}
	for n > 0 && len(p.arrivals) > 0 {
		first := &p.arrivals[0]
		taken := min(n, first.bytes)
		n -= taken
		if first.bytes -= taken; first.bytes == 0 {
			p.arrivals = p.arrivals[1:]
		}
	}
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
	case p.lost:
		return 0, nil, syscall.ECONNRESET
	case p.ended:
		return 0, nil, net.ErrClosed
	case p.broken:
		return 0, nil, io.ErrClosedPipe
	}
	if n = min(len(b), pipeCapacity-len(p.buf)); n > 0 {
		p.buf = append(p.buf, b[:n]...)
		p.send(n)
		p.tell()
	}
	return n, p.changed, nil
}

// send notes when the last n bytes arrive: not before those in front of them. p.mu
// must be held.
func (p *pipe) send(n int) {
	at := p.network.arrival(p.from, p.to)
	if at.IsZero() {
		return
	}
	if last := len(p.arrivals) - 1; last >= 0 && at.Before(p.arrivals[last].at) {
		at = p.arrivals[last].at
	}
	p.arrivals = append(p.arrivals, arrival{at, n})
}

// reset loses the connection with what is on its way.
func (p *pipe) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost, p.buf, p.arrivals = true, nil, nil
	p.tell()
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
	p.broken, p.buf, p.arrivals = true, nil, nil
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
