package decreepg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/transport/branch"
)

// NewTCC makes the server of a service that keeps its data in the pool's database.
// It makes the barrier's tables where they are missing, which blocks, and refuses a
// database that would forget a vote in a crash. The caller closes the pool after
// the server has stopped. Several processes may serve one database; services of
// different kinds take databases, or schemas in their search_path, of their own.
//
// A call takes one connection of the pool for its transaction, so the pool's size
// bounds the calls that run at once.
func NewTCC(ctx context.Context, pool *pgxpool.Pool, service branch.TCC[pgx.Tx], c branch.Config) (*branch.Server, error) {
	if err := migrate(ctx, pool); err != nil {
		return nil, fmt.Errorf("the barrier's tables: %w", err)
	}
	return branch.NewTCC(&books{pool}, service, c)
}

// tccVersion is that of the tables below. A database with a higher one belongs to a
// later release.
const tccVersion = 1

// The order of a table's key is that of the branches' age in their cluster: a
// txid begins with its time, and PostgreSQL compares UUIDs byte by byte. The second
// index holds the branches that wait, and so stays small.
var tccTables = []string{
	`CREATE TABLE IF NOT EXISTS decree_tcc (
  cluster text COLLATE "C" NOT NULL,
  txid uuid NOT NULL,
  branch int NOT NULL,
  state text NOT NULL DEFAULT '',
  digest bytea,
  payload bytea,
  reason text NOT NULL DEFAULT '',
  changed timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (cluster, txid, branch)
)`,
	`CREATE INDEX IF NOT EXISTS decree_tcc_open ON decree_tcc (cluster, txid, branch) WHERE state = 'prepared'`,
	`CREATE TABLE IF NOT EXISTS decree_tcc_fence (
  cluster text COLLATE "C" PRIMARY KEY,
  epoch bigint NOT NULL,
  horizon bigint NOT NULL
)`,
	`CREATE TABLE IF NOT EXISTS decree_tcc_schema (
  one boolean PRIMARY KEY CHECK (one),
  version int NOT NULL
)`,
	`INSERT INTO decree_tcc_schema (one, version) VALUES (true, 1) ON CONFLICT (one) DO NOTHING`,
}

// tablesLock is any number that nobody else uses. IF NOT EXISTS alone does not keep
// two processes from making a table at the same time.
const tablesLock = 6009914532138

// migrate brings the tables to tccVersion, in one transaction.
func migrate(ctx context.Context, pool *pgxpool.Pool) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		var fsync string
		if err := tx.QueryRow(ctx, "SHOW fsync").Scan(&fsync); err != nil {
			return err
		}
		if fsync != "on" {
			return errors.New("the server runs with fsync = off: a vote must survive a power cut; set fsync = on in postgresql.conf")
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", tablesLock); err != nil {
			return err
		}
		// A role that may use the tables need not be one that may make them.
		version, err := versionOf(ctx, tx)
		if err == nil && version == 0 {
			for _, statement := range tccTables {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
			}
			version, err = versionOf(ctx, tx)
		}
		if err != nil {
			return err
		}
		if version != tccVersion {
			return fmt.Errorf("they have version %d, this release knows %d", version, tccVersion)
		}
		return nil
	})
}

// versionOf is the version of the tables that are there, 0 where none are.
func versionOf(ctx context.Context, tx pgx.Tx) (version int, err error) {
	var there bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('decree_tcc_schema') IS NOT NULL").Scan(&there); err != nil || !there {
		return 0, err
	}
	err = tx.QueryRow(ctx, "SELECT version FROM decree_tcc_schema").Scan(&version)
	return version, err
}
