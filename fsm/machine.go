package fsm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm/txn"
)

// Options of a Machine. The zero value is useful.
type Options struct {
	// Logger gets what an operator should know; the default discards it.
	Logger hclog.Logger
	// Halt is called, from Raft's goroutine, with what makes it impossible to go
	// on: a committed entry that this binary cannot read, or an invariant that is
	// broken. It must end the process, because a node that skipped an entry would
	// differ from the others for ever. The default panics. Should it return, every
	// later entry is refused with the same error and no snapshot is made.
	Halt func(error)
	// Heard, where set, is told cluster time after each entry that moved it, from
	// Raft's goroutine. It must not block, and has no part in the state (rule R12).
	Heard func(txn.Time)
}

// Machine is the replicated state machine: a raft.FSM and raft.BatchingFSM.
type Machine struct {
	// Set once by New.
	log   hclog.Logger
	halt  func(error)
	heard func(txn.Time)
	feed  feed

	level atomic.Uint32 // the state's, for those who ask about each command

	// Written by Raft's goroutine alone, with mu held; read by it without, and by
	// all others with mu held for reading, or for a clone (see view) for writing.
	mu      sync.RWMutex
	state   *state
	stats   Stats
	stopped error // what went to halt
}

var _ raft.BatchingFSM = (*Machine)(nil)

// New makes an empty state machine.
func New(o Options) *Machine {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Halt == nil {
		o.Halt = func(err error) { panic(err) }
	}
	if o.Heard == nil {
		o.Heard = func(txn.Time) {}
	}
	m := &Machine{log: o.Logger, halt: o.Halt, heard: o.Heard, state: newState()}
	m.level.Store(uint32(m.state.level))
	return m
}

// ApplyBatch implements raft.BatchingFSM. Raft hands it configuration entries as
// well (DESIGN section 8); each is answered, so that the answers match the entries.
func (m *Machine) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, l := range logs {
		out[i] = m.Apply(l)
	}
	return out
}

// Apply implements raft.FSM. It returns an [Applied].
func (m *Machine) Apply(l *raft.Log) any {
	if m.stopped != nil {
		return Applied{Index: l.Index, Err: m.stopped}
	}
	if l.Index <= m.state.index {
		return m.stop(l, fmt.Errorf("entry %d was applied already, the last one is %d: "+
			"stop this node and report it as a fault of decree", l.Index, m.state.index))
	}
	var e Entry
	if l.Type == raft.LogCommand {
		var err error
		if e, err = decode(l.Data, m.state.participants); err != nil {
			return m.stop(l, unreadable(err))
		}
	}
	m.mu.Lock()
	m.state.index = l.Index
	before := m.state.cluster.Now
	out := Applied{Index: l.Index}
	var changed []*txn.Transaction
	if l.Type == raft.LogCommand {
		changed = m.applyEntry(l, e, &out)
	}
	now := m.state.cluster.Now
	m.mu.Unlock()
	if now > before {
		m.heard(now)
	}
	m.feed.publish(changed)
	return out
}

// stop halts the node on an entry.
func (m *Machine) stop(l *raft.Log, err error) Applied {
	err = fmt.Errorf("log entry %d of term %d: %w", l.Index, l.Term, err)
	m.mu.Lock()
	m.stopped = err
	m.mu.Unlock()
	m.log.Error("the state machine stops", "index", l.Index, "epoch", l.Term, "error", err)
	m.halt(err)
	return Applied{Index: l.Index, Err: err}
}

// unreadable says what an operator can do about an entry.
func unreadable(err error) error {
	if errors.Is(err, errNewer) {
		return fmt.Errorf("%w: upgrade decree on this node and start it again, nothing is lost", err)
	}
	return fmt.Errorf("it can't be decoded: %w: the log on this node is damaged, or was not written by decree: "+
		"add a new node under a new id with an empty data directory, then remove this one", err)
}
