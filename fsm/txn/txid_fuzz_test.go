package txn_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/decree-tx/decree/fsm/txn"
)

// FuzzParseTxID holds that a text is either refused, by name and without an id, or
// is the id's own form but for the case of its letters; and that no id has a time
// before 1970 (rule R11 reads it).
func FuzzParseTxID(f *testing.F) {
	for _, s := range []string{
		"01890a5d-ac96-774b-bcce-b302099a8057", "01890A5D-AC96-774B-BCCE-B302099A8057",
		"ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-7000-8000-000000000000",
		"9c5b94b1-35ad-49bb-b118-8e8fc24abf80", "01890a5dac96774bbcceb302099a8057", "",
		"01890a5d-ac96-774b-bcce-b302099a805\x00", "01890a5d-ac96-774b-bcce-b302099a80é",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := txn.ParseTxID(s)
		if err != nil {
			if !errors.Is(err, txn.ErrMalformedTxID) || id != (txn.TxID{}) {
				t.Fatalf("%q is refused as %v, with %s", s, err, id)
			}
			return
		}
		if id.String() != strings.ToLower(s) || id.Validate() != nil || id.Time() < 0 {
			t.Fatalf("%q is read as %s, of %d", s, id, id.Time())
		}
	})
}
