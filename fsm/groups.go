package fsm

import (
	"errors"
	"fmt"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
)

// Errors of SetGroup. Neither changed any state.
var (
	// ErrGroupStays refuses another group than the one that the cluster is.
	ErrGroupStays = errors.New("a cluster stays the group that it was told to be")
	// ErrTooLateForGroup refuses a group to a cluster that may have heard of transactions.
	ErrTooLateForGroup = errors.New("a cluster is told its group before its first participant and its first transaction, and this one has had some: " +
		"found a new one")
)

// SetGroup makes the cluster one of several among which an application shares out its
// transactions: from then on it refuses the txids that are another's, with
// txn.ErrOtherGroup. It is said once, before the first participant; the same again
// changes nothing.
//
// Why before the first participant: no branch can have been prepared under the cluster's
// id before there was a participant, so no leader that has seen a participant, and could
// send it a prepare, has yet to hear of the group.
type SetGroup struct {
	Group group.Group
}

func (s *state) setGroup(g group.Group) error {
	switch is := s.cluster.Group; {
	case is == g:
		return nil
	case is != group.Group{}:
		return fmt.Errorf("%w: this is %s", ErrGroupStays, is)
	case s.revision > 0, s.transactions.len() > 0, s.cluster.Restored != txn.Restored{}:
		return ErrTooLateForGroup
	}
	s.cluster.Group = g
	return nil
}

// restoreGroup takes over a snapshot's. A level that has no groups has none.
func (s *state) restoreGroup(pb *fsmpb.Group) (err error) {
	switch {
	case pb == nil:
		return nil
	case s.level < LevelGroup:
		return fmt.Errorf("a group at level %d, which needs %d", s.level, LevelGroup)
	}
	s.cluster.Group, err = groupFromProto(pb)
	return err
}

func setGroupFromProto(pb *fsmpb.SetGroup) (c SetGroup, err error) {
	if pb.Group == nil {
		return c, errors.New("no group")
	}
	c.Group, err = groupFromProto(pb.Group)
	return c, err
}

func groupFromProto(pb *fsmpb.Group) (group.Group, error) {
	if err := known(pb); err != nil {
		return group.Group{}, err
	}
	g := group.Group{Number: int(pb.Number), Of: int(pb.Of)}
	return g, g.Validate()
}

// groupToProto of the zero Group is nil.
func groupToProto(g group.Group) *fsmpb.Group {
	if g == (group.Group{}) {
		return nil
	}
	return &fsmpb.Group{Number: number(g.Number), Of: number(g.Of)}
}
