package main

// The client that the comparison of compare_test.go runs against: it makes the
// same two-branch transfers in the same databases, with the same PREPARE and
// COMMIT PREPARED, and keeps no log at all. It is written as one would who knows
// the databases: branches side by side, one round trip for a prepare and one for
// a commit, connections and statements kept. A crash in the middle leaves it with
// prepared transactions of which nobody knows what was to become.

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// noLogBranch is one side of the client for one worker: a connection of its own,
// so that none waits for a pool.
type noLogBranch interface {
	prepare(ctx context.Context, gid, account string, amount int64) error
	commit(ctx context.Context, gid string) error
	close()
}

// noLogClient is one worker's.
type noLogClient struct{ sides [2]noLogBranch }

// transfer makes amounts of one at both sides.
func (c *noLogClient) transfer(ctx context.Context, gid string, accounts [2]string) error {
	amounts := [2]int64{-1, 1}
	err := c.both(func(i int) error { return c.sides[i].prepare(ctx, gid, accounts[i], amounts[i]) })
	if err != nil {
		return err // what is prepared stays so: it would have to abort here
	}
	return c.both(func(i int) error { return c.sides[i].commit(ctx, gid) })
}

// both runs a step at both sides at the same time.
func (c *noLogClient) both(step func(side int) error) error {
	var second error
	var other sync.WaitGroup
	other.Go(func() { second = step(1) })
	first := step(0)
	other.Wait()
	return errors.Join(first, second)
}

func (c *noLogClient) close() {
	for _, s := range c.sides {
		s.close()
	}
}

var errUnexpected = errors.New("not one row was touched")

// noLogPostgres is a connection to PostgreSQL with both statements prepared.
type noLogPostgres struct{ conn *pgx.Conn }

func openNoLogPostgres(ctx context.Context, dsn string) (noLogBranch, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"debit":  `UPDATE account SET balance = balance - $2 WHERE id = $1 AND balance >= $2`,
		"credit": `UPDATE account SET balance = balance + $2 WHERE id = $1`,
	} {
		if _, err := conn.Prepare(ctx, name, text); err != nil {
			return nil, err
		}
	}
	return &noLogPostgres{conn}, nil
}

// prepare sends everything at once and looks at what came of it afterwards.
func (p *noLogPostgres) prepare(ctx context.Context, gid, account string, amount int64) error {
	statement, absolute := "credit", amount
	if amount < 0 {
		statement, absolute = "debit", -amount
	}
	batch := &pgconn.Batch{}
	batch.ExecParams("BEGIN", nil, nil, nil, nil)
	batch.ExecPrepared(statement, [][]byte{[]byte(account), strconv.AppendInt(nil, absolute, 10)}, nil, nil)
	batch.ExecParams("PREPARE TRANSACTION '"+gid+"'", nil, nil, nil, nil)
	results, err := p.conn.PgConn().ExecBatch(ctx, batch).ReadAll()
	switch {
	case err != nil:
		return err
	case len(results) != 3 || results[2].CommandTag.String() != "PREPARE TRANSACTION":
		return errors.New("not prepared")
	case results[1].CommandTag.RowsAffected() != 1:
		_, err := p.conn.PgConn().Exec(ctx, "ROLLBACK PREPARED '"+gid+"'").ReadAll()
		return errors.Join(errUnexpected, err)
	}
	return nil
}

func (p *noLogPostgres) commit(ctx context.Context, gid string) error {
	_, err := p.conn.PgConn().Exec(ctx, "COMMIT PREPARED '"+gid+"'").ReadAll()
	return err
}

func (p *noLogPostgres) close() { p.conn.Close(context.Background()) }

// noLogMariaDB is a connection to MariaDB on which several statements go in one
// packet.
type noLogMariaDB struct{ conn driver.Conn }

func openNoLogMariaDB(ctx context.Context, dsn string) (noLogBranch, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	cfg.MultiStatements, cfg.InterpolateParams = true, true
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := connector.Connect(ctx)
	return &noLogMariaDB{conn}, err
}

func (m *noLogMariaDB) exec(ctx context.Context, text string, args ...driver.NamedValue) ([]int64, error) {
	r, err := m.conn.(driver.ExecerContext).ExecContext(ctx, text, args)
	if err != nil {
		return nil, err
	}
	return r.(mysql.Result).AllRowsAffected(), nil
}

func (m *noLogMariaDB) prepare(ctx context.Context, gid, account string, amount int64) error {
	change := "UPDATE account SET balance = balance + ? WHERE id = ?"
	args := []driver.NamedValue{{Ordinal: 1, Value: amount}, {Ordinal: 2, Value: account}}
	if amount < 0 {
		change = "UPDATE account SET balance = balance - ? WHERE id = ? AND balance >= ?"
		args = []driver.NamedValue{{Ordinal: 1, Value: -amount}, {Ordinal: 2, Value: account}, {Ordinal: 3, Value: -amount}}
	}
	rows, err := m.exec(ctx, fmt.Sprintf("XA START '%s'; %s; XA END '%[1]s'; XA PREPARE '%[1]s'", gid, change), args...)
	switch {
	case err != nil:
		return err
	case len(rows) != 4:
		return errors.New("not prepared")
	case rows[1] != 1:
		_, err := m.exec(ctx, "XA ROLLBACK '"+gid+"'")
		return errors.Join(errUnexpected, err)
	}
	return nil
}

func (m *noLogMariaDB) commit(ctx context.Context, gid string) error {
	_, err := m.exec(ctx, "XA COMMIT '"+gid+"'")
	return err
}

func (m *noLogMariaDB) close() { m.conn.Close() }
