package txn

import "time"

// Command is one step of one transaction, as it stands in the replicated log.
type Command interface {
	// Transaction is the id of the transaction that the command is about.
	Transaction() TxID
}

// Stage makes a transaction known before its decision (rule R4): a one-shot one
// with its branches, or an interactive one, which has none yet.
type Stage struct {
	ID          TxID
	Interactive bool
	Branches    []Branch
	Timeout     time.Duration
	Owner       Owner // who begins it
}

// Enlist adds a branch to an Active transaction.
type Enlist struct {
	ID     TxID
	Branch Branch
}

// Prepare seals an Active transaction. Votes are those of its external branches,
// by branch number; a branch that is missing there has not voted.
type Prepare struct {
	ID    TxID
	Votes []BranchVote
}

// BranchVote is the replicated vote of an external branch.
type BranchVote struct {
	Branch int // from 1
	Vote   Vote
}

// Decide is the only command that makes an outcome.
type Decide struct {
	ID       TxID
	Decision Decision
	Reason   Reason // of an abort
	ReadOnly []int  // branches that voted read-only, left out of phase two
	// Branches are those to which prepares left although staging was refused:
	// with an abort they are taken over into the transaction, which delivers the
	// abort to them (rule R4).
	Branches []Branch
}

// Presume writes the abort of a transaction that the log does not know, and
// changes nothing where it does (rule R6).
type Presume struct {
	ID TxID
}

// Arbitrate is an operator's decision about a transaction that the cluster may not
// decide, because an earlier decision may be lost or forgotten: one that is unknown and
// [Cluster.Lost] or expired, or one that is [Cluster.Held]. It changes nothing where
// there is a decision (rule R1).
type Arbitrate struct {
	ID       TxID
	Decision Decision
	Detail   string // who and why, at most MaxReasonDetail bytes; kept with an abort
}

// Resolve is an operator's word for what became of a branch of a decided transaction,
// because its participant will not say, or has said that it went against the decision
// (rule R10). The decision itself stays as it is (rule R1). A second, different word is
// refused.
type Resolve struct {
	ID     TxID
	Branch int      // from 1
	As     Decision // Commit or Abort
}

// Acknowledge records how phase two ended in some branches.
type Acknowledge struct {
	ID       TxID
	Receipts []BranchReceipt
}

// BranchReceipt is the end of phase two in one branch.
type BranchReceipt struct {
	Branch  int // from 1
	Receipt Receipt
}

// Transaction implements [Command].
func (c Stage) Transaction() TxID       { return c.ID }
func (c Enlist) Transaction() TxID      { return c.ID } //nolint:revive // as above
func (c Prepare) Transaction() TxID     { return c.ID } //nolint:revive
func (c Decide) Transaction() TxID      { return c.ID } //nolint:revive
func (c Presume) Transaction() TxID     { return c.ID } //nolint:revive
func (c Arbitrate) Transaction() TxID   { return c.ID } //nolint:revive
func (c Resolve) Transaction() TxID     { return c.ID } //nolint:revive
func (c Acknowledge) Transaction() TxID { return c.ID } //nolint:revive
