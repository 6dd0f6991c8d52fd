package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// scansAtOnce bounds the participants that are scanned at the same time.
const scansAtOnce = 16

// scanOrphans looks, now and then, for prepared branches that no transaction of
// this term drives: their prepare left a leader that fell before its staging was
// replicated, or arrived after everything was over. It ends with the term.
func (t *term) scanOrphans() {
	t.atEach(t.registered(), t.greet)
	for pause := t.cfg.OrphanGrace; sleep(t.ctx, pause); {
		t.closeUnregistered()
		away := t.atEach(t.registered(), t.scan)
		pause = t.cfg.ScanInterval - t.scanAgain(away)
	}
}

// scanAgain comes back sooner to participants that could not be scanned: one that
// returns may hold what nobody else will end. It returns the time that went by, less
// than a ScanInterval.
func (t *term) scanAgain(away []string) (waited time.Duration) {
	pause := t.cfg.OrphanGrace
	for len(away) > 0 && waited+pause < t.cfg.ScanInterval && sleep(t.ctx, pause) {
		waited += pause
		away = t.atEach(away, t.scan)
	}
	return waited
}

// registered are the names of all participants.
func (t *term) registered() []string {
	var names []string
	for _, r := range t.view.Participants() {
		names = append(names, r.Name)
	}
	return names
}

// greet opens a participant, so that the first prepare need not, and whether it
// recovers is soon known.
func (t *term) greet(ctx context.Context, name string) error {
	t.mu.Lock()
	l := t.lane(name)
	t.mu.Unlock()
	return l.door.through(ctx, func(participants.Participant) error { return nil })
}

// closeUnregistered lets go of participants that were deleted, which only those
// without unfinished transactions can be.
func (t *term) closeUnregistered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, l := range t.lanes {
		if _, ok := t.view.Participant(name); ok || l.open.Len() > 0 || l.preparing > 0 || l.delivering > 0 {
			continue
		}
		l.stopTimer()
		delete(t.lanes, name)
		t.cfg.Meter.Unregistered(name)
		t.work.Go(l.door.close)
	}
}

// atEach looks at participants, at some of them at the same time, and returns those
// that could not be looked at.
func (t *term) atEach(names []string, look func(ctx context.Context, participant string) error) (away []string) {
	var (
		scans sync.WaitGroup
		mu    sync.Mutex // guards away
	)
	room := make(chan struct{}, scansAtOnce)
	for _, name := range names {
		room <- struct{}{}
		scans.Go(func() {
			defer func() { <-room }()
			err := look(t.ctx, name)
			switch {
			case err == nil, t.ctx.Err() != nil:
			case errors.Is(err, errors.ErrUnsupported): // it has no list; its prepares follow their staging (rule R4)
			default:
				t.logger.Warn("looking at a participant failed", "participant", name, "error", err)
				mu.Lock()
				away = append(away, name)
				mu.Unlock()
			}
		})
	}
	scans.Wait()
	return away
}

// scan lists a participant's prepared branches, passes a barrier, and lists them
// again: it acts only on what both lists hold, because a branch that the first
// list alone holds has been ended meanwhile, and one that the second alone holds
// is younger than the state the verdict comes from.
func (t *term) scan(ctx context.Context, name string) error {
	t.mu.Lock()
	l := t.lane(name)
	t.mu.Unlock()
	first, err := l.prepared(ctx)
	if err != nil {
		return err
	}
	if len(first) == 0 {
		l.found(0)
		return nil
	}
	if err := t.log.Barrier(ctx); err != nil {
		return err
	}
	suspects := t.suspects(name, first)
	if len(suspects) == 0 {
		l.found(0)
		return nil
	}
	second, err := l.prepared(ctx)
	if err != nil {
		return err
	}
	still := make(map[branchName]bool, len(second))
	for _, b := range second {
		still[branchName{b.TxID, b.Number}] = true
	}
	suspects = slices.DeleteFunc(suspects, func(b branchName) bool { return !still[b] })
	l.found(len(suspects))
	return t.endOrphans(ctx, l, suspects)
}

// found notes the result of a scan.
func (l *lane) found(orphans int) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	l.orphans, l.scanned = orphans, l.t.moment()
}

// endOrphans goes on past a branch that cannot be ended, and gives up for now where
// several in a row cannot. The order is random, so that those never hide others. Of
// those that only an operator may end it tells once a scan.
func (t *term) endOrphans(ctx context.Context, l *lane, orphans []branchName) error {
	var unresolved []branchName
	defer func() {
		if len(unresolved) > 0 {
			t.logger.Error("prepared branches wait for an operator, for their outcome is forgotten or lost (decree tx unresolved)",
				"participant", l.name, "branches", len(unresolved), "one", unresolved[0].txid)
		}
	}()
	rand.Shuffle(len(orphans), func(i, j int) { orphans[i], orphans[j] = orphans[j], orphans[i] })
	failures := 0
	for _, b := range orphans {
		err := t.endOrphan(ctx, l, b)
		switch {
		case errors.Is(err, txn.ErrOtherGroup): // no leader of this cluster prepares such a one
			t.logger.Error("a branch is prepared under this cluster's id for a transaction that is another group's; end it at the participant",
				"txid", b.txid, "participant", l.name, "branch", b.number, "error", err)
			continue
		case errors.Is(err, txn.ErrExpired), errors.Is(err, txn.ErrLost):
			unresolved = append(unresolved, b)
			continue
		case err == nil:
			failures = 0
			continue
		}
		if failures++; failures == downAfter || ctx.Err() != nil {
			return err
		}
		t.logger.Warn("an orphaned branch could not be ended", "txid", b.txid, "participant", l.name, "branch", b.number, "error", err)
	}
	return nil
}

type branchName struct {
	txid   txn.TxID
	number int
}

// suspects are the branches that this term does not drive.
func (t *term) suspects(participant string, prepared []participants.Branch) []branchName {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []branchName
	for _, b := range prepared {
		d, driven := t.live[b.TxID]
		if driven && d.Drives(participant, b.Number) {
			continue
		}
		found = append(found, branchName{b.TxID, b.Number})
	}
	return found
}

// endOrphan tells a prepared branch its transaction's decision, after writing the
// presumed abort of one that the log does not know (rule R6): what it does know is
// as good behind the scan's barrier. A txid before the horizon, or one whose decision may
// have been lost, gets no presumption: an operator decides.
func (t *term) endOrphan(ctx context.Context, l *lane, b branchName) (err error) {
	tx, known := t.view.Transaction(b.txid)
	if !known {
		if err := t.view.Cluster().CheckGroup(b.txid); err != nil {
			return err
		}
		if t.view.Cluster().Lost(b.txid) {
			return txn.ErrLost
		}
		tx, err = t.propose(ctx, txn.Presume{ID: b.txid})
	}
	if err != nil {
		return err
	}
	call := participants.Participant.Abort
	switch txn.Orphan(tx, l.name, b.number) {
	case 0:
		if txn.Contradicted(tx, l.name, b.number) {
			t.logger.Error("a branch is prepared, although an operator has said that it ended against the decision; an operator must end it",
				"txid", b.txid, "participant", l.name, "branch", b.number, "decision", tx.Decision())
		}
		return nil
	case txn.CommitBranch:
		call = participants.Participant.Commit
	}
	t.logger.Warn("ending an orphaned branch", "txid", b.txid, "participant", l.name, "branch", b.number, "decision", tx.Decision())
	ctx, cancel := context.WithTimeout(ctx, t.cfg.DeliveryTimeout)
	defer cancel()
	t.mu.Lock()
	branch := l.branch(b.txid, b.number, txn.Branch{})
	t.mu.Unlock()
	return l.door.through(ctx, func(p participants.Participant) error { return call(p, ctx, branch) })
}

// prepared asks the participant for this cluster's prepared branches.
func (l *lane) prepared(ctx context.Context) (found []participants.Branch, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.t.cfg.DeliveryTimeout)
	defer cancel()
	err = l.door.through(ctx, func(p participants.Participant) error {
		found, err = p.Recover(ctx, l.t.view.ClusterID())
		return err
	})
	return found, err
}

// Inspection is what Check found.
type Inspection struct {
	Recovers bool // the participant can list what it holds prepared
	Prepared int  // branches of this cluster that it holds prepared
}

// Check asks a participant, over the connection that transactions use, for what
// it holds prepared. The error is the participant's, or ErrNotLeader, or wraps
// ErrUnknownParticipant.
func (c *Coordinator) Check(ctx context.Context, participant string) (Inspection, error) {
	t := c.current()
	if t == nil {
		return Inspection{}, ErrNotLeader
	}
	if _, ok := t.view.Participant(participant); !ok {
		return Inspection{}, fmt.Errorf("%w %q", ErrUnknownParticipant, participant)
	}
	return t.inspect(ctx, participant)
}

func (t *term) inspect(ctx context.Context, participant string) (Inspection, error) {
	ctx, done, err := t.within(ctx)
	if err != nil {
		return Inspection{}, err
	}
	defer done()
	t.mu.Lock()
	l := t.lane(participant)
	t.mu.Unlock()
	found, err := l.prepared(ctx)
	switch {
	case t.ctx.Err() != nil:
		return Inspection{}, ErrNotLeader
	case err != nil:
		return Inspection{}, err
	}
	return Inspection{Recovers: l.recovers(), Prepared: len(found)}, nil
}
