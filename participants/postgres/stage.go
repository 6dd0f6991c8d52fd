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

// stage runs the branch's work and prepares it: in one trip to the server where no
// statement expects anything, and in two otherwise, because the rows have to be
// counted before anything is prepared.
func (p *participant) stage(ctx context.Context, s *session, o order) (participants.Vote, error) {
	epoch := int64(o.Epoch) //nolint:gosec // a Raft term
	prepare := "PREPARE TRANSACTION '" + o.name.GID() + "'"
	atOnce := !expects(o.work)

	s.unreplicated = false
	t := s.trip(ctx)
	t.run(s.begin)
	t.run(p.sql.Insert, o.name.PostgresArgs(o.Digest, &epoch)...)
	t.work(o.work)
	if s.touched {
		t.run(ownRole)
		t.run(ownWaiting)
	}
	if atOnce {
		t.once(prepare)
	}
	answers, err := t.make()
	if err != nil {
		return participants.Vote{}, err
	}
	if vote, err := s.judge(answers[:2+len(o.work)], o.work); err != nil || vote.Kind != txn.VoteNone {
		return vote, err
	}
	if atOnce {
		last := answers[len(answers)-1]
		return p.prepared(ctx, s, o, last.tag.String(), last.err)
	}
	tag, err := s.command(ctx, prepare)
	return p.prepared(ctx, s, o, tag, err)
}

// work adds a branch's statements. Those of the catalogue come again.
func (t *trip) work(work []statements.Statement) {
	for _, st := range work {
		if st.Name != "" {
			t.run(st.SQL, st.Args...)
		} else {
			t.s.touched = true
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
		return refusal("prepare", refused), nil
	case err != nil:
		return participants.Vote{}, err
	case tag == "ROLLBACK":
		return participants.No("the transaction had ended, or failed, before its prepare"), nil
	case tag != "PREPARE TRANSACTION":
		return participants.Vote{}, fmt.Errorf("the server answered the prepare with %.40q", tag)
	case s.unreplicated:
		if err := p.sync(ctx, s, o.Cluster); err != nil {
			return participants.Vote{}, err
		}
	}
	return participants.Yes(), nil
}

// rollbackTimeout bounds a rollback, or the cleaning of a session, that no caller
// asked for. After it the connection is closed, which does both.
const rollbackTimeout = time.Second

// ownRole leaves whatever role a statement took on: only the role that prepares a
// branch may end it.
const ownRole = "RESET SESSION AUTHORIZATION"

// ownWaiting takes back what a statement has said of waiting for synchronous
// standbys, and of the warning that nobody waited: a yes is worth no less because
// the request would have it so. It is said for the session, because a vote may look
// once more after the transaction.
const ownWaiting = `SELECT set_config('client_min_messages', 'warning', false),` +
	` CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')` +
	` THEN set_config('synchronous_commit', 'on', false) END`

// idle is a session that is in no transaction, as the server says it.
const idle = 'I'

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

// clean undoes what SQL of a request may have left in the session, where the next
// branch would find it: a role, a search_path, a lock.
func (s *session) clean(ctx context.Context) {
	if !s.touched || s.conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	t := s.trip(ctx)
	t.run(ownRole)
	t.run("RESET ALL") // to what was set while connecting
	t.ask(settle)
	t.ask("SELECT pg_advisory_unlock_all()")
	answers, err := t.make()
	if err != nil || answers[len(answers)-1].err != nil {
		s.conn.Close(ctx) //nolint:errcheck // it is given up
	}
	s.touched = false
}
