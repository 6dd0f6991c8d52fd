package coordinator

import (
	"cmp"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Meter counts what a coordinator does while it leads, for people; it has no part in
// the protocol. Decided, Delivered and Called come with every transaction and with
// locks held: they must not block, and what they allocate is paid by every
// transaction.
type Meter interface {
	// Decided is told of each transaction whose decision is applied under this leader.
	Decided(Decided)
	// Delivered is told once every branch has acknowledged the decision, and how long
	// after it was applied, or after this leader took it over.
	Delivered(id txn.TxID, took time.Duration)
	// Refused is told of each new transaction that was not admitted.
	Refused(error)
	// Participant returns what counts the calls to one participant. It is asked once
	// for each in a term, and must return the same for the same name until that is
	// Unregistered.
	Participant(name string) ParticipantMeter
	Unregistered(name string)
}

// ParticipantMeter counts the calls to one participant.
type ParticipantMeter interface {
	// Called is told of a call that has ended. A prepare's time includes that of its
	// staging where it had to wait for that (rule R4).
	Called(kind txn.WorkKind, result CallResult, took time.Duration)
}

// Decided is one transaction at its commit point.
type Decided struct {
	TxID     txn.TxID
	Decision txn.Decision
	Reason   txn.ReasonCode // of an abort
	// Preparing is the time from the transaction's admission, or from the call that
	// ended its enlisting, or since this leader took it over, until its decision was
	// proposed; Deciding that from there until it was applied. An interactive
	// transaction that is aborted before it is sealed has spent none on preparing.
	Preparing, Deciding time.Duration
	// Tombstone is the abort of a txid that nobody had submitted (rule R6).
	Tombstone bool
}

// CallResult is how one call to a participant ended.
type CallResult uint8

// The results. The first three are votes.
const (
	CallYes       CallResult = iota
	CallReadOnly             // a vote, with nothing to do in phase two
	CallNo                   // a definite no
	CallDone                 // a delivery was acknowledged
	CallHeuristic            // the branch had ended against the decision
	CallFailed               // an error: ambiguous of a prepare, to be repeated of a delivery
	CallGivenUp              // a prepare whose answer no longer mattered
	CallResults              // how many there are
)

var callResultNames = [CallResults]string{"yes", "read-only", "no", "done", "heuristic", "failed", "given-up"}

func (r CallResult) String() string { return callResultNames[r] }

// Answers reports whether a call of a kind may end so.
func (r CallResult) Answers(kind txn.WorkKind) bool {
	switch r {
	case CallYes, CallReadOnly, CallNo, CallGivenUp:
		return kind == txn.PrepareBranch
	case CallDone, CallHeuristic:
		return kind != txn.PrepareBranch
	default:
		return true
	}
}

func prepareResult(v participants.Vote, err error) CallResult {
	switch {
	case err != nil:
		return CallFailed
	case v.Kind == txn.VoteCommit:
		return CallYes
	case v.Kind == txn.VoteReadOnly:
		return CallReadOnly
	default:
		return CallNo
	}
}

// unmetered is the Meter of who wants none.
type unmetered struct{}

func (unmetered) Decided(Decided)                                {}
func (unmetered) Delivered(txn.TxID, time.Duration)              {}
func (unmetered) Refused(error)                                  {}
func (unmetered) Unregistered(string)                            {}
func (unmetered) Participant(string) ParticipantMeter            { return unmetered{} }
func (unmetered) Called(txn.WorkKind, CallResult, time.Duration) {}

// noteSeal starts the measure of an interactive transaction where the application is
// through with it. mu is held.
func (t *term) noteSeal(d *drive, tx *txn.Transaction) {
	if d.known != nil && d.known.State == txn.Active && tx.State != txn.Active {
		d.sealed = cmp.Or(d.chronicle.deciding, t.moment())
	}
}

// noteDecision counts a decision, unless it was made under an earlier leader. mu is
// held.
func (t *term) noteDecision(d *drive, tx *txn.Transaction) {
	c := &d.chronicle
	if tx.Decided.Epoch != t.epoch || c.decided != 0 {
		return
	}
	c.decided = t.moment()
	proposed := cmp.Or(c.deciding, c.decided) // by a call, such as Inquire's
	t.cfg.Meter.Decided(Decided{
		TxID: d.id, Decision: tx.Decision(), Reason: tx.Reason.Code,
		Preparing: time.Duration(proposed - cmp.Or(d.sealed, c.begun)), Deciding: time.Duration(c.decided - proposed),
	})
}

// noteDelivery counts the end of a transaction. mu is held.
func (t *term) noteDelivery(d *drive) {
	c := &d.chronicle
	if c.delivered != 0 {
		return
	}
	c.delivered = t.moment()
	t.cfg.Meter.Delivered(d.id, time.Duration(c.delivered-cmp.Or(c.decided, c.begun)))
	t.tellSlow(d)
}

// noteTombstone counts the abort of a transaction that nobody drives. mu is held.
func (t *term) noteTombstone(c txn.Command, tx *txn.Transaction, err error) {
	switch c.(type) {
	case txn.Presume, txn.Decide: // a call's
		if err == nil && tx.Tombstone() && t.live[tx.ID] == nil {
			t.cfg.Meter.Decided(Decided{TxID: tx.ID, Decision: txn.Abort, Reason: tx.Reason.Code, Tombstone: true})
		}
	}
}

// Load is what one participant has before it, as this leader sees it.
type Load struct {
	Participant       string
	Unfinished        int           // transactions with a branch that is not ended there
	Preparing         int           // prepares under way
	PreparesWaiting   int           // prepares that wait for those
	Delivering        int           // deliveries under way
	DeliveriesWaiting int           // deliveries that wait for those, or for their next attempt
	Failures          int           // deliveries that failed since the last that did not
	Pace              time.Duration // of prepares, lately
	// Orphans is how many branches the last scan found prepared there that no transaction
	// drives, and Scanned when it was, by cluster time; zero where there was none.
	Orphans int
	Scanned txn.Time
}

// Down reports whether the participant is tried with one delivery at a time, until
// one succeeds.
func (l Load) Down() bool { return l.Failures >= downAfter }

// Loads tells what each participant has before it, in no order; nil where this node
// does not lead.
func (c *Coordinator) Loads() []Load {
	t := c.current()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	loads := make([]Load, 0, len(t.lanes))
	for _, l := range t.lanes {
		loads = append(loads, Load{
			Participant: l.name, Unfinished: l.open.Len(),
			Preparing: l.preparing, PreparesWaiting: l.prepares.len(),
			Delivering: l.delivering, DeliveriesWaiting: l.deliveries.Len(),
			Failures: l.failures, Pace: time.Duration(l.pace), Orphans: l.orphans, Scanned: t.reign.time(l.scanned),
		})
	}
	return loads
}
