package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/statements"
)

// rollbackTimeout bounds a rollback that nobody waits for any more. After it the
// connection is closed, which rolls back too.
const rollbackTimeout = time.Second

// idle is a session that is in no transaction, as the server says it.
const idle = 'I'

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
	try := p.stage
	if work, err := p.parse(o.Payload); err != nil {
		try = func(ctx context.Context, o order) (participants.Vote, error) { return p.decline(ctx, o, err) }
	} else if o.work = work; allRead(work) {
		try = p.read
	}
	for w := pause(0); ; {
		vote, err := try(ctx, o)
		switch {
		case errors.Is(err, errWrites):
			try = p.stage
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

// decline votes no without running anything, unless the branch is known: what was
// promised before the catalogue changed stays promised.
func (p *participant) decline(ctx context.Context, o order, why error) (vote participants.Vote, err error) {
	err = p.with(ctx, func(s *session) (err error) {
		vote, err = p.veto(ctx, s, o, participants.No("%s", clip(why.Error())))
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

// stage runs the branch's work and prepares it. Where no statement expects
// anything, that is one trip to the server, and two otherwise.
func (p *participant) stage(ctx context.Context, o order) (vote participants.Vote, err error) {
	err = p.with(ctx, func(s *session) error {
		prepare := "PREPARE TRANSACTION '" + o.name.GID() + "'"
		epoch := int64(o.Epoch) //nolint:gosec // a Raft term
		t := s.trip(ctx)
		t.run(s.begin)
		t.run(p.sql.Insert, o.name.PostgresArgs(o.Digest, &epoch)...)
		t.work(o.work)
		atOnce := !expects(o.work)
		s.unreplicated = false
		if atOnce {
			t.once(prepare)
		}
		answers, err := t.make()
		if err != nil {
			return err
		}
		defer s.rollback(ctx)
		vote, err = s.judge(answers[:2+len(o.work)], o.work)
		if err != nil {
			return err
		}
		if vote.Kind == txn.VoteAbort {
			vote, err = p.veto(ctx, s, o, vote)
			return err
		}
		var tag string
		if atOnce {
			last := answers[len(answers)-1]
			tag, err = last.tag.String(), last.err
		} else {
			tag, err = s.command(ctx, prepare)
		}
		vote, err = p.prepared(ctx, s, o, tag, err)
		return err
	})
	return vote, err
}

// work adds a branch's statements. Those of the catalogue come again.
func (t *trip) work(work []statements.Statement) {
	for _, st := range work {
		if st.Name != "" {
			t.run(st.SQL, st.Args...)
		} else {
			t.once(st.SQL, st.Args...)
		}
	}
}

func expects(work []statements.Statement) bool {
	for _, st := range work {
		if st.ExpectRows != nil {
			return true
		}
	}
	return false
}

// judge looks at what BEGIN, marker and work came to, in this order, while nothing
// of it can have been kept: a no, an error, or nothing to complain of.
func (s *session) judge(answers []answer, work []statements.Statement) (participants.Vote, error) {
	for i, a := range answers {
		var refused *pgconn.PgError
		switch {
		case a.err == nil && i < 2:
			continue
		case a.err == nil:
			if why := work[i-2].Unexpected(a.tag.RowsAffected()); why != "" {
				return participants.No("%s", clip(why)), nil
			}
			continue
		case !errors.As(a.err, &refused):
			return participants.Vote{}, a.err
		case outdated(refused):
			clear(s.prepared)
			return participants.Vote{}, errOutdated
		case i == 0:
			return participants.Vote{}, a.err
		case i == 1 && (marker.PostgresRefused(refused.Code, refused.TableName) || refused.Code == lockNotAvailable):
			return participants.Vote{}, errKnown
		case i == 1:
			return refusal("the marker row", refused), nil
		}
		return refusal(work[i-2].String(), refused), nil
	}
	return participants.Vote{}, nil
}

// prepared makes a vote of the answer to PREPARE TRANSACTION.
//
// The vote's point of no return is the server's flush of the prepared transaction:
// a crash of anybody before it leaves nothing, a crash after it leaves the branch
// in pg_prepared_xacts until it is decided.
func (p *participant) prepared(ctx context.Context, s *session, o order, tag string, err error) (participants.Vote, error) {
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && certain(refused):
		return p.veto(ctx, s, o, refusal("prepare", refused))
	case err != nil:
		return participants.Vote{}, err
	case tag == "ROLLBACK":
		return p.veto(ctx, s, o, participants.No("the transaction had ended, or failed, before its prepare"))
	case tag != "PREPARE TRANSACTION":
		return participants.Vote{}, fmt.Errorf("the server answered the prepare with %.40q", tag)
	case s.unreplicated:
		if err := p.sync(ctx, s, o.Cluster); err != nil {
			return participants.Vote{}, err
		}
	}
	return participants.Yes(), nil
}

// rollback ends a transaction that has not prepared. Where it cannot, the
// connection is closed and the server does.
func (s *session) rollback(ctx context.Context) {
	if s.conn.IsClosed() || s.conn.TxStatus() == idle {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	s.command(ctx, "ROLLBACK") //nolint:errcheck // see above
}

// read runs a branch that only reads. It leaves nothing behind, whatever the
// statements were: the database holds the transaction to it.
func (p *participant) read(ctx context.Context, o order) (vote participants.Vote, err error) {
	err = p.with(ctx, func(s *session) error {
		t := s.trip(ctx)
		t.run(s.beginReading)
		t.ask(p.sql.Guard, o.name.GID(), o.name.PostgresLock(), o.Cluster)
		t.work(o.work)
		t.run(s.endReading)
		answers, err := t.make()
		if err != nil {
			return err
		}
		defer s.rollback(ctx)
		if guard := answers[1]; guard.err == nil && !free(guard.rows, o.Branch) {
			return errKnown
		}
		if writes(answers) {
			return errWrites
		}
		vote, err = s.judge(answers[:2+len(o.work)], o.work)
		var refused *pgconn.PgError
		if errors.As(answers[len(answers)-1].err, &refused) && vote.Kind == txn.VoteNone {
			vote = refusal("the end of reading", refused)
		}
		switch {
		case err != nil:
			return err
		case vote.Kind == txn.VoteAbort:
			vote, err = p.veto(ctx, s, o, vote)
			return err
		}
		vote = participants.ReadOnly()
		return nil
	})
	return vote, err
}

// writes reports whether the server found a branch writing that looked as if it
// only read.
func writes(answers []answer) bool {
	for _, a := range answers {
		var refused *pgconn.PgError
		if errors.As(a.err, &refused) && refused.Code == readOnlyTransaction {
			return true
		}
	}
	return false
}

// free reports whether the guard's answer lets a branch begin.
func free(rows []row, b participants.Branch) bool {
	if len(rows) != 1 || !rows[0].truth(0) || rows[0][1] != nil {
		return false
	}
	fence, err := fenceOf(rows[0], 4)
	if err != nil {
		return false
	}
	_, err = fence.Admit(b)
	return err == nil && !fence.Expired(b.TxID)
}
