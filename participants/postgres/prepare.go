package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/statements"
)

// What stands in the way of a try to prepare.
var (
	errKnown    = errors.New("the branch is known already, or its fence is closed")
	errWrites   = errors.New("the branch does not only read")
	errOutdated = errors.New("a table has changed since the statement was parsed")
)

// order is a branch that is to be prepared.
type order struct {
	participants.Branch
	name marker.Branch
	work []statements.Statement
}

// Prepare implements participants.Participant.
func (p *participant) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	name, err := nameOf(b)
	if err != nil {
		return participants.No("%v", err), nil
	}
	select {
	case p.room <- struct{}{}:
		defer func() { <-p.room }()
	case <-ctx.Done():
		return participants.Vote{}, fmt.Errorf("prepare %s: no connection is free: %w", b.Name(), context.Cause(ctx))
	}
	vote, err := p.vote(ctx, order{Branch: b, name: name})
	if err != nil {
		return participants.Vote{}, fmt.Errorf("prepare %s: %w", b.Name(), err)
	}
	return vote, nil
}

func (p *participant) vote(ctx context.Context, o order) (participants.Vote, error) {
	if err := p.hear(ctx, o.Branch); err != nil {
		return participants.Vote{}, err
	}
	run := p.stage
	if work, err := p.parse(o.Payload); err != nil {
		run = func(context.Context, *session, order) (participants.Vote, error) {
			return participants.No("%s", clip(err.Error())), nil
		}
	} else if o.work = work; allRead(work) {
		run = p.read
	}
	for w := pause(0); ; {
		vote, err := p.try(ctx, o, run)
		switch {
		case errors.Is(err, errWrites):
			run = p.stage
			continue
		case errors.Is(err, errOutdated):
			continue
		case errors.Is(err, errKnown):
			vote, known, err := p.recall(ctx, o)
			if known || err != nil {
				return vote, err
			}
		default:
			return vote, err
		}
		if !w.wait(ctx) {
			return participants.Vote{}, fmt.Errorf("others are at work on it: %w", context.Cause(ctx))
		}
	}
}

// parse reads a payload, and refuses what no branch may say.
func (p *participant) parse(payload []byte) ([]statements.Statement, error) {
	work, err := p.cfg.Parse(payload)
	if err != nil {
		return nil, err
	}
	for i, st := range work {
		if err := allowed(st.SQL); err != nil {
			return nil, fmt.Errorf("statement %d: %w", i+1, err)
		}
	}
	return work, nil
}

// try runs a branch over one connection. A no goes into the books, unless the
// branch is in them already: what was promised before the catalogue changed, say,
// stays promised.
func (p *participant) try(ctx context.Context, o order, run func(context.Context, *session, order) (participants.Vote, error)) (vote participants.Vote, err error) {
	err = p.with(ctx, func(s *session) (err error) {
		defer s.rollback(ctx)
		vote, err = run(ctx, s, o)
		if err == nil && vote.Kind == txn.VoteAbort {
			vote, err = p.veto(ctx, s, o, vote)
		}
		return err
	})
	return vote, err
}

// veto votes no, after a rollback, and writes the tombstone: the same branch
// prepared again hears the same, though by then it might be done.
func (p *participant) veto(ctx context.Context, s *session, o order, no participants.Vote) (participants.Vote, error) {
	t := s.trip(ctx)
	if s.conn.TxStatus() != idle {
		t.run("ROLLBACK")
		t.endPart()
	}
	t.run(p.sql.Tombstone, tombstone(o.Branch, o.name, no.Reason)...)
	answers, err := t.make()
	if err != nil {
		return participants.Vote{}, err
	}
	switch closed, err := buried(answers[len(answers)-1]); {
	case untranslatable(err) && !plain(no.Reason):
		no.Reason = plainly(no.Reason)
		return p.veto(ctx, s, o, no)
	case err != nil:
		return participants.Vote{}, err
	case !closed:
		return participants.Vote{}, errKnown
	}
	return no, nil
}

// recall answers from what the database knows of the branch; false means that it
// knows nothing, or will in a moment.
func (p *participant) recall(ctx context.Context, o order) (vote participants.Vote, known bool, err error) {
	err = p.with(ctx, func(s *session) error {
		seen, err := p.lookAt(ctx, s, o.name, o.Digest)
		if err != nil {
			return err
		}
		if _, err := seen.fence.Admit(o.Branch); err != nil {
			return err
		}
		rec, settled := seen.record(o.Digest)
		if !settled {
			return nil
		}
		vote, known = rec.Prepare(seen.fence, o.Branch)
		if vote.Kind == txn.VoteCommit {
			return p.sync(ctx, s, o.Cluster)
		}
		return nil
	})
	return vote, known, err
}
