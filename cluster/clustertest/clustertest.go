// Package clustertest runs several cluster nodes in one process, over links that
// can be cut, on disks that survive a crash or are wiped. It is for tests, of this
// module's higher layers too.
//
// Everything waits for events, so that it runs in real time as well as inside a
// testing/synctest bubble, where time passes only while all goroutines wait. The
// disks are real files, and while one is being written virtual time stands still;
// or, where Options.Memory says so, they are in memory: see [Disk].
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster"
)

// patience bounds every wait of a test for something that must happen: many times
// what it takes on a loaded machine.
const patience = time.Minute

// Options describes a cluster. FSM is required.
type Options struct {
	Nodes int // first members, n1 to nN; default 3
	// FSM makes a node's state machine, anew for every start of the node.
	FSM func(id string) raft.FSM
	// Lead is a node's work as leader; nil for none.
	Lead func(n *cluster.Node, id string) func(ctx context.Context, term uint64)
	// Configure changes a node's configuration before each start; may be nil.
	Configure func(*cluster.Config)
	Dir       string // holds the nodes' disks; default t.TempDir()
	// LogStore is what the logs are kept in, unless in memory; default BoltDB.
	LogStore cluster.LogStore
	// Memory keeps the disks in memory instead, and crashes take them away from one
	// moment to the next. What is left to chance is drawn from Seed.
	Memory bool
	Seed   uint64
}

// Cluster is a set of nodes. Its methods may be called by several goroutines; those
// that fail a test belong on the test's own.
type Cluster struct {
	Network *Network

	t       testing.TB
	options Options
	peers   []cluster.Peer
	dir     string

	mu      sync.Mutex
	running map[string]*running // guarded by mu
	hosts   map[string]*Host    // guarded by mu: of each node's last start
	exits   map[string]chan error
	lives   map[string]int   // guarded by mu: disks that a node has had
	disks   map[string]*Disk // guarded by mu: those in memory, by path
	changed chan struct{}    // guarded by mu: closed and replaced when a node starts or stops
}

// running is one life of a node.
type running struct {
	node   *cluster.Node
	cancel func() // of the subscription to leader changes
	wg     sync.WaitGroup
	quit   chan struct{}
}

// New starts a cluster and returns it once every node is up. The nodes are closed
// when the test ends, which fails if one of them called Exit and nobody asked
// (WaitExit).
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := Prepare(t, o)
	c.StartAll()
	return c
}

// Prepare makes a cluster with no node running yet.
func Prepare(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Dir == "" && !o.Memory {
		o.Dir = t.TempDir()
	}
	c := &Cluster{
		Network: NewNetwork(), t: t, options: o, dir: o.Dir,
		running: make(map[string]*running), hosts: make(map[string]*Host), exits: make(map[string]chan error), lives: make(map[string]int), disks: make(map[string]*Disk),
		changed: make(chan struct{}),
	}
	for i := range o.Nodes {
		id := fmt.Sprintf("n%d", i+1)
		c.peers = append(c.peers, cluster.Peer{ID: id, RaftAddress: Address(id)})
	}
	t.Cleanup(c.close)
	return c
}

// Address is where a node listens.
func Address(id string) string { return id + ":7000" }

// IDs are the first members' ids.
func (c *Cluster) IDs() []string {
	var ids []string
	for _, p := range c.peers {
		ids = append(ids, p.ID)
	}
	return ids
}

// Config is the configuration with which a node starts. A node that is not among
// the first members has no peers: it waits to be added.
func (c *Cluster) Config(id string) cluster.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts[id] = c.Network.Host(id)
	cfg := cluster.Config{
		ID: id, Bind: Address(id), APIAddress: "api." + id, Dir: c.diskOf(id), LogStore: c.options.LogStore,
		FSM: c.options.FSM(id), Network: c.hosts[id],
		Exit: c.exitOf(id),
	}
	if slices.Contains(c.IDs(), id) {
		cfg.Peers = slices.Clone(c.peers)
	}
	if c.options.Memory {
		cfg.Storage = c.inMemory(cfg.Dir)
	}
	if c.options.Configure != nil {
		c.options.Configure(&cfg)
	}
	return cfg
}

// diskOf is a node's data directory: a new one after each Wipe. c.mu must be held.
func (c *Cluster) diskOf(id string) string {
	return filepath.Join(c.dir, fmt.Sprintf("%s.%d", id, c.lives[id]))
}

// inMemory is the disk that stands for a directory. c.mu must be held.
func (c *Cluster) inMemory(path string) *Disk {
	if c.disks[path] == nil {
		c.disks[path] = NewDisk(path, c.options.Seed+uint64(len(c.disks)))
	}
	return c.disks[path]
}

// Disk is the disk that a node has, or had last, with Options.Memory.
func (c *Cluster) Disk(id string) *Disk {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inMemory(c.diskOf(id))
}

func (c *Cluster) exitOf(id string) func(error) {
	exits := make(chan error, 1)
	c.exits[id] = exits
	return func(err error) { exits <- err }
}

// StartAll starts every first member that does not run, all at once, and returns
// once they are up.
func (c *Cluster) StartAll() {
	c.t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, len(c.peers))
	for i, id := range c.IDs() {
		if c.Node(id) == nil {
			wg.Go(func() { _, errs[i] = c.Open(id) })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		c.t.Fatal(err)
	}
}

// Start starts a node, on the disk it had last, and returns it once it is up.
func (c *Cluster) Start(id string) *cluster.Node {
	c.t.Helper()
	n, err := c.Open(id)
	if err != nil {
		c.t.Fatalf("start %s: %v", id, err)
	}
	return n
}

// Open is Start with an error.
func (c *Cluster) Open(id string) (*cluster.Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.OpenContext(ctx, id)
}

// OpenContext is Open with a context.
func (c *Cluster) OpenContext(ctx context.Context, id string) (*cluster.Node, error) {
	n, err := cluster.Open(ctx, c.Config(id))
	if err != nil {
		return nil, err
	}
	if c.options.Lead != nil {
		n.Lead(c.options.Lead(n, id))
	}
	changes, cancel := n.LeaderChanges()
	r := &running{node: n, cancel: cancel, quit: make(chan struct{})}
	r.wg.Go(func() {
		for {
			select {
			case <-changes:
				c.mu.Lock()
				c.tell()
				c.mu.Unlock()
			case <-r.quit:
				return
			}
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[id] = r
	c.tell()
	return n, nil
}

// tell wakes those who wait for a leader. c.mu must be held.
func (c *Cluster) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Node is a running node, nil if it does not run.
func (c *Cluster) Node(id string) *cluster.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.running[id]; r != nil {
		return r.node
	}
	return nil
}

// Stop closes a node as an operator would: it hands over leadership first.
func (c *Cluster) Stop(id string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.stop(ctx, id); err != nil {
		c.t.Errorf("stop %s: %v", id, err)
	}
}

// Crash stops a node abruptly: from one moment to the next the others get nothing
// of it any more. Its disk stays as it is.
func (c *Cluster) Crash(id string) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.mu.Lock()
	host, disk, exits := c.hosts[id], c.disks[c.diskOf(id)], c.exits[id]
	c.mu.Unlock()
	if host != nil {
		host.Kill()
	}
	if disk != nil {
		disk.Kill()
		defer forget(exits) // a process that was killed says nothing of its disk
	}
	if err := c.stop(ctx, id); err != nil {
		c.t.Errorf("crash %s: %v", id, err)
	}
}

func forget(exits <-chan error) {
	select {
	case <-exits:
	default:
	}
}

func (c *Cluster) stop(ctx context.Context, id string) error {
	c.mu.Lock()
	r := c.running[id]
	delete(c.running, id)
	c.mu.Unlock()
	if r == nil {
		return fmt.Errorf("%s does not run", id)
	}
	err := r.node.Close(ctx)
	r.cancel()
	close(r.quit)
	r.wg.Wait()
	return err
}

// Wipe gives a node that does not run an empty disk.
func (c *Cluster) Wipe(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lives[id]++
}

// Isolate cuts every link of a node, in both directions.
func (c *Cluster) Isolate(id string) {
	for _, other := range c.names() {
		if other != id {
			c.Network.CutBoth(id, other)
		}
	}
}

// names are the first members and whoever runs.
func (c *Cluster) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := c.IDs()
	for id := range c.running {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Leader is the running node that believes to lead, the one of the newest term if
// there are two; nil if there is none.
func (c *Cluster) Leader() *cluster.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader("")
}

// leader leaves one id out. c.mu must be held.
func (c *Cluster) leader(except string) *cluster.Node {
	var leader *cluster.Node
	for id, r := range c.running {
		if id == except {
			continue
		}
		if s := r.node.Status(); s.Leader.ID == id && (leader == nil || s.Term > leader.Status().Term) {
			leader = r.node
		}
	}
	return leader
}

// WaitLeader returns the leader once there is one.
func (c *Cluster) WaitLeader() *cluster.Node {
	c.t.Helper()
	return c.WaitLeaderExcept("")
}

// WaitLeaderExcept returns the leader once it is another node than id.
func (c *Cluster) WaitLeaderExcept(id string) *cluster.Node {
	c.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		leader, changed := c.leader(id), c.changed
		c.mu.Unlock()
		if leader != nil {
			return leader
		}
		select {
		case <-changed:
		case <-deadline.C:
			c.t.Fatalf("no leader besides %q after %s", id, patience)
		}
	}
}

// Exit receives what the Exit of a node that runs is told; it is one value at most.
// The node still has to be stopped.
func (c *Cluster) Exit(id string) <-chan error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exits[id]
}

// WaitExit waits for what Exit receives.
func (c *Cluster) WaitExit(id string) error {
	c.t.Helper()
	select {
	case err := <-c.Exit(id):
		return err
	case <-time.After(patience):
		c.t.Fatalf("%s did not exit within %s", id, patience)
		return nil
	}
}

// Apply proposes an entry at the leader, whoever that is, until it is applied.
// The outcome of an attempt may stay unknown: then the entry may be applied twice.
func (c *Cluster) Apply(data []byte) (index uint64, response any) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		index, response, err := c.WaitLeader().Apply(data).Wait(ctx)
		if err == nil {
			return index, response
		}
		if ctx.Err() != nil {
			c.t.Fatalf("apply: %v", err)
		}
	}
}

// close ends the cluster with its test.
func (c *Cluster) close() {
	c.Network.Heal()
	for _, id := range c.names() {
		if c.Node(id) != nil {
			c.Crash(id)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, exits := range c.exits {
		select {
		case err := <-exits:
			c.t.Errorf("%s called Exit, and no test asked: %v", id, err)
		default:
		}
	}
}
