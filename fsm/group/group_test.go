package group

// What is proven here: the map from ids to groups is the one that was published, and
// spreads ids evenly, however they are made.

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"
)

// TestTheMapNeverChanges holds it against values that another program computed from what
// Slot and Number say. A group that moved would run a retry a second time (R11).
func TestTheMapNeverChanges(t *testing.T) {
	sizes := []int{1, 2, 3, 6, Slots}
	for _, want := range []struct {
		txid   string
		slot   int
		number []int // among so many as sizes says
	}{
		{"01890a5d-ac96-774b-bcce-b302099a8057", 605, []int{1, 2, 2, 4, 606}},
		{"00000000-0000-7000-8000-000000000000", 573, []int{1, 2, 2, 4, 574}},
		{"017f22e2-79b0-7cc3-98c4-dc0c0c07398f", 975, []int{1, 2, 3, 6, 976}},
		{"01890a5d-ac96-774b-bcce-b302099a8058", 25, []int{1, 1, 1, 1, 26}},
		{"01890a5d-ac96-774b-bfff-ffffffffffff", 59, []int{1, 1, 1, 1, 60}},
		{"019a0000-0000-7000-8000-000000000001", 439, []int{1, 1, 2, 3, 440}},
	} {
		id := uuid.MustParse(want.txid)
		if got := Slot(id); got != want.slot {
			t.Errorf("%s is in slot %d, want %d", id, got, want.slot)
		}
		for i, n := range sizes {
			if got := Number(id, n); got != want.number[i] {
				t.Errorf("%s is of group %d of %d, want %d", id, got, n, want.number[i])
			}
		}
	}
}

// TestEveryIDHasOneGroup holds that of the groups of one size exactly one takes an id, and
// that each takes its share of the slots.
func TestEveryIDHasOneGroup(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 6, 7, 100, 1000, Slots} {
		slots := make([]int, n+1)
		for s := range Slots {
			slots[s*n/Slots+1]++
		}
		for k := 1; k <= n; k++ {
			if slots[k] != Slots/n && slots[k] != (Slots+n-1)/n {
				t.Errorf("group %d of %d has %d slots", k, n, slots[k])
			}
		}
		id := uuid.Must(uuid.NewV7())
		takes := 0
		for k := 1; k <= n; k++ {
			if (Group{Number: k, Of: n}).Takes(id) {
				takes++
			}
		}
		if takes != 1 {
			t.Errorf("%d of %d groups take %s", takes, n, id)
		}
	}
	if id := uuid.Must(uuid.NewV7()); !(Group{}).Takes(id) {
		t.Error("a cluster that was told no group refuses an id")
	}
}

// TestIDsSpreadEvenly fills the slots with ids of three makers: random ones, those of a
// library, and those of one whose last bytes count. Each must come near an even spread, by
// the chi-squared sum: 1,023 on average, with a standard deviation of 45.
func TestIDsSpreadEvenly(t *testing.T) {
	const ids = 500_000
	random := rand.NewChaCha8([32]byte{7})
	for name, next := range map[string]func(i int) [16]byte{
		"random":  func(int) (id [16]byte) { random.Read(id[:]); id[8] = id[8]&0x3f | 0x80; return id }, //nolint:errcheck // never fails
		"library": func(int) [16]byte { return uuid.Must(uuid.NewV7FromReader(random)) },
		"counts":  func(i int) (id [16]byte) { binary.BigEndian.PutUint64(id[8:], 0x8000<<48|uint64(i)); return id },
	} {
		var seen [Slots]float64
		for i := range ids {
			seen[Slot(next(i))]++
		}
		sum, want := 0.0, float64(ids)/Slots
		for _, n := range seen {
			sum += (n - want) * (n - want) / want
		}
		if sum > 1023+6*45 {
			t.Errorf("%s: the slots are unevenly filled, chi-squared %.0f", name, sum)
		}
	}
}

func TestWhatIsNoGroup(t *testing.T) {
	for _, g := range []Group{{}, {0, 3}, {4, 3}, {-1, 3}, {1, 0}, {1, -1}, {1, Slots + 1}} {
		if err := g.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", g, err)
		}
	}
	for _, g := range []Group{{1, 1}, {3, 3}, {Slots, Slots}} {
		if err := g.Validate(); err != nil {
			t.Errorf("%s: %v", g, err)
		}
	}
}
