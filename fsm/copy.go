package fsm

import (
	"io"

	"github.com/decree-tx/decree/fsm/txn"
)

// Copy is the state at one entry. It does not change, and may be written while entries
// are applied; what is deleted meanwhile takes memory until it is let go.
type Copy struct {
	Cluster string // the cluster's id; empty before the first epoch
	Index   uint64 // of the last entry applied
	Epoch   uint64
	Time    txn.Time
	Level   Level

	state *snapshot
}

// Copy takes a copy, of some pointers, for which entries wait some microseconds.
func (m *Machine) Copy() (Copy, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped != nil {
		return Copy{}, m.stopped
	}
	s := m.state
	return Copy{Cluster: s.clusterID, Index: s.index, Epoch: s.cluster.Epoch, Time: s.cluster.Now, Level: s.level, state: s.snapshot()}, nil
}

// WriteSnapshot writes what Restore reads.
func (c Copy) WriteSnapshot(to io.Writer) error { return c.state.write(to) }
