package decreesql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"sync"
)

// session lends a connection, in which a transaction is open, to a function that
// works in it. The function gets a *sql.Tx like any other, with two differences
// that it cannot get round: it cannot end the transaction, and no error of a
// statement goes unseen.
//
// Why the second matters: where a statement fails in PostgreSQL, the transaction
// has failed. In MariaDB it lives on without what the statement should have done,
// and XA END and XA PREPARE then succeed. A function that swallows the error would
// prepare half of its work.
//
// It is done below database/sql: the *sql.Tx belongs to a sql.DB whose only
// connection is the session, and the session passes each call on to the driver's
// own connection. It touches that only within Raw, as database/sql asks.
type session struct {
	conn *sql.Conn // pinned by the caller, who ends the transaction
	// fatal tells the errors after which the transaction is no more. Statements that
	// follow are refused: outside of a transaction each would commit by itself. Nil
	// is for transactions that cannot vanish.
	fatal func(error) bool
	db    *sql.DB
	tx    *sql.Tx

	mu     sync.Mutex
	failed error // the first error of a statement, or gone
	gone   error // with which the transaction vanished, or was given up by the function
	over   bool  // recalled
}

// lend opens a session on a connection. The caller recalls it before it ends the
// transaction.
func lend(ctx context.Context, conn *sql.Conn, fatal func(error) bool) (*session, error) {
	s := &session{conn: conn, fatal: fatal}
	s.db = sql.OpenDB(s)
	s.db.SetMaxOpenConns(1)
	var err error
	if s.tx, err = s.db.BeginTx(ctx, nil); err != nil {
		s.recall()
		return nil, err
	}
	return s, nil
}

// recall ends the function's use of the session and returns the first error that
// any of its statements met. It waits for those under way, and closes results that
// were left open, which may have an error yet to tell.
func (s *session) recall() error {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	if s.tx != nil {
		_ = s.tx.Rollback() // of database/sql's books only: see ending
	}
	_ = s.db.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

var errRecalled = errors.New("the transaction that a function was given is used after the function's end")

// raw makes one call on the driver's connection.
func (s *session) raw(call func(driver.Conn) error) error {
	if err := s.refused(); err != nil {
		return err
	}
	err := s.conn.Raw(func(c any) error { return call(c.(driver.Conn)) })
	s.note(err)
	return err
}

func (s *session) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return errRecalled
	}
	return s.gone
}

// note remembers the first error. Three of the driver's errors are none.
func (s *session) note(err error) {
	if err == nil || errors.Is(err, driver.ErrSkip) || errors.Is(err, driver.ErrRemoveArgument) || errors.Is(err, io.EOF) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	if s.gone == nil && s.fatal != nil && s.fatal(err) {
		s.gone = err
	}
}

// Connect, Driver and Close make the session the connector of its own sql.DB.
func (s *session) Connect(context.Context) (driver.Conn, error) { return s, nil }
func (s *session) Driver() driver.Driver                        { return nil }
func (s *session) Close() error                                 { return nil }

// Begin is here for the interface; database/sql calls BeginTx.
func (s *session) Begin() (driver.Tx, error) { return ending{s}, nil }

func (s *session) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return ending{s}, nil
}

// ending is what Commit and Rollback of the lent transaction come to.
type ending struct{ s *session }

func (e ending) Commit() error { return e.refuse(errNotCommitted) }

func (e ending) Rollback() error { return e.refuse(errGivenUp) }

func (e ending) refuse(why error) error {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	if e.s.over {
		return nil
	}
	if e.s.failed == nil {
		e.s.failed = why
	}
	if e.s.gone == nil {
		e.s.gone = why
	}
	return why
}

var (
	errNotCommitted = errors.New("decree ends this transaction, not the function that works in it: leave out Commit")
	errGivenUp      = errors.New("the function rolled its transaction back, or its context ended")
)

func (s *session) CheckNamedValue(v *driver.NamedValue) error {
	return s.raw(func(c driver.Conn) error {
		if checker, ok := c.(driver.NamedValueChecker); ok {
			return checker.CheckNamedValue(v)
		}
		return driver.ErrSkip
	})
}

func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (result driver.Result, err error) {
	err = s.raw(func(c driver.Conn) (err error) {
		if e, ok := c.(driver.ExecerContext); ok {
			result, err = e.ExecContext(ctx, query, args)
			return err
		}
		return driver.ErrSkip
	})
	return result, err
}

func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (result driver.Rows, err error) {
	err = s.raw(func(c driver.Conn) error {
		q, ok := c.(driver.QueryerContext)
		if !ok {
			return driver.ErrSkip
		}
		rows, err := q.QueryContext(ctx, query, args)
		result = watchedRows{rows, s}
		return err
	})
	return result, err
}

// Prepare is here for the interface; database/sql calls PrepareContext.
func (s *session) Prepare(query string) (driver.Stmt, error) {
	return s.PrepareContext(context.Background(), query)
}

func (s *session) PrepareContext(ctx context.Context, query string) (result driver.Stmt, err error) {
	err = s.raw(func(c driver.Conn) error {
		prepare := func(_ context.Context, query string) (driver.Stmt, error) { return c.Prepare(query) }
		if p, ok := c.(driver.ConnPrepareContext); ok {
			prepare = p.PrepareContext
		}
		stmt, err := prepare(ctx, query)
		result = watchedStmt{stmt, s}
		return err
	})
	return result, err
}

// watchedStmt is a prepared statement whose errors are seen.
type watchedStmt struct {
	driver.Stmt
	s *session
}

var errOldDriver = errors.New("the database's Go driver knows no contexts in statements: take a newer one")

func (w watchedStmt) Close() error {
	return w.s.conn.Raw(func(any) error { return w.Stmt.Close() }) // also once the session is over
}

func (w watchedStmt) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := w.Stmt.(driver.NamedValueChecker); ok {
		return w.s.raw(func(driver.Conn) error { return checker.CheckNamedValue(v) })
	}
	return w.s.CheckNamedValue(v)
}

func (w watchedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (result driver.Result, err error) {
	err = w.s.raw(func(driver.Conn) (err error) {
		if e, ok := w.Stmt.(driver.StmtExecContext); ok {
			result, err = e.ExecContext(ctx, args)
			return err
		}
		return errOldDriver
	})
	return result, err
}

func (w watchedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (result driver.Rows, err error) {
	err = w.s.raw(func(driver.Conn) error {
		q, ok := w.Stmt.(driver.StmtQueryContext)
		if !ok {
			return errOldDriver
		}
		rows, err := q.QueryContext(ctx, args)
		result = watchedRows{rows, w.s}
		return err
	})
	return result, err
}

// watchedRows are a result whose errors are seen: a statement may fail after its
// first rows.
type watchedRows struct {
	driver.Rows
	s *session
}

func (w watchedRows) Next(dest []driver.Value) error {
	return w.s.raw(func(driver.Conn) error { return w.Rows.Next(dest) })
}

func (w watchedRows) Close() error {
	err := w.s.conn.Raw(func(any) error { return w.Rows.Close() }) // also once the session is over
	w.s.note(err)
	return err
}

func (w watchedRows) HasNextResultSet() bool {
	more, ok := w.Rows.(driver.RowsNextResultSet)
	return ok && more.HasNextResultSet()
}

func (w watchedRows) NextResultSet() error {
	more, ok := w.Rows.(driver.RowsNextResultSet)
	if !ok {
		return io.EOF
	}
	return w.s.raw(func(driver.Conn) error { return more.NextResultSet() })
}

// What the driver tells of its columns passes through; what it does not tell is
// answered as database/sql would.

func (w watchedRows) ColumnTypeScanType(i int) reflect.Type {
	if c, ok := w.Rows.(driver.RowsColumnTypeScanType); ok {
		return c.ColumnTypeScanType(i)
	}
	return reflect.TypeFor[any]()
}

func (w watchedRows) ColumnTypeDatabaseTypeName(i int) string {
	if c, ok := w.Rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return c.ColumnTypeDatabaseTypeName(i)
	}
	return ""
}

func (w watchedRows) ColumnTypeNullable(i int) (nullable, ok bool) {
	if c, has := w.Rows.(driver.RowsColumnTypeNullable); has {
		return c.ColumnTypeNullable(i)
	}
	return false, false
}

func (w watchedRows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	if c, has := w.Rows.(driver.RowsColumnTypePrecisionScale); has {
		return c.ColumnTypePrecisionScale(i)
	}
	return 0, 0, false
}

func (w watchedRows) ColumnTypeLength(i int) (length int64, ok bool) {
	if c, has := w.Rows.(driver.RowsColumnTypeLength); has {
		return c.ColumnTypeLength(i)
	}
	return 0, false
}
