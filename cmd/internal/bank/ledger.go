package bank

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// Ledger keeps every order, from before it is submitted, and its answer. It holds
// all of them in memory: some five hundred bytes for each. It is safe for
// concurrent use.
type Ledger struct {
	mu      sync.Mutex
	entries []Entry          // answered, in the order of the answers; guarded by mu
	running map[string]Order // not answered yet; guarded by mu
	refused []string         // what was refused to those who meddle; guarded by mu
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

// learn writes down the outcome of the n-th entry, which had none.
func (l *Ledger) learn(n int, r client.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.entries[n]
	e.Result, e.Err, e.Late = r, nil, true
}

// heard writes down that one who meddled with an order was refused: nobody may be.
func (l *Ledger) heard(what, txid string, err error) {
	if err == nil || noAnswer(err) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = append(l.refused, fmt.Sprintf("%s, %s, is refused: %v", txid, what, err))
}

// Refusals are what those were told who meddled with an order and were refused.
func (l *Ledger) Refusals() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.refused)
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
