package marker

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// MySQLVersion is that of the tables below. A database with a higher one belongs
// to a later release, and an earlier one must leave it alone.
const MySQLVersion = 1

// MySQL is the SQL around the marker tables in MariaDB and MySQL. Placeholders are
// question marks. It was tried on MariaDB 10.11 only.
type MySQL struct {
	// Tables makes what is missing of the tables, one statement after the other.
	Tables []string

	// Insert is a branch's first statement in its own XA transaction, after a look
	// at Fence: gid, digest, owner. Error 1062 means that the branch was aborted or
	// committed before, 1205 that it is on its way elsewhere.
	Insert string
	// InsertOpen is Insert with the fence's check in it: gid, digest, owner, cluster,
	// epoch, txid time. It touches no row where the fence is closed to the branch.
	//
	// It is for READ COMMITTED only. At any higher level the database locks the
	// fence's row for as long as the branch is prepared, and the next leader, who
	// has to raise the fence, would wait for branches that wait for it.
	InsertOpen string
	// Standing tells a branch that only reads, and inserts nothing, whether it may:
	// gid, cluster, epoch, txid time. It answers with two numbers, each 0 or 1: a row
	// stands under the branch's name; the fence is closed to it.
	Standing string
	// Among lists which of n keys have a row; see Look.
	Among func(n int) string
	// Tombstone is an abort's row: gid, reason.
	Tombstone string
	// Look reads a row, gid: state, digest, owner, reason. What a branch has inserted
	// and not committed shows at READ UNCOMMITTED only.
	Look string

	// Fence reads what was heard of a cluster, by its id: epoch, horizon. No row
	// means that nothing was.
	Fence string
	// RaiseFence stores what was heard, unless more is stored: cluster, epoch,
	// horizon.
	RaiseFence string
	// Forgettable lists the keys of rows that are visible, and so are of branches
	// that have ended, in a range: from, before, limit.
	Forgettable string
	// Forget deletes a row: gid. For many rows at once the database may read others
	// on its way, and wait for those that are prepared.
	Forget string

	// Identify names the resource, unless it has a name: a fresh UUID, MySQLVersion.
	Identify string
	// Identity reads that name back: identity, version, the connection's database.
	Identity string
}

// The states of a marker row.
const (
	Prepared = "prepared" // visible, it proves a commit
	Aborted  = "aborted"  // the tombstone
)

var mysqlSchema = regexp.MustCompile(`^[A-Za-z0-9_$-]{1,64}$`)

// NewMySQL is the SQL for tables in a schema, or in the connection's own database
// where schema is empty.
func NewMySQL(schema string) (MySQL, error) {
	at := ""
	if schema != "" {
		if !mysqlSchema.MatchString(schema) {
			return MySQL{}, errors.New("schema: want 1 to 64 letters, digits, '_', '$' and '-'")
		}
		at = "`" + schema + "`."
	}
	in := func(sql string) string { return strings.ReplaceAll(sql, "@", at) }
	return MySQL{
		Tables: []string{
			// The key's collation compares bytes, so that ranges over it hold what
			// Horizon says. The digest is what the branch was prepared with, the owner
			// the session that its XA transaction is attached to while that lives.
			in(`CREATE TABLE IF NOT EXISTS @decree_branch (
  gid VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  state VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  digest BINARY(32) NULL,
  owner VARCHAR(96) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  reason VARCHAR(512) CHARACTER SET utf8mb4 NOT NULL DEFAULT '',
  created TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
) ENGINE=InnoDB COMMENT='decree: what became of each branch'`),
			in(`CREATE TABLE IF NOT EXISTS @decree_fence (
  cluster VARCHAR(48) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  epoch BIGINT UNSIGNED NOT NULL,
  horizon BIGINT NOT NULL
) ENGINE=InnoDB COMMENT='decree: the highest epoch and horizon heard of'`),
			in(`CREATE TABLE IF NOT EXISTS @decree_resource (
  one TINYINT NOT NULL PRIMARY KEY CHECK (one = 1),
  identity CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  version INT NOT NULL
) ENGINE=InnoDB COMMENT='decree: the name of this database, and the version of these tables'`),
		},
		Insert: in(`INSERT INTO @decree_branch (gid, state, digest, owner) VALUES (?, 'prepared', ?, ?)`),
		InsertOpen: in(`INSERT INTO @decree_branch (gid, state, digest, owner) SELECT ?, 'prepared', ?, ? FROM DUAL` +
			` WHERE NOT EXISTS (SELECT 1 FROM @decree_fence WHERE cluster = ? AND (epoch > ? OR horizon > ?))`),
		Standing: in(`SELECT EXISTS (SELECT 1 FROM @decree_branch WHERE gid = ?),` +
			` EXISTS (SELECT 1 FROM @decree_fence WHERE cluster = ? AND (epoch > ? OR horizon > ?))`),
		Tombstone:   in(`INSERT INTO @decree_branch (gid, state, reason) VALUES (?, 'aborted', ?)`),
		Look:        in(`SELECT state, digest, owner, reason FROM @decree_branch WHERE gid = ?`),
		Fence:       in(`SELECT epoch, horizon FROM @decree_fence WHERE cluster = ?`),
		RaiseFence:  in(`INSERT INTO @decree_fence (cluster, epoch, horizon) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE epoch = GREATEST(epoch, VALUES(epoch)), horizon = GREATEST(horizon, VALUES(horizon))`),
		Forgettable: in(`SELECT gid FROM @decree_branch WHERE gid >= ? AND gid < ? ORDER BY gid LIMIT ?`),
		Among:       func(n int) string { return in(`SELECT gid FROM @decree_branch WHERE gid IN `) + keys(n) },
		Forget:      in(`DELETE FROM @decree_branch WHERE gid = ?`),
		Identify:    in(`INSERT IGNORE INTO @decree_resource (one, identity, version) VALUES (1, ?, ?)`),
		Identity:    in(`SELECT identity, version, DATABASE() FROM @decree_resource`),
	}, nil
}

// Script is Tables as one text, for somebody who may make tables.
func (m MySQL) Script() string { return strings.Join(m.Tables, ";\n") + ";" }

func keys(n int) string { return "(?" + strings.Repeat(", ?", n-1) + ")" }

// MySQLOwner is the session that prepared a branch. The branch stays attached to
// it until it ends: nobody else can commit or abort it before.
type MySQLOwner struct {
	// Connection is the session's CONNECTION_ID(), which a restarted server gives
	// again to somebody else.
	Connection uint64
	// Started is when the server was started, in seconds since 1970 by its own clock.
	// Where that is another time by now, the session is gone for certain.
	Started int64
	// Lock is the name of a lock that the session has taken with GET_LOCK and keeps
	// for as long as it lives. No other session ever takes that name, so
	// IS_USED_LOCK(Lock) is the connection to kill, or NULL.
	Lock string
}

// MySQLStarted is an expression: when the server was started. It is a constant as
// long as the server runs, for both its terms come from the statement's own time.
const MySQLStarted = `CAST(UNIX_TIMESTAMP() - (SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'UPTIME') AS SIGNED)`

// MySQLClaim takes a session's lock, by its name. It answers with the owner's
// Connection and Started, and with 1.
const MySQLClaim = `SELECT CONNECTION_ID(), ` + MySQLStarted + `, GET_LOCK(?, 0)`

// MySQLLock names the lock of the session with a fresh UUID.
func MySQLLock(uuid string) string { return "decree:" + uuid }

// String is the owner as it stands in a marker row.
func (o MySQLOwner) String() string {
	return fmt.Sprintf("%d %d %s", o.Connection, o.Started, o.Lock)
}

// ParseMySQLOwner reads an owner back; false means that this is none.
func ParseMySQLOwner(s string) (MySQLOwner, bool) {
	parts := strings.Split(s, " ")
	if len(parts) != 3 || !strings.HasPrefix(parts[2], MySQLLock("")) {
		return MySQLOwner{}, false
	}
	connection, err1 := strconv.ParseUint(parts[0], 10, 64)
	started, err2 := strconv.ParseInt(parts[1], 10, 64)
	return MySQLOwner{Connection: connection, Started: started, Lock: parts[2]}, err1 == nil && err2 == nil
}
