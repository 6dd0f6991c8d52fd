package fsm

import (
	"context"
	"errors"
	"sync"

	"github.com/decree-tx/decree/fsm/txn"
)

const (
	// maxBacklog bounds what a subscriber may lag behind: about a quarter of a
	// second of a busy cluster, and 64 KB of pointers.
	maxBacklog = 8192
	// maxWatches bounds the subscribers of one node.
	maxWatches = 10_000
)

// Errors of Watch.Next.
var (
	// ErrLagged ends a watch that has missed a change: its reader was too slow, or
	// the node took over a snapshot. Watch anew and read the present state.
	ErrLagged = errors.New("the watch fell behind")
	// ErrTooManyWatches ends a watch past the node's bound before it began.
	ErrTooManyWatches = errors.New("too many watches")
	// ErrWatchClosed ends a watch after Close.
	ErrWatchClosed = errors.New("the watch is closed")
)

// feed hands changes to subscribers. Apply never waits for one: whoever lags is
// cut off.
type feed struct {
	mu   sync.Mutex
	all  map[*Watch]struct{}
	byID map[txn.TxID]map[*Watch]struct{}
	n    int
}

// Watch is a subscription to state changes.
type Watch struct {
	feed *feed
	id   *txn.TxID
	wake chan struct{} // holds a token while there is something to see

	mu      sync.Mutex
	backlog []*txn.Transaction
	ended   error
}

// Watch subscribes to the changes that this node applies from now on: of one
// transaction, or of all where id is nil. To miss nothing, watch first and read
// the present state then. Close it when done.
func (m *Machine) Watch(id *txn.TxID) *Watch {
	if id != nil {
		own := *id
		id = &own
	}
	w := &Watch{feed: &m.feed, id: id, wake: make(chan struct{}, 1)}
	if !m.feed.add(w) {
		w.end(ErrTooManyWatches)
	}
	return w
}

// Next waits for the next change. After the watch has ended it still returns what
// came before its end, then the reason: [ErrLagged], [ErrTooManyWatches] or
// [ErrWatchClosed]. It is for one goroutine.
func (w *Watch) Next(ctx context.Context) (*txn.Transaction, error) {
	for {
		if t, err := w.take(); t != nil || err != nil {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.wake:
		}
	}
}

// Close ends the watch; it may be called at any time, and more than once.
func (w *Watch) Close() {
	w.feed.remove(w)
	w.end(ErrWatchClosed)
}

func (w *Watch) take() (*txn.Transaction, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.backlog) == 0 {
		return nil, w.ended
	}
	t := w.backlog[0]
	w.backlog[0] = nil // let go of it: the slice lives on
	w.backlog = w.backlog[1:]
	return t, nil
}

// offer appends a change, and reports false when the watch has no room for it.
func (w *Watch) offer(t *txn.Transaction) bool {
	w.mu.Lock()
	ok := len(w.backlog) < maxBacklog
	if ok {
		w.backlog = append(w.backlog, t)
	}
	w.mu.Unlock()
	if ok {
		w.rouse()
	}
	return ok
}

// end lets the watch finish with err, unless it has a reason already.
func (w *Watch) end(err error) {
	w.mu.Lock()
	if w.ended == nil {
		w.ended = err
	}
	w.mu.Unlock()
	w.rouse()
}

func (w *Watch) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (f *feed) add(w *Watch) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == maxWatches {
		return false
	}
	f.n++
	if w.id == nil {
		if f.all == nil {
			f.all = make(map[*Watch]struct{})
		}
		f.all[w] = struct{}{}
		return true
	}
	if f.byID == nil {
		f.byID = make(map[txn.TxID]map[*Watch]struct{})
	}
	if f.byID[*w.id] == nil {
		f.byID[*w.id] = make(map[*Watch]struct{})
	}
	f.byID[*w.id][w] = struct{}{}
	return true
}

func (f *feed) remove(w *Watch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(w)
}

// drop forgets a subscriber. f.mu is held.
func (f *feed) drop(w *Watch) {
	set := f.all
	if w.id != nil {
		set = f.byID[*w.id]
	}
	if _, ok := set[w]; !ok {
		return
	}
	f.n--
	delete(set, w)
	if w.id != nil && len(set) == 0 {
		delete(f.byID, *w.id)
	}
}

// publish hands out changes in their order. The order of subscribers is no part
// of the replicated state.
func (f *feed) publish(changed []*txn.Transaction) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == 0 {
		return
	}
	for _, t := range changed {
		f.send(f.all, t)
		f.send(f.byID[t.ID], t)
	}
}

func (f *feed) send(to map[*Watch]struct{}, t *txn.Transaction) {
	for w := range to {
		if !w.offer(t) {
			f.drop(w)
			w.end(ErrLagged)
		}
	}
}

// cut ends every watch, where changes were skipped.
func (f *feed) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.all {
		w.end(ErrLagged)
	}
	for _, set := range f.byID {
		for w := range set {
			w.end(ErrLagged)
		}
	}
	f.all, f.byID, f.n = nil, nil, 0
}

func (f *feed) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}
