package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Step is where a transaction stood when the leader that drove it was struck.
type Step int

// The steps, in the order of the protocol.
const (
	Unstaged     Step = iota // prepares may have left; its staging is not applied
	Enlisting                // interactive, and not sealed
	Preparing                // staged or sealed; votes are missing
	Deciding                 // all votes are in; the decision is not applied
	Decided                  // no branch has carried out the decision
	Delivering               // some have
	Acknowledged             // all have; the log does not say so
	steps
)

var stepNames = [...]string{"unstaged", "enlisting", "preparing", "deciding", "decided", "delivering", "acknowledged"}

func (s Step) String() string { return stepNames[s] }

// census counts transactions by step.
type census [steps]int

func (c census) String() string {
	var parts []string
	for s, n := range c {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, Step(s)))
		}
	}
	if parts == nil {
		return "idle"
	}
	return strings.Join(parts, ", ")
}

// Tally is what worlds came to.
type Tally struct {
	Failovers   int
	Spontaneous int // terms that began although nothing was done to the cluster
	Lives       int // of nodes
	// Struck are the failovers that had a transaction at the step when the fault
	// came, and At all such transactions.
	Struck, At census
	// Faults are what was done, and Ended the terms that ended with it, by name.
	Faults, Ended map[string]int
	// Told are the answers that clients got.
	Told map[history.Answer]int
	// Transactions by their end, and Never those that no log ever heard of.
	Committed, Aborted, Never int
	Histories, Calls          int
}

func (t *Tally) init() {
	t.Told, t.Faults, t.Ended = map[history.Answer]int{}, map[string]int{}, map[string]int{}
}

// Add sums up.
func (t *Tally) Add(o Tally) {
	t.Failovers += o.Failovers
	t.Spontaneous += o.Spontaneous
	t.Lives += o.Lives
	for s := range steps {
		t.Struck[s] += o.Struck[s]
		t.At[s] += o.At[s]
	}
	if t.Told == nil {
		t.init()
	}
	for a, n := range o.Told {
		t.Told[a] += n
	}
	for f, n := range o.Faults {
		t.Faults[f] += n
		t.Ended[f] += o.Ended[f]
	}
	t.Committed += o.Committed
	t.Aborted += o.Aborted
	t.Never += o.Never
	t.Histories += o.Histories
	t.Calls += o.Calls
}

// stepsAt takes the census of what a leader has under way.
func (w *World) stepsAt(leader *life) census {
	var c census
	seen := map[txn.TxID]bool{}
	for tx := range leader.node.Machine.Open {
		seen[tx.ID] = true
		c[w.stepOf(leader, tx)]++
	}
	for _, id := range w.waitedFor() {
		if _, known := leader.node.Machine.Transaction(id); !known && !seen[id] && leader.node.Coordinator.Deliveries(id) != nil {
			c[Unstaged]++
		}
	}
	return c
}

// aim lets time pass until a transaction is at a step, so that a fault meets it
// there; for as long as patience goes.
func (w *World) aim(at Step, patience time.Duration) {
	const glance = 500 * time.Microsecond
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(glance) {
		leader := w.leader()
		if leader == nil || w.stepsAt(leader)[at] > 0 {
			return
		}
	}
}

func (w *World) waitedFor() []txn.TxID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []txn.TxID
	for id := range w.underway {
		ids = append(ids, id)
	}
	return ids
}

func (w *World) stepOf(leader *life, tx *txn.Transaction) Step {
	switch tx.State {
	case txn.Active:
		return Enlisting
	case txn.Preparing:
		for i, d := range leader.node.Coordinator.Deliveries(tx.ID) {
			if d.Vote == txn.VoteNone && tx.Branches[i].Vote == txn.VoteNone {
				return Preparing
			}
		}
		return Deciding
	}
	ended, owed := 0, 0
	for i, b := range tx.Branches {
		if b.Vote == txn.VoteReadOnly {
			continue
		}
		owed++
		if s := w.stateOf(b.Participant, tx.ID, i+1); s == participants.StatusCommitted || s == participants.StatusAborted {
			ended++
		}
	}
	switch ended {
	case owed:
		return Acknowledged
	case 0:
		return Decided
	default:
		return Delivering
	}
}

// count enters a census of a leader that fell.
func (w *World) count(c census) {
	for s, n := range c {
		w.At[s] += n
		if n > 0 {
			w.Struck[s]++
		}
	}
}

// outcome counts an answer.
func (w *World) outcome(a history.Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Told[a]++
}
