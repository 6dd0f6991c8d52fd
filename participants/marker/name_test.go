package marker

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// What is proven here: a branch's name survives the trip through a database's own
// naming, fits its bounds, cannot leave its quotes, and nobody else's name is
// taken for ours; and the keys of what may be forgotten are exactly those whose
// txid lies before the horizon (rule R11).

func anyTxID() *rapid.Generator[txn.TxID] {
	return rapid.Custom(func(t *rapid.T) txn.TxID {
		var id txn.TxID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes"))
		id[6] = 0x70 | id[6]&0x0f
		id[8] = 0x80 | id[8]&0x3f
		return id
	})
}

func anyBranch() *rapid.Generator[Branch] {
	return rapid.Custom(func(t *rapid.T) Branch {
		return Branch{
			Cluster: rapid.StringMatching(`[A-Za-z0-9-]{1,48}`).Draw(t, "cluster"),
			TxID:    anyTxID().Draw(t, "txid"),
			Number:  rapid.IntRange(1, txn.MaxBranches).Draw(t, "number"),
		}
	})
}

func TestNamesSurviveTheTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := anyBranch().Draw(t, "branch")
		if err := b.Validate(); err != nil {
			t.Fatal(err)
		}
		if got, ok := ParseGID(b.GID()); !ok || got != b {
			t.Fatalf("gid %s reads as %v, %v", b.GID(), got, ok)
		}
		if got, ok := ParseXID(b.XID()); !ok || got != b {
			t.Fatalf("xid %s reads as %v, %v", b.XID(), got, ok)
		}
	})
}

func TestNamesFitAndStayInTheirQuotes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := anyBranch().Draw(t, "branch")
		x := b.XID()
		if len(b.GID()) > 199 || len(x.GTRID) > 64 || len(x.BQUAL) > 64 {
			t.Fatalf("too long: gid %d, gtrid %d, bqual %d", len(b.GID()), len(x.GTRID), len(x.BQUAL))
		}
		if strings.ContainsAny(b.GID()+x.GTRID+x.BQUAL, `'"\;%`+"\x00\n `") {
			t.Fatalf("%s or %s leaves its quotes", b.GID(), x)
		}
	})
}

func TestInvalidNames(t *testing.T) {
	good := Branch{Cluster: "c1", TxID: mustTxID(t, "01890a5d-ac96-774b-bcce-b302099a8057"), Number: 1}
	tests := map[string]func(*Branch){
		"no cluster":          func(b *Branch) { b.Cluster = "" },
		"a quote":             func(b *Branch) { b.Cluster = "c'; drop table x; --" },
		"a letter beyond":     func(b *Branch) { b.Cluster = "clüster" },
		"a long cluster":      func(b *Branch) { b.Cluster = strings.Repeat("c", MaxCluster+1) },
		"no txid":             func(b *Branch) { b.TxID = txn.TxID{} },
		"branch zero":         func(b *Branch) { b.Number = 0 },
		"a branch too far":    func(b *Branch) { b.Number = txn.MaxBranches + 1 },
		"a negative branch":   func(b *Branch) { b.Number = -1 },
		"a separator":         func(b *Branch) { b.Cluster = "c_d" },
		"the end of a string": func(b *Branch) { b.Cluster = "c\x00" },
	}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range tests {
		b := good
		spoil(&b)
		if b.Validate() == nil {
			t.Errorf("%s: %+v passes", name, b)
		}
	}
}

func TestStrangersAreNotOurs(t *testing.T) {
	txid := "01890a5d-ac96-774b-bcce-b302099a8057"
	for _, gid := range []string{
		"", "decree_", "decree__" + txid + "_1", "citus_0_1_2", "decree_c_" + txid, "decree_c_" + txid + "_0", "decree_c_" + txid + "_01",
		"decree_c_" + txid + "_+1", "decree_c_" + strings.ToUpper(txid) + "_1", "Decree_c_" + txid + "_1", "decree_c_" + txid + "_1 ",
		"decree_c'_" + txid + "_1", "decree_c_01890a5d-ac96-474b-bcce-b302099a8057_1",
	} {
		if b, ok := ParseGID(gid); ok {
			t.Errorf("gid %q is taken for %+v", gid, b)
		}
	}
	for _, x := range []XID{{}, {txid, "decree_c_0"}, {txid, "decree_c"}, {txid, "1"}, {"x", "decree_c_1"}, {txid, "decree_c_1_"}} {
		if b, ok := ParseXID(x); ok {
			t.Errorf("xid %s is taken for %+v", x, b)
		}
	}
}

// TestHorizonCutsByAge holds the range that a deletion names against what rule
// R11 says of each id.
func TestHorizonCutsByAge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := anyBranch().Draw(t, "branch")
		horizon := rapid.OneOf(
			rapid.Map(rapid.Int64Range(-3e6, 3e6), func(off int64) txn.Time { return b.TxID.Time()/2 + txn.Time(off) }),
			rapid.Map(rapid.Int64Range(-3e6, 3e6), func(off int64) txn.Time { return min(b.TxID.Time(), 1<<62) + txn.Time(off) }),
		).Draw(t, "horizon")
		key := b.GID()
		inRange := key >= GIDPrefix(b.Cluster) && key < Horizon(b.Cluster, horizon)
		if before := b.TxID.Time() < horizon; inRange != before {
			t.Fatalf("txid of %d, horizon %d: before it %v, in the range %v", b.TxID.Time(), horizon, before, inRange)
		}
	})
}

// A cluster whose id begins like another's must not have its rows in the other's
// range.
func TestHorizonSparesOtherClusters(t *testing.T) {
	id := mustTxID(t, "01890a5d-ac96-774b-bcce-b302099a8057")
	horizon := Horizon("c", id.Time()+1e9)
	for _, other := range []string{"cd", "c-", "c0", "c00000000", "b", "0"} {
		key := Branch{Cluster: other, TxID: id, Number: 1}.GID()
		if key >= GIDPrefix("c") && key < horizon {
			t.Errorf("the row of cluster %q lies in the range of %q", other, "c")
		}
	}
}

func TestNamesSortByAge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyTxID().Draw(t, "a"), anyTxID().Draw(t, "b")
		byName := strings.Compare(Branch{"c", a, 1}.GID(), Branch{"c", b, 1}.GID())
		if byAge := slices.Compare(a[:], b[:]); byAge != byName {
			t.Fatalf("%s and %s: by name %d, by age %d", a, b, byName, byAge)
		}
	})
}

func mustTxID(t *testing.T, s string) txn.TxID {
	t.Helper()
	id, err := txn.ParseTxID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
