package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// errWrites says that a branch that looked as if it only read does more.
var errWrites = errors.New("the branch writes")

// readOnly runs a branch that leaves nothing behind, and needs no second phase.
func (p *participant) readOnly(ctx context.Context, w *work) (participants.Vote, error) {
	s, err := p.branches.take(ctx)
	if err != nil {
		return participants.Vote{}, err
	}
	defer p.branches.put(s)
	vote, err := p.read(ctx, s, w)
	if _, over := s.exec(ctx, "ROLLBACK"); over != nil {
		s.close() // the transaction ends with it
	}
	if err == nil && vote.Kind == txn.VoteAbort {
		return p.remember(ctx, s, w, vote)
	}
	if errors.Is(err, errFenced) {
		return p.standing(ctx, w)
	}
	return vote, err
}

func (p *participant) read(ctx context.Context, s *session, w *work) (participants.Vote, error) {
	row, err := s.row(ctx, "START TRANSACTION READ ONLY;\n"+p.sql.Standing, w.gid, w.Cluster, w.b.Epoch, int64(w.TxID.Time()))
	if err != nil {
		return participants.Vote{}, err
	}
	var known, closed int64
	if err := row.scan(&known, &closed); err != nil {
		return participants.Vote{}, err
	}
	if known != 0 || closed != 0 {
		return participants.Vote{}, errFenced
	}
	for _, st := range w.statements {
		rows, err := s.count(ctx, st.text, st.args...)
		refusal, err := sort(err)
		switch {
		case err != nil:
			return participants.Vote{}, err
		case numberOf(refusal) == errReadOnlyTx:
			return participants.Vote{}, errWrites
		case refusal == nil:
			refusal = st.expect(rows)
		default:
			refusal = fmt.Errorf("%s: %s", st, reasonOf(refusal))
		}
		if refusal != nil {
			return participants.No("%v", refusal), nil
		}
	}
	return participants.ReadOnly(), nil
}

// standing answers a reading branch of which the tables already say something.
func (p *participant) standing(ctx context.Context, w *work) (participants.Vote, error) {
	vote, known, err := p.reconsider(ctx, w)
	if err == nil && !known {
		err = errors.New("the marker tables changed while the branch read")
	}
	return vote, err
}
