package branch

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

const (
	maxHolds    = 1024 // of one branch, because they are released in one step
	maxHoldName = 1024 // bytes; what is longer is content, not a name
)

// ErrHeld is wrapped by the error of [Tx.Hold] where another branch holds the
// name. Vote No with it: waiting could deadlock across services.
var ErrHeld = errors.New("held by another transaction")

// Tx is the transaction of the file in which a [Local] service does its work. It
// is a bbolt.Tx of db.Update: use its buckets, leave its Commit and Rollback
// alone, keep nothing of it when the function returns, and keep out of the bucket
// "decree".
type Tx struct {
	*bbolt.Tx
	preparing bool
	holder    string   // the branch's name
	holds     []string // what Hold has gained for it
}

// Hold reserves a name (an account, a seat, a row) for the branch that is being
// prepared, until it is committed or aborted. No other branch gets it meanwhile:
// the error then wraps [ErrHeld] and tells who has it. Holding a name twice is
// holding it once. It is for Prepare only.
func (tx *Tx) Hold(name string) error {
	switch {
	case !tx.preparing:
		return errors.New("hold: only Prepare may")
	case name == "" || len(name) > maxHoldName:
		return fmt.Errorf("hold: a name of %d bytes, want 1 to %d", len(name), maxHoldName)
	}
	holds := tx.Bucket(rootName).Bucket(holdsName)
	switch holder := string(holds.Get([]byte(name))); {
	case holder == tx.holder:
		return nil
	case holder != "":
		return fmt.Errorf("%q is %w: %s", name, ErrHeld, holder)
	case len(tx.holds) >= maxHolds:
		return fmt.Errorf("hold: more than %d names", maxHolds)
	}
	tx.holds = append(tx.holds, name)
	return holds.Put([]byte(name), []byte(tx.holder))
}

// local runs a Local service inside the ledger's transactions. A crash therefore
// finds either all of a call's effect and its record, or nothing of both.
type local struct {
	*ledger
	service Local
}

func (l *local) prepare(ctx context.Context, m message) (Vote, error) {
	var vote Vote
	var failed error
	err := l.ledger.change(ctx, m, func(e *entry) error {
		var known bool
		if vote, known, failed = e.record.prepare(e.fence, m); known {
			return nil
		}
		if failed = e.room(); failed != nil {
			return nil
		}
		e.changed = true
		tx := &Tx{Tx: e.tx, holder: m.branch.Name(), preparing: true}
		vote, failed = l.service.Prepare(tx, m.branch)
		next, err := vote.record("Prepare", m, failed)
		if err != nil {
			failed = err
			return &instead{nothing} // but the fence keeps what it heard
		}
		if next.State != statePrepared {
			return &instead{writing(next)}
		}
		next.Holds = tx.holds
		return e.put(next)
	})
	if err != nil {
		return Vote{}, err // the function above may still be running: touch nothing of it
	}
	return vote, failed
}

func (l *local) commit(ctx context.Context, m message) error {
	return l.end(ctx, m, commitEnding(), l.service.Commit)
}

func (l *local) abort(ctx context.Context, m message) error {
	return l.end(ctx, m, abortEnding(), l.service.Abort)
}

func (l *local) end(ctx context.Context, m message, how ending, run func(*Tx, Branch) error) error {
	var answer error
	err := l.ledger.change(ctx, m, func(e *entry) (err error) {
		var known bool
		if answer, known, err = e.answer(how, m); known || err != nil {
			return err
		}
		e.changed = true
		answer = run(&Tx{Tx: e.tx}, m.remembered(e.record))
		next, err := how.record(e.record, answer)
		switch {
		case err != nil:
			answer = err
			return &instead{nothing}
		case answer != nil:
			return &instead{writing(next)} // the service's writes contradict its word
		default:
			return e.put(next)
		}
	})
	if err != nil {
		return err // as in prepare
	}
	return answer
}

func nothing(*entry) error { return nil }

func writing(r Record) func(*entry) error {
	return func(e *entry) error { return e.put(r) }
}
