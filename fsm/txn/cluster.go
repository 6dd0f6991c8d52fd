package txn

import (
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/fsm/group"
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
	ErrResolved        = errors.New("an operator has resolved the branch already, and otherwise")
	ErrSettled         = errors.New("the branch carried out the decision, or had nothing to carry out: there is nothing to be resolved")
	ErrVotedTwice      = errors.New("a branch voted twice, and differently")
	ErrAgainstVote     = errors.New("the decision goes against a replicated vote")
	// ErrOtherGroup answers whatever would make a transaction of a txid that is another
	// cluster's, or presume one aborted: nobody but that cluster may say what became of it.
	ErrOtherGroup = errors.New("the transaction id belongs to another group")
	// ErrLost answers whatever would decide a transaction whose decision may have been
	// made before a restore, and lost by it: to presume anything could flip it.
	ErrLost = errors.New("its outcome may have been lost when the cluster was restored, and an operator must resolve it (decree tx decide)")
	// ErrNotLost refuses an operator's decision of what the cluster decides itself.
	ErrNotLost = errors.New("no decision of this transaction was lost, the cluster decides it")
)

// Cluster is the replicated context that every transaction shares.
type Cluster struct {
	Epoch   uint64 // the Raft term of the leader that may drive (rule R3)
	Now     Time   // cluster time; never goes back
	Horizon Time   // txids before it are expired; never goes back

	Group group.Group // which txids are the cluster's; once told it never changes

	Restored Restored // where this state came out of a backup, or lost a majority
}

// Restored says which decisions may have been made and lost, since the state that they
// were applied to was given up for an older one (rule R15). The zero Restored is that
// of a cluster to which this never happened.
type Restored struct {
	Epoch uint64 // above all that were seen before; what was staged under a lesser one and is undecided may be decided
	Until Time   // a txid up to here, unknown now, may have been decided
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

// Reopen begins the life of a state that is older than what was decided (rule R15): in
// a new epoch, which must be above all that were seen, and with every decision up to a
// time in doubt. What an earlier restore lost stays lost.
func (c Cluster) Reopen(r Restored) (Cluster, error) {
	switch {
	case r.Epoch <= c.Epoch:
		return c, fmt.Errorf("%w: epoch %d, the state has seen %d", ErrStaleEpoch, r.Epoch, c.Epoch)
	case r.Until < c.Now:
		return c, fmt.Errorf("the restore's time, %s, lies before the state's own, %s: is the clock right", r.Until.Std(), c.Now.Std())
	}
	r.Until = max(r.Until, c.Restored.Until)
	c.Epoch, c.Restored = r.Epoch, r
	return c, nil
}

// Lost reports whether a txid that the log does not know may have been decided before
// a restore. Then it is neither presumed nor run.
func (c Cluster) Lost(id TxID) bool {
	return c.Restored != (Restored{}) && id.Time() <= c.Restored.Until
}

// Held reports whether a transaction that is undecided here may have been decided
// before a restore. Then it is neither driven nor decided, except by an operator.
func (c Cluster) Held(t *Transaction) bool {
	return !t.State.Decided() && t.Staged.Epoch < c.Restored.Epoch
}

// CheckGroup wraps ErrOtherGroup where a txid is another cluster's: a group is a cluster
// of its own, and what one says of another's transactions would be made up (R1, R6).
func (c Cluster) CheckGroup(id TxID) error {
	if c.Group.Takes(id) {
		return nil
	}
	return &GroupError{ID: id, Asked: c.Group}
}

// GroupError is ErrOtherGroup, with whose the txid is.
type GroupError struct {
	ID    TxID
	Asked group.Group // the cluster that refuses it
}

func (e *GroupError) Error() string {
	return fmt.Sprintf("%v: to group %d of %d, and this cluster is group %d; nothing was done here",
		ErrOtherGroup, group.Number(e.ID, e.Asked.Of), e.Asked.Of, e.Asked.Number)
}

func (e *GroupError) Unwrap() error { return ErrOtherGroup }

// CheckID tells whether a txid that the log does not know may be run: ErrOtherGroup
// where another cluster runs it, ErrExpired before the horizon, ErrLost up to the time of a
// restore, ErrFuture past cluster time plus [MaxSkew].
func (c Cluster) CheckID(id TxID) error {
	if err := id.Validate(); err != nil {
		return err
	}
	if err := c.CheckGroup(id); err != nil {
		return err
	}
	if id.Time() < c.Horizon {
		return fmt.Errorf("%w: made %s, horizon %s", ErrExpired, id.Time().Std(), c.Horizon.Std())
	}
	if c.Lost(id) {
		return fmt.Errorf("%w: made %s, restored %s", ErrLost, id.Time().Std(), c.Restored.Until.Std())
	}
	if id.Time() > c.Now.Add(MaxSkew) {
		return fmt.Errorf("%w: made %s, cluster time %s", ErrFuture, id.Time().Std(), c.Now.Std())
	}
	return nil
}
