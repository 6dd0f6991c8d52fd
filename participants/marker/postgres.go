package marker

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"regexp"
	"strings"

	"github.com/decree-tx/decree/fsm/txn"
)

// PostgresVersion is that of the tables below. A database with a higher one
// belongs to a later release, and an earlier one must leave it alone.
const PostgresVersion = 1

// PostgresSchema is where the tables are unless somebody says otherwise. They are
// always named with their schema: a search_path that changes must not make the
// proof of a commit disappear.
const PostgresSchema = "public"

// Postgres is the SQL around the marker tables in PostgreSQL. It was tried on
// PostgreSQL 15.
type Postgres struct {
	// Tables makes what is missing of the tables, one statement after the other,
	// and brings tables of an earlier version up to date. Run it in one transaction
	// that has run LockTables first.
	Tables []string
	// LockTables keeps others from making the tables at the same time: PostgreSQL's
	// IF NOT EXISTS does not.
	LockTables string
	// Version reads the version of the tables that are there.
	Version string

	// Insert is a branch's first statement in its own transaction. Its arguments
	// are those of [Branch.PostgresArgs]. It fails where the branch must not begin:
	// with one of the errors that [PostgresRefused] knows. It never waits for
	// another copy of the branch, nor for its abort, except in the instant in which
	// such a one commits.
	//
	// It takes two advisory locks, which a prepared transaction keeps until it ends,
	// through a restart of the server. The first, exclusive, is on the branch's
	// name, so that pg_locks tells who is at work on it. The second is on the name
	// with the digest, so that it can be told what the branch that holds the first
	// was prepared with: its row is still invisible.
	Insert string
	// Tombstone is an abort's row: gid, reason, the name's lock, cluster, epoch,
	// txid time. It touches no row where there is one already, where somebody is at
	// work on the branch, or where the fence is closed to the caller: Look tells.
	// Two aborts do not keep each other out.
	Tombstone string
	// Guard is what a branch that only reads asks in the place of Insert: gid,
	// the name's lock, cluster. It answers with whether the lock was free and, as
	// Look does, with row and fence.
	Guard string

	// Holders tells who is at work on a branch: gid, the name's lock, the content's
	// lock. It answers whether the gid is prepared in this database; whether a
	// branch, prepared or not, holds the name; the process that does, 0 where it is
	// prepared or nobody does; whether what holds the name has this content.
	//
	// Ask it before Look and never after, nor in the same transaction: a branch
	// that commits is visible before it lets go.
	Holders string
	// Look reads a branch's row and its cluster's fence: gid, cluster. It answers
	// with state, digest, reason, epoch, horizon, each NULL where there is none.
	Look string
	// End terminates the session that is at work on a branch, none where it is
	// prepared: the name's lock. It answers with the process, and whether it was told.
	End string

	// RaiseFence stores what was heard, unless more is stored: cluster, epoch,
	// horizon. It answers with what is stored then. An epoch that is over does not
	// raise the horizon either.
	RaiseFence string
	// Sync writes a row of no consequence: cluster. Once it has committed, whatever
	// was seen before it is as durable as the server makes a commit, on its
	// synchronous standbys too.
	Sync string
	// Forget deletes rows in a range: from, before, limit. It sees only those of
	// branches that have ended.
	Forget string
}

// NewPostgres is the SQL for tables in a schema, PostgresSchema where it is empty.
func NewPostgres(schema string) (Postgres, error) {
	if schema == "" {
		schema = PostgresSchema
	}
	if !postgresSchema.MatchString(schema) {
		return Postgres{}, errors.New("schema: want 1 to 63 letters, digits and '_'")
	}
	in := func(sql string) string { return strings.ReplaceAll(sql, "@", `"`+schema+`".`) }
	closed := `EXISTS (SELECT FROM @decree_fence WHERE cluster = $C AND (epoch > $E OR horizon > $T))`
	fence := func(cluster, epoch, at string) string {
		return strings.NewReplacer("$C", cluster, "$E", epoch, "$T", at).Replace(closed)
	}
	return Postgres{
		Tables: []string{
			// The key's collation compares bytes, so that ranges over it hold what
			// Horizon says. The digest is what the branch was prepared with.
			in(`CREATE TABLE IF NOT EXISTS @decree_branch (
  gid text COLLATE "C" PRIMARY KEY,
  state text NOT NULL,
  digest bytea,
  reason text,
  created timestamptz NOT NULL DEFAULT now()
)`),
			in(`CREATE TABLE IF NOT EXISTS @decree_fence (
  cluster text COLLATE "C" PRIMARY KEY,
  epoch bigint NOT NULL,
  horizon bigint NOT NULL
)`),
			in(`CREATE TABLE IF NOT EXISTS @decree_schema (
  one boolean PRIMARY KEY CHECK (one),
  version int NOT NULL
)`),
			in(`INSERT INTO @decree_schema (one, version) VALUES (true, 1) ON CONFLICT (one) DO NOTHING`),
		},
		LockTables: `SELECT pg_advisory_xact_lock(` + postgresTablesLock + `)`,
		Version:    in(`SELECT version FROM @decree_schema`),

		// The state that must not be null refuses the branch with an error, so that
		// whatever was sent behind it in one batch is not run.
		Insert: in(`INSERT INTO @decree_branch (gid, digest, state) VALUES ($1, $2, CASE` +
			` WHEN pg_try_advisory_xact_lock($3) AND pg_try_advisory_xact_lock_shared($4)` +
			` AND NOT ` + fence("$5", "$6", "$7") + ` THEN 'prepared' END)`),
		Tombstone: in(`INSERT INTO @decree_branch (gid, state, reason) SELECT $1, 'aborted', $2` +
			` WHERE pg_try_advisory_xact_lock_shared($3) AND NOT ` + fence("$4", "$5", "$6") +
			` ON CONFLICT (gid) DO NOTHING`),
		Guard: in(`SELECT pg_try_advisory_xact_lock_shared($2), b.state, b.digest, b.reason, f.epoch, f.horizon` +
			` FROM (VALUES (1)) one LEFT JOIN @decree_branch b ON b.gid = $1 LEFT JOIN @decree_fence f ON f.cluster = $3`),

		Holders: `SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database()),` +
			` count(*) FILTER (WHERE l.key = $2) > 0, coalesce(max(l.pid) FILTER (WHERE l.key = $2), 0),` +
			` count(*) FILTER (WHERE l.key = $3) > 0` +
			` FROM (SELECT pid, mode, classid::bigint << 32 | objid::bigint AS key FROM pg_locks` + postgresAdvisory + `) l` +
			` WHERE l.key = $2 AND l.mode = 'ExclusiveLock' OR l.key = $3`,
		Look: in(`SELECT b.state, b.digest, b.reason, f.epoch, f.horizon` +
			` FROM (VALUES (1)) one LEFT JOIN @decree_branch b ON b.gid = $1 LEFT JOIN @decree_fence f ON f.cluster = $2`),
		// Materialized, because a planner that is free may end a session first and ask
		// what it holds afterwards.
		End: `WITH worker AS MATERIALIZED (SELECT pid FROM pg_locks` + postgresAdvisory +
			` AND classid::bigint << 32 | objid::bigint = $1 AND mode = 'ExclusiveLock' AND pid <> pg_backend_pid())` +
			` SELECT pid, pg_terminate_backend(pid) FROM worker`,

		RaiseFence: in(`INSERT INTO @decree_fence AS f (cluster, epoch, horizon) VALUES ($1, $2, $3)` +
			` ON CONFLICT (cluster) DO UPDATE SET epoch = greatest(f.epoch, excluded.epoch),` +
			` horizon = CASE WHEN excluded.epoch >= f.epoch THEN greatest(f.horizon, excluded.horizon) ELSE f.horizon END` +
			` RETURNING epoch, horizon`),
		Sync: in(`UPDATE @decree_fence SET epoch = epoch WHERE cluster = $1`),
		Forget: in(`DELETE FROM @decree_branch WHERE gid IN (SELECT gid FROM @decree_branch` +
			` WHERE gid >= $1 AND gid < $2 ORDER BY gid LIMIT $3)`),
	}, nil
}

var postgresSchema = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

const (
	// postgresTablesLock is any number that nobody else uses.
	postgresTablesLock = "6009914532137"
	// postgresAdvisory picks the advisory locks of this database, whose keys have
	// 64 bits: the other kind, of two keys, has an objsubid of 2.
	postgresAdvisory = ` WHERE locktype = 'advisory' AND objsubid = 1 AND granted` +
		` AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
)

// PostgresRefused reports whether an error of Postgres.Insert, by its SQLSTATE and
// the table that it names, says that the branch must not begin: it is known
// already, somebody is at work on it, or the fence is closed to it.
func PostgresRefused(sqlstate, table string) bool {
	const notNull, unique = "23502", "23505"
	return (sqlstate == notNull || sqlstate == unique) && table == "decree_branch"
}

// PostgresArgs are the arguments of Postgres.Insert, in order. A digest of zeros
// stands for none. Epoch is that of the leader who asks; nil for a branch that an
// application runs itself, which has no leader and is held against the horizon
// alone.
func (b Branch) PostgresArgs(digest txn.Digest, epoch *int64) []any {
	return []any{b.GID(), digest[:], b.PostgresLock(), b.PostgresContentLock(digest), b.Cluster, epoch, int64(b.TxID.Time())}
}

// PostgresLock is the key of the advisory lock on the branch's name.
func (b Branch) PostgresLock() int64 { return postgresLock("name\x00" + b.GID()) }

// PostgresContentLock is the key of the advisory lock on the branch's name with
// what it is prepared with.
func (b Branch) PostgresContentLock(digest txn.Digest) int64 {
	return postgresLock("content\x00" + b.GID() + "\x00" + string(digest[:]))
}

func postgresLock(what string) int64 {
	sum := sha256.Sum256([]byte(what))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // any 64 bits will do
}
