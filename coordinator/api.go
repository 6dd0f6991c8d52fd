package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Wait says how far a call follows its transaction.
type Wait uint8

// The zero Wait is WaitDelivery.
const (
	WaitDelivery Wait = iota // until every branch has acknowledged the decision
	WaitDecision             // until the decision is applied here
)

// Submission is a one-shot transaction.
type Submission struct {
	ID       txn.TxID
	Branches []txn.Branch  // made by txn.NewBranch
	Timeout  time.Duration // 0 means Config.DefaultTimeout
	Wait     Wait
	Owner    txn.Owner // on whose behalf; nobody's where nobody asks
	// Traceparent is the client's span (W3C Trace Context); empty for none.
	Traceparent string
}

// Result is what a client learns. Decision is Undecided only in answers of
// Inquire.
type Result struct {
	Transaction *txn.Transaction // the applied state behind the answer
	// Delivered reports that every branch has acknowledged the decision. It may
	// run ahead of Transaction, whose receipts are replicated in batches.
	Delivered bool
}

// Decision is the outcome that the answer carries.
func (r Result) Decision() txn.Decision { return r.Transaction.Decision() }

// Delivery is what the leader knows, beyond the replicated state, of a branch
// that it is still driving.
type Delivery struct {
	Branch    int // from 1
	Vote      txn.Vote
	Attempts  int
	LastError string
	Next      time.Time // of the next attempt; zero while one is under way
}

// Log is how the coordinator writes to the replicated log. Its own errors wrap
// ErrNotLeader, which is definite, or ErrOutcomeUnknown; any other is what the
// state machine answered to a command that was applied.
type Log interface {
	// Propose queues a command for the next entry and returns at once. done is
	// called exactly once, in log order, from the log's own goroutine and never
	// from within Propose, after the entry was applied on this node or has failed.
	// It must not block. t is the state after the command.
	Propose(epoch uint64, c txn.Command, done func(t *txn.Transaction, err error))

	// Now is cluster time by the leader's monotonic clock: what the header of the
	// next entry will carry.
	Now() txn.Time

	// Barrier returns once everything that was committed before the call is
	// applied here, and this node led at some moment after the call began.
	// Concurrent callers share one round.
	Barrier(ctx context.Context) error
}

// View reads the state that this node has applied. Transactions it returns are
// immutable.
type View interface {
	Transaction(id txn.TxID) (*txn.Transaction, bool)
	// Open calls yield for every unfinished transaction, oldest id first, on a
	// view that does not change meanwhile, until yield returns false.
	Open(yield func(*txn.Transaction) bool)
	// Participant returns a registration; Participants all of them, by name.
	Participant(name string) (participants.Registration, bool)
	Participants() []participants.Registration
	// Cluster is the replicated context, ClusterID the id under which
	// participants know this cluster.
	Cluster() txn.Cluster
	ClusterID() string
}

// Errors that a caller branches on. Those of package txn pass through wrapped.
var (
	// ErrNotLeader is definite: nothing was written. Ask the leader.
	ErrNotLeader = errors.New("this node does not lead")
	// ErrOutcomeUnknown is neither success nor failure (rule R5). Ask again with
	// the same txid.
	ErrOutcomeUnknown = errors.New("the outcome is not known here")
	// ErrInvalid is wrapped by what is wrong with a request.
	ErrInvalid = errors.New("invalid request")
	// ErrUnknownParticipant is wrapped where a branch names a participant that is
	// not registered.
	ErrUnknownParticipant = errors.New("unknown participant")
	// ErrAborted answers Commit of a transaction that was aborted before.
	ErrAborted = errors.New("the transaction is aborted")
	// ErrCommitted answers Abort of a committed transaction.
	ErrCommitted = errors.New("the transaction is committed")
	// ErrTooLarge is wrapped where a payload or transaction is over its bound.
	ErrTooLarge = errors.New("too large")
)

// BusyError refuses work past a bound (rule R14). Nothing was written.
type BusyError struct {
	What       string        // which bound
	RetryAfter time.Duration // when to try again
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s: try again in %s", e.What, e.RetryAfter)
}
