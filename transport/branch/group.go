package branch

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

// maxGroup bounds the units that share one commit, and with it how long a unit
// waits for the functions of its neighbours. Past some dozens the fsync is shared
// so widely that more sharing gains nothing.
const maxGroup = 64

// work is one unit: it changes the file through tx and reports whether it changed
// anything. Where it fails after a change, what it wrote is undone. It may be run
// several times.
type work func(tx *bbolt.Tx) (changed bool, err error)

// retreat is the error of a unit that wants all undone that it wrote, and other
// work run in its place, in the same commit.
type retreat struct{ work work }

func (*retreat) Error() string { return "undone" }

// group shares commits, and so fsyncs, among callers. There is no goroutine: a
// caller adds its unit to the queue and then waits until it may write or until an
// earlier writer has taken its unit along.
type group struct {
	db      *bbolt.DB
	writing chan struct{} // holds one token while nobody writes

	mu    sync.Mutex
	queue []*unit

	// After a commit that failed, what is on disk is unknown until the file is
	// opened anew: failed stays. It belongs to whoever writes, until broken is
	// closed; from then on it may be read by all.
	failed error
	broken chan struct{}
}

type unit struct {
	ctx  context.Context // of the caller: once it has ended, the work is not begun
	work work
	err  error         // the answer, once done is closed
	done chan struct{} // closed by the writer
}

func (u *unit) run(tx *bbolt.Tx) (changed bool, err error) {
	if err := u.ctx.Err(); err != nil {
		return false, err
	}
	return u.work(tx)
}

func newGroup(db *bbolt.DB) *group {
	g := &group{db: db, writing: make(chan struct{}, 1), broken: make(chan struct{})}
	g.writing <- struct{}{}
	return g
}

// do runs w and returns its error once what it changed is durable. It returns
// early when ctx ends; w may then have taken effect, or may yet.
func (g *group) do(ctx context.Context, w work) error {
	u := &unit{ctx: ctx, work: w, done: make(chan struct{})}
	g.mu.Lock()
	g.queue = append(g.queue, u)
	g.mu.Unlock()
	for {
		select {
		case <-u.done:
			return u.err
		case <-ctx.Done():
			return ctx.Err()
		case <-g.writing:
			g.write()
		}
	}
}

// write commits the units at the head of the queue, and passes the pen on.
func (g *group) write() {
	defer func() { g.writing <- struct{}{} }()
	g.mu.Lock()
	n := min(len(g.queue), maxGroup)
	batch := append([]*unit(nil), g.queue[:n]...)
	g.queue = append([]*unit(nil), g.queue[n:]...)
	g.mu.Unlock()
	if n == 0 {
		return
	}
	if g.failed == nil {
		if g.failed = g.commit(batch); g.failed != nil {
			close(g.broken)
		}
	}
	for _, u := range batch {
		if g.failed != nil {
			u.err = g.failed
		}
		close(u.done)
	}
}

var (
	errSpoilt  = errors.New("a unit failed after it wrote")
	errNothing = errors.New("nothing was changed")
)

// commit runs the batch in one transaction. A unit that fails after it wrote
// spoils the transaction for all: it is begun again without that unit, or with
// what the unit wants in its place. Every turn of the loop settles one unit, so
// the loop ends. The error returned is the file's, never a unit's.
func (g *group) commit(batch []*unit) error {
	for {
		spoilt := -1
		err := g.db.Update(func(tx *bbolt.Tx) error {
			dirty := false
			for i, u := range batch {
				var changed bool
				if changed, u.err = u.run(tx); changed && u.err != nil {
					spoilt = i
					return errSpoilt
				}
				dirty = dirty || changed
			}
			if !dirty {
				return errNothing // a rollback costs no fsync
			}
			return nil
		})
		switch {
		case errors.Is(err, errSpoilt):
			batch = replace(batch, spoilt)
		case err != nil && !errors.Is(err, errNothing):
			return fmt.Errorf("commit to %s failed, what it holds is unknown until it is opened again: %w", g.db.Path(), err)
		default:
			return nil
		}
	}
}

// replace gives the spoilt unit its other work, or leaves it out with its error.
func replace(batch []*unit, spoilt int) []*unit {
	var other *retreat
	if errors.As(batch[spoilt].err, &other) {
		batch[spoilt].work = other.work
		return batch
	}
	return append(append([]*unit(nil), batch[:spoilt]...), batch[spoilt+1:]...)
}
