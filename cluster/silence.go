package cluster

import (
	"time"

	"github.com/hashicorp/raft"
)

// watchSilence has a follower look at its leader's silence once that has lasted
// HeartbeatTimeout. By itself it looks at random moments, one to two of these times
// apart, and with PreVote nobody is elected before a second follower has looked: a
// killed leader's successor would come after twice the time, on average.
//
// Raft looks at once when its HeartbeatTimeout is lowered; there is no other way to
// ask it. So a follower that hears its leader has a relaxed one, twice as long:
// its own random looks come after those that are asked for, and only if they fail.
func (n *Node) watchSilence() {
	began := time.Now()
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			look.Reset(n.considerSilence(began))
		case <-n.ctx.Done():
			return
		}
	}
}

// considerSilence has Raft look at the leader's silence if that has lasted, and says
// when to come again. A node that has begun just now has not listened yet.
func (n *Node) considerSilence(began time.Time) time.Duration {
	limit := n.cfg.HeartbeatTimeout
	relaxed := 2 * limit
	if n.raft.State() != raft.Follower {
		n.setHeartbeatTimeout(limit)
		return limit / 4
	}
	n.setHeartbeatTimeout(relaxed)
	heard := n.raft.LastContact()
	if heard.Before(began) {
		heard = began
	}
	if silence := time.Since(heard) - n.apart(); silence < limit {
		return limit - silence
	}
	n.setHeartbeatTimeout(limit)
	return limit / 4
}

// setHeartbeatTimeout sets Raft's; its election timeout may not be less.
func (n *Node) setHeartbeatTimeout(d time.Duration) {
	err := n.reconfigure(n.raft, func(c *raft.ReloadableConfig) {
		c.HeartbeatTimeout, c.ElectionTimeout = d, max(d, n.cfg.ElectionTimeout)
	})
	if err != nil {
		n.log.Error("setting the heartbeat timeout failed", "error", err)
	}
}

// apart keeps two followers from finding the same silence in the same moment, in which
// each would vote for itself: by the time between two heartbeats, which is at most a
// fifth of HeartbeatTimeout.
//
// The first to look fails, since the other still has a leader, and the last one wins,
// if its log is not behind. So those look later that hold what they do not know to be
// committed: they were of the leader's majority, and the others may lack it. They have
// heard the leader a moment before it fell, all of them, and need less room.
func (n *Node) apart() time.Duration {
	place := time.Duration(0)
	for _, m := range n.Status().Members {
		if m.Voter && !m.Leader && m.ID < n.cfg.ID {
			place++
		}
	}
	if n.raft.LastIndex() > n.raft.CommitIndex() {
		return n.cfg.HeartbeatTimeout*2/5 + place*n.cfg.HeartbeatTimeout/10
	}
	return place * n.cfg.HeartbeatTimeout / 5
}
