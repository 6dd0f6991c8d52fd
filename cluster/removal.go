package cluster

import (
	"fmt"
	"time"
)

// orphanAfter is how many election timeouts a node hears of no leader before it
// asks whether it still belongs to the cluster. One election seldom takes more
// than three.
const orphanAfter = 4

// watchRemoval ends the node when the cluster has removed it.
//
// Raft does not tell: the leader stops replicating to a removed node, often before
// that learns that the removal is committed, and the other nodes refuse to vote
// for it. So a node without a leader, or without a place in the configuration it
// knows, asks the others. Only a leader's word counts, of this node's term or a
// later one, about both its committed and its latest configuration: what is not
// committed may be taken back.
func (n *Node) watchRemoval() {
	tick := time.NewTicker(n.cfg.ElectionTimeout)
	defer tick.Stop()
	alone := 0
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		_, led := n.Leader()
		members := n.Status().Members
		if led && memberOf(members, n.cfg.ID) {
			alone = 0
			continue
		}
		if alone++; alone >= orphanAfter || !memberOf(members, n.cfg.ID) {
			if by, ok := n.removedBy(members); ok {
				n.stopRemoved(by)
				return
			}
		}
	}
}

// removedBy asks the other members, and returns the leader that no longer knows
// this node.
func (n *Node) removedBy(members []Member) (leader string, removed bool) {
	var others []Peer
	for _, m := range members {
		if m.ID != n.cfg.ID {
			others = append(others, m.Peer)
		}
	}
	term := n.raft.CurrentTerm()
	for _, r := range n.askAll(n.ctx, others) {
		if r.err == nil && r.answer.Leader && r.answer.Term >= term && !r.answer.KnowsYou {
			return r.answer.ID, true
		}
	}
	return "", false
}

func (n *Node) stopRemoved(by string) {
	if err := n.disk.advance(phaseRemoved); err != nil {
		n.log.Error("note the removal", "error", err)
	}
	n.exit(fmt.Errorf("%w, says its leader %s", ErrRemoved, by))
}
