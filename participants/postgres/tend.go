package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants/marker"
)

// pace is how often the participant does what goes on in the background.
type pace struct {
	// A database that is unfit, or down, is looked at again after the first pause,
	// then less and less often.
	firstLook, mostLook time.Duration
	// look bounds one such look.
	look time.Duration

	// forget is how often rows before the horizon are looked for.
	forget time.Duration
	// grace is how long a horizon is in the database before anything that lies
	// before it is forgotten. A prepare that is under way may have read the fence
	// before that, and still wait for the row: it must find it, or have failed.
	grace time.Duration
	// batch is how many rows one statement deletes, and rest the time between two.
	batch int
	rest  time.Duration
}

// usualPace is that of a participant in service.
func usualPace() pace {
	return pace{
		firstLook: 250 * time.Millisecond,
		mostLook:  time.Minute,
		look:      20 * time.Second,
		forget:    30 * time.Second,
		// The wait of a marker row is bounded by the lock timeout, its statement by the
		// statement timeout; an application's own session may have longer ones, though
		// not while the cluster still takes the transaction.
		grace: 2 * time.Minute,
		// Ten thousand rows a second keep up with any rate at which branches can be
		// prepared, and a thousand hold no lock for long.
		batch: 1000,
		rest:  100 * time.Millisecond,
	}
}

// tend does what goes on in the background, until ctx ends.
func (p *participant) tend(ctx context.Context, pace pace) {
	if !p.untilFit(ctx, pace) {
		return
	}
	stored := map[string]stored{}
	for sleep(ctx, pace.forget) {
		for cluster, fence := range p.fences.all() {
			p.forgetOf(ctx, pace, cluster, fence.Horizon, stored)
		}
	}
}

// untilFit looks at the database until nothing keeps it from taking part. False
// means that ctx has ended.
func (p *participant) untilFit(ctx context.Context, pace pace) bool {
	said := ""
	for wait := pace.firstLook; ; wait = min(2*wait, pace.mostLook) {
		call, cancel := context.WithTimeout(ctx, pace.look)
		_, err := probe(call, p.registration, p.cfg, p.log)
		cancel()
		if err == nil {
			p.fit.Store(true)
			if said != "" {
				p.log.Info("the database can take part now")
			}
			return true
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			p.log.Error("the database cannot take part", "error", err)
		}
		if !sleep(ctx, wait) {
			return false
		}
	}
}

// stored is a horizon that was in the database at a time.
type stored struct {
	horizon txn.Time
	at      time.Time
}

// forgetOf deletes the rows of a cluster that lie before a horizon which has been
// in the database for long enough (rule R11). A prepared branch's row is not
// visible, and so never deleted.
func (p *participant) forgetOf(ctx context.Context, pace pace, cluster string, horizon txn.Time, known map[string]stored) {
	was, ok := known[cluster]
	if ok && time.Since(was.at) < pace.grace {
		return
	}
	if ok {
		if err := p.forget(ctx, pace, cluster, was.horizon); err != nil {
			if ctx.Err() == nil {
				p.log.Warn("forgetting old branches failed, will be tried again", "cluster", cluster, "error", err)
			}
			return
		}
	}
	known[cluster] = stored{horizon: horizon, at: time.Now()}
}

// forget deletes in batches, and rests between them.
func (p *participant) forget(ctx context.Context, pace pace, cluster string, horizon txn.Time) error {
	for {
		var deleted int64
		err := p.with(ctx, func(s *session) error {
			a, err := s.query(ctx, p.sql.Forget, marker.GIDPrefix(cluster), marker.Horizon(cluster, horizon), pace.batch)
			deleted = a.tag.RowsAffected()
			return err
		})
		if err != nil {
			return fmt.Errorf("deleting marker rows: %w", err)
		}
		if deleted < int64(pace.batch) || !sleep(ctx, pace.rest) {
			return context.Cause(ctx)
		}
	}
}

// sleep waits; false means that ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
