package mysql

import (
	"context"
	"fmt"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// sighting is what can be seen of a branch's marker row.
type sighting struct {
	known   bool // there is a row, committed or not
	visible bool // it is committed, and proves the branch's end
	state   string
	digest  [32]byte
	owner   string
	reason  string
}

// record is the sighting as what a participant remembers. What is not visible is
// no memory yet.
func (s sighting) record() participants.Record {
	switch {
	case !s.visible:
		return participants.Record{}
	case s.state == marker.Prepared:
		return participants.Record{Status: participants.StatusCommitted, Digest: s.digest}
	default:
		return participants.Record{Status: participants.StatusAborted, Reason: s.reason}
	}
}

// look reads a branch's row, first as it may be uncommitted, then as everybody
// sees it. In this order a row that is committed in between is seen as committed,
// and one that is rolled back as uncommitted, which claims nothing.
func (p *participant) look(ctx context.Context, gid string) (sighting, error) {
	var seen sighting
	err := p.errand(ctx, func(s *session) error {
		dirty, err := p.sight(ctx, s, "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED;\n", gid)
		if err != nil {
			return err
		}
		if seen, err = p.sight(ctx, s, "", gid); err != nil {
			return err
		}
		if seen.known {
			seen.visible = true
		} else {
			seen = dirty
		}
		return nil
	})
	if err != nil {
		return sighting{}, fmt.Errorf("look at the branch's row: %w", err)
	}
	return seen, nil
}

// recall is what the database remembers of a branch. A branch that somebody is
// still at work on is not remembered.
func (p *participant) recall(ctx context.Context, m marker.Branch) (participants.Record, error) {
	seen, err := p.look(ctx, m.GID())
	if err != nil || !seen.known || seen.visible {
		return seen.record(), err
	}
	prepared, err := p.isPrepared(ctx, m)
	if err != nil || !prepared {
		return participants.Record{}, err
	}
	return participants.Record{Status: participants.StatusPrepared, Digest: seen.digest}, nil
}

func (p *participant) sight(ctx context.Context, s *session, level, gid string) (sighting, error) {
	rows, err := s.query(ctx, level+p.sql.Look, gid)
	if err != nil || len(rows) == 0 {
		return sighting{}, err
	}
	seen := sighting{known: true}
	var digest string
	err = rows[0].scan(&seen.state, &digest, &seen.owner, &seen.reason)
	copy(seen.digest[:], digest)
	return seen, err
}

// preparedXIDs lists what is prepared in the server, of all databases and of
// everybody.
func preparedXIDs(ctx context.Context, s *session) ([]marker.XID, error) {
	rows, err := s.query(ctx, "XA RECOVER")
	if err != nil {
		return nil, fmt.Errorf("XA RECOVER: %w", err)
	}
	var found []marker.XID
	for _, r := range rows {
		var format, gtrid, bqual int64
		var content string
		if err := r.scan(&format, &gtrid, &bqual, &content); err != nil {
			return nil, err
		}
		if gtrid < 0 || bqual < 0 || gtrid+bqual != int64(len(content)) {
			continue // nobody of ours writes such
		}
		found = append(found, marker.XID{GTRID: content[:gtrid], BQUAL: content[gtrid:]})
	}
	return found, nil
}

// isPrepared reports whether the server holds a branch prepared. False means that
// it does not yet, or not any more, or has lost it from its list.
func (p *participant) isPrepared(ctx context.Context, m marker.Branch) (prepared bool, err error) {
	want := m.XID()
	err = p.errand(ctx, func(s *session) error {
		all, err := preparedXIDs(ctx, s)
		for _, x := range all {
			prepared = prepared || x == want
		}
		return err
	})
	return prepared, err
}
