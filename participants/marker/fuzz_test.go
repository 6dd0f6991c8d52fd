package marker

import "testing"

// FuzzGID holds that a database's gid is either a stranger's or, byte for byte, the
// one that the branch in it makes; that such a branch is valid; and that its key
// lies in the range of its cluster.
func FuzzGID(f *testing.F) {
	for _, gid := range []string{
		"decree_c1_01890a5d-ac96-774b-bcce-b302099a8057_1", "decree_A-9_01890a5d-ac96-774b-bcce-b302099a8057_256",
		"decree_c1_01890A5D-AC96-774B-BCCE-B302099A8057_1", "decree_c1_01890a5d-ac96-774b-bcce-b302099a8057_01",
		"decree__01890a5d-ac96-774b-bcce-b302099a8057_1", "decree_c_1_01890a5d-ac96-774b-bcce-b302099a8057_1",
		"decree_c'; drop table x; --_01890a5d-ac96-774b-bcce-b302099a8057_1", "citus_0_1_2", "",
	} {
		f.Add(gid)
	}
	f.Fuzz(func(t *testing.T, gid string) {
		b, ours := ParseGID(gid)
		if !ours {
			return
		}
		if b.GID() != gid || b.Validate() != nil {
			t.Fatalf("%q is read as %+v (%v)", gid, b, b.Validate())
		}
		if end := Horizon(b.Cluster, b.TxID.Time()); gid < GIDPrefix(b.Cluster) || gid < end {
			t.Fatalf("%q lies outside of its cluster, or before its own time: %q, %q", gid, GIDPrefix(b.Cluster), end)
		}
	})
}

// FuzzXID holds the same of the two parts of an XA id.
func FuzzXID(f *testing.F) {
	const txid = "01890a5d-ac96-774b-bcce-b302099a8057"
	f.Add(txid, "decree_c1_1")
	f.Add(txid, "decree_c1_+1")
	f.Add(txid, "decree_c1_1_1")
	f.Add(txid, "decree_\xff_1")
	f.Add("x", "decree_c1_1")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, gtrid, bqual string) {
		x := XID{gtrid, bqual}
		if b, ours := ParseXID(x); ours && (b.XID() != x || b.Validate() != nil) {
			t.Fatalf("%s is read as %+v (%v)", x, b, b.Validate())
		}
	})
}
