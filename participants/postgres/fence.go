package postgres

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// maxClusters bounds the clusters whose fences are remembered: there is one, and
// tests have some. Beyond it memory starts anew, from what the database keeps.
const maxClusters = 1024

// fences is what this node has heard of each cluster, or read in the database,
// which is what the fence really is (rules R8 and R11). Memory saves the trips: the
// database is told only when it does not know yet.
type fences struct {
	telling chan struct{} // held while the database is told

	mu    sync.Mutex
	known map[string]participants.Fence // guarded by mu; all of it is in the database
}

func newFences() fences {
	return fences{telling: make(chan struct{}, 1), known: map[string]participants.Fence{}}
}

func (f *fences) of(cluster string) participants.Fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known[cluster]
}

func (f *fences) all() map[string]participants.Fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.known)
}

// learn remembers what was read in the database.
func (f *fences) learn(cluster string, stored participants.Fence) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.known[cluster]; !ok && len(f.known) >= maxClusters {
		clear(f.known)
	}
	was := f.known[cluster]
	f.known[cluster] = participants.Fence{
		Epoch:   max(was.Epoch, stored.Epoch),
		Horizon: max(was.Horizon, stored.Horizon),
	}
}

// hear lets a message pass, once the database has stored what it says of epoch and
// horizon, or refuses it with ErrStaleEpoch. It costs a trip once in a term, and
// when the horizon has moved.
func (p *participant) hear(ctx context.Context, b participants.Branch) error {
	if told, err := p.told(b); told || err != nil {
		return err
	}
	select {
	case p.fences.telling <- struct{}{}:
		defer func() { <-p.fences.telling }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if told, err := p.told(b); told || err != nil {
		return err
	}
	var stored participants.Fence
	err := p.with(ctx, func(s *session) error {
		a, err := s.query(ctx, p.sql.RaiseFence, b.Cluster, int64(b.Epoch), int64(b.Horizon)) //nolint:gosec // a Raft term
		if err != nil {
			return err
		}
		stored, err = fenceOf(a.rows[0], 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("storing the fence: %w", err)
	}
	p.fences.learn(b.Cluster, stored)
	_, err = stored.Admit(b)
	return err
}

// told reports whether a message says nothing new.
func (p *participant) told(b participants.Branch) (bool, error) {
	known := p.fences.of(b.Cluster)
	next, err := known.Admit(b)
	return next == known, err
}

// fenceOf reads epoch and horizon in two columns of a row.
func fenceOf(r row, column int) (participants.Fence, error) {
	epoch, err := r.number(column)
	if err != nil {
		return participants.Fence{}, err
	}
	horizon, err := r.number(column + 1)
	return participants.Fence{Epoch: uint64(epoch), Horizon: txn.Time(horizon)}, err //nolint:gosec // as it was stored
}
