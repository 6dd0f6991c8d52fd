package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// Phase two takes the short way where this instance prepared the branch and its
// session lives: one trip on that session, whose answer is certain. Every other
// branch takes the verified way: see what its row says, make certain that nobody
// holds it, end it, and believe nothing but the row.

// maxRounds bounds the looks of one call at a branch that keeps changing. What is
// not settled by then is asked again, at the coordinator's pace.
const maxRounds = 8

// Commit implements participants.Participant.
func (p *participant) Commit(ctx context.Context, b participants.Branch) error {
	d, err := p.deliver(ctx, b)
	if errors.Is(err, errUnnamed) {
		return &participants.Heuristic{Receipt: txn.HeuristicAbort, Detail: err.Error()}
	}
	if err != nil {
		return err
	}
	defer d.done()
	if d.entry.held != nil {
		if done, err := d.short(ctx, "XA COMMIT "); done || err != nil {
			return err
		}
	}
	return d.rounds(ctx, d.commitRound)
}

// Abort implements participants.Participant.
func (p *participant) Abort(ctx context.Context, b participants.Branch) error {
	if m, err := name(b); err == nil {
		p.books.interrupt(m.GID())
	}
	d, err := p.deliver(ctx, b)
	if errors.Is(err, errUnnamed) {
		return nil // its prepare is refused for the same reason
	}
	if err != nil {
		return err
	}
	defer d.done()
	if d.entry.held != nil {
		if _, err := d.short(ctx, "XA ROLLBACK "); err != nil {
			return err
		}
		// What is left to do is the tombstone.
	}
	return d.rounds(ctx, d.abortRound)
}

// delivery is one call of phase two, which has the branch's turn.
type delivery struct {
	*participant
	marker.Branch
	b     participants.Branch
	fence participants.Fence
	gid   string
	xid   string
	entry *entry
}

func (p *participant) deliver(ctx context.Context, b participants.Branch) (*delivery, error) {
	m, err := name(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnnamed, err)
	}
	d := &delivery{participant: p, Branch: m, b: b, gid: m.GID(), xid: m.XID().String()}
	if d.entry, err = p.books.enter(ctx, d.gid); err != nil {
		return nil, err
	}
	if d.fence, err = p.fences.admit(ctx, b); err != nil {
		d.done()
		return nil, err
	}
	return d, nil
}

func (d *delivery) done() { d.books.leave(d.gid, d.entry) }

// short ends the branch on the session that prepared it. False without an error
// means that this cannot be done any more: what became of the branch is for the
// verified way to find out.
func (d *delivery) short(ctx context.Context, verb string) (done bool, err error) {
	s := d.entry.held.session
	if s.alive(ctx) {
		_, err = s.exec(ctx, verb+d.xid)
	} else {
		s.close()
	}
	switch number := numberOf(err); {
	case !s.dead && err == nil:
		done = true
	case !s.dead && number != errUnknownXID && number != errXAState && number != errRolledBack:
		return false, fmt.Errorf("%s: %w", verb, err) // it is as it was: a read-only server, a lock
	default:
		// The session's end detaches what may be left of the branch.
		s.close()
	}
	d.entry.held = nil
	d.branches.put(s)
	return done, nil
}

// rounds repeats a look and what follows from it until the branch is settled.
func (d *delivery) rounds(ctx context.Context, round func(context.Context) (settled bool, err error)) error {
	for range maxRounds {
		if settled, err := round(ctx); settled || err != nil {
			return err
		}
	}
	return errors.New("the branch keeps changing")
}

// commitRound looks at the branch and takes one step towards its commit.
func (d *delivery) commitRound(ctx context.Context) (settled bool, err error) {
	seen, err := d.look(ctx, d.gid)
	if err != nil {
		return false, err
	}
	if seen.known && !seen.visible {
		return false, d.end(ctx, "XA COMMIT ", seen)
	}
	next, err := seen.record().Commit(d.fence, d.b)
	if seen.visible || next.Status == participants.StatusUnknown {
		return true, err
	}
	// Nothing is there, so nothing is committed: but a branch that is on its way must
	// not arrive after it was reported as gone. Only one of the two rows fits in.
	if closed, failure := d.bury(ctx, next.Reason); !closed {
		return false, failure
	}
	return true, err
}

// abortRound looks at the branch and takes one step towards its abort.
func (d *delivery) abortRound(ctx context.Context) (settled bool, err error) {
	if !d.fence.Expired(d.TxID) {
		if closed, err := d.bury(ctx, ""); closed || err != nil {
			return closed, err
		}
	}
	seen, err := d.look(ctx, d.gid)
	if err != nil {
		return false, err
	}
	if seen.known && !seen.visible {
		return false, d.end(ctx, "XA ROLLBACK ", seen)
	}
	if next, err := seen.record().Abort(d.fence, d.b); seen.visible || next.Status == participants.StatusUnknown {
		return true, err
	}
	return false, nil
}

// bury inserts the tombstone. Closed means that it stands; not closed without an
// error, that another row is in the way.
func (d *delivery) bury(ctx context.Context, reason string) (closed bool, err error) {
	err = d.errand(ctx, func(s *session) error {
		_, err := s.exec(ctx, d.sql.Tombstone, d.gid, reason)
		return err
	})
	switch numberOf(err) {
	case errDuplicateKey, errLockWait, errDeadlock:
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write the tombstone: %w", err)
	}
	return true, nil
}

// end commits or rolls back a branch whose row is there and not visible, on a
// session that did not prepare it.
//
// XA COMMIT may answer OK here and have committed nothing, where the session that
// prepared the branch is not quite gone: so that is made certain first, and the
// next round believes the row alone.
func (d *delivery) end(ctx context.Context, verb string, seen sighting) error {
	if err := d.detach(ctx, seen.owner); err != nil {
		return err
	}
	err := d.errand(ctx, func(s *session) error {
		_, err := s.exec(ctx, verb+d.xid)
		return err
	})
	switch numberOf(err) {
	case errUnknownXID, errRolledBack:
		return d.missing(ctx, seen)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

// errLimbo is the mark of a fault of the server's (DESIGN.md): somebody has tried
// to end the branch at a moment at which the server forgets it and keeps its
// locks.
var errLimbo = errors.New("the server holds the branch prepared, and does not know its id any more: it will list it again after a restart of the server")

// missing judges a branch that the server does not know by its id though its row
// was just seen: the row went with it, or the server has lost it.
func (d *delivery) missing(ctx context.Context, before sighting) error {
	seen, err := d.look(ctx, d.gid)
	if err != nil || !seen.known || seen.visible || seen.owner != before.owner {
		return err
	}
	listed, err := d.isPrepared(ctx, d.Branch)
	if err != nil || listed {
		return err
	}
	// A rollback of many rows takes its time, too.
	return fmt.Errorf("%w, unless it is being rolled back just now", errLimbo)
}
