package branch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Branch is this service's part of one transaction.
type Branch struct {
	Cluster string // the id of the decree cluster that asks
	TxID    string // the transaction's id, a UUIDv7 in lower case
	Number  int    // of the branch in its transaction, from 1
	// Payload is what the service is asked to do. It is remembered with the vote,
	// so that Commit and Abort see what Prepare saw.
	Payload []byte
}

// Name identifies the branch for ever and everywhere. It is printable and has at
// most 300 bytes: an idempotency key.
func (b Branch) Name() string { return fmt.Sprintf("%s/%s/%d", b.Cluster, b.TxID, b.Number) }

// BranchName makes a Branch an Enlistment, for those who have it from elsewhere.
func (b Branch) BranchName() (cluster, txid string, number int) { return b.Cluster, b.TxID, b.Number }

// Enlistment names a branch that an application runs itself: what Tx.Enlist of
// package client returns. Packages decreepg and decreesql run such branches.
type Enlistment interface {
	BranchName() (cluster, txid string, number int)
}

// Local is a service that keeps its data in the bbolt file of its server. Its
// functions are called one at a time. They read and write through tx alone, and
// what they write counts exactly once; the package documentation says more.
type Local interface {
	// Prepare checks and reserves. What it writes is kept with a vote of Yes and
	// undone with any other answer.
	Prepare(tx *Tx, b Branch) (Vote, error)
	// Commit carries out a prepared branch. What it holds is released after.
	Commit(tx *Tx, b Branch) error
	// Abort takes back what Prepare wrote. What it holds is released after.
	Abort(tx *Tx, b Branch) error
}

// Foreign is a service whose effects lie outside the file. Its functions must be
// idempotent on b.Name(); the package documentation says in which cases each is
// called again.
type Foreign interface {
	Prepare(ctx context.Context, b Branch) (Vote, error)
	Commit(ctx context.Context, b Branch) error
	Abort(ctx context.Context, b Branch) error
}

// Vote is the answer to Prepare. The zero Vote is none.
type Vote struct {
	kind   voteKind
	reason string
}

type voteKind uint8

const (
	voteNone voteKind = iota
	voteYes
	voteReadOnly
	voteNo
)

// Yes promises that the branch can be committed and can be aborted, whenever the
// decision comes.
func Yes() Vote { return Vote{kind: voteYes} }

// ReadOnly says that the branch changed nothing, holds nothing and does not care
// about the decision: it gets neither Commit nor Abort.
func ReadOnly() Vote { return Vote{kind: voteReadOnly} }

// No refuses the branch, with a reason for people, of which the first 512 bytes
// travel. It promises that nothing was kept.
func No(format string, args ...any) Vote {
	return Vote{kind: voteNo, reason: clip(fmt.Sprintf(format, args...))}
}

func (v Vote) String() string {
	switch v.kind {
	case voteYes:
		return "yes"
	case voteReadOnly:
		return "read-only"
	case voteNo:
		return "no: " + v.reason
	default:
		return "none"
	}
}

// Wire is the vote as decree's API counts it, for the votes that an application
// hands to Commit. The zero Vote is a no there.
func (v Vote) Wire() decreev1.Vote {
	switch v.kind {
	case voteYes:
		return decreev1.Vote_VOTE_COMMIT
	case voteReadOnly:
		return decreev1.Vote_VOTE_READ_ONLY
	default:
		return decreev1.Vote_VOTE_ABORT
	}
}

// Reason is that of a no, for people; empty otherwise.
func (v Vote) Reason() string { return v.reason }

// Heuristic is the error with which Commit or Abort says that the branch ended
// against the decision, or that nobody can say how it ended. It is final: it is
// recorded, and no function is called for the branch again.
type Heuristic struct {
	fate   State
	detail string
}

// HeuristicCommit answers Abort of a branch whose effect stands for good.
func HeuristicCommit(evidence string) *Heuristic {
	return &Heuristic{fate: stateCommitted, detail: clip(evidence)}
}

// HeuristicAbort answers Commit of a branch whose effect can no longer be had.
func HeuristicAbort(evidence string) *Heuristic {
	return &Heuristic{fate: stateAborted, detail: clip(evidence)}
}

// HeuristicHazard answers either where it cannot be known whether the effect
// stands.
func HeuristicHazard(evidence string) *Heuristic {
	return &Heuristic{fate: stateHazard, detail: clip(evidence)}
}

func (h *Heuristic) Error() string { return fmt.Sprintf("the branch is %s: %s", h.fate, h.detail) }

// Config bounds a server. The zero Config is a good one.
type Config struct {
	// MaxPayload bounds a branch's payload in bytes; 0 means 1 MiB.
	MaxPayload int
	// MaxOpen bounds the branches of one cluster that are prepared and wait for
	// their decision; 0 means 100,000. Past it prepares are refused.
	MaxOpen int
	// Grace is how long Serve gives calls under way when it stops; 0 means 10 s.
	Grace time.Duration
	// Log hears of damage, of errors that the service's functions return, and of
	// the file when it fails; nil means silence.
	Log hclog.Logger
}

const (
	defaultMaxPayload = 1 << 20
	maxMaxPayload     = 64 << 20 // a payload is held in memory several times
	defaultMaxOpen    = 100_000
	maxMaxOpen        = 1_000_000 // Recover lists them all from memory
	defaultGrace      = 10 * time.Second
)

// Validate reports everything that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	if c.MaxPayload < 0 || c.MaxPayload > maxMaxPayload {
		problems = append(problems, fmt.Errorf("config: MaxPayload %d, want 0 to %d", c.MaxPayload, maxMaxPayload))
	}
	if c.MaxOpen < 0 || c.MaxOpen > maxMaxOpen {
		problems = append(problems, fmt.Errorf("config: MaxOpen %d, want 0 to %d", c.MaxOpen, maxMaxOpen))
	}
	if c.Grace < 0 {
		problems = append(problems, fmt.Errorf("config: Grace %s is negative", c.Grace))
	}
	return errors.Join(problems...)
}

func (c Config) withDefaults() Config {
	if c.MaxPayload == 0 {
		c.MaxPayload = defaultMaxPayload
	}
	if c.MaxOpen == 0 {
		c.MaxOpen = defaultMaxOpen
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	return c
}
