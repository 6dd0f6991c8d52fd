package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transferWatch ends a process whose Raft believes for ever that it is handing
// over leadership.
//
// A transfer waits for its target to catch up, on a goroutine that can be left
// waiting when the leadership is lost meanwhile. Its mark, "transfer in progress",
// then stays, and survives into the next term in which the node leads: a leader
// that refuses every entry, with heartbeats that keep it in office (upstream
// #696).
type transferWatch struct {
	probe func() error // proposes an entry; ends with the node
	every time.Duration
	limit time.Duration // longer than any transfer can honestly take
	exit  func(error)
	ctx   context.Context

	wg       sync.WaitGroup
	mu       sync.Mutex
	watching bool // guarded by mu
}

func (n *Node) newTransferWatch() *transferWatch {
	return &transferWatch{
		probe: n.passBarrier,
		every: n.cfg.ElectionTimeout,
		// The target is given an election timeout to catch up and another to be
		// elected; in between are a dial and one message.
		limit: 2*n.cfg.ElectionTimeout + 3*n.cfg.RPCTimeout,
		exit:  n.exit,
		ctx:   n.ctx,
	}
}

// refused looks into an error of a proposal.
func (w *transferWatch) refused(err error) {
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		w.look()
	}
}

// look begins to probe, unless that is going on.
func (w *transferWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watching || w.ctx.Err() != nil {
		return
	}
	w.watching = true
	w.wg.Go(w.run)
}

// run probes until an entry is not refused for the transfer's sake.
func (w *transferWatch) run() {
	defer func() {
		w.mu.Lock()
		w.watching = false
		w.mu.Unlock()
	}()
	began := time.Now()
	for {
		select {
		case <-time.After(w.every):
		case <-w.ctx.Done():
			return
		}
		if err := w.probe(); !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return
		}
		if took := time.Since(began); took > w.limit {
			w.exit(fmt.Errorf("a leadership transfer is in progress since %s; this leader refuses every entry", took))
			return
		}
	}
}

// wait returns once the probing has ended. Call it after the node's context has.
func (w *transferWatch) wait() {
	w.mu.Lock()
	w.watching = true // nobody begins any more
	w.mu.Unlock()
	w.wg.Wait()
}
