package txn

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// MaxBranches bounds the branches of one transaction. Each costs a call in each
// phase, and the whole transaction must fit one log entry; past some hundreds a
// saga is the better tool.
const MaxBranches = 256

// State is where a transaction stands.
type State uint8

// The states, in the order of their lives. Committing already means decided: to
// a client it reads "committed, delivery pending".
const (
	Active     State = iota + 1 // interactive, branches still enlisting
	Preparing                   // branches sealed, votes being gathered
	Committing                  // decided commit, not yet acknowledged by all
	Aborting                    // decided abort, not yet acknowledged by all
	Committed                   // every branch has acknowledged the commit
	Aborted                     // every branch has acknowledged the abort
)

var stateNames = [...]string{"None", "Active", "Preparing", "Committing", "Aborting", "Committed", "Aborted"}

func (s State) String() string { return name(stateNames[:], int(s)) }

// Decided reports whether the transaction's fate is sealed.
func (s State) Decided() bool { return s >= Committing }

// Finished reports whether nothing is left to be delivered.
func (s State) Finished() bool { return s >= Committed }

// Vote is a branch's answer to prepare.
type Vote uint8

// VoteNone is the zero Vote: not heard yet.
const (
	VoteNone     Vote = iota
	VoteCommit        // staged durably; waits for the decision (rule R7)
	VoteReadOnly      // nothing to do in phase two
	VoteAbort         // nothing kept, or the answer was ambiguous
)

var voteNames = [...]string{"none", "commit", "read-only", "abort"}

func (v Vote) String() string { return name(voteNames[:], int(v)) }

// Decision is the fate of a transaction, written once (rule R1).
type Decision uint8

// Undecided is the zero Decision.
const (
	Undecided Decision = iota
	Commit
	Abort
)

var decisionNames = [...]string{"undecided", "commit", "abort"}

func (d Decision) String() string { return name(decisionNames[:], int(d)) }

// Receipt is how a branch's phase two ended.
type Receipt uint8

// ReceiptNone is the zero Receipt: not acknowledged yet. The heuristics are
// branches that ended against the decision, or whose end nobody can prove; each
// stays visible until an operator resolves it (rules R9 and R10).
const (
	ReceiptNone     Receipt = iota
	Done                    // the branch carried out the decision
	HeuristicCommit         // committed although the decision is abort
	HeuristicAbort          // rolled back although the decision is commit
	HeuristicHazard         // its fate cannot be proven
)

var receiptNames = [...]string{"none", "done", "heuristic-commit", "heuristic-abort", "heuristic-hazard"}

func (r Receipt) String() string { return name(receiptNames[:], int(r)) }

// Heuristic reports whether r tells of damage.
func (r Receipt) Heuristic() bool { return r >= HeuristicCommit }

// ReasonCode classifies why a transaction was aborted.
type ReasonCode uint8

// ReasonNone is the zero ReasonCode, of a transaction that was not aborted.
const (
	ReasonNone        ReasonCode = iota
	ReasonVote                   // a branch voted no
	ReasonUnavailable            // a branch's answer was ambiguous: refused, cut, timed out
	ReasonTimeout                // the transaction's time ran out
	ReasonClient                 // the client asked for it
	ReasonPresumed               // someone asked for an outcome that the log did not know (rule R6)
	ReasonRefused                // staging was refused after prepares had left (rule R4)
	ReasonOperator               // an operator decided it, since its outcome may have been lost (rule R15)
)

var reasonNames = [...]string{"none", "vote", "unavailable", "timeout", "client", "presumed", "refused", "operator"}

func (c ReasonCode) String() string { return name(reasonNames[:], int(c)) }

// MaxReasonDetail bounds Reason.Detail in bytes: it comes from participants and
// is replicated.
const MaxReasonDetail = 512

// Reason says why a transaction was aborted.
type Reason struct {
	Code   ReasonCode
	Branch int    // the branch that caused it, from 1; 0 when none did
	Detail string // in the participant's or client's words, at most MaxReasonDetail bytes
}

func (r Reason) String() string {
	s := r.Code.String()
	if r.Branch != 0 {
		s += fmt.Sprintf(" branch=%d", r.Branch)
	}
	if r.Detail != "" {
		s += fmt.Sprintf(" %q", r.Detail)
	}
	return s
}

// Digest identifies a branch's content, so that a second prepare with another
// content is refused (rule R8).
type Digest [sha256.Size]byte

// Branch is one participant's part of a transaction. Its number is its place in
// Transaction.Branches, counted from 1. A participant has at most one branch in
// a transaction, which makes enlisting idempotent.
type Branch struct {
	Participant string
	// Payload is what the participant is asked to do, opaque to decree. It is
	// dropped at the decision: phase two needs only the branch's name.
	Payload []byte
	Digest  Digest
	// External marks a branch that the application runs itself: it cannot be
	// prepared by decree, so its vote arrives with Prepare (rule R13).
	External bool
	// Vote is set where it is replicated: for an external branch at Prepare, and
	// for a read-only one at the decision. All other votes are the leader's own.
	Vote    Vote
	Receipt Receipt
	// Resolved is what became of the branch by the word of an operator, who ends the
	// delivery or takes note of the damage with it (rule R10); Undecided where none had
	// to. What the participant said stays in Receipt.
	Resolved Decision
}

// NewBranch makes a branch with the digest of its content.
func NewBranch(participant string, payload []byte) Branch {
	return Branch{Participant: participant, Payload: payload, Digest: contentDigest(participant, payload)}
}

// contentDigest hashes the two as fields. What is small is hashed in one piece, on
// the stack.
func contentDigest(participant string, payload []byte) Digest {
	var small [512]byte
	if 2*fieldHead+len(participant)+len(payload) > len(small) {
		return streamedDigest(participant, payload)
	}
	return sha256.Sum256(appendField(appendField(small[:0], participant), payload))
}

func streamedDigest(participant string, payload []byte) (d Digest) {
	h := sha256.New()
	h.Write(appendField(nil, participant))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(payload))))
	h.Write(payload)
	h.Sum(d[:0])
	return d
}

// Owed reports whether phase two still has to reach the branch.
func (b Branch) Owed() bool {
	return b.Receipt == ReceiptNone && b.Vote != VoteReadOnly && b.Resolved == Undecided
}

// damage is how the branch ended against a decision, ReceiptNone where it did not. The
// word of an operator counts for more than that of the participant: it came later.
func (b Branch) damage(d Decision) Receipt {
	switch {
	case b.Resolved == d && d != Undecided:
		return ReceiptNone
	case b.Resolved == Commit:
		return HeuristicCommit
	case b.Resolved == Abort:
		return HeuristicAbort
	case b.Receipt.Heuristic():
		return b.Receipt
	default:
		return ReceiptNone
	}
}

// Fingerprint identifies a transaction's content, so that a retry joins the
// first run and anything else under the same txid is refused (rule R11).
type Fingerprint [sha256.Size]byte

// Transaction is the replicated state of one transaction. It is immutable: Step
// returns a new one, so that snapshots and readers need no lock.
type Transaction struct {
	ID          TxID
	State       State
	Interactive bool
	// Fingerprint is zero in a tombstone, the decision about a transaction whose
	// content nobody here ever learnt: an abort (rule R6), or what an operator
	// decided (rule R15).
	Fingerprint Fingerprint
	Branches    []Branch
	Timeout     time.Duration
	Owner       Owner // who began it; nobody in a tombstone
	Reason      Reason

	Staged   Stamp // when the log learnt of it
	Decided  Stamp // the commit point
	Finished Stamp // when the last branch acknowledged
}

// Stamp places an event in the log: entry index, epoch of the proposer, cluster
// time.
type Stamp struct {
	Index uint64
	Epoch uint64
	At    Time
}

// Deadline is when the transaction is aborted unless decided before.
func (t *Transaction) Deadline() Time { return t.Staged.At.Add(t.Timeout) }

// Tombstone reports whether this is a decision without known content.
func (t *Transaction) Tombstone() bool { return t.Fingerprint == Fingerprint{} }

// Decision is derived from the state.
func (t *Transaction) Decision() Decision {
	switch t.State {
	case Committing, Committed:
		return Commit
	case Aborting, Aborted:
		return Abort
	default:
		return Undecided
	}
}

// Damage is the worst end of all branches: HeuristicHazard while some
// branch's fate is unknown, else a heuristic if any branch went against the
// decision, else ReceiptNone. It stays when an operator has taken note of it.
func (t *Transaction) Damage() Receipt {
	worst := ReceiptNone
	for i := range t.Branches {
		worst = max(worst, t.Branches[i].damage(t.Decision()))
	}
	return worst
}

// Troubled reports whether there is damage that no operator has resolved: then the
// transaction stays whatever its age.
func (t *Transaction) Troubled() bool {
	for i := range t.Branches {
		if b := &t.Branches[i]; b.Receipt.Heuristic() && b.Resolved == Undecided {
			return true
		}
	}
	return false
}

// InDoubt is a transaction as it is where its decision may never have been made (rule
// R15): undecided, with the branches that are known. It is nil for a tombstone, of which
// nothing else is known.
func (t *Transaction) InDoubt() *Transaction {
	if t.Tombstone() {
		return nil
	}
	next := t.clone()
	next.State = Preparing
	if t.Interactive {
		next.State = Active
	}
	next.Reason, next.Decided, next.Finished = Reason{}, Stamp{}, Stamp{}
	for i := range next.Branches {
		b := &next.Branches[i]
		b.Vote, b.Receipt, b.Resolved = VoteNone, ReceiptNone, Undecided
	}
	return next
}

// Branch finds the branch of a participant and its number; 0 means none.
func (t *Transaction) Branch(participant string) (number int) {
	for i, b := range t.Branches {
		if b.Participant == participant {
			return i + 1
		}
	}
	return 0
}

// clone copies t and its branches, so that the copy may be changed.
func (t *Transaction) clone() *Transaction {
	c := *t
	c.Branches = append([]Branch(nil), t.Branches...)
	return &c
}

// ContentFingerprint hashes what makes a transaction the same one: its kind and,
// for a one-shot transaction, each branch's participant and payload in order.
// The branches of an interactive transaction are not part of it, because they
// are not known when it begins.
func ContentFingerprint(interactive bool, branches []Branch) Fingerprint {
	var few [512]byte // bytes of a dozen branches
	content := appendField(few[:0], "one-shot")
	if interactive {
		content = appendField(few[:0], "interactive")
	} else {
		for i := range branches {
			content = appendField(content, branches[i].Digest[:])
		}
	}
	return sha256.Sum256(content)
}

// fieldHead is the length that appendField writes before a field's bytes, so that
// ("ab","c") and ("a","bc") differ.
const fieldHead = 8

func appendField[T string | []byte](to []byte, field T) []byte {
	return append(binary.BigEndian.AppendUint64(to, uint64(len(field))), field...)
}

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("invalid(%d)", i)
}
