package branch

import (
	"encoding/json"
	"errors"
	"fmt"
)

// state is where a branch stands in this service's books.
type state uint8

// The first two wait for the decision, the others are ends.
const (
	stateUnknown   state = iota // there is no record
	stateIntent                 // Foreign.Prepare may have run; no vote was given
	statePrepared               // voted yes
	stateReadOnly               // voted read-only
	stateCommitted              // committed
	stateAborted                // voted no, was aborted, or is a HeuristicAbort
	stateHazard                 // nobody knows
)

var stateNames = [...]string{"unknown", "intent", "prepared", "read-only", "committed", "aborted", "hazard"}

func (s state) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("invalid(%d)", s)
}

// open reports whether the branch waits for its decision.
func (s state) open() bool { return s == stateIntent || s == statePrepared }

// MarshalText and UnmarshalText keep the file readable by name, so that a state
// may be added without renumbering what is on disk.
func (s state) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *state) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) && state(i) != stateUnknown {
			*s = state(i)
			return nil
		}
	}
	return fmt.Errorf("unknown branch state %q: written by a newer version", text)
}

// record is what the books say of one branch.
type record struct {
	State   state    `json:"state"`
	Digest  []byte   `json:"digest,omitempty"`  // of what was prepared
	Payload []byte   `json:"payload,omitempty"` // while the branch is open
	Holds   []string `json:"holds,omitempty"`   // while the branch is open
	Reason  string   `json:"reason,omitempty"`  // of an abort or a hazard
}

func (r record) marshal() ([]byte, error) { return json.Marshal(r) }

func unmarshalRecord(raw []byte) (record, error) {
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return record{}, fmt.Errorf("a record in the file cannot be read: %w", err)
	}
	return r, nil
}

var (
	errHazard = errors.New("what became of the branch is not known")
	errStuck  = errors.New("the branch lies before the horizon and an earlier prepare of it has not ended: it waits for an abort")
)

// prepare answers a prepare from the books. False means that they have no answer
// and the service must be asked.
func (r record) prepare(f fence, m message) (Vote, bool, error) {
	switch {
	case r.State == stateUnknown && f.expired(m.id):
		return No("the transaction id is older than the retention horizon"), true, nil // R11
	case r.State == stateUnknown:
		return Vote{}, false, nil
	case r.State == stateAborted && r.Reason != "":
		return No("%s", r.Reason), true, nil // a no stays the same no
	case r.State == stateAborted:
		return No("the branch was aborted before"), true, nil // R8
	case r.State == stateHazard:
		return Vote{}, true, errHazard
	case string(r.Digest) != string(m.digest):
		return No("the branch is %s with other content", r.State), true, nil // R8
	case r.State == stateReadOnly:
		return ReadOnly(), true, nil
	case r.State == stateIntent && f.expired(m.id):
		return Vote{}, true, errStuck
	case r.State == stateIntent:
		return Vote{}, false, nil
	default:
		return Yes(), true, nil
	}
}

// record is what the vote makes of a new branch. failed is the error that came
// with the vote; any error means that there is no vote.
func (v Vote) record(m message, failed error) (record, error) {
	if failed != nil {
		return record{}, &serviceError{"Prepare", failed}
	}
	switch v.kind {
	case voteYes:
		return record{State: statePrepared, Digest: m.digest, Payload: m.branch.Payload}, nil
	case voteReadOnly:
		return record{State: stateReadOnly, Digest: m.digest}, nil
	case voteNo:
		return record{State: stateAborted, Reason: v.reason}, nil
	default:
		return record{}, &serviceError{"Prepare", errors.New("it gave neither a vote nor an error")}
	}
}

// ending is one of the two ways in which a branch that waits can end.
type ending struct {
	name      string // of the service's function
	state     state  // of a branch for which that function has returned nil
	against   state  // of one that the service says went the other way
	tombstone string // why a branch that was not known is refused from now on
	// books answer what is known: nil where it was done before, a *Heuristic where
	// it cannot be. Where nothing is known the service must do it.
	books func(r record, expired bool) (known bool, answer error)
}

func commitEnding() ending {
	return ending{
		name:      "Commit",
		state:     stateCommitted,
		against:   stateAborted,
		tombstone: "a commit came while the branch was not prepared",
		books:     record.commit,
	}
}

func abortEnding() ending {
	return ending{
		name:    "Abort",
		state:   stateAborted,
		against: stateCommitted,
		books:   record.abort,
	}
}

// commit is what the books answer to a commit (rule R9).
func (r record) commit(expired bool) (known bool, answer error) {
	switch {
	case r.State == statePrepared:
		return false, nil
	case r.State == stateCommitted, r.State == stateReadOnly:
		return true, nil
	case r.State == stateAborted:
		return true, HeuristicAbort(r.because("the branch was aborted before"))
	case r.State == stateHazard:
		return true, HeuristicHazard(r.Reason)
	case r.State == stateIntent:
		return true, HeuristicHazard("the branch never voted here, so nothing shows what its prepare left")
	case expired:
		return true, HeuristicHazard("the branch lies before the horizon: what became of it may be forgotten")
	default:
		return true, HeuristicAbort("the branch is not prepared, and nothing shows that it was committed")
	}
}

// abort is what the books answer to an abort.
func (r record) abort(bool) (known bool, answer error) {
	switch r.State {
	case statePrepared, stateIntent:
		return false, nil
	case stateCommitted:
		return true, HeuristicCommit(r.because("the branch was committed before"))
	case stateHazard:
		return true, HeuristicHazard(r.Reason)
	default:
		return true, nil
	}
}

func (r record) because(otherwise string) string {
	if r.Reason != "" {
		return r.Reason
	}
	return otherwise
}

// answer is what the books say, if they know. A branch that was not known, or was
// read-only and is now aborted, is closed with that answer: a prepare which is
// still on its way is refused (rule R8), so that the answer stays true. An unknown
// one from before the horizon is refused anyway.
func (how ending) answer(e *entry, m message) (answer error, known bool, err error) {
	expired := e.fence.expired(m.id)
	known, answer = how.books(e.record, expired)
	switch was := e.record.State; {
	case was == stateUnknown && !expired, was == stateReadOnly && how.state == stateAborted:
		err = e.put(record{State: stateAborted, Reason: how.tombstone})
	}
	return answer, known, err
}

// record is what the service's answer makes of a branch that waited, or the error
// where it makes nothing of it.
func (how ending) record(was record, answer error) (record, error) {
	var h *Heuristic
	switch {
	case answer == nil:
		return record{State: how.state, Digest: was.Digest}, nil
	case !errors.As(answer, &h):
		return record{}, &serviceError{how.name, answer}
	case h.fate != how.against && h.fate != stateHazard:
		// Not wrapped: nobody may find a heuristic in what is none.
		return record{}, &serviceError{how.name, fmt.Errorf("no answer to it: %v", answer)}
	default:
		return record{State: h.fate, Digest: was.Digest, Reason: h.detail}, nil
	}
}

// serviceError is an error of the author's functions. It means "not known".
type serviceError struct {
	function string
	err      error
}

func (e *serviceError) Error() string { return fmt.Sprintf("the service's %s: %s", e.function, e.err) }
func (e *serviceError) Unwrap() error { return e.err }
