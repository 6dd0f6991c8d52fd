package mysql

import (
	"context"
	"strings"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants/marker"
)

const (
	// housekeepPause is between two rounds of forgetting. Rows are forgotten by what
	// the fence said a round ago, so a branch whose insert read an older fence has
	// had this long to end: a thousand times what an insert takes.
	housekeepPause = time.Minute
	// forgetAtOnce rows are deleted by one transaction, which is some milliseconds of
	// work, and then others have forgetRest to go on.
	forgetAtOnce = 500
	forgetRest   = 20 * time.Millisecond
)

// housekeep forgets what lies before the horizon (rule R11) and closes sessions
// that are not needed, until Close.
func (p *participant) housekeep() {
	var due map[string]txn.Time // horizons that were stored a round ago
	for sleep(p.ctx, housekeepPause) == nil {
		p.letGo(p.ctx)
		p.branches.trim(time.Now())
		p.errands.trim(time.Now())
		for cluster, horizon := range due {
			if err := p.forget(p.ctx, cluster, horizon); err != nil && p.ctx.Err() == nil {
				p.log.Warn("forgetting finished branches failed, will be tried again", "error", err)
			}
		}
		due = p.fences.stored()
	}
}

// forget deletes the rows of a cluster's branches before the horizon. It sees only
// rows that are committed: those of prepared branches are not among them (rules R7
// and R10).
func (p *participant) forget(ctx context.Context, cluster string, horizon txn.Time) error {
	for {
		n := 0
		err := p.errand(ctx, func(s *session) error {
			rows, err := s.query(ctx, p.sql.Forgettable, marker.GIDPrefix(cluster), marker.Horizon(cluster, horizon), int64(forgetAtOnce))
			if n = len(rows); err != nil || n == 0 {
				return err
			}
			var text strings.Builder
			text.WriteString("START TRANSACTION")
			keys := make([]any, n)
			for i, r := range rows {
				text.WriteString(";\n" + p.sql.Forget)
				keys[i] = r[0]
			}
			text.WriteString(";\nCOMMIT")
			if _, err = s.exec(ctx, text.String(), keys...); err != nil {
				s.close() // and with it the transaction
			}
			return err
		})
		if err != nil || n < forgetAtOnce {
			return err
		}
		if err := sleep(ctx, forgetRest); err != nil {
			return err
		}
	}
}
