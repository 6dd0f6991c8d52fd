package bank

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "github.com/go-sql-driver/mysql" // MariaDB
	_ "github.com/jackc/pgx/v5/stdlib" // PostgreSQL

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/statements"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// auditConnections bounds what an office opens to a database for itself: it only
// looks, and the database has work to do.
const auditConnections = 2

// dialect is what differs between the databases.
type dialect struct {
	engine   string // as database/sql knows it
	driver   string // decree's
	table    string // makes the table of accounts
	open     statements.Entry
	debit    statements.Entry
	credit   statements.Entry
	prepared func(ctx context.Context, db *sql.DB) (labels []label, err error)
}

// label is a branch as a database names it; ok is false where decree did not.
type label struct {
	branch marker.Branch
	ok     bool
	text   string
}

func one() *int64 { n := int64(1); return &n }

// postgres lists the prepared transactions of its own database only: gids are the
// server's, and another database's are none of its business.
func postgres() dialect {
	return dialect{
		engine: "pgx",
		driver: "postgres",
		table:  `CREATE TABLE account (id text PRIMARY KEY, balance bigint NOT NULL)`,
		open: statements.Entry{
			SQL: `INSERT INTO account (id, balance) VALUES ($1, $2)`, Params: []string{"account", "amount"}, ExpectRows: one(),
		},
		debit: statements.Entry{
			SQL:    `UPDATE account SET balance = balance - $2 WHERE id = $1 AND balance >= $2`,
			Params: []string{"account", "amount"}, ExpectRows: one(),
		},
		credit: statements.Entry{
			SQL: `UPDATE account SET balance = balance + $2 WHERE id = $1`, Params: []string{"account", "amount"}, ExpectRows: one(),
		},
		prepared: func(ctx context.Context, db *sql.DB) ([]label, error) {
			const list = `SELECT gid FROM pg_prepared_xacts WHERE database = current_database()`
			return query(ctx, db, list, func(row *sql.Rows) (n label, err error) {
				err = row.Scan(&n.text)
				n.branch, n.ok = marker.ParseGID(n.text)
				return n, err
			})
		},
	}
}

// mariadb lists the prepared transactions of the whole server: XA knows no
// databases. Give each office a server of its own.
func mariadb() dialect {
	return dialect{
		engine: "mysql",
		driver: "mysql",
		table:  `CREATE TABLE account (id varchar(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, balance bigint NOT NULL) ENGINE=InnoDB`,
		open: statements.Entry{
			SQL: `INSERT INTO account (id, balance) VALUES (?, ?)`, Params: []string{"account", "amount"}, ExpectRows: one(),
		},
		debit: statements.Entry{
			SQL:    `UPDATE account SET balance = balance - ? WHERE id = ? AND balance >= ?`,
			Params: []string{"amount", "account", "amount"}, ExpectRows: one(),
		},
		credit: statements.Entry{
			SQL: `UPDATE account SET balance = balance + ? WHERE id = ?`, Params: []string{"amount", "account"}, ExpectRows: one(),
		},
		prepared: func(ctx context.Context, db *sql.DB) ([]label, error) {
			return query(ctx, db, `XA RECOVER`, func(row *sql.Rows) (n label, err error) {
				var format, gtrid, bqual int
				if err := row.Scan(&format, &gtrid, &bqual, &n.text); err != nil {
					return n, err
				}
				if gtrid+bqual == len(n.text) {
					n.branch, n.ok = marker.ParseXID(marker.XID{GTRID: n.text[:gtrid], BQUAL: n.text[gtrid:]})
				}
				return n, nil
			})
		},
	}
}

// query reads all rows.
func query[T any](ctx context.Context, db interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}, text string, read func(*sql.Rows) (T, error)) ([]T, error) {
	rows, err := db.QueryContext(ctx, text)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var all []T
	for rows.Next() {
		one, err := read(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// sqlOffice keeps its accounts in a table of an SQL database.
type sqlOffice struct {
	dialect
	name      string
	reference string // to the DSN, as the nodes read it
	db        *sql.DB
}

// SQLConfig says where an office's database is.
type SQLConfig struct {
	Name      string
	DSN       string // for the office itself
	Reference string // for the nodes: env:NAME or file:/PATH
}

// NewPostgres is the office in a PostgreSQL database. It makes its table there.
func NewPostgres(ctx context.Context, cfg SQLConfig) (Office, error) {
	return newSQLOffice(ctx, cfg, postgres())
}

// NewMariaDB is the office in a MariaDB database, the only one on its server that
// takes part. It makes its table there.
func NewMariaDB(ctx context.Context, cfg SQLConfig) (Office, error) {
	return newSQLOffice(ctx, cfg, mariadb())
}

func newSQLOffice(ctx context.Context, cfg SQLConfig, d dialect) (Office, error) {
	db, err := sql.Open(d.engine, cfg.DSN)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(auditConnections)
	db.SetMaxIdleConns(-1) // one from before a crash of the server would be of no use
	if _, err := db.ExecContext(ctx, d.table); err != nil {
		return nil, errors.Join(fmt.Errorf("make the accounts of %s: %w", cfg.Name, err), db.Close())
	}
	return &sqlOffice{d, cfg.Name, cfg.Reference, db}, nil
}

// Participant is registered with a catalogue: requests carry no SQL.
func (o *sqlOffice) Participant() *decreev1.Participant {
	return registration(o.name, o.driver, map[string]any{
		"dsn":       o.reference,
		"catalogue": map[string]statements.Entry{"open": o.open, "debit": o.debit, "credit": o.credit},
	})
}

// Close ends the connections.
func (o *sqlOffice) Close() error { return o.db.Close() }

// statement is one of the payload, by its name in the catalogue.
type statement struct {
	Name string        `json:"name"`
	Args statementArgs `json:"args"`
}

type statementArgs struct {
	Account string `json:"account"`
	Amount  int64  `json:"amount"`
}

// Payload names one statement of the catalogue for each move.
func (o *sqlOffice) Payload(moves []Move, opening bool) any {
	var all []statement
	for _, m := range moves {
		s := statement{"credit", statementArgs{m.Account.Name, m.Amount}}
		switch {
		case opening:
			s.Name = "open"
		case m.Amount < 0:
			s = statement{"debit", statementArgs{m.Account.Name, -m.Amount}}
		}
		all = append(all, s)
	}
	return map[string]any{"statements": all}
}

// Prepared asks the server.
func (o *sqlOffice) Prepared(ctx context.Context, cluster string) ([]Branch, error) {
	names, err := o.prepared(ctx, o.db)
	if err != nil {
		return nil, err
	}
	var held []Branch
	for _, n := range names {
		if !n.ok || n.branch.Cluster != cluster {
			return nil, fmt.Errorf("%s holds %q prepared, which is not the cluster's", o.name, n.text)
		}
		held = append(held, Branch{n.branch.TxID.String(), n.branch.Number})
	}
	return held, nil
}

// Books reads what is posted, and what is prepared beside that.
func (o *sqlOffice) Books(ctx context.Context, cluster string) (Books, error) {
	books, err := o.Posted(ctx, cluster)
	if err != nil {
		return Books{}, err
	}
	names, err := o.prepared(ctx, o.db)
	for _, n := range names {
		books.enterMarker(n, cluster, participants.StatusPrepared)
	}
	return books, err
}

// Posted reads accounts and marker rows in one snapshot of the database. A marker
// row is inserted by the branch's own transaction: one that can be seen proves
// that the branch was committed, unless it is the tombstone of an abort.
func (o *sqlOffice) Posted(ctx context.Context, cluster string) (Books, error) {
	tx, err := o.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return Books{}, err
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	books := newBooks(o.name)
	_, err = query(ctx, tx, `SELECT id, balance FROM account`, func(row *sql.Rows) (struct{}, error) {
		var id string
		var balance int64
		err := row.Scan(&id, &balance)
		books.Balances[id] = balance
		return struct{}{}, err
	})
	if err != nil {
		return Books{}, err
	}
	_, err = query(ctx, tx, `SELECT gid, state FROM decree_branch`, func(row *sql.Rows) (struct{}, error) {
		var gid, state string
		err := row.Scan(&gid, &state)
		n := label{text: gid}
		n.branch, n.ok = marker.ParseGID(gid)
		switch state {
		case "prepared":
			books.enterMarker(n, cluster, participants.StatusCommitted)
		case "aborted":
			books.enterMarker(n, cluster, participants.StatusAborted)
		default:
			books.Strangers = append(books.Strangers, gid+" in state "+state)
		}
		return struct{}{}, err
	})
	return books, err
}

// enterMarker writes a branch down under the name that package marker gave it.
func (b *Books) enterMarker(n label, cluster string, fate participants.Status) {
	if !n.ok || n.branch.Cluster != cluster {
		b.Strangers = append(b.Strangers, n.text)
		return
	}
	b.Fates[Branch{n.branch.TxID.String(), n.branch.Number}] = fate
}
