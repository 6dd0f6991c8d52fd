package marker

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What is proven here: the owner of a branch survives the trip through its row,
// nothing else is taken for one, and a schema cannot leave its quotes. That the
// SQL works is for the driver's tests to show, on a server.

func TestMySQLOwnersSurviveTheTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := MySQLOwner{
			Connection: rapid.Uint64().Draw(t, "connection"),
			Started:    rapid.Int64().Draw(t, "started"),
			Lock:       MySQLLock("01890a5d-ac96-774b-bcce-b302099a8057"),
		}
		if got, ok := ParseMySQLOwner(o.String()); !ok || got != o {
			t.Fatalf("%q reads as %+v, %v", o, got, ok)
		}
		if len(o.String()) > 96 || len(o.Lock) > 64 {
			t.Fatalf("%q does not fit its column, or the lock its name", o)
		}
	})
	for _, s := range []string{"", "1", "1 2", "1 2 lock", "1 2 decree:x y", "-1 2 decree:x", "1 x decree:x", " 1 2 decree:x"} {
		if o, ok := ParseMySQLOwner(s); ok {
			t.Errorf("%q is taken for %+v", s, o)
		}
	}
}

func TestMySQLSchemas(t *testing.T) {
	own, err := NewMySQL("")
	if err != nil {
		t.Fatal(err)
	}
	apart, err := NewMySQL("audit-1")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(own.Script()+own.Insert, "`") || !strings.Contains(apart.Insert, " `audit-1`.decree_branch ") {
		t.Errorf("%q and %q", own.Insert, apart.Insert)
	}
	for _, all := range []string{own.Script(), apart.Script(), own.InsertOpen, apart.Standing, own.Among(3), apart.Forgettable} {
		if strings.Contains(all, "@") {
			t.Errorf("a table without its place: %s", all)
		}
	}
	for _, bad := range []string{"a`b", "a;b", "a b", "a.b", strings.Repeat("a", 65), "é"} {
		if _, err := NewMySQL(bad); err == nil {
			t.Errorf("the schema %q passes", bad)
		}
	}
}
