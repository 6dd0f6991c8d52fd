package coordinator

import (
	"context"
	"errors"

	"github.com/decree-tx/decree/fsm/txn"
)

// Caller says on whose behalf a call is made. The zero Caller may do everything: it is
// for those who do not ask who calls.
type Caller struct {
	// Owner owns what the call begins, and only its own transactions are there for it:
	// any other is as if the log did not know it, or ran already with other content.
	Owner txn.Owner
	// All says that others' are there as well.
	All bool
	// Participant is the caller's, which may inquire about transactions that have a
	// branch there, and about those that the log does not know: it holds branches whose
	// staging may have failed (rule R6).
	Participant string
}

type callerKey struct{}

// As has the calls that are made with a context be on behalf of a caller.
func As(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf is on whose behalf calls with a context are.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Sees reports whether a transaction is there for the caller. A tombstone is nobody's:
// it holds nothing, and who asks knows its txid.
func (c Caller) Sees(tx *txn.Transaction) bool {
	return c.sees(tx.Owner, tx.Tombstone(), tx.Branches)
}

func (c Caller) sees(owner txn.Owner, tombstone bool, branches []txn.Branch) bool {
	switch {
	case c == (Caller{}), c.All, tombstone:
		return true
	case c.Participant != "":
		for i := range branches {
			if branches[i].Participant == c.Participant {
				return true
			}
		}
		return false
	default:
		return owner.Known() && owner == c.Owner
	}
}

// findFor is lookup for a caller, with the lock taken: what is not there for it is unknown, in the same words.
func (t *term) findFor(ctx context.Context, id txn.TxID) (*drive, *txn.Transaction, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lookupFor(CallerOf(ctx), id)
}

// lookupFor is findFor with mu held.
func (t *term) lookupFor(c Caller, id txn.TxID) (*drive, *txn.Transaction, error) {
	d, known, err := t.lookup(id)
	switch {
	case err != nil,
		d != nil && c.sees(d.Owner(), d.Tombstone(), d.Branches()),
		known != nil && c.Sees(known):
		return d, known, err
	}
	return nil, nil, ErrNotTheirs
}

// ErrNotTheirs answers a caller about another's transaction, in the words of one that
// never was. Unlike that it is not to be presumed aborted: it is there.
var ErrNotTheirs = errors.New(txn.ErrUnknown.Error())
