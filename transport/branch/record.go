package branch

import (
	"encoding/json"
	"errors"
	"fmt"
)

// State is where a branch stands in this service's books. The zero State is that of
// a branch that they do not know. It is kept by its name.
type State uint8

// The first two wait for the decision, the others are ends.
const (
	stateUnknown   State = iota // there is no record
	stateIntent                 // Foreign.Prepare may have run; no vote was given
	statePrepared               // voted yes
	stateReadOnly               // voted read-only
	stateCommitted              // committed
	stateAborted                // voted no, was aborted, or is a HeuristicAbort
	stateHazard                 // nobody knows
)

var stateNames = [...]string{"unknown", "intent", "prepared", "read-only", "committed", "aborted", "hazard"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("invalid(%d)", s)
}

// Open reports whether the branch waits for its decision. The others are ends.
func (s State) Open() bool { return s == stateIntent || s == statePrepared }

// MarshalText keeps books readable by name, so that a state may be added without
// renumbering what is on disk.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote. It fails on anything else, such as
// the state of a newer version.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) && State(i) != stateUnknown {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("unknown branch state %q: written by a newer version", text)
}

// Record is what the books say of one branch. The zero Record is that of a branch
// that they do not know.
type Record struct {
	State   State    `json:"state"`
	Digest  []byte   `json:"digest,omitempty"`  // of what was prepared
	Payload []byte   `json:"payload,omitempty"` // while the branch is open
	Holds   []string `json:"holds,omitempty"`   // while the branch is open
	Reason  string   `json:"reason,omitempty"`  // of an abort or a hazard
}

func (r Record) marshal() ([]byte, error) { return json.Marshal(r) }

// Fence is the highest epoch and horizon that a cluster's messages carried. The
// zero Fence is that of a cluster that never spoke.
type Fence struct {
	Epoch   uint64
	Horizon int64 // nanoseconds since the Unix epoch
}

// admit is the fence once a message has passed it, or the message's refusal: its
// epoch is over (rule R8).
func (f Fence) admit(m message) (Fence, error) {
	if m.epoch < f.Epoch {
		return f, fmt.Errorf("%w: epoch %d, heard of %d", errStaleEpoch, m.epoch, f.Epoch)
	}
	return Fence{Epoch: m.epoch, Horizon: max(f.Horizon, m.horizon)}, nil
}

// expired reports whether a txid lies before the horizon: what was known of it
// may be forgotten, so it may never begin anew.
func (f Fence) expired(id txid) bool { return id.time() < f.Horizon }

func unmarshalRecord(raw []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return Record{}, fmt.Errorf("a record in the file cannot be read: %w", err)
	}
	return r, nil
}

// ErrClusters refuses a cluster that is one too many for a service: each one's books
// are kept for ever.
var ErrClusters = errors.New("too many clusters have used this service")

// Errors with which the books refuse a message.
var (
	errStaleEpoch = errors.New("the caller's epoch is over")
	errFull       = errors.New("too many branches wait for their decision")

	errHazard = errors.New("what became of the branch is not known")
	errStuck  = errors.New("the branch lies before the horizon and an earlier prepare of it has not ended: it waits for an abort")
)

// prepare answers a prepare from the books. False means that they have no answer
// and the service must be asked.
func (r Record) prepare(f Fence, m message) (Vote, bool, error) {
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

// record is what the vote of a service's function makes of a new branch. failed is
// the error that came with the vote; any error means that there is no vote.
func (v Vote) record(function string, m message, failed error) (Record, error) {
	if failed != nil {
		return Record{}, &serviceError{function, failed}
	}
	switch v.kind {
	case voteYes:
		return Record{State: statePrepared, Digest: m.digest, Payload: m.branch.Payload}, nil
	case voteReadOnly:
		return Record{State: stateReadOnly, Digest: m.digest}, nil
	case voteNo:
		return Record{State: stateAborted, Reason: v.reason}, nil
	default:
		return Record{}, &serviceError{function, errors.New("it gave neither a vote nor an error")}
	}
}

// ending is one of the two ways in which a branch that waits can end.
type ending struct {
	name      string // of the service's function
	state     State  // of a branch for which that function has returned nil
	against   State  // of one that the service says went the other way
	tombstone string // why a branch that was not known is refused from now on
	// books answer what is known: nil where it was done before, a *Heuristic where
	// it cannot be. Where nothing is known the service must do it.
	books func(r Record, expired bool) (known bool, answer error)
}

func commitEnding() ending {
	return ending{
		name:      "Commit",
		state:     stateCommitted,
		against:   stateAborted,
		tombstone: "a commit came while the branch was not prepared",
		books:     Record.commit,
	}
}

func abortEnding() ending {
	return ending{
		name:    "Abort",
		state:   stateAborted,
		against: stateCommitted,
		books:   Record.abort,
	}
}

// commit is what the books answer to a commit (rule R9).
func (r Record) commit(expired bool) (known bool, answer error) {
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
func (r Record) abort(bool) (known bool, answer error) {
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

func (r Record) because(otherwise string) string {
	if r.Reason != "" {
		return r.Reason
	}
	return otherwise
}

// answer is what the books say, if they know, and the record that closes the
// branch where that answer must stay true: one that was not known, or was read-only
// and is now aborted, is refused if its prepare is still on its way (rule R8). An
// unknown one from before the horizon is refused anyway.
func (how ending) answer(r Record, expired bool) (known bool, closing *Record, answer error) {
	known, answer = how.books(r, expired)
	if r.State == stateUnknown && !expired || r.State == stateReadOnly && how.state == stateAborted {
		closing = &Record{State: stateAborted, Reason: how.tombstone}
	}
	return known, closing, answer
}

// record is what the service's answer makes of a branch that waited, or the error
// where it makes nothing of it.
func (how ending) record(was Record, answer error) (Record, error) {
	var h *Heuristic
	switch {
	case answer == nil:
		return Record{State: how.state, Digest: was.Digest}, nil
	case !errors.As(answer, &h):
		return Record{}, &serviceError{how.name, answer}
	case h.fate != how.against && h.fate != stateHazard:
		// Not wrapped: nobody may find a heuristic in what is none.
		return Record{}, &serviceError{how.name, fmt.Errorf("no answer to it: %v", answer)}
	default:
		return Record{State: h.fate, Digest: was.Digest, Reason: h.detail}, nil
	}
}

// serviceError is an error of the author's functions. It means "not known".
type serviceError struct {
	function string
	err      error
}

func (e *serviceError) Error() string { return fmt.Sprintf("the service's %s: %s", e.function, e.err) }
func (e *serviceError) Unwrap() error { return e.err }
