package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/decree-tx/decree/participants"
)

// Snapshot is the store at one moment: what was committed, what was prepared and
// what was remembered then, all durable. It is valid while the function that it
// was given to runs.
type Snapshot struct{ tx *bbolt.Tx }

// Read calls fn with a snapshot. It may wait for a write that is on its way to
// the disk; a snapshot that is held for long keeps the file from shrinking.
func (s *Store) Read(ctx context.Context, fn func(Snapshot) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tx, err := s.snapshot()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // nothing to lose in a read
	return fn(Snapshot{tx})
}

func (s *Store) snapshot() (*bbolt.Tx, error) {
	s.visible.RLock()
	defer s.visible.RUnlock()
	if s.failure != nil {
		return nil, s.failure
	}
	tx, err := s.db.Begin(false)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return nil, ErrClosed
	}
	return tx, err
}

// Get reads the committed value of a key; false means that it has none.
func (s *Store) Get(ctx context.Context, key string) (value string, ok bool, err error) {
	err = s.Read(ctx, func(at Snapshot) error {
		value, ok = at.Get(key)
		return nil
	})
	return value, ok, err
}

// Get reads the committed value of a key; false means that it has none.
func (at Snapshot) Get(key string) (value string, ok bool) {
	v := at.tx.Bucket(dataBucket).Get([]byte(key))
	return string(v), v != nil
}

// Range calls yield for the keys with a prefix, in byte order, until it returns
// false.
func (at Snapshot) Range(prefix string, yield func(key, value string) bool) {
	p := []byte(prefix)
	c := at.tx.Bucket(dataBucket).Cursor()
	for key, value := c.Seek(p); key != nil && bytes.HasPrefix(key, p); key, value = c.Next() {
		if !yield(string(key), string(value)) {
			return
		}
	}
}

// Sum adds up the integers under the keys with a prefix. A value that is none,
// and a sum past 64 bits, is an error.
func (at Snapshot) Sum(prefix string) (sum int64, err error) {
	at.Range(prefix, func(key, value string) bool {
		var n int64
		switch n, err = parseStored(value); {
		case err != nil:
			err = fmt.Errorf("%s: %w", show(key), err)
		case n > 0 && sum > math.MaxInt64-n || n < 0 && sum < math.MinInt64-n:
			err = fmt.Errorf("%s: the sum exceeds 64 bits", show(key))
		}
		sum += n
		return err == nil
	})
	if err != nil {
		return 0, err
	}
	return sum, nil
}

// Outcome is what became of a branch, or that it still waits.
type Outcome struct {
	Branch participants.Branch // its name only
	Status participants.Status
	Reason string // of an abort that was a no
}

// Outcomes calls yield for every branch that is remembered, the prepared ones
// first, each group by cluster and txid, until it returns false. Branches behind
// the horizon may be forgotten.
func (at Snapshot) Outcomes(yield func(Outcome) bool) error {
	for _, name := range [][]byte{stagedBucket, outcomeBucket} {
		c := at.tx.Bucket(name).Cursor()
		for key, value := c.First(); key != nil; key, value = c.Next() {
			b, err := parseBranchKey(key)
			if err != nil {
				return err
			}
			o := Outcome{Branch: b, Status: participants.StatusPrepared}
			if bytes.Equal(name, outcomeBucket) {
				row, err := decode[outcome](key, value)
				if err != nil {
					return err
				}
				r := row.record()
				o.Status, o.Reason = r.Status, r.Reason
			}
			if !yield(o) {
				return nil
			}
		}
	}
	return nil
}
