package cluster

import (
	"context"
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
	w := silence{n: n, heard: time.Now()}
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			look.Reset(w.consider())
		case <-n.ctx.Done():
			return
		}
	}
}

// silence is a follower's watch over its leader.
type silence struct {
	n     *Node
	heard time.Time // when the leader was heard last, or the watch began
	asked bool      // the others were asked for their places, since
	place int       // how many followers look before this one
}

// consider has Raft look at the leader's silence if that has lasted, and says when to
// come again.
func (w *silence) consider() time.Duration {
	limit := w.n.cfg.HeartbeatTimeout
	relaxed := 2 * limit
	if w.n.raft.State() != raft.Follower {
		w.n.setHeartbeatTimeout(limit)
		return limit / 4
	}
	w.n.setHeartbeatTimeout(relaxed)
	if heard := w.n.raft.LastContact(); heard.After(w.heard) {
		w.heard, w.asked = heard, false
	}
	if left := limit*3/5 - time.Since(w.heard); left > 0 {
		return left
	}
	if !w.asked {
		w.asked, w.place = true, w.n.placeAmongFollowers(limit/5)
	}
	if left := limit + time.Duration(w.place)*limit/5 - time.Since(w.heard); left > 0 {
		return left
	}
	w.n.setHeartbeatTimeout(limit)
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

// placeAmongFollowers is how many followers look before this one. Each has a place of
// its own, by which they keep apart: two that find the same silence in the same moment
// vote for themselves. They keep apart by the time between two heartbeats, which is at
// most a fifth of HeartbeatTimeout, since that is how much earlier one may have heard
// the last of them than another.
//
// The first to look fails, because the others still have a leader, and the last one
// wins, if its log is not behind. So they look in the order in which their logs end,
// for which they ask each other while the leader is silent but not yet given up. Who
// does not answer in time is taken for one that does not look.
func (n *Node) placeAmongFollowers(patience time.Duration) int {
	var others []Peer
	for _, m := range n.Status().Members {
		if m.Voter && !m.Leader && m.ID != n.cfg.ID {
			others = append(others, Peer{ID: m.ID, RaftAddress: m.RaftAddress})
		}
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	place, mine := 0, n.raft.LastIndex()
	for _, r := range n.askAll(ctx, others) {
		if a := r.answer; r.err == nil && (a.LastIndex < mine || a.LastIndex == mine && a.ID < n.cfg.ID) {
			place++
		}
	}
	return place
}
