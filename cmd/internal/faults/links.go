package faults

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/decree-tx/decree/cmd/internal/fleet"
)

// Links are the network between processes: a proxy in front of each address, which
// finds out who dialled and holds back what must not get through.
//
// A link that is cut behaves as one whose packets are lost: bytes stay where they
// are, nothing is reset, and a new connection hangs. When the link heals, what was
// held back arrives, late. What goes to or from processes outside of the fleet,
// such as this one, is never cut.
type Links struct {
	// set once by NewLinks
	fleet *fleet.Fleet
	ctx   context.Context
	stop  context.CancelFunc
	work  sync.WaitGroup // fronts and connections

	mu     sync.Mutex
	owners map[string]bool // of fronts; guarded by mu
	cuts   map[link]int    // how many cuts hold a link back; guarded by mu
	healed chan struct{}   // closed when a cut is taken back, and replaced; guarded by mu
}

// link is one direction.
type link struct{ from, to string }

// outside is who dialled when it was no process of the fleet.
const outside = ""

// NewLinks makes the links of a fleet's processes. Close them.
func NewLinks(f *fleet.Fleet) *Links {
	l := &Links{fleet: f, owners: map[string]bool{}, cuts: map[link]int{}, healed: make(chan struct{})}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// Front listens at a free port of loopback for what is meant for an owner's
// address, and returns its own. Whoever is to be cut off must dial that one.
func (l *Links) Front(owner, address string) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owners[owner] = true
	context.AfterFunc(l.ctx, func() { listener.Close() }) //nolint:errcheck // nothing can be done
	l.work.Go(func() { l.accept(listener, owner, address) })
	return listener.Addr().String(), nil
}

// Close ends every connection and front, and waits for that.
func (l *Links) Close() {
	l.stop()
	l.work.Wait()
}

func (l *Links) accept(listener net.Listener, owner, address string) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		l.work.Go(func() { l.connect(c.(*net.TCPConn), owner, address) })
	}
}

// connect joins an accepted connection to the owner's address.
func (l *Links) connect(near *net.TCPConn, owner, address string) {
	defer near.Close()                                        //nolint:errcheck // it may be closed already
	defer context.AfterFunc(l.ctx, func() { near.Close() })() //nolint:errcheck // ends the reads
	dialler, err := l.dialler(near)
	if err != nil {
		return // it has hung up
	}
	// Opening a connection needs both directions.
	if !l.await(link{dialler, owner}) || !l.await(link{owner, dialler}) {
		return
	}
	var d net.Dialer
	c, err := d.DialContext(l.ctx, "tcp", address)
	if err != nil {
		near.SetLinger(0) //nolint:errcheck // the dialler sees a reset, or at worst an end
		return
	}
	far := c.(*net.TCPConn)
	defer far.Close()                                        //nolint:errcheck // it may be closed already
	defer context.AfterFunc(l.ctx, func() { far.Close() })() //nolint:errcheck // ends the reads
	var back sync.WaitGroup
	back.Go(func() { l.carry(far, near, link{owner, dialler}) })
	l.carry(near, far, link{dialler, owner})
	back.Wait()
}

// chunk is how much of a connection's bytes is held here at most; the rest waits in
// the sender's and receiver's buffers.
const chunk = 32 << 10

// carry takes bytes one way while the link is up, and at their end the end.
func (l *Links) carry(from, to *net.TCPConn, way link) {
	buffer := make([]byte, chunk)
	for {
		n, err := from.Read(buffer)
		if !l.await(way) {
			return
		}
		if n > 0 {
			if _, failed := to.Write(buffer[:n]); failed != nil {
				from.CloseRead() //nolint:errcheck // nobody is there to receive
				from.SetLinger(0)
				from.Close()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			to.CloseWrite() //nolint:errcheck // it may be gone
			return
		case err != nil: // reset
			to.SetLinger(0) //nolint:errcheck // it may be gone
			to.Close()
			return
		}
	}
}

// await returns once the link is up; false when all links are closed.
func (l *Links) await(way link) bool {
	for {
		l.mu.Lock()
		held, healed := l.cuts[way] > 0, l.healed
		l.mu.Unlock()
		if !held {
			return l.ctx.Err() == nil
		}
		select {
		case <-healed:
		case <-l.ctx.Done():
			return false
		}
	}
}

// Cut holds back what one sends to the other, and lets through what comes back.
func (l *Links) Cut(from, to string) Undo { return l.cut(link{from, to}) }

// CutPair cuts two off from one another.
func (l *Links) CutPair(a, b string) Undo { return l.cut(link{a, b}, link{b, a}) }

// Isolate cuts a process off from the others: all of them where none are named.
func (l *Links) Isolate(name string, others ...string) Undo {
	return l.cut(append(l.ways(name, others, true), l.ways(name, others, false)...)...)
}

// Mute lets a process hear the others, and none of them hear it.
func (l *Links) Mute(name string, others ...string) Undo {
	return l.cut(l.ways(name, others, true)...)
}

// Deafen lets the others hear a process, and it none of them.
func (l *Links) Deafen(name string, others ...string) Undo {
	return l.cut(l.ways(name, others, false)...)
}

// ways are the links from a process to others, or back.
func (l *Links) ways(name string, others []string, out bool) []link {
	if len(others) == 0 {
		others = l.everybody()
	}
	var all []link
	for _, other := range others {
		switch {
		case other == name:
		case out:
			all = append(all, link{name, other})
		default:
			all = append(all, link{other, name})
		}
	}
	return all
}

// everybody is whoever can be at an end of a link.
func (l *Links) everybody() []string {
	names := map[string]bool{}
	for _, p := range l.fleet.Processes() {
		names[p.Name()] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for name := range l.owners {
		names[name] = true
	}
	for name := range names {
		all = append(all, name)
	}
	return all
}

func (l *Links) cut(ways ...link) Undo {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, way := range ways {
		l.cuts[way]++
	}
	return undoOnce(func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, way := range ways {
			if l.cuts[way]--; l.cuts[way] == 0 {
				delete(l.cuts, way)
			}
		}
		close(l.healed)
		l.healed = make(chan struct{})
		return nil
	})
}
