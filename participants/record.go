package participants

import (
	"errors"
	"fmt"
	"strings"

	"github.com/decree-tx/decree/fsm/txn"
)

// What a participant has to remember, and what that makes it answer, is the same
// for every resource that keeps its own books. It stands here once, as pure
// functions; a driver adds where the books are kept and what the work is.

// MaxClusterID bounds Branch.Cluster in bytes, so that it fits into the keys
// under which participants remember branches.
const MaxClusterID = 255

// Validate reports what is wrong with a branch's name, all of it at once. A
// branch that fails it has never been known to anybody.
func (b Branch) Validate() error {
	var problems []error
	if b.Cluster == "" || len(b.Cluster) > MaxClusterID {
		problems = append(problems, fmt.Errorf("cluster id of %d bytes, want 1 to %d", len(b.Cluster), MaxClusterID))
	}
	if err := b.TxID.Validate(); err != nil {
		problems = append(problems, err)
	}
	if b.Number < 1 || b.Number > txn.MaxBranches {
		problems = append(problems, fmt.Errorf("branch number %d, want 1 to %d", b.Number, txn.MaxBranches))
	}
	return errors.Join(problems...)
}

// Fence is what a participant remembers of a cluster, durably: the highest epoch
// and the highest horizon that it has heard. The zero Fence is that of a cluster
// that never spoke.
type Fence struct {
	Epoch   uint64
	Horizon txn.Time
}

// Admit lets a message pass and raises the fence by it, or refuses it with
// ErrStaleEpoch and changes nothing (rules R8 and R11).
func (f Fence) Admit(b Branch) (Fence, error) {
	if b.Epoch < f.Epoch {
		return f, fmt.Errorf("%w: epoch %d, heard of %d", ErrStaleEpoch, b.Epoch, f.Epoch)
	}
	return Fence{Epoch: b.Epoch, Horizon: max(f.Horizon, b.Horizon)}, nil
}

// Expired reports whether a txid lies before the horizon: what was remembered of
// it may be gone, so it may never begin anew (rule R11).
func (f Fence) Expired(id txn.TxID) bool { return id.Time() < f.Horizon }

// Record is what a participant remembers of a branch. The zero Record is that of
// a branch it does not know. A record ends at StatusCommitted or StatusAborted
// and is forgotten only once its txid lies before the horizon.
type Record struct {
	Status Status
	Digest txn.Digest // of the content that was prepared; zero where none was
	Reason string     // why it was aborted, for people
}

// Prepared is the record of a branch that voted yes.
func (b Branch) Prepared() Record { return Record{Status: StatusPrepared, Digest: b.Digest} }

// Refused is the record of a branch that voted no: one that comes again must
// hear the same.
func Refused(v Vote) Record {
	reason := v.Reason
	if len(reason) > txn.MaxReasonDetail {
		reason = reason[:txn.MaxReasonDetail]
	}
	// The cut may have split a character, and the wire takes UTF-8 only.
	return Record{Status: StatusAborted, Reason: strings.ToValidUTF8(reason, "")}
}

// Prepare answers a prepare from memory. False means that the branch is new: the
// resource must be asked.
func (r Record) Prepare(f Fence, b Branch) (Vote, bool) {
	switch {
	case r.Status == StatusAborted && r.Reason != "":
		return No("%s", r.Reason), true
	case r.Status == StatusAborted:
		return No("the branch was aborted before"), true // R8
	case r.Status != StatusUnknown && r.Digest != b.Digest:
		return No("the branch is %s with other content", r.Status), true // R8
	case r.Status != StatusUnknown:
		return Yes(), true
	case f.Expired(b.TxID):
		return No("the transaction id is older than the retention horizon"), true // R11
	default:
		return Vote{}, false
	}
}

// Commit answers a commit: the record that follows, and a *Heuristic where the
// branch ended otherwise. Where the record moves from prepared to committed, the
// staged changes are to be made visible in the same step.
//
// A commit that finds nothing is damage (rule R9), and the branch is closed for
// prepares that are still under way, so that the damage reported stays true.
func (r Record) Commit(f Fence, b Branch) (Record, error) {
	switch r.Status {
	case StatusPrepared, StatusCommitted:
		return Record{Status: StatusCommitted, Digest: r.Digest}, nil
	case StatusAborted:
		return r, &Heuristic{txn.HeuristicAbort, "the branch " + b.Name() + " was aborted before"}
	}
	if f.Expired(b.TxID) {
		return r, &Heuristic{txn.HeuristicHazard, "the branch " + b.Name() + " lies before the horizon: what became of it may be forgotten"}
	}
	return Record{Status: StatusAborted, Reason: "a commit came while the branch was not prepared"},
		&Heuristic{txn.HeuristicAbort, "the branch " + b.Name() + " is not prepared, and nothing shows that it was committed"}
}

// Abort answers an abort, as Commit does a commit. A branch that was not known
// becomes a tombstone (rule R8), unless the horizon refuses it already.
func (r Record) Abort(f Fence, b Branch) (Record, error) {
	switch {
	case r.Status == StatusCommitted:
		return r, &Heuristic{txn.HeuristicCommit, "the branch " + b.Name() + " was committed before"}
	case r.Status == StatusAborted, r.Status == StatusUnknown && f.Expired(b.TxID):
		return r, nil
	default:
		return Record{Status: StatusAborted}, nil
	}
}
