package kv

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/decree-tx/decree/fsm/txn"
)

// change is what a prepared branch will do to one key: set it to Value, or
// delete it where Value is nil. Since its lock holds the key still, the outcome
// of every operation is known at prepare, and commit only writes it down.
type change struct {
	Key   string  `json:"key"`
	Value *string `json:"value,omitempty"`
}

// stage is the row of a prepared branch: all that its commit needs, and all that
// its locks are rebuilt from.
type stage struct {
	Digest  []byte   `json:"digest"`
	Changes []change `json:"changes"`           // sorted by key
	Checked []string `json:"checked,omitempty"` // keys relied upon and not changed, sorted
}

// evaluate carries out operations on top of the committed data, which get reads.
// An error is the reason of a no.
func evaluate(ops []op, get func(key string) (string, bool)) (stage, error) {
	changed := map[string]*string{}
	checked := map[string]bool{}
	read := func(key string) (string, bool) {
		if v, ok := changed[key]; ok {
			if v == nil {
				return "", false
			}
			return *v, true
		}
		return get(key)
	}
	for _, o := range ops {
		value, ok := read(o.key)
		switch o.kind {
		case opCheck:
			if err := o.check(value, ok); err != nil {
				return stage{}, err
			}
			checked[o.key] = true
		case opPut:
			changed[o.key] = o.value
		case opDelete:
			changed[o.key] = nil
		case opAdd:
			sum, err := o.add(value, ok)
			if err != nil {
				return stage{}, err
			}
			text := strconv.FormatInt(sum, 10)
			changed[o.key] = &text
		}
	}
	var s stage
	for _, key := range slices.Sorted(maps.Keys(changed)) {
		s.Changes = append(s.Changes, change{key, changed[key]})
		delete(checked, key)
	}
	s.Checked = slices.Sorted(maps.Keys(checked))
	return s, nil
}

// check holds a value against the operation's condition.
func (o op) check(value string, ok bool) error {
	switch {
	case o.absent && ok:
		return fmt.Errorf("check: %s is present", show(o.key))
	case o.absent:
		return nil
	case !ok:
		return fmt.Errorf("check: %s is absent", show(o.key))
	case o.value != nil && *o.value != value:
		return fmt.Errorf("check: %s has another value", show(o.key))
	case o.value != nil:
		return nil
	}
	n, err := parseStored(value)
	if err != nil {
		return fmt.Errorf("check: %s: %w", show(o.key), err)
	}
	return o.within(n)
}

// add is the sum that the operation leads to.
func (o op) add(value string, ok bool) (int64, error) {
	var n int64
	if ok {
		var err error
		if n, err = parseStored(value); err != nil {
			return 0, fmt.Errorf("add: %s: %w", show(o.key), err)
		}
	}
	if o.amount > 0 && n > math.MaxInt64-o.amount || o.amount < 0 && n < math.MinInt64-o.amount {
		return 0, fmt.Errorf("add: %s is %d, and adding %d exceeds 64 bits", show(o.key), n, o.amount)
	}
	return n + o.amount, o.within(n + o.amount)
}

func (o op) within(n int64) error {
	if o.min != nil && n < *o.min {
		return fmt.Errorf("%s: %d is below the minimum of %d", show(o.key), n, *o.min)
	}
	if o.max != nil && n > *o.max {
		return fmt.Errorf("%s: %d is above the maximum of %d", show(o.key), n, *o.max)
	}
	return nil
}

// show quotes the beginning of a key for people.
func show(key string) string { return fmt.Sprintf("%.64q", key) }

// holder is the branch that holds a lock.
type holder struct {
	cluster string
	txid    txn.TxID
	number  int
}

// lock is held by one branch that will change the key, or by any number that
// rely on its value.
type lock struct {
	writer  holder // zero where there is none
	readers map[holder]bool
}

// locks are those of all prepared branches, by key. They are not safe for
// concurrent use.
type locks map[string]*lock

// refuse tells who stands in the way of the operations; the error is the reason
// of a no.
func (l locks) refuse(ops []op) error {
	for _, o := range ops {
		held, ok := l[o.key]
		switch {
		case !ok:
		case held.writer != holder{}:
			return fmt.Errorf("%s is held by transaction %s", show(o.key), held.writer.txid)
		case o.kind != opCheck:
			return fmt.Errorf("%s is held by transaction %s, which checked it", show(o.key), held.anyReader().txid)
		}
	}
	return nil
}

func (l *lock) anyReader() holder {
	for h := range l.readers {
		return h
	}
	return holder{}
}

// errHeld means that two prepared branches hold one key: the file was not written
// by this code.
var errHeld = errors.New("two prepared branches hold one key")

// take gives a branch its locks.
func (l locks) take(h holder, s stage) error {
	for _, c := range s.Changes {
		if _, ok := l[c.Key]; ok {
			return fmt.Errorf("%w: %s", errHeld, show(c.Key))
		}
		l[c.Key] = &lock{writer: h}
	}
	for _, key := range s.Checked {
		held, ok := l[key]
		switch {
		case !ok:
			l[key] = &lock{readers: map[holder]bool{h: true}}
		case held.writer != holder{}:
			return fmt.Errorf("%w: %s", errHeld, show(key))
		default:
			held.readers[h] = true
		}
	}
	return nil
}

// drop takes a branch's locks away.
func (l locks) drop(h holder, s stage) {
	for _, c := range s.Changes {
		delete(l, c.Key)
	}
	for _, key := range s.Checked {
		if held := l[key]; held != nil {
			delete(held.readers, h)
			if len(held.readers) == 0 {
				delete(l, key)
			}
		}
	}
}
