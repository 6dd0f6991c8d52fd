package cluster

import (
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Storage is where a node keeps what must outlive its process. It is where another
// log store goes, and where tests crash, wipe and break disks. One process at a
// time holds it open.
type Storage interface {
	// Inspect reads what an earlier process left, and changes nothing: neither
	// repairs it nor makes what is not there. Its errors wrap [ErrCorruptDir] or
	// [ErrDirInUse] where that is the matter.
	Inspect() (Remains, error)
	// Open opens it for writing, after Inspect and only where that found nothing
	// amiss, and makes it on first use.
	Open(hclog.Logger) (Store, error)
	// String names the place in errors, for people.
	String() string
}

// Remains is what is left of an earlier process.
type Remains struct {
	Identity []byte // what PutIdentity was given last, nil where it never was
	Used     bool   // the log or the stable store holds something
}

// Store is an open [Storage]. A method that writes returns nil once what it wrote
// survives a power loss; after an error that may or may not have been written, and
// the node does not write again.
type Store interface {
	raft.LogStore
	raft.StableStore
	Snapshots() raft.SnapshotStore
	// PutIdentity replaces the identity as a whole: a crash leaves the old one or
	// the new one.
	PutIdentity([]byte) error
	// Close lets another process open the storage.
	Close() error
}
