package coordinator

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// Timeline is what one leader has seen of a transaction, beyond the replicated state:
// when its messages left and were answered. It is kept in memory only and ends with its
// leadership. Times are cluster time by the leader's clock, as the stamps of the
// replicated state are; zero is what has not happened, or not under this leader.
type Timeline struct {
	Epoch uint64
	Since txn.Time // when this leader began to drive
	// AsOf is when the timeline was read, where the leader still drives the transaction;
	// zero once it does not.
	AsOf txn.Time
	// TakenOver says that the transaction began under an earlier leader, and that what
	// came before Begun is not in here.
	TakenOver bool

	Begun     txn.Time // admitted, or taken over
	Staging   txn.Time // its staging left for the log
	Staged    txn.Time // and was applied here
	Deciding  txn.Time // its decision left for the log
	Decided   txn.Time // and was applied here
	Delivered txn.Time // the last branch acknowledged

	Branches []BranchTimeline
}

// BranchTimeline is a branch in a Timeline.
type BranchTimeline struct {
	Branch int // from 1

	Prepared   txn.Time // the first prepare left
	Prepares   int      // how many did
	Voted      txn.Time // the vote was heard, or the prepare failed: VoteAbort then
	Vote       txn.Vote
	VoteDetail string // of VoteAbort: the participant's reason, or how the prepare failed
	FirstSent  txn.Time
	LastSent   txn.Time // of the deliveries
	Attempts   int
	Next       txn.Time // the next delivery is due; zero while one is under way
	LastError  string   // of the last delivery that failed, also where a later one did not
	Failed     []Try    // the latest deliveries that failed, at most maxTries
	Answered   txn.Time // the branch acknowledged, or its damage was told
	Receipt    txn.Receipt
	Evidence   string // of a heuristic receipt
}

// Try is one delivery that failed.
type Try struct{ Sent, Failed txn.Time }

// maxTries is how many failed deliveries of a branch are told one by one.
const maxTries = 8

// moment is a point in a term, in nanoseconds from its beginning and one more; zero is
// none.
type moment int64

func (t *term) moment() moment { return moment(time.Since(t.began)) + 1 }

func (t *term) at(when time.Time) moment { return moment(when.Sub(t.began)) + 1 }

// pass sets a moment that comes once.
func (m *moment) pass(now moment) {
	if *m == 0 {
		*m = now
	}
}

// chronicle is a Timeline as a drive keeps it: nothing of it costs an allocation while
// all goes well, but for one of the tracks. Guarded by term.mu.
type chronicle struct {
	takenOver bool
	closed    bool // recorded: what still happens is too late for it

	begun, staging, staged, deciding, decided, delivered moment
	tracks                                               []track // by branch
}

// track is the part of a branch.
type track struct {
	prepared, voted, firstSent, lastSent, answered moment

	attempts uint32 // deliveries
	prepares uint16
	vote     txn.Vote
	receipt  txn.Receipt
	trouble  *trouble // nil while all goes well
}

// trouble is what went wrong in a branch.
type trouble struct {
	voteDetail string
	lastError  string
	evidence   string
	next       moment // the delivery that is waited for
	tries      []tried
}

type tried struct{ sent, failed moment }

func (k *track) troubled() *trouble {
	if k.trouble == nil {
		k.trouble = new(trouble)
	}
	return k.trouble
}

// asked notes a prepare that leaves.
func (k *track) asked(now moment) {
	k.prepares++
	k.prepared.pass(now)
}

// votes notes the answer to it; detail is kept of a no.
func (k *track) votes(v txn.Vote, detail string, now moment) {
	k.vote, k.voted = v, now
	if v == txn.VoteAbort {
		k.troubled().voteDetail = detail
	}
}

// leaves notes a delivery.
func (k *track) leaves(now moment) {
	k.attempts++
	k.firstSent.pass(now)
	k.lastSent = now
	if k.trouble != nil {
		k.trouble.next = 0
	}
}

// fails notes that the delivery which left last has failed.
func (k *track) fails(why string, now, next moment) {
	x := k.troubled()
	x.lastError, x.next = why, next
	if len(x.tries) == maxTries {
		x.tries = slices.Delete(x.tries, 0, 1)
	}
	x.tries = append(x.tries, tried{k.lastSent, now})
}

// acknowledges notes the answer to a delivery.
func (k *track) acknowledges(r txn.Receipt, now moment) {
	k.receipt, k.answered = r, now
	if k.trouble != nil {
		k.trouble.next = 0
	}
}

// follow keeps a track for each branch. They grow while a transaction is Active.
func (c *chronicle) follow(branches int) {
	if c.tracks == nil {
		c.tracks = make([]track, branches)
		return
	}
	c.tracks = c.tracks[:min(len(c.tracks), branches)]
	for len(c.tracks) < branches {
		c.tracks = append(c.tracks, track{})
	}
}

// goOn carries a chronicle on in the drive that replaces its own. Votes of an undecided
// transaction are asked for again.
func (c *chronicle) goOn(old *chronicle, decided bool) {
	*c = *old
	for i := range c.tracks {
		if k := &c.tracks[i]; !decided {
			k.voted, k.vote = 0, txn.VoteNone
		}
	}
}

// troubled reports whether a branch had any.
func (c *chronicle) troubled() bool {
	return slices.ContainsFunc(c.tracks, func(k track) bool { return k.trouble != nil })
}

// track is where a branch's events are noted; for nobody, once the chronicle is closed.
func (d *drive) track(branch int) *track {
	if d.chronicle.closed {
		return new(track)
	}
	return &d.chronicle.tracks[branch-1]
}

// deliveries is the part that Coordinator.Deliveries tells.
func (c *chronicle) deliveries(began time.Time) []Delivery {
	all := make([]Delivery, len(c.tracks))
	for i, k := range c.tracks {
		all[i] = Delivery{Branch: i + 1, Vote: k.vote, Attempts: int(k.attempts)}
		if x := k.trouble; x != nil && k.answered == 0 {
			all[i].LastError = x.lastError
			if x.next != 0 {
				all[i].Next = began.Add(time.Duration(x.next - 1))
			}
		}
	}
	return all
}

// reign is when and under which epoch a chronicle was written.
type reign struct {
	epoch uint64
	since txn.Time
}

func (r reign) time(m moment) txn.Time {
	if m == 0 {
		return 0
	}
	return r.since.Add(time.Duration(m - 1))
}

// timeline is the chronicle for people.
func (c *chronicle) timeline(r reign) Timeline {
	tl := Timeline{
		Epoch: r.epoch, Since: r.since, TakenOver: c.takenOver,
		Begun: r.time(c.begun), Staging: r.time(c.staging), Staged: r.time(c.staged),
		Deciding: r.time(c.deciding), Decided: r.time(c.decided), Delivered: r.time(c.delivered),
	}
	for i, k := range c.tracks {
		b := BranchTimeline{
			Branch: i + 1, Prepared: r.time(k.prepared), Prepares: int(k.prepares),
			Voted: r.time(k.voted), Vote: k.vote,
			FirstSent: r.time(k.firstSent), LastSent: r.time(k.lastSent), Attempts: int(k.attempts),
			Answered: r.time(k.answered), Receipt: k.receipt,
		}
		if x := k.trouble; x != nil {
			b.VoteDetail, b.LastError, b.Evidence, b.Next = x.voteDetail, x.lastError, x.evidence, r.time(x.next)
			for _, y := range x.tries {
				b.Failed = append(b.Failed, Try{r.time(y.sent), r.time(y.failed)})
			}
		}
		tl.Branches = append(tl.Branches, b)
	}
	return tl
}

// Timelines tells what this node has recorded of a transaction while it led, by epoch:
// of one that it drives now, and of the latest that it drove. There is none of others.
func (c *Coordinator) Timelines(id txn.TxID) []Timeline {
	all := c.annals.find(id)
	if t := c.current(); t != nil {
		if now, ok := t.timeline(id); ok {
			all = slices.DeleteFunc(all, func(tl Timeline) bool { return tl.Epoch == now.Epoch })
			all = append(all, now)
		}
	}
	return all
}

// timeline is that of a transaction that is driven.
func (t *term) timeline(id txn.TxID) (Timeline, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d, ok := t.live[id]
	if !ok {
		return Timeline{}, false
	}
	tl := d.chronicle.timeline(t.reign)
	tl.AsOf = t.reign.time(t.moment())
	for i := range tl.Branches { // a lane that rests holds up what is due
		b := &tl.Branches[i]
		if l := t.lanes[d.Branches()[i].Participant]; b.Next != 0 && l != nil && !l.restUntil.IsZero() {
			b.Next = max(b.Next, t.reign.time(t.at(l.restUntil)))
		}
	}
	return tl, true
}

// remember ends the trace of a drive that ends, and records its chronicle, where the log knows its
// transaction. mu is held.
func (t *term) remember(d *drive) {
	t.endTrace(d)
	if d.Transaction() != nil && !d.chronicle.closed {
		d.chronicle.closed = true
		t.annals.record(d.id, t.reign, &d.chronicle)
	}
}

// annals are the chronicles of the transactions that this node drove last, and, beside
// them, of the last in which a branch had trouble: those are asked about later.
type annals struct {
	mu       sync.Mutex
	recent   ring
	troubled ring
}

// How many chronicles are kept, at some 250 bytes each with two branches.
const (
	recentChronicles   = 16384
	troubledChronicles = 4096
)

// record takes over a chronicle, whose drive is to be forgotten.
func (a *annals) record(id txn.TxID, r reign, c *chronicle) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.troubled() {
		a.troubled.add(troubledChronicles, id, r, c)
		return
	}
	a.recent.add(recentChronicles, id, r, c)
}

func (a *annals) find(id txn.TxID) []Timeline {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := append(a.recent.find(id), a.troubled.find(id)...)
	slices.SortStableFunc(all, func(x, y Timeline) int { return cmp.Compare(x.Epoch, y.Epoch) })
	return all
}

// ring keeps the last of what is added. Ids lie together, so that a search is short.
type ring struct {
	ids  []txn.TxID
	kept []recorded
	next int
}

type recorded struct {
	reign
	chronicle
}

func (r *ring) add(most int, id txn.TxID, at reign, c *chronicle) {
	if len(r.ids) < most {
		r.ids, r.kept = append(r.ids, id), append(r.kept, recorded{at, *c})
		return
	}
	r.ids[r.next], r.kept[r.next] = id, recorded{at, *c}
	r.next = (r.next + 1) % most
}

func (r *ring) find(id txn.TxID) (all []Timeline) {
	for i := range r.ids {
		if r.ids[i] == id {
			all = append(all, r.kept[i].timeline(r.kept[i].reign))
		}
	}
	return all
}
