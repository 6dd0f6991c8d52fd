package bank

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Ledger keeps every order, from before it is submitted, and its answer. It holds
// all of them in memory: some five hundred bytes for each. It is safe for
// concurrent use.
type Ledger struct {
	mu      sync.Mutex
	entries []Entry          // answered, in the order of the answers; guarded by mu
	running map[string]Order // not answered yet; guarded by mu
}

// begin writes an order down before it leaves, so that whoever meets it at a
// participant finds it here.
func (l *Ledger) begin(o Order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == nil {
		l.running = map[string]Order{}
	}
	l.running[o.TxID] = o
}

func (l *Ledger) add(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, e.TxID)
	l.entries = append(l.entries, e)
}

// Entries are a copy, in the order of the answers.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// Running are the orders that have no answer yet.
func (l *Ledger) Running() []Order {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.running))
}

// FirstAnswer is when the first order was answered after a moment; false while
// none was.
func (l *Ledger) FirstAnswer(after time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.Err == nil && e.Answered.After(after) {
			return e.Answered, true
		}
	}
	return time.Time{}, false
}
