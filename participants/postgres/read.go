package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// read runs a branch that only reads. It leaves nothing behind, whatever the
// statements were: the database holds the transaction to it.
func (p *participant) read(ctx context.Context, s *session, o order) (participants.Vote, error) {
	t := s.trip(ctx)
	t.run(s.beginReading)
	t.ask(p.sql.Guard, o.name.GID(), o.name.PostgresLock(), o.Cluster)
	t.work(o.work)
	t.run(s.endReading)
	answers, err := t.make()
	switch {
	case err != nil:
		return participants.Vote{}, err
	case answers[1].err == nil && !free(answers[1].rows, o.Branch):
		return participants.Vote{}, errKnown
	case writes(answers):
		return participants.Vote{}, errWrites
	}
	if vote, err := s.judge(answers[:2+len(o.work)], o.work); err != nil || vote.Kind != txn.VoteNone {
		return vote, err
	}
	var refused *pgconn.PgError
	if errors.As(answers[len(answers)-1].err, &refused) {
		return refusal("the end of reading", refused), nil
	}
	return participants.ReadOnly(), nil
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
