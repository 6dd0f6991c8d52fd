package branch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// countEvery is how old the count of open branches may be. Between two counts a
	// server adds up its own, so only what other processes add is seen late.
	countEvery = time.Second
	// forgetEvery is how many branches end before old ones are forgotten, and
	// forgetBatch how many are forgotten then: several times as many, so that
	// forgetting keeps ahead, in a delete that takes milliseconds.
	forgetEvery = 64
	forgetBatch = 4 * forgetEvery
)

// tcc runs a TCC service inside the transactions of its books. A crash therefore
// finds either all of a call's effect and its record, or nothing of both.
//
// Why the fence holds although nobody locks it: a message raises it, durably,
// before it opens its branch's page, and the fence is read once the page is held.
// So of two messages of one branch, the one that comes second to the page sees
// what the first one carried (rule R8).
type tcc[Tx any] struct {
	books   Books[Tx]
	service TCC[Tx]
	maxOpen int

	mu       sync.Mutex
	clusters map[string]*census // of the clusters that the books know; guarded by mu
}

// census is what one process knows of a cluster without asking.
type census struct {
	fence   Fence // as it was stored at some time, or lower
	open    int   // branches that wait, about
	counted time.Time
	ended   int // branches, since the last time that old ones were forgotten
}

func (t *tcc[Tx]) prepare(ctx context.Context, m message) (Vote, error) {
	if err := t.hear(ctx, m); err != nil {
		return Vote{}, err
	}
	if err := t.count(ctx, m.branch.Cluster); err != nil {
		return Vote{}, err
	}
	var vote Vote
	var opened bool
	err := t.books.Change(ctx, m.branch, func(p Page[Tx]) (*Record, error) {
		fence, err := p.Fence.admit(m)
		if err != nil {
			return nil, err
		}
		var known bool
		opened = false
		if vote, known, err = p.Record.prepare(fence, m); known {
			return nil, err
		}
		if err := t.room(m.branch.Cluster); err != nil {
			return nil, err
		}
		var failed error
		vote, failed = t.service.Try(ctx, p.Tx, m.branch)
		next, err := vote.record("Try", m, failed)
		if err != nil {
			return nil, err
		}
		if opened = next.State == statePrepared; !opened {
			err = p.Undo(ctx)
		}
		return &next, err
	})
	if err != nil {
		return Vote{}, err
	}
	if opened {
		t.noted(m.branch.Cluster, 1)
	}
	return vote, nil
}

func (t *tcc[Tx]) commit(ctx context.Context, m message) error {
	how := commitEnding()
	how.name = "Confirm"
	return t.end(ctx, m, how, t.service.Confirm)
}

func (t *tcc[Tx]) abort(ctx context.Context, m message) error {
	how := abortEnding()
	how.name = "Cancel"
	return t.end(ctx, m, how, t.service.Cancel)
}

func (t *tcc[Tx]) end(ctx context.Context, m message, how ending, run func(context.Context, Tx, Branch) error) error {
	if err := t.hear(ctx, m); err != nil {
		return err
	}
	var answer error
	var ended bool
	err := t.books.Change(ctx, m.branch, func(p Page[Tx]) (*Record, error) {
		fence, err := p.Fence.admit(m)
		if err != nil {
			return nil, err
		}
		var known bool
		var closing *Record
		ended = false
		if known, closing, answer = how.answer(p.Record, fence.expired(m.id)); known {
			return closing, nil
		}
		answer = run(ctx, p.Tx, m.remembered(p.Record))
		next, err := how.record(p.Record, answer)
		if err == nil && answer != nil {
			err = p.Undo(ctx) // the service's writes contradict its word
		}
		ended = true
		return &next, err
	})
	if err != nil {
		return err
	}
	if ended {
		t.noted(m.branch.Cluster, -1)
	}
	t.forget(ctx, m.branch.Cluster)
	return answer
}

// hear stores what a message says of its cluster, before anything is done for it.
// Almost always that is known, and costs nothing.
func (t *tcc[Tx]) hear(ctx context.Context, m message) error {
	fence, known := t.heard(m.branch.Cluster)
	raised, err := fence.admit(m)
	if err != nil || known && raised == fence {
		return err
	}
	stored, err := t.books.Raise(ctx, m.branch.Cluster, raised, maxClusters)
	if err != nil {
		return err
	}
	t.learn(m.branch.Cluster, stored)
	_, err = stored.admit(m)
	return err
}

// heard is what this process knows of a cluster's fence.
func (t *tcc[Tx]) heard(cluster string) (f Fence, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, known := t.clusters[cluster]
	if !known {
		return Fence{}, false
	}
	return c.fence, true
}

func (t *tcc[Tx]) learn(cluster string, stored Fence) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, known := t.clusters[cluster]
	if !known {
		c = &census{}
		t.clusters[cluster] = c
	}
	c.fence = Fence{Epoch: max(c.fence.Epoch, stored.Epoch), Horizon: max(c.fence.Horizon, stored.Horizon)}
}

// count brings the number of open branches up to date, now and then.
func (t *tcc[Tx]) count(ctx context.Context, cluster string) error {
	t.mu.Lock()
	known := t.clusters[cluster]
	old := time.Since(known.counted) > countEvery
	if old {
		known.counted = time.Now() // so that one caller counts, and the others go on
	}
	t.mu.Unlock()
	if !old {
		return nil
	}
	open, err := t.books.Count(ctx, cluster, t.maxOpen)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known.open = open
	return nil
}

// room refuses a new branch where too many are open (rule R14).
func (t *tcc[Tx]) room(cluster string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clusters[cluster].open >= t.maxOpen {
		return fmt.Errorf("%w: %d", errFull, t.maxOpen)
	}
	return nil
}

// noted adds to the number of open branches.
func (t *tcc[Tx]) noted(cluster string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clusters[cluster].open = max(t.clusters[cluster].open+n, 0)
}

// forget drops what lies before the horizon, now and then (rule R11). What it
// leaves, it finds the next time, so its failure is nobody's: the database that
// refused it refuses the next call too, and that one says so.
func (t *tcc[Tx]) forget(ctx context.Context, cluster string) {
	t.mu.Lock()
	known := t.clusters[cluster]
	known.ended++
	due := known.ended >= forgetEvery && known.fence.Horizon > 0
	horizon := known.fence.Horizon
	if due {
		known.ended = 0
	}
	t.mu.Unlock()
	if due {
		_ = t.books.Forget(ctx, cluster, firstAt(horizon), forgetBatch)
	}
}

// firstAt is the txid that no other sorts before whose time is not before the
// horizon.
func firstAt(horizon int64) string {
	ms := horizon / 1_000_000
	if horizon%1_000_000 != 0 {
		ms++
	}
	var id uuid.UUID
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id.String()
}

func (t *tcc[Tx]) open(ctx context.Context, cluster string) ([]Branch, error) {
	return t.books.Open(ctx, cluster, maxMaxOpen)
}

func (t *tcc[Tx]) look(ctx context.Context, m message) (Record, error) {
	return t.books.Look(ctx, m.branch)
}

// broken is never closed: what a database holds is known again when it answers.
func (t *tcc[Tx]) broken() <-chan struct{} { return nil }
func (t *tcc[Tx]) failure() error          { return nil }
