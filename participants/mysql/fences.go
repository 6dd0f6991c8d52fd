package mysql

import (
	"context"
	"sync"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// horizonStep is how far the horizon may run ahead of what is stored of it. It
// moves all the time, and nothing is forgotten beyond what is stored, so a write
// for each move would buy nothing.
const horizonStep = time.Minute

// fences is what this instance knows of each cluster's fence: at least what the
// database had stored when the cluster first spoke here. Another instance may have
// stored more since, which the marker's insert notices (InsertOpen).
type fences struct {
	p  *participant
	mu sync.Mutex
	of map[string]*clusterFence
}

// clusterFence is the fence of one cluster. There is one cluster to an instance,
// tests aside.
type clusterFence struct {
	turn chan struct{} // held by who talks with the database about it

	// guarded by fences.mu
	loaded bool
	participants.Fence
	stored txn.Time // the horizon in the database, or an earlier one
}

func newFences(p *participant) *fences {
	return &fences{p: p, of: map[string]*clusterFence{}}
}

// admit lets a branch's message pass, or refuses it with ErrStaleEpoch. It goes to
// the database when a cluster first speaks, and when its epoch has risen, which is
// stored before anything that follows from it is done (rules R8 and R11).
func (f *fences) admit(ctx context.Context, b participants.Branch) (participants.Fence, error) {
	c := f.cluster(b.Cluster)
	if fence, err, settled := f.pass(c, b); settled {
		return fence, err
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return participants.Fence{}, ctx.Err()
	}
	defer func() { <-c.turn }()
	if fence, err, settled := f.pass(c, b); settled { // somebody was faster
		return fence, err
	}
	return f.store(ctx, c, b)
}

func (f *fences) cluster(id string) *clusterFence {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.of[id]
	if c == nil {
		c = &clusterFence{turn: make(chan struct{}, 1)}
		f.of[id] = c
	}
	return c
}

// pass admits a message that changes nothing worth a write.
func (f *fences) pass(c *clusterFence, b participants.Branch) (fence participants.Fence, err error, settled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !c.loaded {
		return participants.Fence{}, nil, false
	}
	next, err := c.Admit(b)
	if err != nil {
		return c.Fence, err, true
	}
	if next.Epoch > c.Epoch || next.Horizon.Sub(c.stored) >= horizonStep {
		return c.Fence, nil, false
	}
	c.Fence = next
	return next, nil, true
}

// store writes what a message says, unless the database has heard of a later
// epoch.
func (f *fences) store(ctx context.Context, c *clusterFence, b participants.Branch) (participants.Fence, error) {
	stored, err := f.p.loadFence(ctx, b.Cluster)
	if err != nil {
		return participants.Fence{}, err
	}
	before := f.learn(c, stored)
	next, err := before.Admit(b)
	if err != nil {
		return before, err
	}
	if next != stored {
		if err := f.p.storeFence(ctx, b.Cluster, next); err != nil {
			return before, err
		}
	}
	return f.learn(c, next), nil
}

// learn notes what the database has stored.
func (f *fences) learn(c *clusterFence, stored participants.Fence) participants.Fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.loaded = true
	c.stored = max(c.stored, stored.Horizon)
	c.Epoch = max(c.Epoch, stored.Epoch)
	c.Horizon = max(c.Horizon, stored.Horizon)
	return c.Fence
}

// refresh reads the fence anew, for a branch that the database has refused, and
// refuses it with ErrStaleEpoch where that is why.
func (f *fences) refresh(ctx context.Context, b participants.Branch) (participants.Fence, error) {
	stored, err := f.p.loadFence(ctx, b.Cluster)
	if err != nil {
		return participants.Fence{}, err
	}
	fence := f.learn(f.cluster(b.Cluster), stored)
	_, err = fence.Admit(b)
	return fence, err
}

// stored is the horizon in the database of each cluster that spoke here.
func (f *fences) stored() map[string]txn.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]txn.Time, len(f.of))
	for id, c := range f.of {
		if c.loaded {
			all[id] = c.stored
		}
	}
	return all
}

func (p *participant) loadFence(ctx context.Context, cluster string) (participants.Fence, error) {
	var fence participants.Fence
	err := p.errand(ctx, func(s *session) error {
		rows, err := s.query(ctx, p.sql.Fence, cluster)
		if err != nil || len(rows) == 0 {
			return err
		}
		var horizon int64
		err = rows[0].scan(&fence.Epoch, &horizon)
		fence.Horizon = txn.Time(horizon)
		return err
	})
	return fence, err
}

// fencePause is between two tries to write a fence that another instance is
// writing.
const fencePause = 5 * time.Millisecond

func (p *participant) storeFence(ctx context.Context, cluster string, fence participants.Fence) error {
	for {
		err := p.errand(ctx, func(s *session) error {
			_, err := s.exec(ctx, p.sql.RaiseFence, cluster, fence.Epoch, int64(fence.Horizon))
			return err
		})
		if n := numberOf(err); n != errLockWait && n != errDeadlock {
			return err
		}
		if sleep(ctx, fencePause) != nil {
			return err
		}
	}
}
