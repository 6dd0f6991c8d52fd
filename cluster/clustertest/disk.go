package clustertest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster"
)

// Disk is a cluster.Storage in memory. It survives the process that writes to it,
// as a disk does: a write that was acknowledged is there for the next process, and
// one under way when the process was killed is there or is not.
//
// Like bbolt it takes entries with gaps between them, and makes each write as a
// whole or not at all. Under testing/synctest its waits are durable, and no
// goroutine of its own runs.
type Disk struct {
	name string

	mu       sync.Mutex
	chance   *rand.Rand    // guarded by mu
	kept     contents      // guarded by mu: what is durable
	owner    *openDisk     // guarded by mu: nil while no process has it open
	least    time.Duration // guarded by mu: of a write
	most     time.Duration // guarded by mu
	broken   error         // guarded by mu: what every write fails with
	hanging  chan struct{} // guarded by mu: closed when writes go on; nil while they do
	snapshot int           // guarded by mu: numbers snapshots
}

// contents is what a disk holds. Nothing that it points to is ever changed.
type contents struct {
	identity  []byte
	values    map[string][]byte // term and vote
	log       []*raft.Log       // by index, which may have gaps
	snapshots []snapshot        // newest first
}

type snapshot struct {
	meta  raft.SnapshotMeta
	state []byte
}

// keptSnapshots is what the snapshots in files keep too.
const keptSnapshots = 2

// NewDisk makes an empty disk. What is left to chance it draws from the seed.
func NewDisk(name string, seed uint64) *Disk {
	return &Disk{
		name: name, chance: rand.New(rand.NewPCG(seed, 0)),
		kept: contents{values: map[string][]byte{}},
	}
}

// String implements cluster.Storage.
func (d *Disk) String() string { return d.name }

// Slow makes each write take between least and most; 0 is at once.
func (d *Disk) Slow(least, most time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.least, d.most = least, most
}

// Break has every write fail with EIO from now on. Whether what it should have
// written is there is left to chance.
func (d *Disk) Break() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = syscall.EIO
}

// Hang has every write wait from now on.
func (d *Disk) Hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hanging == nil {
		d.hanging = make(chan struct{})
	}
}

// Repair ends what Break and Hang began.
func (d *Disk) Repair() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = nil
	if d.hanging != nil {
		close(d.hanging)
		d.hanging = nil
	}
}

// Kill takes the disk away from the process that has it open, as the kernel does
// when a process dies: it writes nothing more, and another may open the disk.
// Whether a write under way is there is left to chance.
func (d *Disk) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != nil {
		d.take()
	}
}

// take ends the owner. d.mu is held.
func (d *Disk) take() {
	for _, w := range d.owner.underway {
		if d.chance.IntN(2) == 0 {
			w.change(&d.kept)
		}
	}
	close(d.owner.gone)
	d.owner = nil
}

// Contents tells what is on the disk, for people: entries and snapshots, as index and
// term.
func (d *Disk) Contents() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for i, l := range d.kept.log {
		if i == 0 || l.Index != d.kept.log[i-1].Index+1 || l.Term != d.kept.log[i-1].Term {
			fmt.Fprintf(&b, "from %d/%d ", l.Index, l.Term)
		}
		if i == len(d.kept.log)-1 {
			fmt.Fprintf(&b, "to %d ", l.Index)
		}
	}
	for _, s := range d.kept.snapshots {
		fmt.Fprintf(&b, "snapshot %d/%d ", s.meta.Index, s.meta.Term)
	}
	return b.String()
}

// Inspect implements cluster.Storage.
func (d *Disk) Inspect() (cluster.Remains, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != nil {
		return cluster.Remains{}, fmt.Errorf("%w: %s", cluster.ErrDirInUse, d.name)
	}
	k := &d.kept
	return cluster.Remains{
		Identity: bytes.Clone(k.identity),
		Used:     len(k.log)+len(k.values) > 0,
	}, nil
}

// Open implements cluster.Storage.
func (d *Disk) Open(hclog.Logger) (cluster.Store, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != nil {
		return nil, fmt.Errorf("%w: %s", cluster.ErrDirInUse, d.name)
	}
	d.owner = &openDisk{disk: d, gone: make(chan struct{})}
	return d.owner, nil
}

// openDisk is a disk as the process sees it that has it open.
type openDisk struct {
	disk     *Disk
	gone     chan struct{} // closed when the process has lost or closed it
	underway []*write      // guarded by disk.mu
}

// write is a change that is not durable yet.
type write struct{ change func(*contents) }

// errGone answers a process that should be dead.
var errGone = errors.New("the disk is gone with its process")

// write makes one change durable, and returns nil only then.
func (o *openDisk) write(change func(*contents)) error {
	d := o.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != o {
		return errGone
	}
	w := &write{change}
	o.underway = append(o.underway, w)
	if !o.linger() {
		return errGone // and Kill has dealt with it
	}
	o.underway = slices.DeleteFunc(o.underway, func(other *write) bool { return other == w })
	if d.broken == nil || d.chance.IntN(2) == 0 {
		change(&d.kept)
	}
	return d.broken
}

// linger is the time that a write takes; false once the process is gone. d.mu is
// held, and free meanwhile.
func (o *openDisk) linger() bool {
	d := o.disk
	if d.most > 0 && !await(o, time.After(d.least+time.Duration(d.chance.Int64N(int64(d.most-d.least)+1)))) {
		return false
	}
	for d.hanging != nil {
		if !await(o, d.hanging) {
			return false
		}
	}
	return true
}

func await[T any](o *openDisk, until <-chan T) bool {
	o.disk.mu.Unlock()
	select {
	case <-until:
	case <-o.gone:
	}
	o.disk.mu.Lock()
	return o.disk.owner == o
}

// read looks at what is durable.
func (o *openDisk) read(look func(*contents)) error {
	d := o.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != o {
		return errGone
	}
	look(&d.kept)
	return nil
}

// PutIdentity implements cluster.Store. It takes no time, and does not hang: the node
// holds a lock meanwhile, and a goroutine of a bubble that waits for a lock keeps
// virtual time from passing.
func (o *openDisk) PutIdentity(raw []byte) error {
	d := o.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.owner != o:
		return errGone
	case d.broken != nil:
		return d.broken
	}
	d.kept.identity = bytes.Clone(raw)
	return nil
}

// Close implements cluster.Store. After Kill it does nothing.
func (o *openDisk) Close() error {
	d := o.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner == o {
		d.take()
	}
	return nil
}

// errNotFound is what Raft knows by its text.
var errNotFound = errors.New("not found")

// Set implements raft.StableStore.
func (o *openDisk) Set(key, value []byte) error {
	value = bytes.Clone(value)
	return o.write(func(c *contents) { c.values[string(key)] = value })
}

// Get implements raft.StableStore.
func (o *openDisk) Get(key []byte) (value []byte, err error) {
	found := false
	err = o.read(func(c *contents) {
		value, found = c.values[string(key)]
		value = bytes.Clone(value)
	})
	if err == nil && !found {
		err = errNotFound
	}
	return value, err
}

// SetUint64 implements raft.StableStore.
func (o *openDisk) SetUint64(key []byte, value uint64) error {
	return o.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (o *openDisk) GetUint64(key []byte) (uint64, error) {
	raw, err := o.Get(key)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(raw), nil
}

// FirstIndex implements raft.LogStore.
func (o *openDisk) FirstIndex() (index uint64, err error) {
	err = o.read(func(c *contents) {
		if len(c.log) > 0 {
			index = c.log[0].Index
		}
	})
	return index, err
}

// LastIndex implements raft.LogStore.
func (o *openDisk) LastIndex() (index uint64, err error) {
	err = o.read(func(c *contents) {
		if n := len(c.log); n > 0 {
			index = c.log[n-1].Index
		}
	})
	return index, err
}

// GetLog implements raft.LogStore.
func (o *openDisk) GetLog(index uint64, l *raft.Log) error {
	found := false
	err := o.read(func(c *contents) {
		var at int
		if at, found = c.find(index); found {
			*l = *copyOf(c.log[at])
		}
	})
	switch {
	case errors.Is(err, errGone):
		runtime.Goexit() // Raft would panic, in a process that should be dead
	case err == nil && !found:
		err = raft.ErrLogNotFound
	}
	return err
}

// StoreLog implements raft.LogStore.
func (o *openDisk) StoreLog(l *raft.Log) error { return o.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. An entry replaces the one of its index.
func (o *openDisk) StoreLogs(ls []*raft.Log) error {
	copies := make([]*raft.Log, len(ls))
	for i, l := range ls {
		copies[i] = copyOf(l)
	}
	return o.write(func(c *contents) {
		for _, l := range copies {
			if at, found := c.find(l.Index); found {
				c.log[at] = l
			} else {
				c.log = slices.Insert(c.log, at, l)
			}
		}
	})
}

// DeleteRange implements raft.LogStore.
func (o *openDisk) DeleteRange(from, to uint64) error {
	return o.write(func(c *contents) {
		c.log = slices.DeleteFunc(c.log, func(l *raft.Log) bool { return from <= l.Index && l.Index <= to })
	})
}

// find is where an entry is, or belongs.
func (c *contents) find(index uint64) (at int, found bool) {
	return slices.BinarySearchFunc(c.log, index, func(l *raft.Log, index uint64) int { return cmp.Compare(l.Index, index) })
}

func copyOf(l *raft.Log) *raft.Log {
	c := *l
	c.Data, c.Extensions = bytes.Clone(l.Data), bytes.Clone(l.Extensions)
	return &c
}

// Snapshots implements cluster.Store.
func (o *openDisk) Snapshots() raft.SnapshotStore { return snapshots{o} }

// snapshots is the disk's raft.SnapshotStore.
type snapshots struct{ disk *openDisk }

// Create implements raft.SnapshotStore. The snapshot is durable once it is closed.
func (s snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	d := s.disk.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.owner != s.disk:
		return nil, errGone
	case d.broken != nil:
		return nil, d.broken
	}
	d.snapshot++
	return &sink{disk: s.disk, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, d.snapshot),
		Index: index, Term: term, Configuration: c.Clone(), ConfigurationIndex: at,
	}}, nil
}

// List implements raft.SnapshotStore.
func (s snapshots) List() (list []*raft.SnapshotMeta, err error) {
	err = s.disk.read(func(c *contents) {
		for _, one := range c.snapshots {
			meta := one.meta
			list = append(list, &meta)
		}
	})
	return list, err
}

// Open implements raft.SnapshotStore.
func (s snapshots) Open(id string) (meta *raft.SnapshotMeta, state io.ReadCloser, err error) {
	err = s.disk.read(func(c *contents) {
		for _, one := range c.snapshots {
			if one.meta.ID == id {
				meta, state = &one.meta, io.NopCloser(bytes.NewReader(one.state))
			}
		}
	})
	if err == nil && meta == nil {
		err = fmt.Errorf("no snapshot %s", id)
	}
	return meta, state, err
}

// sink takes one snapshot.
type sink struct {
	disk  *openDisk
	meta  raft.SnapshotMeta
	state bytes.Buffer
	ended bool
}

// ID implements raft.SnapshotSink.
func (s *sink) ID() string { return s.meta.ID }

// Write implements raft.SnapshotSink.
func (s *sink) Write(p []byte) (int, error) { return s.state.Write(p) }

// Cancel implements raft.SnapshotSink.
func (s *sink) Cancel() error {
	s.ended = true
	return nil
}

// Close implements raft.SnapshotSink.
func (s *sink) Close() error {
	if s.ended {
		return nil
	}
	s.ended = true
	s.meta.Size = int64(s.state.Len())
	return s.disk.write(func(c *contents) {
		c.snapshots = append(c.snapshots, snapshot{s.meta, s.state.Bytes()})
		slices.SortStableFunc(c.snapshots, func(a, b snapshot) int {
			return cmp.Or(cmp.Compare(b.meta.Term, a.meta.Term), cmp.Compare(b.meta.Index, a.meta.Index))
		})
		c.snapshots = c.snapshots[:min(len(c.snapshots), keptSnapshots)]
	})
}
