package txn

import (
	"errors"
	"fmt"
	"time"
)

// MaxSkew is how far a txid's time may lie ahead of cluster time: clients' clocks
// differ, but an id from the far future would outlive retention (rule R11).
const MaxSkew = 5 * time.Minute

// Errors that a command can be answered with. None of them changed any state.
var (
	ErrStaleEpoch      = errors.New("the proposer no longer leads")
	ErrExpired         = errors.New("the transaction id is older than the retention horizon")
	ErrFuture          = errors.New("the transaction id lies too far in the future")
	ErrUnknown         = errors.New("no such transaction")
	ErrContentMismatch = errors.New("the transaction id was used with other content")
	ErrEmpty           = errors.New("the transaction has no branches")
	ErrTooManyBranches = fmt.Errorf("the transaction has more than %d branches", MaxBranches)
	ErrDuplicateBranch = errors.New("the participant already has a branch in this transaction")
	ErrSealed          = errors.New("the transaction takes no more branches")
	ErrNotPrepared     = errors.New("the transaction has not been prepared")
	ErrUndecided       = errors.New("the transaction is not decided")
	ErrNoSuchBranch    = errors.New("no such branch")
	ErrVotedTwice      = errors.New("a branch voted twice, and differently")
	ErrAgainstVote     = errors.New("the decision goes against a replicated vote")
)

// Cluster is the replicated context that every transaction shares.
type Cluster struct {
	Epoch   uint64 // the Raft term of the leader that may drive (rule R3)
	Now     Time   // cluster time; never goes back
	Horizon Time   // txids before it are expired; never goes back
}

// Header travels with every log entry.
type Header struct {
	Epoch   uint64 // the proposer's
	Time    Time   // the proposer's, by its monotonic clock
	Horizon Time   // raises the horizon; 0 leaves it
}

// Lead opens an epoch. Only a greater term may do so: an epoch entry that comes
// late, from a leader that has been replaced, is refused.
func (c Cluster) Lead(h Header) (Cluster, error) {
	if h.Epoch <= c.Epoch {
		return c, fmt.Errorf("%w: epoch %d, the cluster is at %d", ErrStaleEpoch, h.Epoch, c.Epoch)
	}
	c.Epoch = h.Epoch
	return c.advance(h), nil
}

// Admit checks that an entry comes from the leader of the current epoch, and
// moves cluster time and horizon. A refused entry changes nothing.
func (c Cluster) Admit(h Header) (Cluster, error) {
	if h.Epoch != c.Epoch {
		return c, fmt.Errorf("%w: epoch %d, the cluster is at %d", ErrStaleEpoch, h.Epoch, c.Epoch)
	}
	return c.advance(h), nil
}

func (c Cluster) advance(h Header) Cluster {
	c.Now = max(c.Now, h.Time)
	c.Horizon = max(c.Horizon, h.Horizon)
	return c
}

// CheckID tells whether a txid that the log does not know may be run: ErrExpired
// before the horizon, ErrFuture past cluster time plus [MaxSkew].
func (c Cluster) CheckID(id TxID) error {
	if err := id.Validate(); err != nil {
		return err
	}
	if id.Time() < c.Horizon {
		return fmt.Errorf("%w: made %s, horizon %s", ErrExpired, id.Time().Std(), c.Horizon.Std())
	}
	if id.Time() > c.Now.Add(MaxSkew) {
		return fmt.Errorf("%w: made %s, cluster time %s", ErrFuture, id.Time().Std(), c.Now.Std())
	}
	return nil
}
