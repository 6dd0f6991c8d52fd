package node

// That the writer answers every proposal exactly once, its end included.

import (
	"errors"
	"sync"
	"testing"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

func TestWriterAnswersWhatWaitsAtItsEnd(t *testing.T) {
	w := newWriter(nil) // it never leads, and so never asks its member
	const waiting = maxEntryCommands + 1
	var mu sync.Mutex
	answers := map[int]int{}
	var all sync.WaitGroup
	proposalOf := func(n int) proposal {
		all.Add(1)
		return proposal{command: txn.Presume{ID: newID()}, done: func(_ fsm.Result, err error) {
			if !errors.Is(err, coordinator.ErrNotLeader) {
				t.Errorf("proposal %d: %v", n, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if answers[n]++; answers[n] == 1 {
				all.Done()
			}
		}}
	}
	w.mu.Lock()
	for n := range waiting { // more than one entry's worth, of which the writer has not heard
		w.queue = append(w.queue, proposalOf(n))
	}
	w.mu.Unlock()
	w.close()
	w.propose(proposalOf(waiting)) // and one that comes after the end
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	for n, times := range answers {
		if times != 1 {
			t.Errorf("proposal %d was answered %d times", n, times)
		}
	}
}

// What fits one entry leaves the queue, and what does not stays.
func TestWriterTakesWhatFitsAnEntry(t *testing.T) {
	w := newWriter(nil)
	w.close()
	w.closed = false // nobody else takes from it now
	half := txn.NewBranch("a", make([]byte, maxEntryBytes/2))
	for range 3 {
		w.propose(proposal{command: txn.Enlist{ID: newID(), Branch: half}})
	}
	for _, want := range []int{1, 1, 1, 0} {
		if got := len(w.take()); got != want {
			t.Errorf("took %d proposals, want %d", got, want)
		}
	}
	for range maxEntryCommands + 2 {
		w.propose(proposal{command: txn.Presume{ID: newID()}})
	}
	for _, want := range []int{maxEntryCommands, 2, 0} {
		if got := len(w.take()); got != want {
			t.Errorf("took %d proposals, want %d", got, want)
		}
	}
	if w.queue != nil {
		t.Error("the empty queue holds on to what was answered")
	}
}
