package mysql

import (
	"context"
	"fmt"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// recoverAtOnce bounds the keys of one look at the marker table.
const recoverAtOnce = 500

// Recover implements participants.Participant. The server lists what is prepared
// in all of its databases, and nothing in the list says where: what has no row in
// this database's marker table belongs to another participant.
func (p *participant) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	var found []participants.Branch
	err := p.errand(ctx, func(s *session) error {
		all, err := preparedXIDs(ctx, s)
		if err != nil {
			return err
		}
		var ours []marker.Branch
		for _, x := range all {
			if m, ok := marker.ParseXID(x); ok && m.Cluster == cluster {
				ours = append(ours, m)
			}
		}
		for len(ours) > 0 && err == nil {
			n := min(len(ours), recoverAtOnce)
			var here []participants.Branch
			here, err = p.here(ctx, s, ours[:n])
			found, ours = append(found, here...), ours[n:]
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list what is prepared: %w", err)
	}
	p.fit.Store(true)
	return found, nil
}

// here is those of some prepared branches that have a row in this database, which
// is not yet committed.
func (p *participant) here(ctx context.Context, s *session, ours []marker.Branch) ([]participants.Branch, error) {
	keys := make([]any, len(ours))
	for i, m := range ours {
		keys[i] = m.GID()
	}
	rows, err := s.query(ctx, "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED;\n"+p.sql.Among(len(keys)), keys...)
	if err != nil {
		return nil, err
	}
	found := make([]participants.Branch, 0, len(rows))
	for _, r := range rows {
		var gid string
		if err := r.scan(&gid); err != nil {
			return nil, err
		}
		if m, ok := marker.ParseGID(gid); ok {
			found = append(found, participants.Branch{Cluster: m.Cluster, TxID: m.TxID, Number: m.Number})
		}
	}
	return found, nil
}

// Status implements participants.StatusReporter.
func (p *participant) Status(ctx context.Context, b participants.Branch) (participants.Status, error) {
	m, err := name(b)
	if err != nil {
		return participants.StatusUnknown, nil
	}
	r, err := p.recall(ctx, m)
	return r.Status, err
}

var _ participants.StatusReporter = (*participant)(nil)
