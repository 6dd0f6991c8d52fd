package fsm

import (
	"errors"
	"fmt"

	"github.com/decree-tx/decree/fsm/txn"
)

// Level says what a cluster's log entries and snapshots may hold. It is the version
// that they carry, and what the nodes of two releases agree on while both run
// (a rolling upgrade):
//
//   - each binary reads everything up to its own [Newest], and tells the others so;
//   - the cluster has a level, which is replicated and only rises: the leader raises it,
//     by [RaiseLevel], once every configured node has told that it reads as much;
//   - what needs more than the cluster's level is refused, with [ErrLevel], by the
//     leader's writer and once more by the state machine.
//
// So nothing reaches a node that it can't read. A binary that is older than the
// cluster's level was put back in place of a newer one, or is a new node's: the first
// stops at the entry or the snapshot that it can't read and says so, the second is not
// admitted.
//
// To add a command, a field or another meaning: add a level to the end of the list
// here, make Newest it, and let [NeededLevel] say what needs it. Bytes of
// what there was before stay as they are. Where the proposer can do without, it asks
// [Machine.Level] first.
type Level uint32

const (
	// LevelFirst is what there was before levels. Nodes of that time do not tell theirs.
	LevelFirst Level = 1
	// LevelRaise brings levels themselves: RaiseLevel.
	LevelRaise Level = 2
	// LevelRestore brings the header of a state that was restored, and an operator's
	// decision of what that has lost: txn.Arbitrate.
	LevelRestore Level = 3
	// LevelAudit brings the audit trail: Audited, and its records in snapshots.
	LevelAudit Level = 4
	// LevelOwner brings who began a transaction: Stage's owner.
	LevelOwner Level = 5
	// LevelResolve brings branches that an operator resolved: txn.Resolve.
	LevelResolve Level = 6
	// LevelGroup brings clusters that are one of several groups: SetGroup.
	LevelGroup Level = 7

	// Newest is this binary's.
	Newest = LevelGroup
)

// ErrLevel is wrapped where a command needs a higher level than the cluster has.
var ErrLevel = errors.New("not every node of the cluster runs a decree that is new enough for this")

// RaiseLevel raises the cluster's level. Only a level that every node of the cluster
// reads may be proposed; a lower one than the cluster has changes nothing.
type RaiseLevel struct {
	Level Level
}

// NeededLevel is the least level at which a log may hold a command.
func NeededLevel(c Command) Level {
	switch c := c.(type) {
	case RaiseLevel:
		return c.Level
	case txn.Arbitrate:
		return LevelRestore
	case txn.Resolve:
		return LevelResolve
	case SetGroup:
		return LevelGroup
	case Audited:
		return max(LevelAudit, NeededLevel(c.Command))
	case txn.Stage:
		if c.Owner.Known() {
			return LevelOwner
		}
		return LevelFirst
	default:
		return LevelFirst
	}
}

// entryLevel is an entry's version: the least that its commands need, so that nodes
// which can't read one of them say what they lack.
func entryLevel(commands []Command) Level {
	level := LevelFirst
	for _, c := range commands {
		level = max(level, NeededLevel(c))
	}
	return level
}

// Level is the cluster's. It waits for nothing.
func (m *Machine) Level() Level { return Level(m.level.Load()) }

// Allows returns nil where the cluster's level has a command, and wraps ErrLevel where
// it does not. It waits for nothing.
func (m *Machine) Allows(c Command) error {
	needed := NeededLevel(c)
	if needed == LevelFirst {
		return nil
	}
	return allows(m.Level(), needed, c)
}

func allows(has, needed Level, c Command) error {
	if _, raises := c.(RaiseLevel); raises || needed <= has {
		return nil
	}
	return fmt.Errorf("%w: this needs level %d, the cluster has %d, and rises by itself once all its nodes are upgraded",
		ErrLevel, needed, has)
}
