package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// Commit implements participants.Participant.
func (p *participant) Commit(ctx context.Context, b participants.Branch) error {
	return p.deliver(ctx, "commit", b, p.commit)
}

// Abort implements participants.Participant.
func (p *participant) Abort(ctx context.Context, b participants.Branch) error {
	return p.deliver(ctx, "abort", b, p.abort)
}

// deliver tries to end a branch until it has ended, or its end is known, or the
// context's end comes first.
func (p *participant) deliver(ctx context.Context, what string, b participants.Branch, try func(context.Context, *session, delivery) (bool, error)) error {
	name, err := nameOf(b)
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, b.Name(), err)
	}
	if err := p.hear(ctx, b); err != nil {
		return fmt.Errorf("%s %s: %w", what, b.Name(), err)
	}
	for w := pause(0); ; {
		done := false
		err := p.with(ctx, func(s *session) (err error) {
			done, err = try(ctx, s, delivery{Branch: b, name: name})
			return err
		})
		var damage *participants.Heuristic
		switch {
		case errors.As(err, &damage):
			return damage
		case err != nil:
			return fmt.Errorf("%s %s: %w", what, b.Name(), ending(name.GID(), err))
		case done:
			return nil
		case !w.wait(ctx):
			return fmt.Errorf("%s %s: others are at work on it: %w", what, b.Name(), context.Cause(ctx))
		}
	}
}

// delivery is a branch that is to be ended.
type delivery struct {
	participants.Branch
	name marker.Branch
}

// commit makes one try. False means that more will be known in a moment.
func (p *participant) commit(ctx context.Context, s *session, d delivery) (bool, error) {
	s.unreplicated = false
	tag, err := s.command(ctx, "COMMIT PREPARED '"+d.name.GID()+"'")
	switch {
	case err == nil && tag == "COMMIT PREPARED":
		if s.unreplicated {
			err = p.sync(ctx, s, d.Cluster)
		}
		return err == nil, err
	case err == nil:
		return false, fmt.Errorf("the server answered the commit with %.40q", tag)
	case !absent(err):
		return false, err
	}
	// Nothing of that name is prepared. A tombstone that can be written proves that
	// it was not committed either, and that it never will be; it also keeps out the
	// prepares that are still under way, so that what is reported stays true.
	rec, damage := participants.Record{}.Commit(participants.Fence{}, d.Branch)
	closed, err := p.bury(ctx, s, d, rec.Reason)
	switch {
	case err != nil:
		return false, err
	case closed:
		return false, damage
	}
	seen, ended, err := p.review(ctx, s, d)
	if err != nil || !ended {
		return false, err
	}
	if _, damage := seen.row.Commit(seen.fence, d.Branch); damage != nil {
		return false, damage
	}
	return true, p.sync(ctx, s, d.Cluster)
}

// abort makes one try. False means that more will be known in a moment.
//
// A branch that was prepared needs its tombstone as much as one that was not: a
// copy of its prepare may still be under way.
func (p *participant) abort(ctx context.Context, s *session, d delivery) (bool, error) {
	t := s.trip(ctx)
	t.once("ROLLBACK PREPARED '" + d.name.GID() + "'")
	t.endPart()
	t.run(p.sql.Tombstone, tombstone(d.Branch, d.name, nil)...)
	t.endPart()
	t.ask(p.sql.Look, d.name.GID(), d.Cluster) // the branch may have voted no, which left a tombstone
	answers, err := t.make()
	if err != nil {
		return false, err
	}
	if err := answers[0].err; err != nil && !absent(err) {
		return false, err
	}
	if closed, err := buried(answers[1]); closed || err != nil {
		return closed, err
	}
	if look := answers[2]; look.err == nil && len(look.rows) == 1 && look.rows[0].text(0) == marker.Aborted {
		return true, nil
	}
	seen, ended, err := p.review(ctx, s, d)
	switch {
	case err != nil:
		return false, err
	case !ended && seen.worker:
		// A prepare that is still at its work would hold the abort up until its locks
		// come free, and then be in the way.
		_, err := s.query(ctx, p.sql.End, d.name.PostgresLock())
		return false, stubborn(err)
	case !ended:
		return false, nil
	}
	_, damage := seen.row.Abort(seen.fence, d.Branch)
	return damage == nil, damage
}

// bury writes the tombstone of a branch, and reports whether it did: there is none
// where the branch has a row, or a holder, or lies behind the fence.
func (p *participant) bury(ctx context.Context, s *session, d delivery, reason string) (bool, error) {
	a, err := s.query(ctx, p.sql.Tombstone, tombstone(d.Branch, d.name, reason)...)
	a.err = err
	return buried(a)
}

// tombstone are the arguments of the statement.
func tombstone(b participants.Branch, name marker.Branch, reason any) []any {
	return []any{name.GID(), reason, name.PostgresLock(), b.Cluster, int64(b.Epoch), int64(b.TxID.Time())} //nolint:gosec // a Raft term
}

func buried(a answer) (bool, error) {
	var refused *pgconn.PgError
	if errors.As(a.err, &refused) && refused.Code == lockNotAvailable {
		return false, nil // somebody has a row of the branch, and no lock on its name
	}
	return a.err == nil && a.tag.RowsAffected() == 1, a.err
}

// review asks what became of a branch that could be neither ended nor buried.
// False means that it has not ended yet, or that this can't be seen yet.
func (p *participant) review(ctx context.Context, s *session, d delivery) (sight, bool, error) {
	seen, err := p.lookAt(ctx, s, d.name, d.Digest)
	if err != nil {
		return seen, false, err
	}
	if _, err := seen.fence.Admit(d.Branch); err != nil {
		return seen, false, err
	}
	if seen.row.Status != participants.StatusUnknown {
		return seen, true, nil
	}
	// What lies before the horizon has no tombstone, and needs none.
	return seen, !seen.prepared && !seen.held && seen.fence.Expired(d.TxID), nil
}

// absent reports whether nothing of that name is prepared, or somebody else is
// about to end it.
func absent(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == undefinedObject || refused.Code == notReady)
}

// stubborn says who can end a session that this role may not.
func stubborn(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == notPermitted {
		return fmt.Errorf("a session of another role is at work on the branch, and this role may not end it: GRANT pg_signal_backend TO it, or wait: %w", err)
	}
	return err
}
