package txn

import "errors"

// Drive is what one leader does, in one epoch, about one transaction: which votes
// and receipts it has heard, what it has asked for, and whether a decision of its
// is on its way. It is volatile: the next leader makes its own from the replicated
// state (rule R13).
//
// A drive does nothing itself. Each event returns the [Acts] that it made due, and
// the caller carries them out; the caller also keeps the clock, the queues and the
// people who wait. So the server and the simulation make the same decisions. It is
// not safe for concurrent use.
type Drive struct {
	id       TxID
	print    Fingerprint // of the content; zero for a tombstone
	owner    Owner       // who began it
	branches []Branch    // as proposed or as last applied

	tx        *Transaction // as last applied; nil until staged
	ballot    Ballot
	early     bool // prepares left, or may have, before staging was applied
	proposing bool // a decision is on its way through the log, perhaps behind its staging
	stopped   bool // it met an unknown outcome, or failed: it goes no further

	asked []WorkKind // by branch: the work last asked for
	heard []Receipt  // by branch: phase two's answers, replicated or not
}

// Acts is what an event made due. The zero Acts is nothing.
type Acts struct {
	Propose Command // to be written to the log; nil for none
	Calls   []Work  // to be asked of the branches' participants
	// Refused says that the client is to be told the error with which the log
	// answered, whatever else is to be done.
	Refused bool
	End     End
}

// End says whether the drive goes on.
type End uint8

// The ends. After Settle the drive does nothing more: the caller passes a barrier,
// looks what is applied, and calls [Drive.Settled] (rule R5). After Release nothing
// is left to be done, and the caller forgets the drive.
const (
	GoesOn End = iota
	Settle
	Release
)

// Fate is what became of a proposal.
type Fate uint8

// The fates. Only the first two come from the state machine.
const (
	Applied   Fate = iota // it answered with a state
	Refused               // it answered with an error; nothing changed
	Unwritten             // certainly not in the log, now or later
	Unclear               // perhaps in the log, now or later (rule R5)
)

// Open begins a new transaction. Where early is set its prepares leave beside the
// staging entry, which is right only where every branch's participant can list
// what it holds prepared (rule R4). An interactive transaction has no prepares yet.
func Open(s Stage, early bool) (*Drive, Acts) {
	d := newDrive(s.ID, s.Branches, ContentFingerprint(s.Interactive, s.Branches))
	d.owner = s.Owner
	a := Acts{Propose: s}
	if d.early = early && len(s.Branches) > 0; d.early {
		for i := range s.Branches {
			a.Calls = d.ask(a.Calls, Work{PrepareBranch, i + 1})
		}
	}
	return d, a
}

// TimeIsUp is the reason of a transaction that was not decided before its deadline.
var TimeIsUp = Reason{Code: ReasonTimeout, Detail: "the transaction's time ran out"}

// Resume takes a transaction up from its applied state: at the beginning of an
// epoch, and after an unknown outcome. now is cluster time.
func Resume(tx *Transaction, now Time) (*Drive, Acts) {
	d := newDrive(tx.ID, tx.Branches, tx.Fingerprint)
	d.owner = tx.Owner
	if !tx.State.Decided() && now >= tx.Deadline() {
		d.ballot.Withdraw(TimeIsUp)
	}
	return d, d.advance(tx)
}

func newDrive(id TxID, branches []Branch, print Fingerprint) *Drive {
	d := &Drive{id: id, print: print, ballot: NewBallot(branches)}
	d.adopt(branches)
	return d
}

// adopt follows the branches of the applied state: they grow while a transaction is
// Active, and a tombstone that came before staging has none.
func (d *Drive) adopt(branches []Branch) {
	d.branches = branches
	n := min(len(d.heard), len(branches))
	d.asked, d.heard = d.asked[:n], d.heard[:n]
	for len(d.heard) < len(branches) {
		d.asked = append(d.asked, 0)
		d.heard = append(d.heard, ReceiptNone)
	}
}

// Answered takes what became of the drive's own proposal: a Stage, a Decide or an
// Acknowledge. tx is the state after it; err is why it was refused.
func (d *Drive) Answered(c Command, f Fate, tx *Transaction, err error) Acts {
	if d.stopped {
		return Acts{}
	}
	if _, ok := c.(Stage); ok {
		return d.staged(f, tx, err)
	}
	return d.written(c, f, tx, err)
}

// Noticed takes what became of somebody else's command about the transaction. One
// that is being staged learns what is so from its own entry.
func (d *Drive) Noticed(f Fate, tx *Transaction) Acts {
	switch {
	case d.stopped || d.tx == nil:
		return Acts{}
	case f == Unclear:
		return d.stop()
	case f == Applied:
		return d.advance(tx)
	default:
		return Acts{}
	}
}

// staged takes the answer to the staging entry.
func (d *Drive) staged(f Fate, tx *Transaction, err error) Acts {
	switch {
	case f == Unclear:
		return d.stop()
	case f == Unwritten: // what prepared meanwhile is the orphan scan's to find
		d.stopped = true
		return Acts{Refused: true, End: Release}
	case f == Refused:
		a := d.refused(err)
		a.Refused = true
		return a
	case tx.Tombstone() && tx.Decision() == Abort && d.early:
		return d.refused(nil)
	default:
		return d.advance(tx)
	}
}

// refused ends a transaction that the state machine would not stage. Where prepares
// have left, their abort is logged and delivered (rule R4). why is nil where the
// transaction turned out to be aborted already.
func (d *Drive) refused(why error) Acts {
	if !d.early || errors.Is(why, ErrContentMismatch) {
		d.stopped = true
		return Acts{End: Release}
	}
	return Acts{Propose: d.decide(Decide{
		Decision: Abort,
		Reason:   Reason{Code: ReasonRefused, Detail: "refused after prepares had left"},
		Branches: withoutPayloads(d.branches),
	})}
}

// withoutPayloads copies branches as an abort needs them. With their payloads,
// which may be what staging was refused for, the abort could be refused too.
func withoutPayloads(branches []Branch) []Branch {
	bare := append([]Branch(nil), branches...)
	for i := range bare {
		bare[i].Payload = nil
	}
	return bare
}

// written takes the answer to a decision or to receipts. What became of a decision
// is read from the state, which may hold another one that was first (rule R1). Even
// a definite refusal leaves the outcome to the next leader: to this one it is
// unknown.
func (d *Drive) written(c Command, f Fate, tx *Transaction, err error) Acts {
	_, receipts := c.(Acknowledge)
	decision, _ := c.(Decide)
	switch {
	case decision.Decision == Commit && d.tx == nil && (f == Applied || f == Refused):
		// A commit that followed its staging into the log. The staging was refused, or
		// met a tombstone: the commit was nothing then, and an abort is on its way.
		return Acts{}
	case f == Applied:
		if !receipts {
			d.proposing = false
		}
		return d.advance(tx)
	case f == Refused && receipts && errors.Is(err, ErrUnknown): // finished and forgotten meanwhile
		return Acts{End: Release}
	default:
		return d.stop()
	}
}

// stop ends a drive that cannot know what is so (rule R5).
func (d *Drive) stop() Acts {
	d.stopped = true
	return Acts{End: Settle}
}

// Settled goes on, after a barrier, with a transaction whose drive stopped, from
// what the barrier has shown: tx, nil where the log does not know it. There is no
// drive where nothing is left to be done.
//
// Where staging certainly failed after prepares had left, it is the drive that
// aborts them (rule R4).
func (d *Drive) Settled(tx *Transaction, now Time) (*Drive, Acts) {
	unstaged := tx == nil && d.tx == nil || tx != nil && tx.Tombstone() && tx.Decision() == Abort && len(tx.Branches) == 0
	switch {
	case d.early && unstaged:
		next := newDrive(d.id, d.branches, d.print)
		next.early, next.owner = true, d.owner
		return next, next.refused(nil)
	case tx != nil && !tx.State.Finished():
		return Resume(tx, now)
	default:
		return nil, Acts{}
	}
}

// advance takes over a newly applied state and asks for what is still owed to it.
// It is the one path of live work and recovery (rule R13): what was asked for
// before is not asked for twice.
func (d *Drive) advance(tx *Transaction) Acts {
	if d.tx != nil && precedes(tx, d.tx) {
		return Acts{} // a barrier has shown this drive a later state already
	}
	d.absorb(tx)
	a := Acts{Propose: d.consider()}
	for _, w := range Pending(tx) {
		a.Calls = d.ask(a.Calls, w)
	}
	if tx.State.Finished() {
		a.End = Release
	}
	return a
}

// absorb notes a newly applied state.
func (d *Drive) absorb(tx *Transaction) {
	sealed := d.tx != nil && d.tx.State == Active && tx.State == Preparing
	d.adopt(tx.Branches)
	d.tx = tx
	if sealed {
		d.ballot = NewBallot(tx.Branches)
	}
	d.ballot.Stage()
	if !tx.State.Decided() {
		return
	}
	for i, b := range tx.Branches {
		if !b.Owed() && d.heard[i] == ReceiptNone {
			d.heard[i] = max(b.Receipt, Done)
		}
	}
}

// ask appends work for a branch, unless it was asked for already, or is a prepare
// that could not change the decision any more.
func (d *Drive) ask(calls []Work, w Work) []Work {
	if w.Branch == 0 || d.asked[w.Branch-1] == w.Kind || w.Kind == PrepareBranch && d.proposing {
		return calls
	}
	d.asked[w.Branch-1] = w.Kind
	return append(calls, w)
}

// consider returns the decision as soon as the ballot has one. After the decision
// none is needed.
func (d *Drive) consider() Command {
	if d.stopped || d.proposing || d.Decided() {
		return nil
	}
	verdict, ok := d.ballot.Verdict()
	if !ok {
		return nil
	}
	return d.decide(verdict)
}

func (d *Drive) decide(c Decide) Command {
	d.proposing = true
	c.ID = d.id
	return c
}

// Voted takes a branch's answer to prepare, from 1; why is kept for VoteAbort, which
// an ambiguous answer counts as.
func (d *Drive) Voted(branch int, v Vote, why Reason) Acts {
	if d.stopped || d.Decided() {
		return Acts{}
	}
	d.ballot.Cast(branch, v, why)
	return Acts{Propose: d.consider()}
}

// Withdraw asks for an abort: time is up, or the client wants it. It comes too late
// where a decision is on its way.
func (d *Drive) Withdraw(why Reason) Acts {
	if d.stopped {
		return Acts{}
	}
	d.ballot.Withdraw(why)
	return Acts{Propose: d.consider()}
}

// Heard takes a branch's answer to phase two, and tells whether it is news. The
// caller logs [Drive.Receipts] when it sees fit.
func (d *Drive) Heard(branch int, r Receipt) bool {
	if d.stopped || d.heard[branch-1] != ReceiptNone {
		return false
	}
	d.heard[branch-1] = r
	return true
}

// Receipts is the command that records what was heard and is not replicated. Call
// it for a decided transaction only.
func (d *Drive) Receipts() Acknowledge {
	c := Acknowledge{ID: d.id}
	for i, b := range d.tx.Branches {
		if b.Owed() && d.heard[i] != ReceiptNone {
			c.Receipts = append(c.Receipts, BranchReceipt{Branch: i + 1, Receipt: d.heard[i]})
		}
	}
	return c
}

// Wants reports whether work that has waited is still to be done: a prepare only
// while the transaction is undecided, phase two unless an operator has resolved the
// branch, and nothing once the drive has stopped.
func (d *Drive) Wants(w Work) bool {
	switch {
	case d.stopped:
		return false
	case w.Kind == PrepareBranch:
		return !d.Decided()
	default:
		return d.branches[w.Branch-1].Resolved == Undecided
	}
}

// Drives reports whether a participant's prepared branch is this drive's matter. A
// transaction that is being staged may have sent any prepare.
func (d *Drive) Drives(participant string, branch int) bool {
	return d.tx == nil || branch <= len(d.branches) && d.branches[branch-1].Participant == participant
}

// Same reports whether a submission with this content may join the drive (rule
// R11). A tombstone has no content: it answers every submission with its abort.
func (d *Drive) Same(print Fingerprint) bool {
	return d.Tombstone() || d.print == print
}

// Owner is who began the transaction.
func (d *Drive) Owner() Owner { return d.owner }

// Tombstone reports that nobody here knows what the transaction was to be.
func (d *Drive) Tombstone() bool { return d.print == Fingerprint{} }

// Stopped reports that the drive goes no further.
func (d *Drive) Stopped() bool { return d.stopped }

// Branches are those proposed, or those last applied.
func (d *Drive) Branches() []Branch { return d.branches }

// Transaction is the state last applied; nil until staged.
func (d *Drive) Transaction() *Transaction { return d.tx }

// Decided reports whether the decision is applied, which is when it may be told
// (rule R2).
func (d *Drive) Decided() bool { return d.tx != nil && d.tx.State.Decided() }

// AllHeard reports whether every branch has answered to phase two.
func (d *Drive) AllHeard() bool {
	for _, r := range d.heard {
		if r == ReceiptNone {
			return false
		}
	}
	return true
}

// Delivered reports whether a client that waits for delivery may be told of it:
// every branch has answered, and the damage among the answers is replicated, for
// whoever was told of delivery must have been told of that too, and reads it from
// the applied state.
func (d *Drive) Delivered() bool {
	if !d.Decided() || !d.AllHeard() {
		return false
	}
	for i, r := range d.heard {
		if r.Heuristic() && d.tx.Branches[i].Owed() {
			return false
		}
	}
	return true
}

// precedes reports whether a is an earlier state of b's transaction. Branches are
// only ever added, states only move on, and receipts only accumulate; a tombstone
// that adopts branches goes from Aborted to Aborting, and gains them.
func precedes(a, b *Transaction) bool {
	switch {
	case len(a.Branches) != len(b.Branches):
		return len(a.Branches) < len(b.Branches)
	case a.State != b.State:
		return a.State < b.State
	default:
		return owed(a) > owed(b) || resolved(a) < resolved(b)
	}
}

func resolved(t *Transaction) int {
	n := 0
	for i := range t.Branches {
		if t.Branches[i].Resolved != Undecided {
			n++
		}
	}
	return n
}

// Contradicted reports whether a branch that a participant holds prepared is one of which
// an operator has said that it ended against the decision: somebody has acted on that, and
// only a person can say what is right now.
func Contradicted(tx *Transaction, participant string, branch int) bool {
	if n := tx.Branch(participant); n == 0 || n != branch {
		return false
	}
	as := tx.Branches[branch-1].Resolved
	return as != Undecided && as != tx.Decision()
}

func owed(t *Transaction) int {
	n := 0
	for _, b := range t.Branches {
		if b.Owed() {
			n++
		}
	}
	return n
}

// Orphan says what a participant that holds a branch prepared is to be told of it,
// by a leader that does not drive it and has passed a barrier since the branch was
// seen: CommitBranch, AbortBranch, or zero for nothing yet. tx is what the log says
// of its transaction; one that the log does not know must be presumed first (rule
// R6).
func Orphan(tx *Transaction, participant string, branch int) WorkKind {
	switch {
	case !tx.State.Decided():
		return 0 // a retry of the client's has taken it up
	case Contradicted(tx, participant, branch):
		return 0
	case tx.Decision() == Abort:
		return AbortBranch
	case tx.Tombstone(): // an operator's commit of whatever is found of it
		return CommitBranch
	case tx.Branch(participant) == branch && tx.Branches[branch-1].Vote != VoteReadOnly:
		return CommitBranch
	case !tx.State.Finished():
		// The resource may be registered under two names, and this branch be one that
		// is to be committed under the other. Once all are, what is left is nobody's: nor
		// is what is prepared under the name of a branch that only read, and kept nothing.
		// A submission of other content, whose prepare came late, has left it.
		return 0
	default:
		return AbortBranch
	}
}
