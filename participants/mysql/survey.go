package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants/marker"
)

// survey looks at a server for what keeps it from taking part. Each finding says
// what to change where.
type survey struct {
	session *session
	cfg     Config
	sql     marker.MySQL
	log     hclog.Logger
}

// oldest is the first version of MariaDB in which what is prepared outlives its
// connection. triedVersion is the one that this driver was tried on.
const (
	oldestMajor, oldestMinor = 10, 5
	triedVersion             = "10.11"
)

var versionForm = regexp.MustCompile(`^(\d+)\.(\d+)\.`)

// server tells MariaDB from what else speaks its protocol.
func (v survey) server(ctx context.Context) error {
	row, err := v.session.row(ctx, "SELECT @@version, @@version_comment")
	if err != nil {
		return err
	}
	var version, comment string
	if err := row.scan(&version, &comment); err != nil {
		return err
	}
	if err := judge(version, comment); err != nil {
		return err
	}
	v.log.Info("the database is MariaDB", "version", version, "tried", triedVersion)
	return nil
}

// judge refuses versions on which the driver cannot work, or was never tried.
func judge(version, comment string) error {
	if !strings.Contains(version, "MariaDB") && !strings.Contains(comment, "MariaDB") {
		return fmt.Errorf("the server is %.64s (%.64s): this driver works with MariaDB, was tried on %s, and refuses others, which keep a prepared branch differently", version, comment, triedVersion)
	}
	// Some builds put 5.5.5- in front, for clients that take a ten for a one.
	parts := versionForm.FindStringSubmatch(strings.TrimPrefix(version, "5.5.5-"))
	if parts == nil {
		return fmt.Errorf("the server has the version %.64q, which cannot be read", version)
	}
	major, _ := strconv.Atoi(parts[1])
	minor, _ := strconv.Atoi(parts[2])
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return fmt.Errorf("the server is MariaDB %.64s: what is prepared outlives its connection from %d.%d on", version, oldestMajor, oldestMinor)
	}
	return nil
}

// durability refuses settings under which a yes, or an end, could be lost.
func (v survey) durability(ctx context.Context) error {
	var problems []error
	for _, wrong := range []struct{ when, what string }{
		{"@@global.read_only <> 0", "the server is read-only: name the primary in the dsn, or SET GLOBAL read_only = OFF"},
		{"@@global.innodb_flush_log_at_trx_commit NOT IN (1, 3)", "a crash could undo what was promised: set innodb_flush_log_at_trx_commit = 1 in the [mariadbd] section of the server's configuration"},
		{"@@global.log_bin <> 0 AND @@global.sync_binlog <> 1", "a crash could undo a commit: with the binary log on, set sync_binlog = 1 in the [mariadbd] section of the server's configuration"},
		{"@@global.log_bin <> 0 AND @@global.binlog_format = 'STATEMENT'", "branches run at READ COMMITTED, which the binary log does not take as statements: set binlog_format = MIXED or ROW in the [mariadbd] section of the server's configuration"},
		{"EXISTS (SELECT 1 FROM information_schema.global_variables WHERE variable_name = 'WSREP_ON' AND variable_value IN ('ON', '1'))", "the server is a node of a Galera cluster, which refuses XA transactions (wsrep_on = ON)"},
		{"NOT EXISTS (SELECT 1 FROM information_schema.engines WHERE engine = 'InnoDB' AND support IN ('YES', 'DEFAULT') AND xa = 'YES')", "the server has no InnoDB, or one that knows no XA"},
	} {
		row, err := v.session.row(ctx, "SELECT "+wrong.when)
		if err != nil {
			return fmt.Errorf("look at the server's settings: %w", err)
		}
		var is int64
		if err := row.scan(&is); err != nil {
			return err
		}
		if is != 0 {
			problems = append(problems, errors.New(wrong.what))
		}
	}
	return errors.Join(problems...)
}

// room compares the connections that the participant may want with those that the
// server gives.
func (v survey) room(ctx context.Context) error {
	row, err := v.session.row(ctx, "SELECT @@global.max_connections")
	if err != nil {
		return err
	}
	var gives int64
	if err := row.scan(&gives); err != nil {
		return err
	}
	if wants := int64(v.cfg.MaxConnections + errandSessions); wants > gives {
		return fmt.Errorf("the server gives %d connections, and the participant may want %d: raise max_connections in the [mariadbd] section of the server's configuration, or set \"max_connections\" of the participant to %d or less",
			gives, wants, gives-errandSessions)
	}
	return nil
}

// rights looks for the one right that a branch's own statements do not show.
func (v survey) rights(ctx context.Context) error {
	_, err := v.session.query(ctx, "SELECT 1 FROM information_schema.innodb_trx LIMIT 1")
	if numberOf(err) == errDenied {
		return fmt.Errorf("whether a branch is free to be committed shows in InnoDB's list of transactions, which needs the right to see it: %s", v.process(ctx))
	}
	return err
}

func (v survey) process(ctx context.Context) string {
	return "GRANT PROCESS ON *.* TO " + v.user(ctx)
}

// user is the account of the session, as GRANT wants it.
func (v survey) user(ctx context.Context) string {
	var user string
	row, err := v.session.row(ctx, "SELECT CURRENT_USER()")
	if err != nil || row.scan(&user) != nil {
		return "this user"
	}
	name, host, _ := strings.Cut(user, "@")
	return fmt.Sprintf("'%s'@'%s'", name, host)
}

// rehearse carries a branch of nobody's as far as prepared and rolls it back, and
// tries the other statements on the marker tables.
func (v survey) rehearse(ctx context.Context) error {
	id := uuid.NewString()
	xid := marker.XID{GTRID: id, BQUAL: "rehearsal"}.String()
	digest := make([]byte, 32)
	steps := []struct {
		sql  string
		args []any
	}{
		{"XA START " + xid, nil},
		{v.sql.InsertOpen, []any{id, digest, v.session.owner.String(), id, uint64(0), int64(0)}},
		{"XA END " + xid, nil},
		{"XA PREPARE " + xid, nil},
		{"XA ROLLBACK " + xid, nil},
		{"START TRANSACTION", nil},
		{v.sql.Tombstone, []any{id, ""}},
		{v.sql.Look, []any{id}},
		{v.sql.RaiseFence, []any{id, uint64(0), int64(0)}},
		{v.sql.Forget, []any{id}},
		{"ROLLBACK", nil},
	}
	for _, step := range steps {
		if _, err := v.session.exec(ctx, step.sql, step.args...); err != nil {
			v.session.close() // and nothing of it stays
			return fmt.Errorf("a rehearsal of a branch failed at %.40q: %w; where it is a right that is missing: %s", step.sql, err, v.grants())
		}
	}
	return nil
}

// grants is what gives the rights on the marker tables.
func (v survey) grants() string {
	at := ""
	if v.cfg.Schema != "" {
		at = "`" + v.cfg.Schema + "`."
	}
	var all []string
	for _, table := range []string{"decree_branch", "decree_fence", "decree_resource"} {
		all = append(all, "GRANT SELECT, INSERT, UPDATE, DELETE ON "+at+table+" TO the user of the dsn;")
	}
	return strings.Join(all, " ")
}

// catalogue has the server parse every statement.
func (v survey) catalogue(ctx context.Context) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(v.cfg.Catalogue)) {
		e := v.cfg.Catalogue[name]
		stmt, err := v.session.conn.(driver.ConnPrepareContext).PrepareContext(ctx, e.SQL)
		if numberOf(err) == 0 && err != nil {
			return v.session.failed(err)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("catalogue %q: %w", name, err))
			continue
		}
		if n := stmt.NumInput(); n != len(e.Params) {
			problems = append(problems, fmt.Errorf("catalogue %q: the statement has %d placeholders for %d params", name, n, len(e.Params)))
		}
		if err := stmt.Close(); err != nil {
			return v.session.failed(err)
		}
	}
	return errors.Join(problems...)
}

// engines looks for tables that know no transactions: a branch that is aborted
// would leave its changes in them. It cannot see what triggers and procedures
// touch, nor tables of other databases.
func (v survey) engines(ctx context.Context) error {
	rows, err := v.session.query(ctx, "SELECT t.table_name, t.engine FROM information_schema.tables t"+
		" JOIN information_schema.engines e ON e.engine = t.engine"+
		" WHERE t.table_schema = DATABASE() AND t.table_type = 'BASE TABLE' AND e.transactions <> 'YES' ORDER BY t.table_name LIMIT 100")
	if err != nil {
		return fmt.Errorf("look at the tables' engines: %w", err)
	}
	var problems []error
	for _, r := range rows {
		var table, engine string
		if err := r.scan(&table, &engine); err != nil {
			return err
		}
		fix := fmt.Sprintf("ALTER TABLE `%s` ENGINE = InnoDB", table)
		mention := regexp.MustCompile(`(?i)(^|[^\pL\pN_$])` + regexp.QuoteMeta(table) + `($|[^\pL\pN_$])`)
		for _, name := range slices.Sorted(maps.Keys(v.cfg.Catalogue)) {
			if mention.MatchString(v.cfg.Catalogue[name].SQL) {
				problems = append(problems, fmt.Errorf("catalogue %q: the table %s (%s) knows no transactions, and an abort would undo nothing in it: %s", name, table, engine, fix))
			}
		}
		if v.cfg.RawSQL {
			v.log.Warn("requests may carry SQL, and an abort would undo nothing in a table without transactions", "table", table, "engine", engine, "change", fix)
		}
	}
	return errors.Join(problems...)
}
