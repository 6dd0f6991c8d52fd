package txn

import "fmt"

// WorkKind says what is owed.
type WorkKind uint8

// The kinds of work. Await is not work of the leader's: the client moves next,
// until the deadline.
const (
	AwaitClient   WorkKind = iota + 1 // Active: enlist, commit or abort is the client's to say
	PrepareBranch                     // ask the branch to prepare
	DecideOutcome                     // every vote is replicated: propose the decision
	CommitBranch                      // deliver the commit
	AbortBranch                       // deliver the abort
)

var workNames = [...]string{"none", "await-client", "prepare", "decide", "commit", "abort"}

func (k WorkKind) String() string { return name(workNames[:], int(k)) }

// Work is one thing owed to a transaction.
type Work struct {
	Kind   WorkKind
	Branch int // from 1; 0 for AwaitClient and DecideOutcome
}

func (w Work) String() string {
	if w.Branch == 0 {
		return w.Kind.String()
	}
	return fmt.Sprintf("%s branch=%d", w.Kind, w.Branch)
}

// Pending lists what is still owed to a transaction, in branch order. It is
// derived from replicated state alone and never stored: a leader's first act and
// its everyday work come from the same list (rule R13). A finished transaction
// is owed nothing.
//
// An undecided transaction is also owed an abort at its Deadline; that is a
// matter of time, which does not exist here.
func Pending(t *Transaction) []Work {
	switch t.State {
	case Active:
		return []Work{{Kind: AwaitClient}}
	case Preparing:
		return pendingVotes(t)
	case Committing:
		return pendingDelivery(t, CommitBranch)
	case Aborting:
		return pendingDelivery(t, AbortBranch)
	default:
		return nil
	}
}

func pendingVotes(t *Transaction) []Work {
	var work []Work
	for i, b := range t.Branches {
		if b.Vote == VoteAbort {
			return []Work{{Kind: DecideOutcome}} // one no is enough
		}
		if b.Vote == VoteNone && !b.External {
			work = append(work, Work{PrepareBranch, i + 1})
		}
	}
	if len(work) == 0 {
		return []Work{{Kind: DecideOutcome}}
	}
	return work
}

func pendingDelivery(t *Transaction, kind WorkKind) []Work {
	work := make([]Work, 0, len(t.Branches))
	for i, b := range t.Branches {
		if b.Owed() {
			work = append(work, Work{kind, i + 1})
		}
	}
	return work
}

// effects is the work that next is owed and prev was not. Within one state work
// only ever ends, and no two states share a kind of work.
func effects(prev, next *Transaction) []Work {
	if prev != nil && prev.State == next.State {
		return nil
	}
	return Pending(next)
}
