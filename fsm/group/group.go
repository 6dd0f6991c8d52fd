// Package group maps transaction ids to groups: the clusters among which an
// application shares out its transactions, where one leader is not enough for them.
//
// It owns the map and nothing else. Servers refuse by it what belongs elsewhere, and
// clients choose by it where to send, each without asking anybody; so it never changes.
// coordinator/DESIGN.md says why it is this one.
package group

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Slots is how many parts the ids fall into, and the most groups that there can be. A
// group has Slots/n of them, rounded up or down: of 3 groups none is larger than another
// by more than 0.3 %, of 100 groups by a tenth.
const Slots = 1024

// ErrInvalid is wrapped by what is no group.
var ErrInvalid = errors.New("no such group")

// Group is one of several. The zero Group is that of a cluster which was never told one:
// it takes every id.
type Group struct {
	Number int // from 1
	Of     int // how many there are, from 1 to Slots
}

// Validate wraps ErrInvalid where there is no such group; the zero Group is none.
func (g Group) Validate() error {
	switch {
	case g.Of < 1 || g.Of > Slots:
		return fmt.Errorf("%w: of %d groups, want 1 to %d", ErrInvalid, g.Of, Slots)
	case g.Number < 1 || g.Number > g.Of:
		return fmt.Errorf("%w: group %d of %d", ErrInvalid, g.Number, g.Of)
	}
	return nil
}

// Takes reports whether an id is the group's.
func (g Group) Takes(txid [16]byte) bool {
	return g.Of <= 1 || Number(txid, g.Of) == g.Number
}

// String is such as "group 2 of 3"; empty for the zero Group.
func (g Group) String() string {
	if g == (Group{}) {
		return ""
	}
	return fmt.Sprintf("group %d of %d", g.Number, g.Of)
}

// Number is the group that an id belongs to, from 1, where there are so many, from 1 to
// Slots: slot * groups / Slots + 1, whole numbers only.
func Number(txid [16]byte, groups int) int {
	return Slot(txid)*groups/Slots + 1
}

// Slot is the part that an id falls into, from 0. It is the upper ten bits of the last
// eight bytes, read as a big-endian number and mixed by the finalizer of MurmurHash3 (64
// bits, public domain). The first eight bytes hold the time: by those, all ids of a
// millisecond would fall into one slot. The last eight may count rather than be random,
// which is why they are mixed.
func Slot(txid [16]byte) int {
	x := binary.BigEndian.Uint64(txid[8:])
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return int(x >> 54) //nolint:gosec // ten bits
}
