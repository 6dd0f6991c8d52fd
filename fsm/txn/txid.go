package txn

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"
)

// TxID names a transaction: a UUIDv7 (RFC 9562), whose first 48 bits are the
// Unix time in milliseconds at which it was made. Ids therefore sort by age, and
// an id alone tells whether it lies before the retention horizon (rule R11).
type TxID [16]byte

// ErrMalformedTxID is wrapped by every error of [ParseTxID].
var ErrMalformedTxID = errors.New("malformed transaction id")

// ParseTxID reads the canonical 36-character form, lower or upper case. It
// accepts only version 7 with the RFC 9562 variant, because retention reads the
// time out of the id.
func ParseTxID(s string) (TxID, error) {
	var id TxID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return TxID{}, fmt.Errorf("%w: want a UUIDv7 such as 01890a5d-ac96-774b-bcce-b302099a8057", ErrMalformedTxID)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return TxID{}, fmt.Errorf("%w: not hexadecimal", ErrMalformedTxID)
	}
	if err := id.Validate(); err != nil {
		return TxID{}, err
	}
	return id, nil
}

// Validate reports whether id is a UUIDv7; its error wraps [ErrMalformedTxID].
func (id TxID) Validate() error {
	if id[6]>>4 != 7 || id[8]>>6 != 2 {
		return fmt.Errorf("%w: not version 7", ErrMalformedTxID)
	}
	return nil
}

// String gives the canonical lower-case form.
func (id TxID) String() string {
	var s [36]byte
	hex.Encode(s[0:8], id[0:4])
	hex.Encode(s[9:13], id[4:6])
	hex.Encode(s[14:18], id[6:8])
	hex.Encode(s[19:23], id[8:10])
	hex.Encode(s[24:36], id[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// Time is when the id was made, to the millisecond, by the clock of its maker. An
// id holds times up to the year 10889, and Time up to 2262; what lies past that is
// the last Time, so that an id from the far future never looks like one of today.
func (id TxID) Time() Time {
	ms := binary.BigEndian.Uint64(id[0:8]) >> 16
	if ms > math.MaxInt64/uint64(time.Millisecond) {
		return math.MaxInt64
	}
	return Time(ms) * Time(time.Millisecond)
}

// Time is cluster time: nanoseconds since the Unix epoch, as replicated in entry
// headers. It never goes back (rule R11). Zero means "not yet".
type Time int64

// Add moves t by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub is the duration from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Std converts to the standard library's time, in UTC.
func (t Time) Std() time.Time { return time.Unix(0, int64(t)).UTC() }
