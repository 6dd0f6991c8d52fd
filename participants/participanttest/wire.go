package participanttest

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// Wire is a connection to a resource that a test can cut: a proxy in front of the
// resource's socket. It passes everything on as it is until told otherwise.
type Wire struct {
	network, address string
	listener         net.Listener
	ending           sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	strands map[*strand]bool
	words   []byte // cut where a client says them; nil for nowhere
	arrives bool
}

// NewWire listens in front of the resource at an address, until the test ends.
func NewWire(t testing.TB, network, address string) *Wire {
	t.Helper()
	w := &Wire{network: network, address: address, strands: map[*strand]bool{}}
	here := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "wire-") // t.TempDir is too long for a socket's path
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // nothing follows from it
		here = filepath.Join(dir, filepath.Base(address))
	}
	var err error
	if w.listener, err = net.Listen(network, here); err != nil {
		t.Fatal(err)
	}
	w.ending.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

// Addr is where the wire listens. A unix socket has the resource's base name, in
// a directory of its own: PostgreSQL's clients ask for the directory.
func (w *Wire) Addr() string { return w.listener.Addr().String() }

// CutAt cuts the next connection on which a client says the words, once. What the
// client sends with them is lost, or with arrives is passed on, and its answer is
// lost.
func (w *Wire) CutAt(words string, arrives bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.words, w.arrives = []byte(words), arrives
}

// Cut cuts all connections that there are now.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.strands {
		s.cut()
	}
}

func (w *Wire) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.listener.Close() //nolint:errcheck // accept ends in any case
	w.Cut()
	w.ending.Wait()
}

func (w *Wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		resource, err := net.Dial(w.network, w.address)
		if err != nil {
			client.Close() //nolint:errcheck // the client sees that nobody is there
			continue
		}
		w.join(&strand{client: client, resource: resource})
	}
}

// join passes on what both ends say until either has gone.
func (w *Wire) join(s *strand) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		s.cut()
		return
	}
	w.strands[s] = true
	var pumps sync.WaitGroup
	pumps.Go(func() { s.requests(w) })
	pumps.Go(s.answers)
	w.ending.Go(func() {
		pumps.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.strands, s)
	})
}

// hears reports whether the connection is to be cut at these bytes, and how. It
// does so once for each CutAt.
func (w *Wire) hears(said []byte) (cut, arrives bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.words == nil || !bytes.Contains(said, w.words) {
		return false, false
	}
	w.words = nil
	return true, w.arrives
}

// longestWords is how many bytes of earlier reads are looked at again for words
// that came in two pieces.
const longestWords = 64

// strand is one client's connection, in two halves.
type strand struct {
	client, resource net.Conn
	deaf             atomic.Bool // the client hears no more answers
}

func (s *strand) cut() {
	s.client.Close()   //nolint:errcheck // it may be closed
	s.resource.Close() //nolint:errcheck // it may be closed
}

// requests passes on what the client says, until it has gone or says the words.
func (s *strand) requests(w *Wire) {
	buffer := make([]byte, 32<<10)
	var before []byte
	for {
		n, err := s.client.Read(buffer)
		said := buffer[:n]
		heard := append(before, said...)
		if cut, arrives := w.hears(heard); cut && arrives {
			s.last(said)
			return
		} else if cut {
			break
		}
		if _, failed := s.resource.Write(said); err != nil || failed != nil {
			break
		}
		before = bytes.Clone(heard[max(0, len(heard)-longestWords):])
	}
	s.cut()
}

// last passes on a request whose answer is not. The resource is left to read it
// in peace: a close with answers unread could take the request from it again.
func (s *strand) last(said []byte) {
	s.deaf.Store(true)
	s.resource.Write(said) //nolint:errcheck // the connection ends here
	s.client.Close()       //nolint:errcheck // the same
	if half, ok := s.resource.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() //nolint:errcheck // the same
	}
}

// answers passes on what the resource says, or reads it only, until it has gone.
func (s *strand) answers() {
	defer s.cut()
	buffer := make([]byte, 32<<10)
	for {
		n, err := s.resource.Read(buffer)
		if n > 0 && !s.deaf.Load() {
			if _, err := s.client.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
