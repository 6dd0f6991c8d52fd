package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
)

// term is the work of one epoch. Every goroutine it starts is counted in work and
// ends with ctx; no call leaves and no command is proposed once ended is set.
//
// One lock guards all of it: what happens under it is a few map and slice
// operations, while every call, every log entry and every open of a participant
// happens outside.
type term struct {
	// set once by newTerm
	*Coordinator
	reign
	began  time.Time       // when reign.since was, by the monotonic clock
	ctx    context.Context // the leadership
	logger hclog.Logger
	work   sync.WaitGroup
	crew   *crew

	mu    sync.Mutex
	live  map[txn.TxID]*drive // every unfinished transaction, and those being staged
	lanes map[string]*lane    // by participant

	entries    pace                // of the log: from a staging's proposal to its being applied
	delivering patience            // of the calls under way
	bytes      int                 // payloads of undecided transactions
	asked      int                 // commands of propose's on their way
	stopped    []*drive            // of unknown outcome, waiting for a barrier (rule R5)
	settling   bool                // a goroutine is at that
	receipts   map[*drive]struct{} // with receipts that are not logged
	flushing   bool                // the timer that logs them is set
	slow       gate
	ended      bool
	endedDone  chan struct{} // closed when ended is set
}

func newTerm(ctx context.Context, c *Coordinator, epoch uint64) *term {
	t := &term{
		Coordinator: c,
		reign:       reign{epoch, c.log.Now()},
		began:       time.Now(),
		ctx:         ctx,
		logger:      c.logger.With("epoch", epoch),
		live:        make(map[txn.TxID]*drive),
		lanes:       make(map[string]*lane),
		delivering:  patience{parent: ctx, length: c.cfg.DeliveryTimeout},
		receipts:    make(map[*drive]struct{}),
		endedDone:   make(chan struct{}),
	}
	t.crew = newCrew(&t.work, t.endedDone)
	return t
}

// takeOver drives every unfinished transaction on from its replicated state, and
// begins to look for orphans.
func (t *term) takeOver() {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := 0
	for tx := range t.view.Open {
		if t.view.Cluster().Held(tx) {
			t.hold(tx)
			held++
			continue
		}
		t.resume(tx)
	}
	t.logger.Info("driving transactions", "unfinished", len(t.live))
	if held > 0 {
		t.logger.Error("transactions were undecided when the cluster was restored; an operator must decide them (decree tx unresolved)", "transactions", held)
	}
	t.work.Go(t.scanOrphans)
}

// hold books a transaction that only an operator may decide (rule R15): it counts at its
// participants, which must not forget it. mu is held.
func (t *term) hold(tx *txn.Transaction) {
	for _, b := range tx.Branches {
		t.lane(b.Participant).open.ReplaceOrInsert(tx.ID)
	}
}

// end stops the term: waiters get what is known, calls under way are cut, and it
// returns when the last goroutine has.
func (t *term) end() {
	t.mu.Lock()
	t.ended = true
	for _, d := range t.live {
		d.stopTimers()
		d.followers.tell()
		t.remember(d)
	}
	for _, l := range t.lanes {
		l.stopTimer()
		l.abandon()
	}
	close(t.endedDone)
	t.mu.Unlock()

	t.work.Wait()
	for _, l := range t.lanes {
		l.door.close()
	}
	t.logger.Info("stopped driving transactions")
}

// admit registers a transaction, or finds it: d is being driven, known is
// finished. Nothing has left this node when err is not nil.
func (t *term) admit(s txn.Stage, traceparent string) (d *drive, known *txn.Transaction, err error) {
	print := txn.ContentFingerprint(s.Interactive, s.Branches)
	t.mu.Lock()
	defer t.mu.Unlock()
	if d, known, err = t.lookup(s.ID); !errors.Is(err, txn.ErrUnknown) {
		if errors.Is(err, txn.ErrOtherGroup) {
			t.cfg.Meter.Refused(err)
		}
		if err = t.checkSame(d, known, s.Owner, print, err); err == nil && d != nil && traceparent != "" {
			t.trace(d, traceparent)
		}
		return d, known, err
	}
	if err := t.admissible(s); err != nil {
		t.cfg.Meter.Refused(err)
		return nil, nil, err
	}
	failpoint("before-stage")
	return t.begin(s, traceparent), nil, nil
}

// checkSame refuses a txid that was used with other content, or by another. A tombstone
// has no content, and nobody's: it answers every submission with its abort.
func (t *term) checkSame(d *drive, known *txn.Transaction, by txn.Owner, print txn.Fingerprint, err error) error {
	switch {
	case err != nil:
		return err
	case known != nil && !known.Tombstone() && (known.Fingerprint != print || known.Owner.Foreign(by)),
		d != nil && !d.Same(print),
		d != nil && !d.Tombstone() && d.Owner().Foreign(by):
		return txn.ErrContentMismatch
	}
	return nil
}

// admissible applies every bound and every check that needs no log entry, before
// the first prepare leaves (rules R4 and R14).
func (t *term) admissible(s txn.Stage) error {
	if err := t.checkID(s.ID); err != nil {
		return err
	}
	for i, b := range s.Branches {
		for _, earlier := range s.Branches[:i] {
			if earlier.Participant == b.Participant {
				return fmt.Errorf("%w: %q", txn.ErrDuplicateBranch, b.Participant)
			}
		}
	}
	if err := t.cfg.Admit(); err != nil {
		return err
	}
	if len(t.live) >= t.cfg.MaxUnfinished {
		return &BusyError{What: "too many unfinished transactions", RetryAfter: time.Second}
	}
	if t.bytes+payloadBytes(s.Branches) > t.cfg.MaxUndecidedBytes {
		return &BusyError{What: "too many payload bytes in undecided transactions", RetryAfter: time.Second}
	}
	for _, b := range s.Branches {
		if err := t.admissibleAt(b.Participant); err != nil {
			return err
		}
	}
	// A cluster is told its group before its first participant, so that whoever has found
	// a participant knows the group. Before that it may have been told just now.
	return t.view.Cluster().CheckGroup(s.ID)
}

// checkID asks for cluster time of this moment only where that of the last entry
// would refuse the id.
func (t *term) checkID(id txn.TxID) error {
	cluster := t.view.Cluster()
	if cluster.CheckID(id) == nil {
		return nil
	}
	cluster.Now = max(cluster.Now, t.log.Now())
	return cluster.CheckID(id)
}

func (t *term) admissibleAt(participant string) error {
	if _, ok := t.view.Participant(participant); !ok {
		return fmt.Errorf("%w %q", ErrUnknownParticipant, participant)
	}
	if t.lane(participant).open.Len() >= t.cfg.MaxUnfinishedPerParticipant {
		return &BusyError{What: fmt.Sprintf("too many unfinished transactions at %q", participant), RetryAfter: 2 * time.Second}
	}
	return nil
}

// lookup finds a transaction that is driven, or else finished; mu is held. The
// live ones are looked at first: a transaction leaves them only after its end is
// applied, so none is missed between the two.
func (t *term) lookup(id txn.TxID) (*drive, *txn.Transaction, error) {
	if t.ended {
		return nil, nil, ErrNotLeader
	}
	if d, ok := t.live[id]; ok {
		return d, nil, nil
	}
	tx, ok := t.view.Transaction(id)
	switch {
	case !ok:
		return nil, nil, t.unknown(id)
	case tx.State.Finished():
		return nil, tx, nil
	case t.view.Cluster().Held(tx):
		return nil, nil, txn.ErrLost
	default: // applied a moment ago by a call that is not driven from here, such as Inquire's
		return t.resume(tx), nil, nil
	}
}

// unknown tells a txid that never was from one that may have been forgotten, or lost, or
// is another group's.
func (t *term) unknown(id txn.TxID) error {
	cluster := t.view.Cluster()
	if err := cluster.CheckGroup(id); err != nil {
		return err
	}
	switch {
	case id.Time() < cluster.Horizon:
		return fmt.Errorf("%w: %w", txn.ErrUnknown, txn.ErrExpired)
	case cluster.Lost(id):
		return txn.ErrLost
	}
	return txn.ErrUnknown
}

// register enters a drive into the term's books; mu is held.
func (t *term) register(d *drive) {
	t.live[d.id] = d
	t.rebook(d)
}

// release takes it out again.
func (t *term) release(d *drive) {
	if t.live[d.id] != d {
		return
	}
	d.stopTimers()
	delete(t.live, d.id)
	delete(t.receipts, d)
	t.releaseBytes(d)
	for _, b := range d.booked {
		t.lane(b.Participant).open.Delete(d.id)
	}
}

// releaseBytes is called at the decision, which drops the payloads, and again
// harmlessly at the end.
func (t *term) releaseBytes(d *drive) {
	t.bytes -= d.bytes
	d.bytes = 0
}

func (t *term) lane(participant string) *lane {
	l, ok := t.lanes[participant]
	if !ok {
		l = newLane(t, participant)
		t.lanes[participant] = l
	}
	return l
}

// maxAsked bounds the commands that callers of the term have on their way, besides
// those of its drives, which admission bounds: a log that stalls must not collect
// commands of callers that have gone and come again.
const maxAsked = 16384

// ask makes room for a command of a caller's, until answered is called. mu is held.
func (t *term) ask(c txn.Command) error {
	switch {
	case t.ended:
		return ErrNotLeader
	case t.asked >= maxAsked:
		return &BusyError{What: "too many commands on their way", RetryAfter: time.Second}
	case enlistedBytes(c) > 0 && t.bytes+enlistedBytes(c) > t.cfg.MaxUndecidedBytes:
		return &BusyError{What: "too many payload bytes in undecided transactions", RetryAfter: time.Second}
	}
	t.asked++
	t.bytes += enlistedBytes(c)
	return nil
}

// answered takes the command out of the books again: what it enlisted is in those
// of its drive from now on. mu is held.
func (t *term) answered(c txn.Command) {
	t.asked--
	t.bytes -= enlistedBytes(c)
}

func enlistedBytes(c txn.Command) int {
	if e, ok := c.(txn.Enlist); ok {
		return len(e.Branch.Payload)
	}
	return 0
}

// propose writes a command about a transaction that may be driven, waits until it
// is applied, and lets the drive go on from the state that it made. The drive
// learns of it in log order, before this call returns.
func (t *term) propose(ctx context.Context, c txn.Command) (*txn.Transaction, error) {
	type answer struct {
		tx  *txn.Transaction
		err error
	}
	t.mu.Lock()
	err := t.ask(c)
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	answers := make(chan answer, 1)
	t.log.Propose(t.epoch, c, func(tx *txn.Transaction, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.answered(c)
		t.noteTombstone(c, tx, err)
		if d := t.live[c.Transaction()]; d != nil && !t.ended {
			t.carry(d, d.Noticed(fateOf(err), tx), err)
		}
		answers <- answer{tx, err}
	})
	select {
	case a := <-answers:
		return a.tx, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
	case <-t.endedDone:
		return nil, ErrOutcomeUnknown
	}
}

func payloadBytes(branches []txn.Branch) int {
	n := 0
	for _, b := range branches {
		n += len(b.Payload)
	}
	return n
}
