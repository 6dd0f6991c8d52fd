package bankday

import (
	"context"
	"sync"
	"time"

	"github.com/decree-tx/decree/cmd/internal/fleet"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// reignPause is how often a node is asked in which epoch it is. An epoch takes a
// second to come about after the one before, so that none is missed; and one that
// were missed would only not be counted.
const reignPause = 100 * time.Millisecond

// reigns are the epochs that were seen: each is a term of Raft whose leader has
// passed its barrier and written the entry that begins its work. The zero reigns is
// ready; it is safe for concurrent use.
type reigns struct {
	mu     sync.Mutex
	epochs map[uint64]bool // guarded by mu
}

// see notes an epoch and tells how many failovers there were.
func (r *reigns) see(epoch uint64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epochs == nil {
		r.epochs = map[uint64]bool{}
	}
	if epoch != 0 {
		r.epochs[epoch] = true
	}
	return max(0, len(r.epochs)-1)
}

// failovers is how many there were.
func (r *reigns) failovers() int { return r.see(0) }

// watchReigns asks every node for its epoch until ctx ends, and ends the shift when
// there were enough failovers.
func (d *day) watchReigns(ctx context.Context, goal int, end func()) {
	var asking sync.WaitGroup
	for _, n := range d.cluster {
		asking.Go(func() {
			for sleep(ctx, reignPause) {
				status, err := d.glance(ctx, n)
				if err != nil {
					continue // it is away
				}
				if d.reigns.see(status.GetEpoch()) >= goal {
					end()
				}
			}
		})
	}
	asking.Wait()
}

// glance asks a node for its status, and does not wait long.
func (d *day) glance(ctx context.Context, n *fleet.Node) (*decreev1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	return d.client.NodeStatus(ctx, n.Endpoint)
}
