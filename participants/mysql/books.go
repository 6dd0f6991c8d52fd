package mysql

import (
	"context"
	"sync"

	"github.com/decree-tx/decree/fsm/txn"
)

// books is what this instance of the driver knows of branches by itself: which of
// them a call is at work on, and which are attached to sessions of its own.
type books struct {
	mu   sync.Mutex
	open map[string]*entry // by gid
}

// entry is one branch. Calls about it take turns.
type entry struct {
	turn chan struct{} // a lock that heeds contexts

	// guarded by books.mu
	users  int
	cancel context.CancelFunc // ends the prepare under way; nil where there is none

	// owned by whose turn it is
	held *held
}

// held is a branch that this instance prepared, with the session that the server
// has attached it to.
type held struct {
	session *session
	digest  txn.Digest
}

func newBooks() *books { return &books{open: map[string]*entry{}} }

// enter waits for the caller's turn at a branch, which leave ends.
func (b *books) enter(ctx context.Context, gid string) (*entry, error) {
	b.mu.Lock()
	e := b.open[gid]
	if e == nil {
		e = &entry{turn: make(chan struct{}, 1)}
		b.open[gid] = e
	}
	e.users++
	b.mu.Unlock()
	select {
	case e.turn <- struct{}{}:
		return e, nil
	case <-ctx.Done():
		b.release(gid, e)
		return nil, ctx.Err()
	}
}

func (b *books) leave(gid string, e *entry) {
	b.mu.Lock()
	e.cancel = nil
	b.mu.Unlock()
	<-e.turn
	b.release(gid, e)
}

func (b *books) release(gid string, e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.users--
	if e.users == 0 && e.held == nil {
		delete(b.open, gid)
	}
}

// interruptible lets interrupt end the caller's turn early, through its context.
func (b *books) interruptible(e *entry, cancel context.CancelFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.cancel = cancel
}

// interrupt ends a prepare of the branch that is under way: its abort is here.
func (b *books) interrupt(gid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.open[gid]; e != nil && e.cancel != nil {
		e.cancel()
	}
}

// dead lets go of the branches whose sessions have ended: somebody else has ended
// the branch, or will. Their sessions are returned.
func (b *books) dead(ctx context.Context) []*session {
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone []*session
	for gid, e := range b.open {
		select {
		case e.turn <- struct{}{}:
		default:
			continue // a call is at work on it, and will notice
		}
		if e.held != nil && !e.held.session.alive(ctx) {
			gone = append(gone, e.held.session)
			e.held = nil
			if e.users == 0 {
				delete(b.open, gid)
			}
		}
		<-e.turn
	}
	return gone
}

// sessions are those that branches are attached to. It is for when no call is
// under way any more.
func (b *books) sessions() []*session {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*session
	for _, e := range b.open {
		if e.held != nil {
			all = append(all, e.held.session)
		}
	}
	return all
}
