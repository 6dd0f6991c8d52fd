package decreesql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/decree-tx/decree/transport/branch"
)

// NewTCC makes the server of a service that keeps its data in db. It makes the
// barrier's tables where they are missing, which blocks, and refuses a database
// that would forget a vote in a crash. The caller closes db after the server has
// stopped. Several processes may serve one database; services of different kinds
// take databases of their own.
//
// A call takes one connection for its transaction, so db's MaxOpenConns bounds the
// calls that run at once.
func NewTCC(ctx context.Context, db *sql.DB, service branch.TCC[*sql.Tx], c branch.Config) (*branch.Server, error) {
	if err := migrate(ctx, db); err != nil {
		return nil, fmt.Errorf("the barrier's tables: %w", err)
	}
	return branch.NewTCC(&books{db}, service, c)
}

// tccVersion is that of the tables below. A database with a higher one belongs to a
// later release.
const tccVersion = 1

// A cluster's id is compared byte by byte, which no collation of text does: most
// hold "a" and "a " for the same. The order of the first key is that of the
// branches' age in their cluster, because a txid begins with its time. The second
// is led by the state, so that the branches that wait stand together.
var tccTables = []string{
	`CREATE TABLE IF NOT EXISTS decree_tcc (
  cluster VARBINARY(255) NOT NULL,
  txid CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  branch INT NOT NULL,
  state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  digest BINARY(32) NULL,
  payload LONGBLOB NULL,
  reason VARCHAR(512) CHARACTER SET utf8mb4 NOT NULL DEFAULT '',
  changed TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (cluster, txid, branch),
  KEY decree_tcc_open (state, cluster, txid, branch)
) ENGINE=InnoDB COMMENT='decree: what became of each branch'`,
	`CREATE TABLE IF NOT EXISTS decree_tcc_fence (
  cluster VARBINARY(255) NOT NULL PRIMARY KEY,
  epoch BIGINT UNSIGNED NOT NULL,
  horizon BIGINT NOT NULL
) ENGINE=InnoDB COMMENT='decree: the highest epoch and horizon heard of'`,
	`CREATE TABLE IF NOT EXISTS decree_tcc_schema (
  one TINYINT NOT NULL PRIMARY KEY CHECK (one = 1),
  version INT NOT NULL
) ENGINE=InnoDB COMMENT='decree: the version of these tables'`,
	`INSERT IGNORE INTO decree_tcc_schema (one, version) VALUES (1, 1)`,
}

// migrate brings the tables to tccVersion. Two processes may do it at once: each
// statement does nothing where another was first.
func migrate(ctx context.Context, db *sql.DB) error {
	if err := fit(ctx, db); err != nil {
		return err
	}
	// A user who may use the tables need not be one who may make them.
	version, err := versionOf(ctx, db)
	if is(err, noSuchTable) || errors.Is(err, sql.ErrNoRows) {
		for _, statement := range tccTables {
			if _, err := db.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		version, err = versionOf(ctx, db)
	}
	if err != nil {
		return err
	}
	if version != tccVersion {
		return fmt.Errorf("they have version %d, this release knows %d", version, tccVersion)
	}
	return nil
}

func versionOf(ctx context.Context, db *sql.DB) (version int, err error) {
	err = db.QueryRowContext(ctx, "SELECT version FROM decree_tcc_schema").Scan(&version)
	return version, err
}

// fit reports every setting of the server with which the barrier would not hold.
func fit(ctx context.Context, db *sql.DB) error {
	var flush, onTimeout int
	var logBin, sync, autocommit int
	err := db.QueryRowContext(ctx, "SELECT @@innodb_flush_log_at_trx_commit, @@innodb_rollback_on_timeout, @@log_bin, @@sync_binlog, @@autocommit").
		Scan(&flush, &onTimeout, &logBin, &sync, &autocommit)
	if err != nil {
		return err
	}
	var problems []error
	if flush != 1 {
		problems = append(problems, fmt.Errorf("innodb_flush_log_at_trx_commit is %d: a vote must survive a power cut; set it to 1", flush))
	}
	if logBin == 1 && sync != 1 {
		problems = append(problems, fmt.Errorf("sync_binlog is %d while log_bin is on: after a power cut a vote may be gone; set it to 1", sync))
	}
	if onTimeout != 0 {
		problems = append(problems, errors.New("innodb_rollback_on_timeout is on: a lock timeout would end a function's transaction under it; set it to 0"))
	}
	if autocommit != 1 {
		problems = append(problems, errors.New("autocommit is off: what was heard of a cluster would never be committed, and its lock kept; set it to 1, in the server's configuration or in the data source name"))
	}
	return errors.Join(problems...)
}
