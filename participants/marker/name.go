package marker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/decree-tx/decree/fsm/txn"
)

// MaxCluster bounds a cluster's id in bytes, so that a branch's name fits where
// the databases keep it: an XA id has two parts of at most 64 bytes, a gid at most
// 199. A cluster's own id is a UUID of 36.
const MaxCluster = 48

// prefix and the parts after it are separated by a byte that no part holds.
const prefix = "decree_"

// Branch names a branch: (Cluster, TxID, Number) is unique for ever.
type Branch struct {
	Cluster string // letters, digits and '-'
	TxID    txn.TxID
	Number  int // from 1
}

// Validate reports everything that is wrong with the name. A name that passes
// holds letters, digits, '-' and '_' only, so that its GID and XID may stand in
// SQL text, where databases take no parameter.
func (b Branch) Validate() error {
	var problems []error
	if !isClusterID(b.Cluster) {
		problems = append(problems, fmt.Errorf("cluster id %.64q: want 1 to %d letters, digits and '-'", b.Cluster, MaxCluster))
	}
	if err := b.TxID.Validate(); err != nil {
		problems = append(problems, err)
	}
	if b.Number < 1 || b.Number > txn.MaxBranches {
		problems = append(problems, fmt.Errorf("branch number %d, want 1 to %d", b.Number, txn.MaxBranches))
	}
	return errors.Join(problems...)
}

func isClusterID(s string) bool {
	if s == "" || len(s) > MaxCluster {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letter && !(r >= '0' && r <= '9') && r != '-'
	})
}

// GID is the branch's global identifier in PostgreSQL, and the key of its marker
// row in every database: decree_<cluster>_<txid>_<number>. The GIDs of one cluster
// sort by their transactions' age.
func (b Branch) GID() string {
	return GIDPrefix(b.Cluster) + b.TxID.String() + "_" + strconv.Itoa(b.Number)
}

// GIDPrefix begins every GID of a cluster and none of another's: no id has a '_'.
func GIDPrefix(cluster string) string { return prefix + cluster + "_" }

// ParseGID reads a branch's name back; false means that somebody else named this
// transaction. Only what GID makes is taken.
func ParseGID(gid string) (Branch, bool) {
	rest, ok := strings.CutPrefix(gid, prefix)
	if !ok {
		return Branch{}, false
	}
	parts := strings.Split(rest, "_")
	if len(parts) != 3 {
		return Branch{}, false
	}
	b, ok := parse(parts[0], parts[1], parts[2])
	return b, ok && b.GID() == gid
}

func parse(cluster, txid, number string) (Branch, bool) {
	id, err := txn.ParseTxID(txid)
	if err != nil {
		return Branch{}, false
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return Branch{}, false
	}
	b := Branch{Cluster: cluster, TxID: id, Number: n}
	return b, b.Validate() == nil
}

// Horizon bounds the marker rows of a cluster that may be forgotten: a row of it
// lies before the horizon exactly where GIDPrefix(cluster) <= key < Horizon, byte
// by byte.
func Horizon(cluster string, horizon txn.Time) string {
	// UUIDv7 begins with the time in milliseconds. An id lies before the horizon
	// where its own time does, so a horizon within a millisecond takes it whole.
	ms := uint64(max(horizon, 0)) / 1e6
	if uint64(max(horizon, 0))%1e6 != 0 {
		ms++
	}
	digits := fmt.Sprintf("%012x", ms)
	return GIDPrefix(cluster) + digits[:8] + "-" + digits[8:]
}

// FormatID is the XA format of our ids. MariaDB ignores it where it compares two.
const FormatID = 0xdec7ee

// XID is a branch's name in XA. Both parts may stand between quotes in SQL text.
type XID struct {
	GTRID string // the transaction: its txid
	BQUAL string // the branch: decree_<cluster>_<number>
}

// XID is the branch's XA id.
func (b Branch) XID() XID {
	return XID{GTRID: b.TxID.String(), BQUAL: GIDPrefix(b.Cluster) + strconv.Itoa(b.Number)}
}

// ParseXID reads a branch's name back; false means that somebody else named this
// transaction.
func ParseXID(x XID) (Branch, bool) {
	rest, ok := strings.CutPrefix(x.BQUAL, prefix)
	if !ok {
		return Branch{}, false
	}
	cluster, number, ok := strings.Cut(rest, "_")
	if !ok {
		return Branch{}, false
	}
	b, ok := parse(cluster, x.GTRID, number)
	return b, ok && b.XID() == x
}

// String is the id as it stands in SQL: 'gtrid','bqual',format.
func (x XID) String() string { return fmt.Sprintf("'%s','%s',%d", x.GTRID, x.BQUAL, FormatID) }
