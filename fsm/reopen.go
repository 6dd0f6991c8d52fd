package fsm

import (
	"errors"

	"github.com/decree-tx/decree/fsm/txn"
)

// ErrNoCluster is a state in which there was never a leader.
var ErrNoCluster = errors.New("the state is that of a cluster that has never had a leader")

// Reopen has the state begin again, where it may be older than what was decided (rule
// R15; see [txn.Restored]). It is for a machine that no node runs: what it changes is in
// no log, and travels in the snapshot that is taken next. The errors are ErrNoCluster
// and those of txn.Cluster.Reopen.
func (m *Machine) Reopen(r txn.Restored) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped != nil {
		return m.stopped
	}
	if m.state.clusterID == "" {
		return ErrNoCluster
	}
	cluster, err := m.state.cluster.Reopen(r)
	if err != nil {
		return err
	}
	m.state.cluster, m.state.level = cluster, max(m.state.level, LevelRestore)
	m.level.Store(uint32(m.state.level))
	return nil
}

// Doubt takes back the decisions that were applied after an index, and returns how many
// they are: of a log's last entries it is not known whether the cluster had committed
// them, or another leader has decided otherwise (rule R15). What else is known of those
// transactions stays, so that after Reopen an operator decides them. It is for a machine
// that no node runs.
func (m *Machine) Doubt(after uint64) (decisions int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, fresh := m.state, newState()
	again := *old
	again.transactions, again.unfinished, again.damaged, again.ripening, again.openAt = fresh.transactions, fresh.unfinished, fresh.damaged, fresh.ripening, fresh.openAt
	old.transactions.ascend(func(i item) bool {
		t := i.transaction(old.participants)
		if t.Decided.Index > after {
			decisions++
			t = t.InDoubt()
		}
		if t != nil {
			again.put(nil, t)
		}
		return true
	})
	again.ripening.seal()
	m.state = &again
	return decisions
}
