package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// sight is what the database shows of a branch.
type sight struct {
	prepared bool // it is in the list of prepared transactions
	held     bool // somebody is at work on it, or it is prepared
	worker   bool // it is a session that is at work, and could be ended
	same     bool // what is held has the content that was asked for

	row   participants.Record // StatusUnknown: there is no row that can be seen
	fence participants.Fence
}

// lookAt asks what the database shows of a branch. It does so in two transactions:
// a branch that commits becomes visible before it lets go, so that one which is
// neither held in the first nor visible in the second was not there in between.
func (p *participant) lookAt(ctx context.Context, s *session, name marker.Branch, digest txn.Digest) (sight, error) {
	t := s.trip(ctx)
	t.ask(p.sql.Holders, name.GID(), name.PostgresLock(), name.PostgresContentLock(digest))
	t.endPart()
	t.ask(p.sql.Look, name.GID(), name.Cluster)
	answers, err := t.make()
	if err != nil {
		return sight{}, err
	}
	for _, a := range answers {
		if a.err != nil {
			return sight{}, a.err
		}
		if len(a.rows) != 1 {
			return sight{}, fmt.Errorf("the marker tables answered with %d rows", len(a.rows))
		}
	}
	holders, look := answers[0].rows[0], answers[1].rows[0]
	seen := sight{
		prepared: holders.truth(0),
		held:     holders.truth(1),
		worker:   holders.text(2) != "0",
		same:     holders.truth(3),
	}
	if seen.row, err = recordOf(look, 0); err != nil {
		return sight{}, err
	}
	if seen.fence, err = fenceOf(look, 3); err != nil {
		return sight{}, err
	}
	p.fences.learn(name.Cluster, seen.fence)
	return seen, nil
}

// recordOf reads state, digest and reason in three columns of a row.
func recordOf(r row, column int) (participants.Record, error) {
	var rec participants.Record
	switch state := r.text(column); state {
	case "":
		return rec, nil
	case marker.Prepared:
		rec.Status = participants.StatusCommitted // or nobody could see it
	case marker.Aborted:
		rec.Status = participants.StatusAborted
	default:
		return rec, fmt.Errorf("a row of decree_branch has the state %.32q", state)
	}
	if digest := r.text(column + 1); digest != "" {
		raw, err := hex.DecodeString(strings.TrimPrefix(digest, `\x`))
		if err != nil || len(raw) != len(rec.Digest) {
			return rec, errors.New("a row of decree_branch has a digest that is none")
		}
		copy(rec.Digest[:], raw)
	}
	rec.Reason = r.text(column + 2)
	return rec, nil
}

// record is what is known of the branch by now. False means that a moment later
// more will be: it is on its way, into the list of prepared transactions or out of
// it.
func (v sight) record(digest txn.Digest) (participants.Record, bool) {
	switch {
	case v.row.Status != participants.StatusUnknown:
		return v.row, true
	case v.prepared && v.held && v.same:
		return participants.Record{Status: participants.StatusPrepared, Digest: digest}, true
	case v.prepared && v.held:
		return participants.Record{Status: participants.StatusPrepared}, true // of other content
	default:
		return participants.Record{}, !v.prepared && !v.held
	}
}

// sync makes sure that what was seen is as durable as the server makes a commit. A
// branch is in the list before the synchronous standbys have it.
func (p *participant) sync(ctx context.Context, s *session, cluster string) error {
	s.unreplicated = false
	if _, err := s.query(ctx, p.sql.Sync, cluster); err != nil {
		return err
	}
	if s.unreplicated {
		return errors.New("the synchronous standbys have not confirmed")
	}
	return nil
}

// Status implements participants.StatusReporter.
func (p *participant) Status(ctx context.Context, b participants.Branch) (status participants.Status, err error) {
	name, err := nameOf(b)
	if err != nil {
		return participants.StatusUnknown, err
	}
	err = p.with(ctx, func(s *session) error {
		for w := pause(0); ; {
			seen, err := p.lookAt(ctx, s, name, b.Digest)
			if err != nil {
				return err
			}
			if rec, settled := seen.record(b.Digest); settled {
				status = rec.Status
				return nil
			}
			if !w.wait(ctx) {
				return context.Cause(ctx)
			}
		}
	})
	if err != nil {
		return participants.StatusUnknown, fmt.Errorf("status of %s: %w", b.Name(), err)
	}
	return status, nil
}
