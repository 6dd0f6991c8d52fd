package cluster

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// watchSilence has a follower look at its leader's silence once that has lasted
// HeartbeatTimeout. By itself it looks at random moments, one to two of these times
// apart, and with PreVote nobody is elected before a second follower has looked: a
// killed leader's successor would come after twice the time, on average.
//
// Raft looks at once when its HeartbeatTimeout is lowered; there is no other way to
// ask it. It is raised by a nanosecond first, which nobody notices.
func (n *Node) watchSilence() {
	limit := n.cfg.HeartbeatTimeout
	look := time.NewTimer(limit)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-n.ctx.Done():
			return
		}
		next := limit
		if n.raft.State() == raft.Follower {
			silence := time.Since(n.raft.LastContact()) - n.apart()
			if silence < limit {
				next = limit - silence
			} else if err := errors.Join(n.setHeartbeatTimeout(limit+1), n.setHeartbeatTimeout(limit)); err != nil {
				n.log.Error("looking at the leader's silence failed", "error", err)
			}
		}
		look.Reset(next)
	}
}

func (n *Node) setHeartbeatTimeout(d time.Duration) error {
	c := n.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = d, max(d, n.cfg.ElectionTimeout)
	return n.raft.ReloadConfig(c)
}

// apart keeps two followers from finding the same silence in the same moment, in which
// each would vote for itself: by more than the time between two heartbeats, which is
// at most a fifth of HeartbeatTimeout.
//
// The first to look fails, since the other still has a leader, and the last one wins,
// if its log is not behind. So those look later that hold what they do not know to be
// committed: they were of the leader's majority, and the others may lack it.
func (n *Node) apart() time.Duration {
	place := 0
	for _, m := range n.Status().Members {
		if m.Voter && !m.Leader && m.ID < n.cfg.ID {
			place++
		}
	}
	share := n.cfg.HeartbeatTimeout * time.Duration(place) / 4
	if n.raft.LastIndex() > n.raft.CommitIndex() {
		return n.cfg.HeartbeatTimeout/3 + share/2
	}
	return share
}
