package cluster

import "context"

// watchSpace begins to look at the disk, if it has bounds.
func (n *Node) watchSpace() {
	on, bounded := n.cfg.Storage.(Bounded)
	if !bounded {
		return
	}
	n.space = newSpace(on, n.cfg)
	n.disk.snapshots = sparing{n.disk.snapshots, n.space}
	made := false
	n.work.Go(func() { n.space.run(n.ctx, func() { made = n.makeWay(made) }) })
}

// Disk reports the room on this node's disk at the last look, a second ago at most
// or before the last write. It does not block.
func (n *Node) Disk() Disk { return n.space.disk() }

// makeWay hands leadership to a node whose disk has room, where this one's is low:
// the cluster then admits transactions again. It tries once while the disk stays low,
// which made tells; a leadership that comes back in spite of it stays.
func (n *Node) makeWay(made bool) bool {
	if !n.Disk().Low {
		return false
	}
	if made || !n.leads() {
		return made
	}
	ctx, cancel := context.WithTimeout(n.ctx, 2*n.cfg.ElectionTimeout+2*greetTimeout)
	defer cancel()
	for _, m := range n.Status().Members {
		if !m.Voter || m.ID == n.cfg.ID {
			continue
		}
		a, err := n.port.ask(ctx, m.RaftAddress, n.question())
		if err != nil || a.ID != m.ID || a.DiskLow {
			continue
		}
		n.log.Info("this node's disk is nearly full: leadership goes to one with room", "to", m.ID)
		if err := n.TransferLeadership(ctx, m.ID); err != nil {
			n.log.Warn("the node with room did not take the leadership over", "to", m.ID, "error", err)
		}
		return true
	}
	return false
}
