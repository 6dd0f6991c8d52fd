package node

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

// Proven applies a node's log to a state machine, and knows up to which entry the cluster
// had certainly committed it. A node that is left of a lost majority can't tell that of
// its last entries: another leader, of whom it never heard, may have put others in their
// place (rule R15). It is for one goroutine.
type Proven struct {
	*fsm.Machine

	began  bool
	epoch  uint64
	flight []departure // this epoch's last entries, as many as may be on their way, and the one before
	index  uint64
}

// departure is when an entry left, by cluster time.
type departure struct {
	index uint64
	at    txn.Time
}

// Index is that of the last entry that was certainly committed.
func (p *Proven) Index() uint64 {
	if !p.began {
		return p.AppliedIndex() // a snapshot holds nothing else
	}
	return p.index
}

// Apply implements raft.FSM. What proves an entry is one that its leader would not have
// written without it: the epoch entry, before which a barrier is passed, and one that
// left after an earlier had come back, since no more than maxInFlight are on their way. One
// that did not come back within proposalTimeout is waited for no more.
func (p *Proven) Apply(l *raft.Log) any {
	if !p.began {
		p.index, p.epoch, p.began = p.AppliedIndex(), p.Cluster().Epoch, true
	}
	response := p.Machine.Apply(l)
	out, ok := response.(fsm.Applied)
	if !ok || out.Err != nil || l.Type != raft.LogCommand {
		return response
	}
	now := p.Cluster()
	if now.Epoch != p.epoch {
		p.epoch, p.flight = now.Epoch, nil
		p.index = l.Index - 1
	}
	p.flight = append(p.flight, departure{l.Index, now.Now})
	if len(p.flight) > maxInFlight {
		if first := p.flight[0]; now.Now.Sub(first.at) < proposalTimeout-slack {
			p.index = max(p.index, first.index)
		}
		p.flight = p.flight[1:]
	}
	return response
}

// slack is for what the leader's two clocks, of cluster time and of patience, may differ
// in while an entry is on its way.
const slack = time.Second
