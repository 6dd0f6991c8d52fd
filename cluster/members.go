package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// catchUpPoll paces the questions to a node that is catching up.
const catchUpPoll = 50 * time.Millisecond

// Member is a node in the configuration that Raft uses.
type Member struct {
	Peer
	Voter  bool // false while it catches up
	Leader bool // as far as this node knows
}

// Status is what this node knows of the cluster.
type Status struct {
	ID          string
	Leader      Peer   // the zero Peer while none is known
	Term        uint64 // the newest this node has seen
	CommitIndex uint64 // the last entry known to be committed
	LastIndex   uint64 // the last entry in this node's log
	Lag         uint64 // committed entries that this node has not applied
	Members     []Member
	Disk        Disk
}

// Status reports at once, from memory.
func (n *Node) Status() Status {
	s := Status{ID: n.cfg.ID, Disk: n.Disk()}
	r := n.running()
	if r == nil {
		return s
	}
	s.Leader, _ = n.Leader()
	s.Lag = n.state.lag(r)
	s.Term, s.CommitIndex, s.LastIndex = r.CurrentTerm(), r.CommitIndex(), r.LastIndex()
	for _, m := range r.GetConfiguration().Configuration().Servers {
		s.Members = append(s.Members, Member{
			Peer:   Peer{ID: string(m.ID), RaftAddress: string(m.Address)},
			Voter:  m.Suffrage == raft.Voter,
			Leader: string(m.ID) == s.Leader.ID,
		})
	}
	return s
}

func memberOf(ms []Member, id string) bool {
	return slices.ContainsFunc(ms, func(m Member) bool { return m.ID == id })
}

func voters(ms []Member) int {
	count := 0
	for _, m := range ms {
		if m.Voter {
			count++
		}
	}
	return count
}

func find(ms []Member, match func(Member) bool) (Member, bool) {
	i := slices.IndexFunc(ms, match)
	if i < 0 {
		return Member{}, false
	}
	return ms[i], true
}

// APIAddress asks the node at a Raft address where it serves clients. It dials;
// cache the answer. The error wraps [ErrUnreachable].
func (n *Node) APIAddress(ctx context.Context, raftAddress string) (string, error) {
	if raftAddress == string(n.port.advertise) {
		return n.cfg.APIAddress, nil
	}
	a, err := n.port.ask(ctx, raftAddress, n.question())
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return a.APIAddress, nil
}

// changeMembers runs one change of the membership at a time, on the leader.
func (n *Node) changeMembers(ctx context.Context, change func() error) error {
	select {
	case n.changing <- struct{}{}:
		defer func() { <-n.changing }()
	case <-ctx.Done():
		return fmt.Errorf("wait for another change of the membership: %w", ctx.Err())
	}
	if !n.leads() {
		return ErrNotLeader
	}
	return change()
}

// AddNode adds an empty node that waits for it, as a voter, once it has caught up.
// It runs on the leader and blocks until then, or until ctx ends; called again, it
// goes on where it stopped.
//
// Errors: [ErrNotLeader], [ErrUnknown], [ErrInvalidPeer], [ErrUnreachable],
// [ErrWrongNode], [ErrAlreadyMember], [ErrNotEmpty], [ErrTooOld] where its binary can't
// read what the cluster writes, [ErrEmptyDisk] where the cluster knows the id and the
// disk is a new one (rule R15).
func (n *Node) AddNode(ctx context.Context, p Peer) error {
	if err := errors.Join(checkID(p.ID), checkDialable(p.RaftAddress)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidPeer, err)
	}
	err := n.changeMembers(ctx, func() error { return n.addNode(ctx, p) })
	if err != nil {
		return fmt.Errorf("add node %s: %w", p.ID, err)
	}
	return nil
}

func (n *Node) addNode(ctx context.Context, p Peer) error {
	a, err := n.port.ask(ctx, p.RaftAddress, n.question())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err := n.readsWhatIsWritten(a); err != nil {
		return err
	}
	known, err := n.mayAdd(p, a)
	if err != nil {
		return err
	}
	if !known {
		q := n.question()
		q.Admit = &admit{ID: a.ID, Incarnation: a.Incarnation, Lineage: n.disk.identity().Lineage}
		if _, err := n.port.ask(ctx, p.RaftAddress, q); errors.Is(err, errRefused) {
			return fmt.Errorf("%w: %w", ErrNotEmpty, err)
		} else if err != nil {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		// A voter at once would count for the majority before it holds anything.
		if err := n.configure(ctx, func() raft.IndexFuture {
			return n.raft.AddNonvoter(raft.ServerID(p.ID), raft.ServerAddress(p.RaftAddress), 0, enqueueTimeout)
		}); err != nil {
			return err
		}
	}
	if err := n.awaitCatchUp(ctx, p); err != nil {
		return err
	}
	return n.configure(ctx, func() raft.IndexFuture {
		return n.raft.AddVoter(raft.ServerID(p.ID), raft.ServerAddress(p.RaftAddress), 0, enqueueTimeout)
	})
}

// mayAdd decides whether the node that answered may be added. known reports that
// it is in already, and still catching up.
func (n *Node) mayAdd(p Peer, a answer) (known bool, err error) {
	members := n.Status().Members
	if a.ID != p.ID {
		return false, fmt.Errorf("%w: node %s", ErrWrongNode, a.ID)
	}
	if a.RaftAddress != p.RaftAddress {
		return false, fmt.Errorf("%w: it advertises %s, not %s", ErrWrongNode, a.RaftAddress, p.RaftAddress)
	}
	m, known := find(members, func(m Member) bool { return m.ID == p.ID })
	if other, taken := find(members, func(m Member) bool { return m.RaftAddress == p.RaftAddress }); taken && other.ID != p.ID {
		return false, fmt.Errorf("%w: node %s is at %s", ErrAlreadyMember, other.ID, p.RaftAddress)
	}
	fresh := a.Phase == phaseEmpty || a.Phase == phaseAdmitted && len(a.Members) == 0
	switch {
	case known && a.Phase == phaseEmpty:
		return false, fmt.Errorf("%w: give it a new id, or remove %s first", ErrEmptyDisk, p.ID)
	case known && (m.Voter || m.RaftAddress != p.RaftAddress):
		return false, fmt.Errorf("%w at %s", ErrAlreadyMember, m.RaftAddress)
	case !known && !fresh:
		return false, ErrNotEmpty
	}
	return known, nil
}

// awaitCatchUp returns once the node follows closely: it has got what the leader's
// log held one election timeout ago, or less. So a voter that has just been added
// does not hold up the next commit for longer than a failover would.
func (n *Node) awaitCatchUp(ctx context.Context, p Peer) error {
	for {
		began, target := time.Now(), n.raft.LastIndex()
		if err := n.awaitIndex(ctx, p, target); err != nil {
			return err
		}
		if time.Since(began) <= n.cfg.ElectionTimeout {
			return nil
		}
	}
}

// awaitIndex returns once the node's log reaches an index.
func (n *Node) awaitIndex(ctx context.Context, p Peer, index uint64) error {
	for {
		a, err := n.port.ask(ctx, p.RaftAddress, n.question())
		if err == nil && a.LastIndex >= index {
			return nil
		}
		if !n.leads() {
			return fmt.Errorf("%w: the leadership was lost while the node caught up; add it again at the new leader", ErrUnknown)
		}
		select {
		case <-time.After(catchUpPoll):
		case <-ctx.Done():
			return fmt.Errorf("%w: it is a member without a vote and catches up; add it again to go on: %w", ErrUnknown, ctx.Err())
		}
	}
}

// RemoveNode removes a node. It runs on the leader and blocks until the removal is
// committed. Where the leader removes itself it steps down after that, and the
// others elect a leader; every removed node exits with [ErrRemoved] once another
// node confirms it. Errors: [ErrNotLeader], [ErrUnknown], [ErrUnknownNode],
// [ErrLastVoter].
func (n *Node) RemoveNode(ctx context.Context, id string) error {
	err := n.changeMembers(ctx, func() error {
		members := n.Status().Members
		m, ok := find(members, func(m Member) bool { return m.ID == id })
		switch {
		case !ok:
			return ErrUnknownNode
		case m.Voter && voters(members) == 1:
			return ErrLastVoter
		}
		return n.configure(ctx, func() raft.IndexFuture {
			return n.raft.RemoveServer(raft.ServerID(id), 0, enqueueTimeout)
		})
	})
	if err != nil {
		return fmt.Errorf("remove node %s: %w", id, err)
	}
	return nil
}

// configure waits for a change of the configuration.
func (n *Node) configure(ctx context.Context, start func() raft.IndexFuture) error {
	_, _, err := n.propose(func() raft.Future { return start() }).Wait(ctx)
	return err
}

// TransferLeadership makes another voter the leader, "" any: the one whose log is
// longest. It runs on the leader and blocks until this node has ceased to lead.
// Errors: [ErrNotLeader], [ErrUnknownNode], [ErrUnknown] where the transfer was not
// completed: whoever leads then.
func (n *Node) TransferLeadership(ctx context.Context, id string) error {
	if err := n.transfer(ctx, id); err != nil {
		return fmt.Errorf("transfer the leadership: %w", err)
	}
	return nil
}

func (n *Node) transfer(ctx context.Context, id string) error {
	if !n.leads() {
		return ErrNotLeader
	}
	if id == n.cfg.ID {
		return nil
	}
	members := n.Status().Members
	start := func() raft.Future { return n.raft.LeadershipTransfer() }
	if id != "" {
		m, ok := find(members, func(m Member) bool { return m.ID == id && m.Voter })
		if !ok {
			return fmt.Errorf("%w with a vote: %s", ErrUnknownNode, id)
		}
		start = func() raft.Future {
			return n.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(m.RaftAddress))
		}
	} else if voters(members) < 2 {
		return fmt.Errorf("%w with a vote, besides this one", ErrUnknownNode)
	}
	defer n.transfers.look() // the library may go on believing in the transfer
	_, _, err := n.propose(start).Wait(ctx)
	return err
}
