package txn

// Ballot is what one leader has heard of one transaction in its epoch: the votes
// and whether time is up. It is volatile: a new leader asks again (rule R13).
// It is not safe for concurrent use.
type Ballot struct {
	votes  []Vote
	abort  Reason // the first reason to abort; ReasonNone while there is none
	staged bool
}

// NewBallot opens a ballot for a transaction's branches, with the votes that are
// replicated already. A ballot without branches, of an Active transaction, can
// only end in an abort.
func NewBallot(branches []Branch) Ballot {
	b := Ballot{votes: make([]Vote, len(branches))}
	for i, br := range branches {
		if br.Vote != VoteNone {
			b.Cast(i+1, br.Vote, Reason{Code: ReasonVote, Branch: i + 1, Detail: "the application voted no"})
		}
	}
	return b
}

// Stage notes that the staging entry is applied here.
func (b *Ballot) Stage() { b.staged = true }

// Cast records a branch's vote, from 1; why is kept when it is VoteAbort. The
// first vote of a branch stands.
func (b *Ballot) Cast(branch int, v Vote, why Reason) {
	if b.votes[branch-1] != VoteNone {
		return
	}
	b.votes[branch-1] = v
	if v == VoteAbort {
		b.Withdraw(why)
	}
}

// Withdraw makes the verdict an abort unless there is a reason to abort already:
// time is up, or the client asked.
func (b *Ballot) Withdraw(why Reason) {
	if b.abort.Code == ReasonNone {
		b.abort = why
	}
}

// Verdict is the decision that the leader may now propose; false while it must
// wait. Commit needs every vote; one no, a timeout or the client's word is
// enough for abort.
//
// A commit may follow its staging into the log before that is applied: in the log
// staging precedes it (rule R4), and the state machine refuses the commit of what it
// has not staged. An abort waits, for the log takes it with or without staging, and
// where staging is refused it must also name the branches that prepared.
func (b *Ballot) Verdict() (Decide, bool) {
	switch {
	case b.abort.Code != ReasonNone:
		if !b.staged {
			return Decide{}, false
		}
		return Decide{Decision: Abort, Reason: b.abort}, true
	case len(b.votes) == 0:
		return Decide{}, false // still Active: its branches are not sealed
	}
	var readOnly []int
	for i, v := range b.votes {
		switch v {
		case VoteNone:
			return Decide{}, false
		case VoteReadOnly:
			readOnly = append(readOnly, i+1)
		}
	}
	return Decide{Decision: Commit, ReadOnly: readOnly}, true
}
