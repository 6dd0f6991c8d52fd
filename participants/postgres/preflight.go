package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// oldestServer is the oldest version that is taken. All that is used here came
// with 11; nobody repairs what is older than this, and nothing older was tried.
const oldestServer = 12_00_00

// Probe implements participants.Prober. It makes the marker tables where they are
// missing and the role may.
func (Driver) Probe(ctx context.Context, r participants.Registration, log hclog.Logger) (string, error) {
	cfg, err := parseConfig(r.Config)
	if err != nil {
		return "", fmt.Errorf("%w: %w", participants.ErrUnfit, err)
	}
	r.Identity = "" // whatever it is, it is found out here
	identity, err := probe(ctx, r, cfg, log)
	if err != nil {
		return "", fmt.Errorf("%w: %w", participants.ErrUnfit, err)
	}
	return identity, nil
}

// probe looks at the database over a connection of its own.
func probe(ctx context.Context, r participants.Registration, cfg Config, log hclog.Logger) (string, error) {
	cc, err := dial(r, cfg)
	if err != nil {
		return "", err
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return "", unreachable(cfg.DSN, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing depends on it
	sql, err := marker.NewPostgres(cfg.Schema)
	if err != nil {
		return "", err
	}
	i := &inspection{session: newSession(conn.PgConn()), cfg: cfg, sql: sql, log: log}
	return i.run(ctx, r.Identity)
}

// inspection looks for all that keeps a database from taking part.
type inspection struct {
	*session
	cfg      Config
	sql      marker.Postgres
	log      hclog.Logger
	role     string // as SQL writes it
	problems []error
}

func (i *inspection) problem(format string, args ...any) {
	i.problems = append(i.problems, fmt.Errorf(format, args...))
}

// run inspects, and makes the tables only in the place that was registered.
func (i *inspection) run(ctx context.Context, registered string) (string, error) {
	place, err := i.greet(ctx, i.cfg.Isolation)
	if err != nil {
		return "", accessToControl(err)
	}
	misled := place.check(registered)
	if misled != nil {
		i.problems = append(i.problems, misled)
	}
	if err := i.settings(ctx); err != nil {
		return "", err
	}
	if misled == nil {
		if err := i.tables(ctx); err != nil {
			return "", err
		}
	}
	if err := i.strangers(ctx); err != nil {
		return "", err
	}
	return place.identity, errors.Join(i.problems...)
}

// accessToControl says what to change where the server does not tell the role what
// it is.
func accessToControl(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == notPermitted {
		return fmt.Errorf("the role may not ask which server this is: "+
			"run GRANT EXECUTE ON FUNCTION pg_control_system() TO the role as superuser: %w", err)
	}
	return err
}

// settings looks at the server's settings.
func (i *inspection) settings(ctx context.Context) error {
	const ask = `SELECT current_setting('server_version_num'), current_setting('server_version'),` +
		` current_setting('max_prepared_transactions'), current_setting('fsync'), current_setting('full_page_writes'), quote_ident(current_user)`
	a, err := i.query(ctx, ask)
	if err != nil {
		return fmt.Errorf("reading the server's settings: %w", err)
	}
	r := a.rows[0]
	if version, err := r.number(0); err != nil || version < oldestServer {
		i.problem("the server is PostgreSQL %s: version %d or later is needed", r.text(1), oldestServer/10000)
	}
	switch room, err := r.number(2); {
	case err != nil:
		return err
	case room == 0:
		i.problem("max_prepared_transactions = 0, so nothing can be prepared: "+
			"set max_prepared_transactions = %d (or more) in postgresql.conf and restart the server", 2*i.cfg.MaxConnections)
	case room < int64(i.cfg.MaxConnections):
		i.log.Warn("the server has room for few prepared transactions: branches beyond them will vote no",
			"max_prepared_transactions", room, "max_connections", i.cfg.MaxConnections)
	}
	if r.text(3) != "on" {
		i.problem("fsync = off, so a crash of the server's machine loses branches that voted yes: set fsync = on in postgresql.conf")
	}
	if r.text(4) != "on" {
		i.log.Warn("full_page_writes is off: a crash of the server's machine may damage the database")
	}
	i.role = r.text(5)
	return nil
}

// tables makes the marker tables where they are missing, and looks at the rights
// that the role has on them.
func (i *inspection) tables(ctx context.Context) error {
	missing, err := i.missing(ctx)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := i.makeTables(ctx); err != nil {
			i.problem("the tables %s are missing in schema %s, and this role could not make them (%w): run as the schema's owner: %s",
				strings.Join(missing, ", "), i.cfg.Schema, err, i.recipe())
			return nil
		}
		i.log.Info("made the marker tables", "schema", i.cfg.Schema)
	}
	return i.access(ctx)
}

// recipe is the SQL that makes the tables for this role.
func (i *inspection) recipe() string {
	var sql []string
	if i.cfg.Schema != marker.PostgresSchema {
		sql = append(sql, fmt.Sprintf(`CREATE SCHEMA IF NOT EXISTS "%s"`, i.cfg.Schema))
	}
	sql = append(sql, i.sql.Tables...)
	sql = append(sql, fmt.Sprintf(`GRANT USAGE ON SCHEMA "%s" TO %s`, i.cfg.Schema, i.role))
	for _, grant := range []string{
		"SELECT, INSERT, DELETE ON %s.decree_branch", "SELECT, INSERT, UPDATE ON %s.decree_fence", "SELECT ON %s.decree_schema",
	} {
		sql = append(sql, "GRANT "+fmt.Sprintf(grant, `"`+i.cfg.Schema+`"`)+" TO "+i.role)
	}
	return strings.Join(sql, "; ")
}

// missing are the tables that are not there.
func (i *inspection) missing(ctx context.Context) ([]string, error) {
	const ask = `SELECT name FROM unnest($1::text[]) name WHERE NOT EXISTS (SELECT FROM pg_class c` +
		` JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $2 AND c.relname = name) ORDER BY 1`
	a, err := i.query(ctx, ask, "{decree_branch,decree_fence,decree_schema}", i.cfg.Schema)
	if err != nil {
		return nil, fmt.Errorf("looking for the marker tables: %w", err)
	}
	var names []string
	for _, r := range a.rows {
		names = append(names, r.text(0))
	}
	return names, nil
}

// makeTables makes what is missing, once, however many nodes do so at a time.
func (i *inspection) makeTables(ctx context.Context) error {
	t := i.trip(ctx)
	t.once("BEGIN")
	t.once(i.sql.LockTables)
	for _, table := range i.sql.Tables {
		t.once(table)
	}
	t.once("COMMIT")
	answers, err := t.make()
	for _, a := range answers {
		if err == nil {
			err = a.err
		}
	}
	i.rollback(ctx)
	return err
}

// access looks at the role's rights, and at the version of the tables.
func (i *inspection) access(ctx context.Context) error {
	const ask = `WITH needed (relation, privilege) AS (VALUES` +
		` ('decree_branch', 'SELECT'), ('decree_branch', 'INSERT'), ('decree_branch', 'DELETE'),` +
		` ('decree_fence', 'SELECT'), ('decree_fence', 'INSERT'), ('decree_fence', 'UPDATE'), ('decree_schema', 'SELECT'))` +
		` SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, current_user)` +
		` FROM pg_namespace WHERE nspname = $1 AND NOT has_schema_privilege(oid, 'USAGE')` +
		` UNION ALL SELECT format('GRANT %s ON %I.%I TO %I', string_agg(privilege, ', ' ORDER BY privilege), nspname, relation, current_user)` +
		` FROM needed JOIN pg_class c ON relname = relation JOIN pg_namespace n ON n.oid = relnamespace` +
		` WHERE nspname = $1 AND NOT has_table_privilege(c.oid, privilege) GROUP BY nspname, relation`
	a, err := i.query(ctx, ask, i.cfg.Schema)
	if err != nil {
		return fmt.Errorf("looking at the rights on the marker tables: %w", err)
	}
	if len(a.rows) > 0 {
		var grants []string
		for _, r := range a.rows {
			grants = append(grants, r.text(0))
		}
		i.problem("the role lacks rights on the marker tables: run as their owner: %s", strings.Join(grants, "; "))
		return nil
	}
	return i.version(ctx)
}

func (i *inspection) version(ctx context.Context) error {
	a, err := i.query(ctx, i.sql.Version)
	if err != nil {
		return fmt.Errorf("reading the version of the marker tables: %w", err)
	}
	if len(a.rows) != 1 {
		i.problem("table decree_schema has %d rows, want 1: it was changed by hand", len(a.rows))
		return nil
	}
	version, err := a.rows[0].number(0)
	if err == nil && version > marker.PostgresVersion {
		i.problem("the marker tables have version %d, and this release knows %d: they belong to a later one", version, marker.PostgresVersion)
	}
	return err
}

// strangers warns of branches that were prepared by another role, which this one
// cannot end.
func (i *inspection) strangers(ctx context.Context) error {
	const ask = `SELECT owner, count(*) FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, 'decree_')` +
		` AND owner <> current_user AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) GROUP BY 1`
	a, err := i.query(ctx, ask)
	if err != nil {
		return fmt.Errorf("reading pg_prepared_xacts: %w", err)
	}
	for _, r := range a.rows {
		i.log.Warn("another role has prepared branches here, which only it or a superuser can end: use one role on every node",
			"role", r.text(0), "prepared", r.text(1))
	}
	return nil
}
