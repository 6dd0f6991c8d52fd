package cluster

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// disk is everything that a node keeps, open: its identity, its log and vote, its
// snapshots. Holding it open excludes other processes.
type disk struct {
	place     string // for people
	store     Store
	snapshots raft.SnapshotStore

	mu sync.Mutex
	me identity // guarded by mu
}

// openDisk opens a node's storage, and makes it on first use. What it refuses it
// leaves as it was.
func openDisk(cfg Config) (*disk, error) {
	remains, err := cfg.Storage.Inspect()
	if err != nil {
		return nil, err
	}
	place, fresh := cfg.Storage.String(), remains.Identity == nil
	var me identity
	if !fresh {
		if me, err = parseIdentity(remains.Identity, place, cfg.ID); err != nil {
			return nil, err
		}
	}
	if err := mayOpen(me, fresh, remains.Used, place); err != nil {
		return nil, err
	}
	store, err := cfg.Storage.Open(cfg.Logger)
	if err != nil {
		return nil, err
	}
	d := &disk{place: place, store: store, snapshots: store.Snapshots(), me: me}
	if err := d.prepare(cfg, fresh); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return d, nil
}

// mayOpen holds the identity against what the log holds, before anything is opened
// for writing: a log that is gone must not be replaced by an empty one.
func mayOpen(me identity, fresh, used bool, place string) error {
	switch {
	case me.Phase == phaseRemoved:
		return fmt.Errorf("%w: node %s needs an empty data directory to be added again", ErrRemoved, me.ID)
	case fresh && used:
		return fmt.Errorf("%w: %s holds a log, but not the node's identity (%s)", ErrCorruptDir, place, identityFile)
	case me.Phase == phaseEmpty && used:
		return fmt.Errorf("%w: %s holds a log, but %s says that it was never used", ErrCorruptDir, place, identityFile)
	case me.Phase == phaseMember && !used:
		return lost(me.ID, place)
	}
	return nil
}

func lost(id, place string) error {
	return fmt.Errorf("%w: node %s was a member, but the log in %s holds nothing; remove the node, and add one with a new id and an empty directory",
		ErrDataLost, id, place)
}

// prepare completes what a crash left half done, and marks a new disk.
func (d *disk) prepare(cfg Config, fresh bool) (err error) {
	defer explainPanic(d.place, &err)()
	switch {
	case fresh:
		return d.become(newIdentity(cfg.ID))
	case d.me.Phase == phaseAgreed:
		return d.finishFounding()
	case d.me.Phase == phaseAdmitted:
		return d.noteFirstWrite()
	}
	return nil
}

// finishFounding looks how far a crashed bootstrap came. Raft was not started yet,
// so this disk has promised nothing, and a term without an entry is taken back to
// let the bootstrap be repeated.
func (d *disk) finishFounding() error {
	last, err := d.store.LastIndex()
	switch {
	case err != nil:
		return err
	case last > 0:
		return d.advance(phaseMember)
	default:
		return d.store.SetUint64([]byte("CurrentTerm"), 0)
	}
}

// noteFirstWrite completes a crash between Raft's first write and the note of it.
func (d *disk) noteFirstWrite() error {
	used, err := raft.HasExistingState(d.store, d.store, d.snapshots)
	if err != nil || !used {
		return err
	}
	return d.advance(phaseMember)
}

// identity is the disk's identity as it is on disk.
func (d *disk) identity() identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.me
}

// become makes an identity durable.
func (d *disk) become(me identity) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keep(me)
}

// advance moves to a later phase, durably. It costs nothing where the disk has
// come as far, or further.
func (d *disk) advance(to phase) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.me.Phase.order() >= to.order() {
		return nil
	}
	me := d.me
	me.Phase = to
	return d.keep(me)
}

// keep makes an identity durable; it is visible only then. d.mu must be held.
func (d *disk) keep(me identity) error {
	raw, err := me.encode()
	if err != nil {
		return err
	}
	if err := d.store.PutIdentity(raw); err != nil {
		return err
	}
	d.me = me
	return nil
}

// found bootstraps Raft with the founders and no one else. The founders must be
// on disk already: a crash in between repeats this with the same ones.
func (d *disk) found(conf *raft.Config, trans raft.Transport) error {
	var configuration raft.Configuration
	for _, f := range d.identity().Founders {
		configuration.Servers = append(configuration.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(f.ID), Address: raft.ServerAddress(f.RaftAddress),
		})
	}
	if err := raft.BootstrapCluster(conf, d.store, d.store, d.snapshots, trans, configuration); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return d.advance(phaseMember)
}

// snapshotMembers is the configuration in the newest snapshot, empty without one.
func (d *disk) snapshotMembers() (raft.Configuration, uint64) {
	list, err := d.snapshots.List()
	if err != nil || len(list) == 0 {
		return raft.Configuration{}, 0
	}
	return list[0].Configuration, list[0].ConfigurationIndex
}

func (d *disk) close() error { return d.store.Close() }
