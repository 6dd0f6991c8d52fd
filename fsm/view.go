package fsm

import (
	"slices"

	"github.com/google/btree"

	"github.com/decree-tx/decree/fsm/txn"
)

// Transaction finds a transaction. What it shows as decided is final.
func (m *Machine) Transaction(id txn.TxID) (*txn.Transaction, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.state.transaction(id)
	return t, t != nil
}

// Open yields every unfinished transaction, oldest id first, as they stand at the
// call, until yield returns false.
func (m *Machine) Open(yield func(*txn.Transaction) bool) {
	v := m.view()
	v.unfinished.Ascend(func(id txn.TxID) bool { return yield(v.transaction(id)) })
}

// Participant finds a registration.
func (m *Machine) Participant(name string) (Participant, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if place, ok := m.state.find(name); ok {
		return m.state.participants[place], true
	}
	return Participant{}, false
}

// Participants lists all registrations by name, in a slice of the caller's own.
func (m *Machine) Participants() []Participant {
	m.mu.RLock()
	participants := m.state.participants
	m.mu.RUnlock()
	return slices.Clone(participants)
}

// OpenAt counts the unfinished transactions with a branch at a participant.
func (m *Machine) OpenAt(participant string) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.state.openAt[participant]
}

// Cluster is the epoch, cluster time and horizon of the last entry.
func (m *Machine) Cluster() txn.Cluster {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.state.cluster
}

// ClusterID is the id under which participants know this cluster; empty until the
// first leader has opened its epoch.
func (m *Machine) ClusterID() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.state.clusterID
}

// AppliedIndex is the index of the last entry that is truly applied, where Raft's
// own says that it was handed over. Entries that never reach a state machine, a
// barrier's for one, are not counted.
func (m *Machine) AppliedIndex() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.state.index
}

// Stats counts what there is, and what was done since the process started.
type Stats struct {
	Unfinished int // transactions that are owed something
	// OldestUnfinished is when the first of them began, by its txid; zero where there
	// is none.
	OldestUnfinished txn.Time
	Retained         int // all that are known, unfinished and finished
	Damaged          int // those with a heuristic branch
	Finished         int // those that retention will end: finished, and not damaged
	Participants     int
	Watches          int // subscribers to changes
	// Oldest is where the horizon must pass for the first of Finished to go; zero
	// where there is none.
	Oldest txn.Time

	Entries  uint64 // entries applied, without those that were refused
	Bytes    uint64 // of them
	Commands uint64 // commands in them
	Refused  uint64 // entries of a leader that had been replaced
}

// Stats reads the counters.
func (m *Machine) Stats() Stats {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.stats
	s.Unfinished = m.state.unfinished.Len()
	if first, ok := m.state.unfinished.Min(); ok {
		s.OldestUnfinished = first.Time()
	}
	s.Retained = m.state.transactions.len()
	s.Damaged = m.state.damaged.Len()
	s.Finished = m.state.ripening.len()
	if first, ok := m.state.ripening.first(); ok {
		s.Oldest = first.at
	}
	s.Participants = len(m.state.participants)
	s.Watches = m.feed.len()
	return s
}

// view is a state that does not change any more.
type view struct {
	registered   names
	transactions catalogue
	unfinished   *btree.BTreeG[txn.TxID]
	damaged      *btree.BTreeG[txn.TxID]
}

func (v view) transaction(id txn.TxID) *txn.Transaction {
	return v.transactions.get(id).transaction(v.registered)
}

// view clones the trees, which copies some pointers. A clone marks the original's
// nodes as shared, so it is taken with the lock held for writing.
func (m *Machine) view() view {
	m.mu.Lock()
	defer m.mu.Unlock()
	return view{
		registered:   m.state.participants,
		transactions: m.state.transactions.clone(),
		unfinished:   m.state.unfinished.Clone(),
		damaged:      m.state.damaged.Clone(),
	}
}
