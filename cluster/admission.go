package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// helloPause paces the questions to peers that are not there yet.
	helloPause = 100 * time.Millisecond
	// reportEvery paces the log line that says whom the node waits for.
	reportEvery = 10 * time.Second
)

// enterCluster returns once this disk may take part: at once where it has before,
// else when the other first members agree or a leader admits it (rule R15).
func (n *Node) enterCluster(ctx context.Context) error {
	me := n.disk.identity()
	switch {
	case me.Phase != phaseEmpty:
		// Agreed, too: the agreement is about this very disk, which has stored
		// nothing of Raft's since.
		return nil
	case len(n.cfg.Peers) == 0:
		return n.awaitAdmission(ctx)
	default:
		return n.agree(ctx)
	}
}

// agree makes the first members' list durable once each of them has said that its
// disk is empty too, or that it vouches for this one.
//
// A peer that has a list with this node's id, but another disk of it, has dealt
// with a node whose disk is gone, and which may have voted. So a wiped node never
// gets past this point, as long as one node remembers.
func (n *Node) agree(ctx context.Context) error {
	report := time.Now().Add(reportEvery)
	for {
		founders, missing, err := n.pollPeers(ctx)
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			me := n.disk.identity()
			me.Phase, me.Founders = phaseAgreed, founders
			return n.disk.become(me)
		}
		if now := time.Now(); now.After(report) {
			report = now.Add(reportEvery)
			n.log.Info("waiting for the other first members", "missing", strings.Join(missing, "; "))
		}
		select {
		case <-time.After(helloPause):
		case <-ctx.Done():
			return fmt.Errorf("waiting for the other first members (%s): %w", strings.Join(missing, "; "), ctx.Err())
		}
	}
}

// pollPeers asks every peer once. It returns the founders to agree on, or who did
// not answer; an error is final.
func (n *Node) pollPeers(ctx context.Context) (founders []founder, missing []string, err error) {
	me := n.disk.identity()
	self, _ := n.cfg.self()
	if self.RaftAddress == "" { // alone, at whatever address it was given
		self.RaftAddress = string(n.port.advertise)
	}
	others := slices.DeleteFunc(slices.Clone(n.cfg.Peers), func(p Peer) bool { return p.ID == me.ID })
	founders = []founder{{ID: me.ID, RaftAddress: self.RaftAddress, Incarnation: me.Incarnation}}
	replies := n.askAll(ctx, others)
	var adopted []founder
	var problems []error
	for i, p := range others {
		r := replies[i]
		if r.err != nil {
			missing = append(missing, r.err.Error())
			continue
		}
		if err := n.judge(me, p, r.answer); err != nil {
			problems = append(problems, err)
			continue
		}
		if r.answer.Phase != phaseEmpty {
			adopted = r.answer.Founders
		}
		founders = append(founders, founder{ID: p.ID, RaftAddress: p.RaftAddress, Incarnation: r.answer.Incarnation})
	}
	if adopted != nil {
		founders = adopted // somebody agreed first; keep to what they know
	}
	return founders, missing, errors.Join(problems...)
}

// judge decides whether a peer's answer lets this empty disk in. nil means that
// the peer is empty too, or vouches for it.
func (n *Node) judge(me identity, p Peer, a answer) error {
	if a.ID != p.ID {
		return fmt.Errorf("%w: %s is configured as node %s, but node %s answers", ErrPeersDiffer, p.RaftAddress, p.ID, a.ID)
	}
	mine := configuredFounders(n.cfg.Peers)
	switch {
	case a.Phase == phaseEmpty && samePeers(a.Founders, mine):
		return nil
	case a.Phase == phaseEmpty:
		return fmt.Errorf("%w: node %s has %s, this node %s", ErrPeersDiffer, a.ID, listed(a.Founders), listed(mine))
	case vouchesFor(a.Founders, me.ID, me.Incarnation) && len(a.Members) > 0 && !a.KnowsYou:
		return fmt.Errorf("%w: node %s no longer lists %s; give it a new id and an empty data directory", ErrRemoved, a.ID, me.ID)
	case vouchesFor(a.Founders, me.ID, me.Incarnation) && samePeers(a.Founders, mine):
		return nil
	case vouchesFor(a.Founders, me.ID, me.Incarnation):
		return fmt.Errorf("%w: node %s began with %s, this node has %s", ErrPeersDiffer, a.ID, listed(a.Founders), listed(mine))
	case a.KnowsYou, slices.ContainsFunc(a.Founders, func(f founder) bool { return f.ID == me.ID }):
		return fmt.Errorf("%w: node %s, says %s: give it a new id and have it added, or bring its disk back", ErrEmptyDisk, me.ID, a.ID)
	default:
		return fmt.Errorf("%w: node %s is in a cluster without %s; start it without peers and add it", ErrNotInvited, a.ID, me.ID)
	}
}

func listed(fs []founder) string {
	var s []string
	for _, f := range fs {
		s = append(s, f.ID+"="+f.RaftAddress)
	}
	slices.Sort(s)
	return "[" + strings.Join(s, " ") + "]"
}

// reply is one peer's answer.
type reply struct {
	answer answer
	err    error
}

// askAll asks who the peers are, all at once; the replies are in their order.
func (n *Node) askAll(ctx context.Context, peers []Peer) []reply {
	replies := make([]reply, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() { replies[i].answer, replies[i].err = n.port.ask(ctx, p.RaftAddress, n.question()) })
	}
	wg.Wait()
	return replies
}

func (n *Node) question() question {
	me := n.disk.identity()
	return question{ID: me.ID, Incarnation: me.Incarnation}
}

// awaitAdmission waits until a leader admits this node.
func (n *Node) awaitAdmission(ctx context.Context) error {
	n.log.Info("waiting to be added to a cluster", "id", n.cfg.ID, "address", n.port.advertise)
	select {
	case <-n.admitted:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting to be added to a cluster: %w", ctx.Err())
	}
}

// acceptAdmission lets a leader admit this disk. It is durable when it returns nil.
// Raft then starts with nothing, and learns the members from that leader.
func (n *Node) acceptAdmission(q question) error {
	n.mu.Lock()
	defer n.mu.Unlock() // one admission at a time
	me := n.disk.identity()
	switch {
	case q.Admit.ID != me.ID || q.Admit.Incarnation != me.Incarnation:
		return fmt.Errorf("this is node %s with another disk", me.ID)
	case len(n.cfg.Peers) > 0 && me.Phase == phaseEmpty:
		return fmt.Errorf("node %s is configured as a first member", me.ID)
	case me.Phase == phaseAdmitted:
		return nil // again: the first answer was lost
	case me.Phase != phaseEmpty:
		return fmt.Errorf("node %s is not empty", me.ID)
	}
	me.Phase, me.Lineage = phaseAdmitted, q.Admit.Lineage
	if err := n.disk.become(me); err != nil {
		return err
	}
	n.log.Info("admitted to a cluster", "by", q.ID)
	close(n.admitted)
	return nil
}
