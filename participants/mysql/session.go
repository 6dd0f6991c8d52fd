package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// session is one connection to the server. It is used by one goroutine at a time,
// and not any more after an error that is not the server's own: the server may
// still be at work on what was sent.
type session struct {
	conn  driver.Conn
	owner marker.MySQLOwner // set once
	idle  time.Time         // since when, in a pool
	dead  bool
}

// dialer makes sessions with one database.
type dialer struct {
	dsn      participants.Reference
	sql      marker.MySQL
	identity string // what the server must have; empty while it is being registered
	timeout  time.Duration
	lockWait int // seconds; 0 refuses to wait
	log      hclog.Logger
}

// alarmed logs a connection that leads to the wrong place: it needs a person, and
// everything waits until then.
func (d *dialer) alarmed(err error) error {
	if errors.Is(err, errStranger) || errors.Is(err, errReadOnly) {
		d.log.Error("the dsn leads to a database that cannot be used", "error", err)
	}
	return err
}

// settings are what every session must have, whatever the server's defaults and
// the DSN say. Without READ COMMITTED the fence's row would be locked by every
// branch; completion_type, autocommit and sql_mode could change what a statement
// means; in a character set like gbk, half a character swallows the backslash with
// which the library quotes; and a session that is closed while idle lets go of its branch, which then
// takes the long way to its end.
const settings = "SET NAMES utf8mb4, SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'," +
	" SESSION tx_isolation = 'READ-COMMITTED', SESSION tx_read_only = 0, SESSION autocommit = 1, SESSION completion_type = 'NO_CHAIN'," +
	" SESSION wait_timeout = 31536000, SESSION idle_transaction_timeout = 0, SESSION idle_readonly_transaction_timeout = 0," +
	" SESSION idle_write_transaction_timeout = 0, SESSION max_statement_time = 0, SESSION innodb_lock_wait_timeout = "

// errUnconfigured stands for every error of a DSN's parser: some of them quote it.
var errUnconfigured = errors.New("what the dsn refers to is not of the form user:password@protocol(address)/database?parameters")

// parseDSN reads a data source name and lays down what the driver relies on.
func parseDSN(dsn string, log hclog.Logger) (*mysql.Config, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, errUnconfigured
	}
	if cfg.DBName == "" {
		return nil, errors.New("what the dsn refers to names no database")
	}
	cfg.MultiStatements = true   // what is fixed in a branch shares its trips
	cfg.InterpolateParams = true // and arguments travel with their statement
	cfg.ClientFoundRows = true   // a row that already was as wished counts as touched
	cfg.CheckConnLiveness = true
	cfg.AllowAllFiles = false
	cfg.ColumnsWithAlias = false
	cfg.RejectReadOnly = false // it hides the server's error
	cfg.ParseTime = false
	cfg.Logger = libraryLog{log}
	// The library quotes strings byte by byte, which is safe in UTF-8.
	if err := cfg.Apply(mysql.Charset("utf8mb4", "")); err != nil {
		return nil, errUnconfigured
	}
	return cfg, nil
}

// libraryLog takes what the library has to say about its connections, each of
// which ends in an error that says it better.
type libraryLog struct{ log hclog.Logger }

func (l libraryLog) Print(v ...any) { l.log.Debug("connection", "library", fmt.Sprint(v...)) }

// dial makes a session. Its errors name neither password nor DSN.
func (d *dialer) dial(ctx context.Context) (*session, error) {
	dsn, err := d.dsn.Resolve() // each time: it may have been rotated
	if err != nil {
		return nil, err
	}
	cfg, err := parseDSN(dsn, d.log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.dsn, err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = d.timeout
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.dsn, errUnconfigured)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s := &session{conn: conn}
	if err := d.claim(ctx, s); err != nil {
		s.close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return s, nil
}

// claim makes a new connection the driver's own: its settings, its lock, and the
// certainty that the server is the right one.
func (d *dialer) claim(ctx context.Context, s *session) error {
	lock := marker.MySQLLock(uuid.NewString())
	setup := fmt.Sprintf("%s%d;\n%s", settings, d.lockWait, marker.MySQLClaim)
	row, err := s.row(ctx, setup, lock)
	if err != nil {
		return err
	}
	var taken int64
	if err := row.scan(&s.owner.Connection, &s.owner.Started, &taken); err != nil {
		return err
	}
	if taken != 1 {
		return errors.New("the session's lock was not given, though its name is new")
	}
	s.owner.Lock = lock
	if d.identity == "" {
		return nil
	}
	return d.alarmed(d.recognize(ctx, s))
}

// errStranger answers on a connection that leads elsewhere than it did when the
// participant was registered.
var errStranger = errors.New("the connection leads to another database than the one that was registered")

// errReadOnly answers on a connection to a replica, or to a server that was made
// read-only: what is missing there says nothing about what was committed.
var errReadOnly = errors.New("the server is read-only")

// recognize refuses a server that is not the registered one, or cannot write.
func (d *dialer) recognize(ctx context.Context, s *session) error {
	identity, err := readIdentity(ctx, s, d.sql)
	var failure *mysql.MySQLError
	switch {
	case errors.As(err, &failure) && failure.Number == errNoSuchTable:
		return fmt.Errorf("%w: it has no marker tables", errStranger)
	case err != nil:
		return err
	case identity != d.identity:
		return fmt.Errorf("%w: it is %s, and should be %s", errStranger, identity, d.identity)
	}
	row, err := s.row(ctx, "SELECT @@global.read_only")
	if err != nil {
		return err
	}
	var readOnly int64
	if err := row.scan(&readOnly); err != nil {
		return err
	}
	if readOnly != 0 {
		return errReadOnly
	}
	return nil
}

// readIdentity names the database that a session is connected to.
func readIdentity(ctx context.Context, s *session, sql marker.MySQL) (string, error) {
	row, err := s.row(ctx, sql.Identity)
	if err != nil {
		return "", err
	}
	var id, database string
	var version int64
	if err := row.scan(&id, &version, &database); err != nil {
		return "", err
	}
	if version > marker.MySQLVersion {
		return "", fmt.Errorf("the marker tables are of version %d, and this release knows %d: it must leave them alone", version, marker.MySQLVersion)
	}
	return "mariadb:" + id + "/" + database, nil
}

// exec runs a text of one statement or more and returns the rows that each
// touched. An error of the server's is a *mysql.MySQLError, with nothing of the
// text run after the statement that failed; any other ends the session.
func (s *session) exec(ctx context.Context, sql string, args ...any) ([]int64, error) {
	result, err := s.conn.(driver.ExecerContext).ExecContext(ctx, sql, named(args))
	if err != nil {
		return nil, s.failed(err)
	}
	all, ok := result.(mysql.Result)
	if !ok {
		return nil, s.failed(fmt.Errorf("the library answers with a %T", result))
	}
	return all.AllRowsAffected(), nil
}

// query runs a text of one statement or more and returns the rows of the first
// that answers with any. Errors are as those of exec.
func (s *session) query(ctx context.Context, sql string, args ...any) (rows []row, err error) {
	err = s.each(ctx, sql, args, func(r row) { rows = append(rows, r) })
	return rows, err
}

// count is query for one who only wants to know how many rows there are.
func (s *session) count(ctx context.Context, sql string, args ...any) (n int64, err error) {
	err = s.each(ctx, sql, args, func(row) { n++ })
	return n, err
}

func (s *session) each(ctx context.Context, sql string, args []any, take func(row)) error {
	rows, err := s.conn.(driver.QueryerContext).QueryContext(ctx, sql, named(args))
	if err != nil {
		return s.failed(err)
	}
	for {
		r := make(row, len(rows.Columns()))
		if err = rows.Next(r); err != nil {
			break
		}
		for i, v := range r {
			if b, ok := v.([]byte); ok {
				r[i] = string(b) // the library uses its buffer again
			}
		}
		take(r)
	}
	if err == io.EOF {
		err = nil
	}
	// What comes after the first result may fail too.
	if err = errors.Join(err, rows.Close()); err != nil {
		return s.failed(err)
	}
	return nil
}

// row is query for one row, and an error where there is none.
func (s *session) row(ctx context.Context, sql string, args ...any) (row, error) {
	rows, err := s.query(ctx, sql, args...)
	if err == nil && len(rows) == 0 {
		err = errNoRow
	}
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

var errNoRow = errors.New("the server answers with no row")

// failed marks the session as spent, unless the server itself has refused, or the
// library has sent nothing.
func (s *session) failed(err error) error {
	if err != nil && numberOf(err) == 0 && !errors.Is(err, driver.ErrSkip) {
		s.dead = true
	}
	return err
}

// alive reports whether the connection can still be used, as far as can be seen
// without a trip.
func (s *session) alive(ctx context.Context) bool {
	return !s.dead && s.conn.(driver.SessionResetter).ResetSession(ctx) == nil
}

// ping asks the server whether the session lives.
func (s *session) ping(ctx context.Context) error {
	if s.dead {
		return driver.ErrBadConn
	}
	return s.failed(s.conn.(driver.Pinger).Ping(ctx))
}

func (s *session) close() {
	s.dead = true
	s.conn.Close() //nolint:errcheck // the server notices in any case
}

func named(args []any) []driver.NamedValue {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return values
}
