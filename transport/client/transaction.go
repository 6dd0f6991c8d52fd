package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Transaction is a one-shot transaction: all of its branches commit, or none.
type Transaction struct {
	// TxID is a UUIDv7 ([NewTxID]); made by Submit when empty. Keep one of your own
	// where a retry may come from another process: the same txid never runs twice.
	TxID     string
	Branches []Branch
	// Timeout aborts the transaction unless it is decided by then; 0 means the
	// server's default, 15s. It is not the call's: that is the context's.
	Timeout time.Duration
	Wait    Wait
}

// Branch is one participant's part. Make it with [JSON], [Bytes] or [External].
type Branch struct {
	participant string
	payload     []byte
	external    bool
	err         error // from JSON; Submit and Enlist return it
}

// JSON is a branch whose payload is v as encoding/json writes it: integers of 64
// bits stay exact, and a json.RawMessage passes through.
func JSON(participant string, v any) Branch {
	payload, err := json.Marshal(v)
	if err != nil {
		err = fmt.Errorf("decree: payload for %q: %w", participant, err)
	}
	return Branch{participant: text(participant), payload: payload, err: err}
}

// Bytes is a branch whose payload is passed on as it is.
func Bytes(participant string, payload []byte) Branch {
	return Branch{participant: text(participant), payload: payload}
}

// External is a branch that the application runs and prepares itself, and whose
// vote it hands to [Tx.Commit]. Only [Tx.Enlist] takes it.
func External(participant string) Branch {
	return Branch{participant: text(participant), external: true}
}

// errExternal refuses what could never get its vote.
var errExternal = errors.New("decree: an external branch needs an interactive transaction: Begin, then Enlist")

// protos are the branches of a one-shot transaction, or all that is wrong with
// them.
func protos(branches []Branch) ([]*decreev1.NewBranch, error) {
	var errs []error
	messages := make([]struct {
		branch  decreev1.NewBranch
		content decreev1.NewBranch_Payload
	}, len(branches)) // all in one piece: a submission is mostly made of these
	list := make([]*decreev1.NewBranch, len(branches))
	for i, b := range branches {
		if b.external {
			errs = append(errs, fmt.Errorf("%w (%q)", errExternal, b.participant))
		}
		if b.err != nil {
			errs = append(errs, b.err)
		}
		m := &messages[i]
		m.content.Payload = b.payload
		m.branch.Participant, m.branch.Content = b.participant, &m.content
		list[i] = &m.branch
	}
	return list, errors.Join(errs...)
}

// Wait says how far a call follows its transaction.
type Wait uint8

// The zero Wait is WaitDelivery.
const (
	WaitDelivery Wait = iota // until every branch has acknowledged the decision
	WaitDecision             // until the decision is replicated
)

func (w Wait) proto() decreev1.Wait {
	if w == WaitDecision {
		return decreev1.Wait_WAIT_DECISION
	}
	return decreev1.Wait_WAIT_DELIVERY
}

// Outcome is the fate of a transaction. It never changes once it is not
// Undecided.
type Outcome uint8

// The outcomes. Only Inquire answers Undecided.
const (
	Undecided Outcome = iota
	Committed
	Aborted
)

func (o Outcome) String() string {
	switch o {
	case Committed:
		return "committed"
	case Aborted:
		return "aborted"
	default:
		return "undecided"
	}
}

// AbortCode classifies why a transaction was aborted.
type AbortCode uint8

// The abort codes.
const (
	AbortUnspecified AbortCode = iota
	AbortVote                  // a branch voted no
	AbortUnavailable           // a branch did not answer prepare, or not clearly
	AbortTimeout               // the transaction's time ran out
	AbortClient                // asked for
	AbortPresumed              // someone asked for the outcome before it was known
	AbortRefused               // refused after prepares had left
	AbortOperator              // decided by an operator, because its outcome may have been lost
)

func (c AbortCode) String() string {
	switch c {
	case AbortVote:
		return "vote"
	case AbortUnavailable:
		return "unavailable"
	case AbortTimeout:
		return "timeout"
	case AbortClient:
		return "client"
	case AbortPresumed:
		return "presumed"
	case AbortRefused:
		return "refused"
	case AbortOperator:
		return "operator"
	default:
		return "unspecified"
	}
}

// AbortReason says why a transaction was aborted.
type AbortReason struct {
	Code        AbortCode
	Branch      int // that caused it, from 1; 0 when none did
	Participant string
	Detail      string // the participant's words, or the client's
}

func (r AbortReason) String() string {
	s := r.Code.String()
	if r.Participant != "" {
		s += fmt.Sprintf(" by %q", r.Participant)
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}

// Damage tells that some branch ended against the decision, or that its end
// cannot be known. Such a branch needs a person.
type Damage uint8

// NoDamage is the zero Damage.
const (
	NoDamage Damage = iota
	HeuristicCommit
	HeuristicAbort
	HeuristicHazard
)

func (d Damage) String() string {
	switch d {
	case NoDamage:
		return "none"
	case HeuristicCommit:
		return "heuristic commit"
	case HeuristicAbort:
		return "heuristic abort"
	default:
		return "heuristic hazard"
	}
}

// Result is what became of a transaction.
type Result struct {
	TxID    string
	Outcome Outcome
	// Delivered reports that every branch has acknowledged. False means that
	// decree goes on delivering, without the client, until it is done.
	Delivered bool
	Reason    AbortReason // of an abort
	Damage    Damage
}

// Err is nil for a committed transaction without damage, an *[AbortedError] for
// one that was aborted, and wraps [ErrDamaged] where a branch went against a
// commit. Of an undecided one it is [ErrUndecided].
func (r Result) Err() error {
	switch {
	case r.Outcome == Aborted:
		return &AbortedError{TxID: r.TxID, Reason: r.Reason, Damage: r.Damage}
	case r.Outcome == Undecided:
		return fmt.Errorf("%w: %s", ErrUndecided, r.TxID)
	case r.Damage != NoDamage:
		return fmt.Errorf("%w: %s, %s", ErrDamaged, r.TxID, r.Damage)
	default:
		return nil
	}
}

// Errors of [Result.Err].
var (
	ErrDamaged   = errors.New("decree: committed, but a branch went against the decision")
	ErrUndecided = errors.New("decree: not decided yet")
)

// AbortedError says that a transaction was aborted: none of its branches took
// effect, unless there is Damage. It matches [ErrAborted].
type AbortedError struct {
	TxID   string
	Reason AbortReason
	Damage Damage
}

func (e *AbortedError) Error() string {
	s := fmt.Sprintf("decree: %s was aborted: %s", e.TxID, e.Reason)
	if e.Damage != NoDamage {
		s += fmt.Sprintf("; a branch went against the decision (%s)", e.Damage)
	}
	return s
}

// Is matches [ErrAborted].
func (e *AbortedError) Is(target error) bool { return target == ErrAborted }

// resultOf reads a result off the wire. The enums above are declared in the
// order of the wire's.
func resultOf(p *decreev1.Result) Result {
	r := Result{TxID: p.GetTxid(), Outcome: Outcome(p.GetOutcome()), Delivered: p.GetDelivered()}
	if why := p.GetReason(); why != nil {
		r.Reason = AbortReason{
			Code:        AbortCode(why.GetCode()),
			Branch:      int(why.GetBranch()),
			Participant: why.GetParticipant(),
			Detail:      why.GetDetail(),
		}
	}
	if p.GetDamage() >= decreev1.Receipt_RECEIPT_HEURISTIC_COMMIT {
		r.Damage = Damage(p.GetDamage() - decreev1.Receipt_RECEIPT_DONE)
	}
	return r
}

// text makes a string one that a message can hold, for gRPC would call it an
// internal error otherwise; the server then says what is wrong with it.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// durationProto leaves out what the server has a default for.
func durationProto(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
