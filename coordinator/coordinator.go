// Package coordinator drives transactions. (Being written: signatures stand.)
package coordinator

import (
	"context"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// Coordinator drives transactions while its node leads.
type Coordinator struct{}

// Submit runs a one-shot transaction, or joins or answers an earlier run of its
// txid.
func (c *Coordinator) Submit(ctx context.Context, s Submission) (Result, error) { panic("todo") }

// Begin opens an interactive transaction.
func (c *Coordinator) Begin(ctx context.Context, id txn.TxID, timeout time.Duration) (*txn.Transaction, error) {
	panic("todo")
}

// Enlist adds a branch; its number is found with Transaction.Branch.
func (c *Coordinator) Enlist(ctx context.Context, id txn.TxID, b txn.Branch) (*txn.Transaction, error) {
	panic("todo")
}

// Commit seals, prepares and decides.
func (c *Coordinator) Commit(ctx context.Context, id txn.TxID, votes []txn.BranchVote, w Wait) (Result, error) {
	panic("todo")
}

// Abort decides abort unless decided.
func (c *Coordinator) Abort(ctx context.Context, id txn.TxID, reason string, w Wait) (Result, error) {
	panic("todo")
}

// Inquire answers with an outcome that will stand, after R6.
func (c *Coordinator) Inquire(ctx context.Context, id txn.TxID) (Result, error) { panic("todo") }

// Deliveries tells what this leader knows of the branches that it drives.
func (c *Coordinator) Deliveries(id txn.TxID) []Delivery { panic("todo") }

// Inspection is what Check found.
type Inspection struct {
	Recovers bool
	Prepared int
}

// Check asks a participant for what it holds prepared.
func (c *Coordinator) Check(ctx context.Context, participant string) (Inspection, error) {
	panic("todo")
}

// Leads reports whether this node drives transactions now.
func (c *Coordinator) Leads() bool { panic("todo") }
