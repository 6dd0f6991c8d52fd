package fsm

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm/txn"
)

// MaxParticipants bounds the registry: each registration is copied when one
// changes, and each node opens all of them.
const MaxParticipants = 4096

// Errors that a command can be answered with, beside those of package txn. None
// of them changed any state.
var (
	// ErrUnknownParticipant is wrapped with the names that are not registered.
	ErrUnknownParticipant = errors.New("unknown participant")
	// ErrParticipantInUse is wrapped where unfinished transactions have a branch
	// at the participant (rule R10).
	ErrParticipantInUse = errors.New("the participant has unfinished transactions")
	// ErrTooManyParticipants answers a registration past MaxParticipants.
	ErrTooManyParticipants = fmt.Errorf("there are %d participants already", MaxParticipants)
	// ErrTransactionTooLarge answers a branch whose payload brings its transaction
	// over MaxTransactionBytes.
	ErrTransactionTooLarge = fmt.Errorf("the payloads of the transaction exceed %d bytes", MaxTransactionBytes)
)

func unknownParticipant(name string) error {
	return fmt.Errorf("%w: %s", ErrUnknownParticipant, name)
}

func inUse(name string, n int) error {
	return fmt.Errorf("%w: %s has %d", ErrParticipantInUse, name, n)
}

// Applied is the response of an applied Raft log entry, as a value.
type Applied struct {
	Index uint64
	// Err refuses the entry as a whole, which then changed nothing. It wraps
	// txn.ErrStaleEpoch where another leader drives, and is what went to
	// Options.Halt after the state machine stopped.
	Err     error
	Results []Result // one a command, in their order
}

// Result answers one command.
type Result struct {
	// Transaction is the state after a transaction's command, or before it where
	// Err is set; nil where the log does not know the transaction.
	Transaction *txn.Transaction
	Due         []txn.Work   // what the command made due
	Participant *Participant // of a PutParticipant, with its revision
	Collected   int          // how many transactions a Collect forgot
	Err         error        // the command was refused and changed nothing
}

// applyEntry carries out one entry of the log and returns the transactions that
// it changed, in order. m.mu is held.
func (m *Machine) applyEntry(l *raft.Log, e Entry, out *Applied) (changed []*txn.Transaction) {
	cluster, err := m.admit(l, e)
	if err != nil {
		m.stats.Refused++
		out.Err = err
		return nil
	}
	m.state.cluster = cluster
	m.stats.Entries++
	m.stats.Bytes += uint64(len(l.Data))
	m.stats.Commands += uint64(len(e.Commands))

	out.Results = make([]Result, len(e.Commands))
	for i, c := range e.Commands {
		r := &out.Results[i]
		if r.Err = allows(m.state.level, NeededLevel(c), c); r.Err != nil {
			continue // a leader proposes none; one that did must not split the nodes
		}
		at := txn.At{Cluster: m.state.cluster, Index: l.Index} // a command before this one may have set the group
		var moved bool
		if *r, moved = m.state.carryOut(at, c); moved {
			changed = append(changed, r.Transaction)
		}
	}
	m.state.ripening.seal()
	m.level.Store(uint32(m.state.level))
	return changed
}

// carryOut applies a command, and tells whether it changed a transaction.
func (s *state) carryOut(at txn.At, c Command) (r Result, moved bool) {
	switch c := c.(type) {
	case Audited:
		return s.audit(at, c)
	case txn.Command:
		return s.step(at, c)
	default:
		return s.administer(c), false
	}
}

// audit applies an operator's command, if there is one, and records it.
func (s *state) audit(at txn.At, c Audited) (r Result, moved bool) {
	if c.Command != nil {
		r, moved = s.carryOut(at, c.Command)
	}
	s.audits.add(Audit{
		Index: at.Index, Epoch: at.Epoch, At: at.Now, Who: c.Who, Action: c.Action,
		Target: c.Target, Detail: c.Detail, Why: c.Why, Refused: r.Err != nil,
	})
	return r, moved
}

// admit checks an entry's header. The epoch must be the entry's own Raft term as
// well: a deposed leader can append under its successor's term (DESIGN section 8),
// and such an entry comes before the successor has opened its epoch.
func (m *Machine) admit(l *raft.Log, e Entry) (txn.Cluster, error) {
	if e.Header.Epoch != l.Term {
		return txn.Cluster{}, fmt.Errorf("%w: epoch %d in an entry of term %d", txn.ErrStaleEpoch, e.Header.Epoch, l.Term)
	}
	if len(e.Commands) == 1 {
		if _, ok := e.Commands[0].(Lead); ok {
			return m.state.cluster.Lead(e.Header)
		}
	}
	return m.state.cluster.Admit(e.Header)
}

// step applies a transaction's command, and tells whether it changed anything.
func (s *state) step(at txn.At, c txn.Command) (r Result, moved bool) {
	prev := s.transaction(c.Transaction())
	next, due, err := txn.Step(at, prev, c)
	if err == nil && next != prev {
		err = s.accept(c, next)
	}
	if err != nil {
		return Result{Transaction: prev, Err: err}, false
	}
	if next == prev {
		return Result{Transaction: prev}, false
	}
	s.put(prev, next)
	return Result{Transaction: next, Due: due}, true
}

// accept checks what a transaction alone cannot know: its participants are
// registered, and it is not too large. A decision is not asked: where it takes
// over branches, prepares have left to them, registered or not.
func (s *state) accept(c txn.Command, next *txn.Transaction) error {
	switch c := c.(type) {
	case txn.Stage:
		if err := s.registered(c.Branches); err != nil {
			return err
		}
	case txn.Enlist:
		if err := s.registered([]txn.Branch{c.Branch}); err != nil {
			return err
		}
	default:
		return nil
	}
	size := 0
	for i := range next.Branches {
		size += len(next.Branches[i].Payload)
	}
	if size > MaxTransactionBytes {
		return ErrTransactionTooLarge
	}
	return nil
}

// administer applies what is not about one transaction.
func (s *state) administer(c Command) Result {
	switch c := c.(type) {
	case Lead:
		if s.clusterID == "" {
			s.clusterID = c.Cluster
		}
		return Result{}
	case PutParticipant:
		p, err := s.putParticipant(c.Participant)
		if err != nil {
			return Result{Err: err}
		}
		return Result{Participant: &p}
	case DeleteParticipant:
		return Result{Err: s.deleteParticipant(c.Name)}
	case Collect:
		return Result{Collected: s.collect(c.Limit)}
	case RaiseLevel:
		s.level = max(s.level, c.Level)
		return Result{}
	case SetGroup:
		return Result{Err: s.setGroup(c.Group)}
	default:
		panic(fmt.Sprintf("fsm: no rule for a %T", c)) // the decoder knows no others
	}
}
