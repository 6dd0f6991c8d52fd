package marker

import (
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// What is proven here: the text of PostgreSQL's SQL keeps a schema's name in its
// quotes and asks for the arguments that it is given, and the locks of a branch are
// its own. What the SQL does is proven on servers, by participants/postgres and
// transport/branch/decreepg.

func TestPostgresSchema(t *testing.T) {
	for _, bad := range []string{`a"b`, "a b", "1a", "a;b", "a.b", "é", strings.Repeat("a", 64)} {
		if _, err := NewPostgres(bad); err == nil {
			t.Errorf("schema %q passes", bad)
		}
	}
	byDefault, err := NewPostgres("")
	if err != nil {
		t.Fatal(err)
	}
	own, err := NewPostgres("Books_1")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(byDefault.Look, `"public".decree_branch`) || !strings.Contains(own.Look, `"Books_1".decree_branch`) {
		t.Errorf("the tables are not named with their schema:\n%s\n%s", byDefault.Look, own.Look)
	}
	for _, sql := range append(own.Tables, own.Insert, own.Tombstone, own.Guard, own.Look, own.RaiseFence, own.Sync, own.Forget, own.Version) {
		if strings.Contains(sql, "@") || strings.Contains(sql, "$C") || strings.Contains(sql, "$T ") {
			t.Errorf("something is left to fill in: %s", sql)
		}
	}
}

func TestPostgresInsertTakesItsArguments(t *testing.T) {
	sql, err := NewPostgres("")
	if err != nil {
		t.Fatal(err)
	}
	args := Branch{Cluster: "c", TxID: mustTxID(t, "01890a5d-ac96-774b-bcce-b302099a8057"), Number: 1}.PostgresArgs(txn.Digest{1}, nil)
	for n := 1; n <= len(args)+1; n++ {
		if has := strings.Contains(sql.Insert, "$"+strconv.Itoa(n)); has != (n <= len(args)) {
			t.Errorf("placeholder $%d is there: %v, of %d arguments", n, has, len(args))
		}
	}
}

func TestPostgresLocksAreTheBranchsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyBranch().Draw(t, "a"), anyBranch().Draw(t, "b")
		var d, e txn.Digest
		copy(d[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "d"))
		copy(e[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "e"))
		locks := map[int64]string{}
		for what, key := range map[string]int64{
			a.GID(): a.PostgresLock(), b.GID(): b.PostgresLock(),
			a.GID() + string(d[:]): a.PostgresContentLock(d), a.GID() + string(e[:]): a.PostgresContentLock(e),
			b.GID() + string(d[:]): b.PostgresContentLock(d),
		} {
			if other, taken := locks[key]; taken && other != what {
				t.Fatalf("%q and %q share lock %d", other, what, key)
			}
			locks[key] = what
		}
	})
}

func TestPostgresRefused(t *testing.T) {
	for _, tc := range []struct {
		state, table string
		want         bool
	}{
		{"23502", "decree_branch", true},
		{"23505", "decree_branch", true},
		{"23505", "account", false},
		{"23502", "account", false},
		{"23514", "decree_branch", false},
		{"55P03", "", false},
	} {
		if got := PostgresRefused(tc.state, tc.table); got != tc.want {
			t.Errorf("%s on %q: refused %v, want %v", tc.state, tc.table, got, tc.want)
		}
	}
}
