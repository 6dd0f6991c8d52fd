package fsm

import (
	"slices"

	"github.com/decree-tx/decree/fsm/txn"
)

const (
	// defaultPage and maxPage bound one answer of List.
	defaultPage = 100
	maxPage     = 1000
	// scanLimit bounds the transactions that one List looks at, some milliseconds
	// of work, whatever it finds.
	scanLimit = 20_000
)

// Query selects transactions; the zero Query selects all.
type Query struct {
	States      []txn.State // none means every state
	Participant string      // only with a branch there
	Damaged     bool        // only with a heuristic branch that no operator has resolved
	Owner       txn.Owner   // only what this one began; nobody selects all
	// Before is an exclusive cursor: only ids below it. Zero means from the
	// youngest.
	Before txn.TxID
	Limit  int // of the page; 100 when it is not positive, at most 1000
}

// List returns a page of transactions, youngest id first. While more is true, a
// query with Before set to next goes on. Each call looks at a bounded number of
// transactions, so a page may be short, or empty, although there is more.
func (m *Machine) List(q Query) (page []*txn.Transaction, next txn.TxID, more bool) {
	v := m.view()
	limit := min(q.Limit, maxPage)
	if limit <= 0 {
		limit = defaultPage
	}
	scanned := 0
	v.descend(q, func(t *txn.Transaction) bool {
		if len(page) == limit || scanned == scanLimit {
			more = true
			return false
		}
		scanned++
		next = t.ID
		if q.selects(t) {
			page = append(page, t)
		}
		return true
	})
	if !more {
		next = txn.TxID{}
	}
	return page, next, more
}

func (q Query) selects(t *txn.Transaction) bool {
	switch {
	case len(q.States) > 0 && !slices.Contains(q.States, t.State):
		return false
	case q.Participant != "" && t.Branch(q.Participant) == 0:
		return false
	case q.Owner.Known() && t.Owner != q.Owner:
		return false
	case q.Damaged && !t.Troubled():
		return false
	}
	return true
}

// unfinishedOnly reports whether the query asks for nothing that is finished.
func (q Query) unfinishedOnly() bool {
	return len(q.States) > 0 && !slices.ContainsFunc(q.States, txn.State.Finished)
}

// greatestID comes after all others.
func greatestID() (id txn.TxID) {
	for i := range id {
		id[i] = 0xff
	}
	return id
}

// descend walks the smallest index that holds all that q selects, from the
// youngest id below the cursor.
func (v view) descend(q Query, visit func(*txn.Transaction) bool) {
	byID := func(id txn.TxID) bool { return id == q.Before || visit(v.transaction(id)) }
	byItem := func(i item) bool { return i.id == q.Before || visit(i.transaction(v.registered)) }
	start := q.Before
	if start == (txn.TxID{}) {
		start = greatestID()
	}
	switch {
	case q.Damaged:
		v.damaged.DescendLessOrEqual(start, byID)
	case q.unfinishedOnly():
		v.unfinished.DescendLessOrEqual(start, byID)
	default:
		v.transactions.descend(start, byItem)
	}
}
