package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/participants"
)

const (
	// connectTimeout bounds the making of a connection, unless the DSN says
	// otherwise: well below the time of a call.
	connectTimeout = 3 * time.Second
	// idleInTransaction ends the transaction of a node that was paused between the
	// two trips of a prepare, and its locks with it. Nothing is prepared then.
	idleInTransaction = 10 * time.Second
	// pingTimeout bounds the question whether a connection that was idle for a while
	// is alive.
	pingTimeout = 2 * time.Second
	// idleConnections are given back to the server, and all of them now and then,
	// so that what changed on the way to it is noticed.
	idleConnection     = 5 * time.Minute
	connectionLifetime = time.Hour
)

// dial describes a connection for a registration: what its secret says now, and
// what every session of ours has. Errors do not show the secret, nor what was read
// out of it: a password with a character out of place ends up in any part of it.
func dial(r participants.Registration, c Config) (*pgx.ConnConfig, error) {
	secret, err := c.DSN.Resolve()
	if err != nil {
		return nil, err
	}
	cc, err := pgx.ParseConfig(secret)
	if err != nil {
		return nil, fmt.Errorf("secret %s is no connection string that PostgreSQL's clients understand", c.DSN)
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = connectTimeout
	}
	cc.OnNotice = notice
	// These are set while connecting, and so go before what is set for the role,
	// for the database and in the server's configuration.
	for name, value := range map[string]string{
		"application_name":                    "decree/" + r.Name,
		"client_encoding":                     "UTF8",
		"lock_timeout":                        milliseconds(time.Duration(c.LockTimeout)),
		"statement_timeout":                   milliseconds(time.Duration(c.StatementTimeout)),
		"idle_in_transaction_session_timeout": milliseconds(idleInTransaction),
		"bytea_output":                        "hex",     // what recordOf reads
		"client_min_messages":                 "warning", // what notice waits for is one
	} {
		cc.RuntimeParams[name] = value
	}
	return cc, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// newPool makes the pool of a participant. No connection is made before the first
// is needed.
func (p *participant) newPool(ctx context.Context) (*pgxpool.Pool, error) {
	// The pool insists on a connection string to begin with; each connection then
	// takes what dial says.
	pc, err := pgxpool.ParseConfig("host=localhost user=decree dbname=decree sslmode=disable")
	if err != nil {
		return nil, errors.New("the environment of this process has PG... variables that PostgreSQL's clients do not understand")
	}
	pc.MaxConns = int32(p.cfg.MaxConnections) //nolint:gosec // Validate bounds it
	pc.MaxConnIdleTime = idleConnection
	pc.MaxConnLifetime = connectionLifetime
	pc.MaxConnLifetimeJitter = connectionLifetime / 4
	pc.PingTimeout = pingTimeout
	pc.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
		fresh, err := dial(p.registration, p.cfg)
		if err == nil {
			*cc = *fresh
		}
		return err
	}
	// The pool connects in the background, for whoever asks next, under a context
	// without an end: a server that falls silent after it has let us in would keep
	// the connection's place for ever.
	pc.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, conn.Config().ConnectTimeout)
		defer cancel()
		return p.greet(ctx, conn.PgConn())
	}
	return pgxpool.NewWithConfig(ctx, pc)
}

// with lends a connection to a call, which may be made again on another where the
// connection is lost: the server was started again, or somebody ended a session
// that was working on another branch a moment ago. That every call can be repeated
// is the contract's; it turns an outcome that nobody would know into a certain one.
// A connection that does not come back idle is closed.
func (p *participant) with(ctx context.Context, call func(*session) error) error {
	for try := 1; ; try++ {
		conn, err := p.pool.Acquire(ctx)
		if err != nil {
			return unreachable(p.cfg.DSN, err)
		}
		s := sessionOf(conn.Conn().PgConn())
		err = call(s)
		s.clean(ctx)
		lost := err != nil && conn.Conn().IsClosed()
		conn.Release()
		if !lost || try == mostTries || ctx.Err() != nil {
			return err
		}
		if !terminated(err) {
			p.pool.Reset() // it is likely that all connections are lost
		}
	}
}

// mostTries bounds the connections that one call may lose.
const mostTries = 3

// greeting asks a server what it is.
const greeting = `SELECT 'postgresql:' || system_identifier || '/' || current_database(),` +
	` pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',` +
	` current_setting('default_transaction_isolation'), pg_backend_pid() FROM pg_control_system()`

// settle sets up a session. It waits for its own commits: without that, a tombstone
// could be gone after a crash; more than "on" is left as it is. And our own
// statements are read committed, whatever the level of branches: under a higher one
// they would fail beside each other.
const settle = `SELECT set_config('default_transaction_isolation', 'read committed', false),` +
	` CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')` +
	` THEN set_config('synchronous_commit', 'on', false) END`

// greet takes a new connection into service, or refuses it with an alarm: a
// standby, or another database, knows nothing of our branches, and its ignorance
// must not be taken for proof.
func (p *participant) greet(ctx context.Context, conn *pgconn.PgConn) error {
	s := newSession(conn)
	place, err := s.greet(ctx, p.cfg.Isolation)
	if err != nil {
		return err
	}
	if err := place.check(p.registration.Identity); err != nil {
		p.alarm.raise("the connection leads to the wrong place; nothing is done until it leads back",
			"secret", string(p.cfg.DSN), "error", err)
		return fmt.Errorf("the connection leads to the wrong place: %w", err)
	}
	return nil
}

// place is what a server says that it is.
type place struct {
	identity string
	recovery bool
	readOnly bool
	pooled   bool // another process answers than the one that the connection was given
}

// greet asks the server what it is, and settles how the session's branches begin
// and end.
func (s *session) greet(ctx context.Context, isolation string) (place, error) {
	t := s.trip(ctx)
	t.ask(greeting)
	t.ask(settle)
	answers, err := t.make()
	for _, a := range answers {
		err = errors.Join(err, a.err)
	}
	if err != nil {
		return place{}, fmt.Errorf("asking the server what it is: %w", err)
	}
	if len(answers[0].rows) != 1 {
		return place{}, fmt.Errorf("the server said %d times what it is", len(answers[0].rows))
	}
	r := answers[0].rows[0]
	if isolation == "" {
		isolation = r.text(3)
	}
	s.begin = "BEGIN ISOLATION LEVEL " + isolation
	// A deferrable one could wait for others to end before it begins.
	s.beginReading = s.begin + " READ ONLY NOT DEFERRABLE"
	// A reader that is serializable has seen a consistent state only once it has
	// committed. Any other rolls back, which takes with it what a read-only
	// transaction can still do: a notification.
	s.endReading = "ROLLBACK"
	if isolation == "serializable" {
		s.endReading = "COMMIT"
	}
	return place{
		identity: r.text(0),
		recovery: r.truth(1),
		readOnly: r.truth(2),
		pooled:   r.text(4) != strconv.FormatUint(uint64(s.conn.PID()), 10),
	}, nil
}

// check holds a place against the registered identity; an empty one is unknown.
func (p place) check(registered string) error {
	switch {
	case registered != "" && p.identity != registered:
		return fmt.Errorf("this is %s, registered was %s", p.identity, registered)
	case p.pooled:
		return errors.New("a pooler stands before the server (the process that answers is not the one that the connection was given): " +
			"let the DSN lead to the server itself, because a pooler may hand a branch's transaction to others")
	case p.recovery:
		return errors.New("the server is a standby (in recovery): let the DSN lead to the primary, " +
			"with target_session_attrs=read-write where it names several hosts")
	case p.readOnly:
		return errors.New("transactions are read-only here: set default_transaction_read_only = off for the server, the database and the role")
	}
	return nil
}

// unreachable says why there is no connection, without anything that was read out
// of the secret.
func unreachable(dsn participants.Reference, err error) error {
	var connecting *pgconn.ConnectError
	if !errors.As(err, &connecting) {
		return err // ours, or the context's
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("cannot connect with %s: %w", dsn, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("cannot connect with %s: %w", dsn, context.DeadlineExceeded)
	}
	return fmt.Errorf("cannot connect with %s: %s", dsn, whyNot(err))
}

func whyNot(err error) string {
	var (
		refused *pgconn.PgError
		name    *net.DNSError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		errno   syscall.Errno
	)
	switch {
	case errors.As(err, &refused):
		return refusedConnection(refused)
	case errors.As(err, &name):
		return "the host's name cannot be resolved"
	case errors.As(err, &unknown):
		return "TLS: the server's certificate is signed by an authority that is not trusted here"
	case errors.As(err, &host):
		return "TLS: the server's certificate is for another host name"
	case errors.As(err, &invalid):
		return "TLS: the server's certificate is not valid now, or not for this"
	case errors.As(err, &record):
		return "TLS: the server does not speak it"
	case errors.As(err, &errno):
		return errno.Error()
	default:
		return "the connection failed, or the server and the DSN want different kinds of security"
	}
}

// refusedConnection names the cause of a refusal. The server's own words quote the
// user and the database, and so the DSN.
func refusedConnection(e *pgconn.PgError) string {
	why := "the server refused"
	switch e.Code {
	case "28P01", "28000":
		why = "the server refused the role or its password, or pg_hba.conf has no line that lets it in"
	case "3D000":
		why = "there is no such database"
	case "42501":
		why = "the role may not connect to the database: GRANT CONNECT"
	case "53300":
		why = "the server has no connection left: raise its max_connections, or lower the participant's"
	case "57P03", "57P01", "57P02":
		why = "the server is starting or stopping"
	case "08P01":
		why = "something before the server refused the session's settings, as a pooler in transaction mode does: connect to the server itself"
	case "55000":
		why = "the database does not take connections (datallowconn)"
	}
	return why + " (SQLSTATE " + e.Code + ")"
}
