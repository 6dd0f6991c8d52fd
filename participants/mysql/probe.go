package mysql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// Probe implements participants.Prober. It makes the marker tables where they are
// missing, and rehearses a branch.
func (Driver) Probe(ctx context.Context, r participants.Registration, log hclog.Logger) (string, error) {
	unfit := func(err error) (string, error) {
		return "", fmt.Errorf("%w: %w", participants.ErrUnfit, err)
	}
	c, err := parseConfig(r.Config)
	if err != nil {
		return "", err
	}
	sql, err := marker.NewMySQL(c.Schema)
	if err != nil {
		return "", err
	}
	d := dialer{dsn: c.DSN, sql: sql, timeout: time.Duration(c.ConnectTimeout), log: log,
		lockWait: int(time.Duration(c.LockTimeout) / time.Second)} // another node may be naming the database just now
	s, err := d.dial(ctx)
	if err != nil {
		return unfit(err)
	}
	defer s.close()
	v := survey{session: s, cfg: c, sql: sql, log: log}
	if err := v.server(ctx); err != nil {
		return unfit(err) // nothing else means much on such a server
	}
	tables := v.makeTables(ctx)
	problems := []error{v.durability(ctx), v.room(ctx), v.rights(ctx), tables}
	if tables == nil {
		problems = append(problems, v.rehearse(ctx))
	}
	problems = append(problems, v.catalogue(ctx), v.engines(ctx))
	if err := errors.Join(problems...); err != nil {
		return unfit(err)
	}
	return readIdentity(ctx, s, sql)
}

// makeTables makes what is missing of the marker tables, and names the database.
// Two nodes may do so at once. Where nothing is missing, the right to make tables
// is not needed.
func (v survey) makeTables(ctx context.Context) error {
	for _, table := range v.missing(ctx) {
		if _, err := v.session.exec(ctx, table); err != nil {
			return fmt.Errorf("make the marker tables: %w; let somebody who may run:\n%s", err, v.sql.Script())
		}
	}
	if _, err := v.session.exec(ctx, v.sql.Identify, uuid.NewString(), int64(marker.MySQLVersion)); err != nil {
		return fmt.Errorf("name the database: %w; let somebody who may run: %s", err, v.grants())
	}
	_, err := readIdentity(ctx, v.session, v.sql)
	return err
}

// missing is the statements that make the marker tables, unless all can be read.
func (v survey) missing(ctx context.Context) []string {
	for _, read := range []struct {
		sql  string
		args []any
	}{{v.sql.Look, []any{""}}, {v.sql.Fence, []any{""}}, {v.sql.Identity, nil}} {
		if _, err := v.session.query(ctx, read.sql, read.args...); err != nil {
			return v.sql.Tables
		}
	}
	return nil
}

// The pace of the inspection of a database that does not answer.
const (
	inspectPause    = time.Second
	maxInspectPause = 30 * time.Second
	inspectTimeout  = 30 * time.Second
)

// inspect looks at the database once it can be reached, until Close, and logs what
// an operator should know. A database may have changed since it was registered.
func (p *participant) inspect() {
	said := ""
	for pause := inspectPause; ; pause = min(2*pause, maxInspectPause) {
		err := p.inspectOnce()
		if err == nil || p.ctx.Err() != nil {
			return
		}
		if err.Error() != said {
			said = err.Error()
			p.log.Error("the database cannot take part", "error", err)
		}
		if sleep(p.ctx, pause) != nil {
			return
		}
	}
}

func (p *participant) inspectOnce() error {
	ctx, cancel := context.WithTimeout(p.ctx, inspectTimeout)
	defer cancel()
	return p.errand(ctx, func(s *session) error {
		v := survey{session: s, cfg: p.cfg, sql: p.sql, log: p.log}
		if err := v.server(ctx); err != nil {
			return err
		}
		if _, err := preparedXIDs(ctx, s); err != nil {
			return err
		}
		p.fit.Store(true)
		return errors.Join(v.durability(ctx), v.room(ctx), v.rights(ctx), v.catalogue(ctx), v.engines(ctx))
	})
}
