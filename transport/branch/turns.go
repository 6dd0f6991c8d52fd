package branch

import (
	"context"
	"sync"
)

// turns lets the calls for one branch run one after another. It holds nothing for
// a branch that nobody is calling.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when the turn is over
}

// take waits for the branch's turn until ctx ends, and returns what ends it.
func (t *turns) take(ctx context.Context, name string) (leave func(), err error) {
	for {
		t.mu.Lock()
		over, busy := t.taken[name]
		if !busy {
			over = make(chan struct{})
			t.taken[name] = over
		}
		t.mu.Unlock()
		if !busy {
			return func() { t.leave(name, over) }, nil
		}
		select {
		case <-over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *turns) leave(name string, over chan struct{}) {
	t.mu.Lock()
	delete(t.taken, name)
	t.mu.Unlock()
	close(over)
}
