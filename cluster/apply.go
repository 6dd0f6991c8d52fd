package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// enqueueTimeout bounds how long a proposal waits for Raft's main loop, which may
// be inside an fsync. Past it the proposal has failed for certain.
const enqueueTimeout = 2 * time.Second

// Pending is a proposed entry. Its Wait may be called any number of times, by
// several goroutines.
type Pending struct {
	n *Node
	p *proposal
}

// proposal is something that Raft answers through a future. The future's Error
// blocks without a context and may not be called twice at once, so that one
// goroutine waits for it.
type proposal struct {
	done     chan struct{}
	index    uint64 // these are set before done is closed
	response any
	err      error
}

// Apply proposes an entry. It never waits for the result; it may wait up to two
// seconds for Raft to take the entry while its disk is busy. Entries that one
// goroutine proposes are appended in its order.
func (n *Node) Apply(data []byte) Pending {
	return n.propose(func() raft.Future { return n.raft.Apply(data, enqueueTimeout) })
}

// Wait returns the index of the entry and what the state machine answered to it,
// once it is applied on this node.
//
// The error is nil, wraps [ErrNotLeader], which is definite, or wraps [ErrUnknown]:
// then the entry may still be applied, the end of ctx included.
func (p Pending) Wait(ctx context.Context) (index uint64, response any, err error) {
	select {
	case <-p.p.done:
	case <-ctx.Done():
		// A future may never be answered, while the node closes.
		return 0, nil, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
	if p.p.err != nil {
		p.n.transfers.refused(p.p.err)
		return 0, nil, classify(p.p.err, p.p.index)
	}
	return p.p.index, p.p.response, nil
}

// Done is closed when Wait would answer at once. It may never be: a future may stay
// unanswered while the node closes.
func (p Pending) Done() <-chan struct{} { return p.p.done }

// propose starts something that Raft answers through a future.
func (n *Node) propose(start func() raft.Future) Pending {
	p := &proposal{done: make(chan struct{})}
	if !n.enter() {
		p.err = raft.ErrRaftShutdown
		close(p.done)
		return Pending{n, p}
	}
	future := start()
	go func() {
		defer n.proposals.Done()
		defer close(p.done)
		p.err = future.Error()
		if f, ok := future.(raft.IndexFuture); ok {
			p.index = f.Index()
		}
		if f, ok := future.(raft.ApplyFuture); ok && p.err == nil {
			p.response = f.Response()
		}
	}()
	return Pending{n, p}
}

// enter counts a proposal that Close has to wait for; false once it closes.
func (n *Node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.raft == nil {
		return false
	}
	n.proposals.Add(1)
	return true
}

// Barrier returns once everything that was committed before the call is applied
// on this node, which led at some moment after the call began. Callers that wait
// at the same time share one round.
//
// It is Raft's Barrier, an entry in the log, and not VerifyLeader, which counts
// answers to heartbeats that were sent before the call. The error wraps
// [ErrNotLeader] or [ErrUnknown].
func (n *Node) Barrier(ctx context.Context) error { return n.barriers.wait(ctx) }

// barriers runs one barrier at a time for all who wait. A caller joins only a
// round that starts after its call.
type barriers struct {
	pass func() error

	wg      sync.WaitGroup // run
	mu      sync.Mutex
	closed  bool   // guarded by mu
	running bool   // guarded by mu
	next    *round // guarded by mu: starts when the running one ends
}

type round struct {
	done chan struct{}
	err  error // set before done is closed
}

func (b *barriers) wait(ctx context.Context) error {
	r, err := b.join()
	if err != nil {
		return err
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("%w: barrier: %w", ErrUnknown, ctx.Err())
	}
}

func (b *barriers) join() (*round, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("%w: the node is closed", ErrNotLeader)
	}
	if b.next == nil {
		b.next = &round{done: make(chan struct{})}
	}
	if !b.running {
		b.running = true
		b.wg.Go(b.run)
	}
	return b.next, nil
}

// run passes rounds until nobody waits.
func (b *barriers) run() {
	for {
		b.mu.Lock()
		r := b.next
		b.next = nil
		b.running = r != nil
		b.mu.Unlock()
		if r == nil {
			return
		}
		r.err = b.pass()
		close(r.done)
	}
}

// close refuses new callers and waits for the rounds under way.
func (b *barriers) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wg.Wait()
}

// passBarrier is one round. It ends with the node at the latest.
func (n *Node) passBarrier() error {
	_, _, err := n.propose(func() raft.Future { return n.raft.Barrier(enqueueTimeout) }).Wait(n.ctx)
	return err
}
