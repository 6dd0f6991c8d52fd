// Package participants holds the contract between decree and everything that can
// take part in a transaction, and the registry of the drivers that speak it.
//
// It owns the words of that conversation: what a branch is to a participant,
// which answers there are, and which of them are certain. It refuses to know how
// any resource works; each driver is a package of its own below this one, and
// all of them pass the conformance suite of participanttest.
package participants

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// Branch is one participant's part of one transaction, as the participant sees
// it. (Cluster, TxID, Number) is its name: every call is idempotent on it.
type Branch struct {
	Cluster string // the id of the decree cluster that asks
	TxID    txn.TxID
	Number  int // from 1, unique in the transaction

	// Epoch is the term of the leader that asks. A participant refuses messages
	// of an older epoch than the highest it has seen from the cluster, with
	// ErrStaleEpoch (rule R8).
	Epoch uint64
	// Horizon is the cluster's retention horizon. A participant stores the
	// highest, refuses prepares of txids before it with a no, and may forget
	// what it remembers of finished branches only where their txid lies before it
	// (rule R11).
	Horizon txn.Time

	// Digest and Payload come with Prepare only. A second prepare of the same
	// branch with another digest is refused (rule R8).
	Digest  txn.Digest
	Payload []byte

	// Traceparent is the coordinator's span of the call (W3C Trace Context), for those
	// who trace what they do; empty for none.
	Traceparent string
}

// Name is the branch's name in logs and errors.
func (b Branch) Name() string { return fmt.Sprintf("%s/%d", b.TxID, b.Number) }

// Vote is a participant's certain answer to Prepare.
type Vote struct {
	Kind   txn.Vote // never VoteNone
	Reason string   // of a no, for people; at most txn.MaxReasonDetail bytes are kept
}

// Yes, ReadOnly and No make the three votes.
func Yes() Vote { return Vote{Kind: txn.VoteCommit} }

// ReadOnly is the vote of a branch that has nothing to do in phase two.
func ReadOnly() Vote { return Vote{Kind: txn.VoteReadOnly} }

// No is the vote of a branch that kept nothing, and why.
func No(format string, args ...any) Vote {
	return Vote{Kind: txn.VoteAbort, Reason: fmt.Sprintf(format, args...)}
}

// Participant is a resource that can prepare, commit and abort branches. Its
// methods are called from many goroutines at once, and all return soon after
// their context ends.
type Participant interface {
	// Prepare stages the branch's changes in isolation, durably, and votes.
	//
	// A Vote with a nil error is certain: a yes survives any crash and waits for
	// the decision however long it takes (rule R7); a no promises that nothing
	// was kept and nothing will be. Any error is ambiguous: the branch may be
	// prepared, or may yet become so. It counts as a no for the decision, and the
	// abort that follows fences it.
	//
	// The same branch prepared again gives the same vote and one effect. A branch
	// that was aborted, known or not at the time, votes no for ever (rule R8).
	Prepare(ctx context.Context, b Branch) (Vote, error)

	// Commit makes the prepared branch's changes visible. Nil means durably done,
	// now or before. An error that is a *Heuristic is final; any other means
	// "ask again", without end. A commit that finds no prepared branch succeeds
	// only on durable proof that it was committed before, and is a HeuristicAbort
	// otherwise (rule R9).
	Commit(ctx context.Context, b Branch) error

	// Abort undoes the branch, and remembers it where it was not known, so that a
	// prepare which arrives later is refused (rule R8). Its errors are as those
	// of Commit.
	Abort(ctx context.Context, b Branch) error

	// Recover lists the branches of the cluster that are prepared and wait for
	// their decision, ended by neither Commit nor Abort. Their TxID and Number
	// are set, nothing else need be.
	Recover(ctx context.Context, cluster string) ([]Branch, error)

	// Recovers reports whether Recover is known to list every prepared branch.
	// Only then may prepares leave before staging is replicated (rule R4). It does
	// not block.
	Recovers() bool

	// Close frees what the driver holds. No call is under way or follows.
	Close() error
}

// Starter is implemented by participants that need no goroutine for a call under way:
// one to whom calls travel in batches. The coordinator begins its calls so where it
// can, and asks as [Participant] says where it cannot.
type Starter interface {
	// Start begins a call and returns at once. It is false where the call cannot be
	// begun this way, or not now; then nothing has left. Otherwise to hears how it
	// ended, once, unless Cancel said that it does not.
	Start(c Call, to Listener) (Started, bool)
}

// Listener hears how a call ended.
type Listener interface {
	// Ended is told what Prepare, Commit or Abort would have returned, or
	// ErrNotStarted: on a goroutine of the participant's, which it must not block, and
	// never from within Start.
	Ended(Vote, error)
}

// Call is a call that Start begins.
type Call struct {
	Kind txn.WorkKind // PrepareBranch, CommitBranch or AbortBranch
	Branch
	// Deadline is when the caller will lose patience. It cancels the call itself.
	Deadline time.Time
}

// Started is a call under way.
type Started interface {
	// Cancel gives a call up, which may be carried out all the same, like a call whose
	// context ends. It is true where the listener hears nothing from now on, and false
	// where it has heard, or is about to. It does not block.
	Cancel() bool
}

// ErrNotStarted answers a call that Start took and that never left.
var ErrNotStarted = errors.New("the call has not left")

// Status is what became of a branch, where the resource can prove it.
type Status uint8

// The fates of a branch.
const (
	StatusUnknown   Status = iota // the resource has no record of it
	StatusPrepared                // it waits for the decision
	StatusCommitted               // durable proof of a commit
	StatusAborted                 // durable proof of an abort
)

var statusNames = [...]string{"unknown", "prepared", "committed", "aborted"}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("invalid(%d)", s)
}

// StatusReporter is implemented by participants that can prove what became of a
// branch.
type StatusReporter interface {
	Status(ctx context.Context, b Branch) (Status, error)
}

// ErrStaleEpoch answers a call whose epoch is older than one that the
// participant has seen: another leader drives the cluster's transactions now.
var ErrStaleEpoch = errors.New("the caller's epoch is over")

// Heuristic is the error of a branch that ended against the decision, or whose
// end cannot be known: damage, reported and never retried (rule R9).
type Heuristic struct {
	Receipt txn.Receipt // HeuristicCommit, HeuristicAbort or HeuristicHazard
	Detail  string      // the evidence, for people
}

func (h *Heuristic) Error() string { return fmt.Sprintf("%s: %s", h.Receipt, h.Detail) }
