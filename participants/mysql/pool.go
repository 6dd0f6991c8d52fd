package mysql

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// idleFor is how long a session waits for work before it is closed. A session
// costs the server a thread.
const idleFor = 5 * time.Minute

// pool lends sessions, at most so many at a time.
type pool struct {
	dialer  *dialer
	purpose string        // for people
	room    chan struct{} // one token for each session lent

	mu     sync.Mutex
	closed bool
	idle   []*session // the last one used is the first one lent
}

func newPool(d *dialer, size int, purpose string) *pool {
	return &pool{dialer: d, purpose: purpose, room: make(chan struct{}, size)}
}

// errFull answers who waited in vain for a session.
type errFull struct{ *pool }

func (e errFull) Error() string {
	return fmt.Sprintf("all %d connections for %s are in use", cap(e.room), e.purpose)
}

// take lends a session, which put takes back. It waits for room until ctx ends,
// and then its error is an errFull.
func (p *pool) take(ctx context.Context) (*session, error) {
	select {
	case p.room <- struct{}{}:
	default:
		select {
		case p.room <- struct{}{}:
		case <-ctx.Done():
			return nil, errFull{p}
		}
	}
	for s := p.pop(); s != nil; s = p.pop() {
		if s.alive(ctx) {
			return s, nil
		}
		s.close()
	}
	s, err := p.dialer.dial(ctx)
	if err != nil {
		<-p.room
		return nil, err
	}
	return s, nil
}

// full reports whether the next take will wait.
func (p *pool) full() bool { return len(p.room) == cap(p.room) }

// put takes a session back, in the state in which it was lent, or dead.
func (p *pool) put(s *session) {
	if !p.keep(s) {
		s.close()
	}
	<-p.room
}

func (p *pool) keep(s *session) bool {
	if s.dead {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	s.idle = time.Now()
	p.idle = append(p.idle, s)
	return true
}

func (p *pool) pop() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	last := len(p.idle) - 1
	s := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return s
}

// trim closes sessions that were idle for long. The first are the oldest.
func (p *pool) trim(now time.Time) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].idle) > idleFor {
		n++
	}
	old := append([]*session(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.mu.Unlock()
	for _, s := range old {
		s.close()
	}
}

// close closes what is idle, and what comes back from now on.
func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, s := range idle {
		s.close()
	}
}
