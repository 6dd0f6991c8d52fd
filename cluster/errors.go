package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// The two ways in which a proposal can fail.
var (
	// ErrNotLeader is definite: the entry was never appended anywhere.
	ErrNotLeader = errors.New("this node does not lead")
	// ErrUnknown is neither success nor failure: the entry may be committed now,
	// later, or never.
	ErrUnknown = errors.New("the outcome of the entry is not known")
)

// Why a node does not start.
var (
	// ErrForeignDir: the data directory belongs to another node.
	ErrForeignDir = errors.New("the data directory belongs to another node")
	// ErrCorruptDir: the data directory can not be read. Nothing was overwritten.
	ErrCorruptDir = errors.New("the data directory is corrupt")
	// ErrLogStore: the data directory's log is of a kind that the log store does not
	// read. Nothing was changed.
	ErrLogStore = errors.New("the data directory holds another kind of log")
	// ErrDirInUse: another process holds the data directory.
	ErrDirInUse = errors.New("the data directory is in use by another process")
	// ErrDataLost: this node was a member, and its log is gone.
	ErrDataLost = errors.New("the node's log is gone")
	// ErrEmptyDisk: the cluster knows the id, and it belonged to another disk.
	ErrEmptyDisk = errors.New("the node is known to the cluster but its data directory is empty")
	// ErrPeersDiffer: the nodes were configured with different first members.
	ErrPeersDiffer = errors.New("the configured peers differ")
	// ErrNotInvited: the configured peers form a cluster that does not know this
	// node.
	ErrNotInvited = errors.New("the cluster does not know this node")
	// ErrRemoved: the node was removed from its cluster; also what Exit is told.
	ErrRemoved = errors.New("the node was removed from the cluster")
)

// Why a change of the membership is refused.
var (
	ErrAlreadyMember = errors.New("already a member")
	ErrNotEmpty      = errors.New("the node to add is not empty")
	ErrWrongNode     = errors.New("another node answers at that address")
	ErrUnreachable   = errors.New("the node does not answer")
	ErrUnknownNode   = errors.New("no such node in the cluster")
	ErrLastVoter     = errors.New("the last voter can not be removed")
	ErrInvalidPeer   = errors.New("invalid peer")
	ErrTooOld        = errors.New("the node's binary is older than what the cluster has been upgraded to")
)

// classify turns an error of a proposal into one of the two classes. index is the
// entry's, 0 if it was given none.
//
// Only these four are answered before the entry is appended. In particular
// ErrLeadershipLost is not among them, 316 of 620 such entries were applied, nor
// is whatever the log store says.
func classify(err error, index uint64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader),
		errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrRaftShutdown) && index == 0:
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	default:
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}
