package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/coordinator/node"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// member is one node of the cluster, over all its lives.
type member struct {
	id       string
	disk     *clustertest.Disk
	founder  bool
	life     *life // guarded by World.mu; nil while it does not run
	starting bool  // guarded by World.mu
	starts   int   // guarded by World.mu
}

// life is one process of a member.
type life struct {
	world  *World
	member *member
	host   *clustertest.Host
	reads  fsm.Level     // of what the log may hold
	opened chan struct{} // closed when node is set
	node   *node.Node
	dead   atomic.Bool // it says nothing more to participants
	exit   chan error
	over   chan struct{} // closed when it was killed
}

// newMember makes a node that has never run.
func (w *World) newMember() *member {
	m := &member{id: fmt.Sprintf("n%d", w.next)}
	w.next++
	m.disk = clustertest.NewDisk(m.id, w.rng.Uint64())
	m.disk.Slow(100*time.Microsecond, time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[m.id] = m
	return m
}

// all are the members, by id.
func (w *World) all() []*member {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*member
	for _, m := range w.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return strings.Compare(a.id, b.id) })
	return all
}

// running are the processes at present, by id.
func (w *World) running() []*life {
	var lives []*life
	for _, m := range w.all() {
		if l := w.lifeOf(m); l != nil {
			lives = append(lives, l)
		}
	}
	return lives
}

func (w *World) lifeOf(m *member) *life {
	w.mu.Lock()
	defer w.mu.Unlock()
	return m.life
}

// leader is who drives, nil if nobody does.
func (w *World) leader() *life {
	var found *life
	for _, l := range w.running() {
		if l.node.Coordinator.Leads() && (found == nil || l.node.Machine.Cluster().Epoch > found.node.Machine.Cluster().Epoch) {
			found = l
		}
	}
	return found
}

// Timing of the nodes. Time is virtual and costs nothing, but heartbeats and
// timers do: a failover takes three tenths of a second, in which little else
// happens.
const (
	heartbeat    = 100 * time.Millisecond
	lease        = 50 * time.Millisecond
	rpcTimeout   = 200 * time.Millisecond
	storeTimeout = time.Second // longer than an election takes: a disk that hangs for less is waited for
)

func (l *life) config() node.Config {
	m := l.member
	c := node.Config{
		Cluster: cluster.Config{
			ID: m.id, Bind: clustertest.Address(m.id), Network: l.host, Storage: m.disk,
			HeartbeatTimeout: heartbeat, ElectionTimeout: heartbeat, LeaderLease: lease,
			RPCTimeout: rpcTimeout, StoreTimeout: storeTimeout,
			// Small, so that snapshots are always about to be made, sent or restored.
			SnapshotThreshold: 48, SnapshotInterval: 300 * time.Millisecond, TrailingLogs: 16,
			Exit: l.asksToExit, Level: uint32(l.reads),
		},
		Coordinator: coordinator.Config{
			PrepareTimeout: 400 * time.Millisecond, DeliveryTimeout: 200 * time.Millisecond,
			BackoffBase: 10 * time.Millisecond, BackoffCap: 250 * time.Millisecond,
			ScanInterval: 700 * time.Millisecond, OrphanGrace: 200 * time.Millisecond,
			ReceiptDelay: 10 * time.Millisecond,
			OnDamage: func(d coordinator.Damage) {
				l.world.wrong("%s reports damage of %s at %s: %s, %s", m.id, d.TxID, d.Participant, d.Receipt, d.Evidence)
			},
		},
		Drivers: participants.Drivers{driverName: l.driver()},
		Logger:  hclog.NewNullLogger(),
	}
	if m.founder {
		for id := range l.world.plan.Nodes {
			name := fmt.Sprintf("n%d", id+1)
			c.Cluster.Peers = append(c.Cluster.Peers, cluster.Peer{ID: name, RaftAddress: clustertest.Address(name)})
		}
	}
	return c
}

// driver lets calls to participants have goroutines or none, by the world.
func (l *life) driver() participants.Driver {
	switch l.world.plan.Seed % 3 {
	case 0:
		return l
	case 1:
		return participanttest.Starting{Driver: l}
	default:
		return participanttest.Starting{Driver: l, Sometimes: true}
	}
}

// asksToExit keeps the first reason: a node that is cut off may have more.
func (l *life) asksToExit(err error) {
	select {
	case l.exit <- err:
	default:
	}
}

// start runs a member that does not run, on a wall clock that is off.
func (w *World) start(ctx context.Context, m *member, off time.Duration) error {
	w.setStarting(m, true)
	defer w.setStarting(m, false)
	l := &life{
		world: w, member: m, host: w.network.Host(m.id), reads: w.levelOf(m),
		opened: make(chan struct{}), exit: make(chan error, 1), over: make(chan struct{}),
	}
	cfg := l.config()
	cfg.Wall = func() time.Time { return time.Now().Add(off) }
	n, err := node.Open(ctx, cfg)
	if err != nil {
		l.dead.Store(true)
		l.host.Kill()
		m.disk.Kill()
		return err
	}
	l.node = n
	close(l.opened)
	w.mu.Lock()
	m.life = l
	w.Lives++
	w.mu.Unlock()
	w.deaths.Go(l.watch)
	return nil
}

func (w *World) setStarting(m *member, starting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.starting = starting
}

// isDown is whether a member neither runs nor starts.
func (w *World) isDown(m *member) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return m.life == nil && !m.starting
}

// clockOffset is how far a node's wall clock is off: seldom at all, and then up to
// an hour either way.
func (w *World) clockOffset() time.Duration {
	if w.rng.IntN(4) > 0 {
		return 0
	}
	return between(w.rng, -time.Hour, time.Hour)
}

// watch ends a process that wants to exit, as its Exit would.
func (l *life) watch() {
	select {
	case err := <-l.exit:
		l.world.exited(l, err)
	case <-l.over:
	}
}

func (w *World) exited(l *life, err error) {
	if !w.detach(l) {
		return // killed at the same moment
	}
	w.tell("%s exits: %v", l.member.id, err)
	l.kill()
	if errors.Is(err, cluster.ErrRemoved) {
		w.forget(l.member)
	} else if !strings.Contains(err.Error(), "the disk ") {
		w.wrong("%s exits: %v", l.member.id, err)
	}
	l.bury()
}

// detach takes a process from its member; false if somebody else has.
func (w *World) detach(l *life) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.member.life != l {
		return false
	}
	l.member.life = nil
	return true
}

// forget leaves out a node that is no member any more.
func (w *World) forget(m *member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.members, m.id)
}

// crash ends a process from one moment to the next.
func (w *World) crash(l *life) {
	if !w.detach(l) {
		return
	}
	l.kill()
	w.deaths.Go(l.bury)
}

// kill takes everything away from a process: network, disk, participants.
func (l *life) kill() {
	l.dead.Store(true)
	l.host.Kill()
	l.member.disk.Kill()
	close(l.over)
}

// bury waits for the end of a dead process's goroutines. Its disk is gone, which
// its node may report.
func (l *life) bury() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.node.Close(ctx)
}

// stop ends a process as an operator does.
func (w *World) stop(l *life) {
	if !w.detach(l) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), unrest)
	defer cancel()
	if err := l.node.Close(ctx); err != nil {
		w.wrong("stop %s: %v", l.member.id, err)
	}
	l.kill()
}
