package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// notifyBuffer is room for more changes of leadership than can happen while the
// goroutine that reads them is scheduled. Raft blocks when it is full.
const notifyBuffer = 16

// drainTimeout bounds how long Close waits for answers to proposals. Without a
// transport a leader steps down within its lease and answers them all.
const drainTimeout = 5 * time.Second

// Node is one Raft node. Its methods may be called concurrently.
type Node struct {
	// Set once by Open.
	cfg      Config
	log      hclog.Logger
	disk     *disk
	space    *space // nil where the storage has no bounds
	port     *port
	backlog  *backlog
	state    *state
	trans    transport
	barriers barriers

	transfers *transferWatch
	changes   leaderChanges
	terms     *terms
	changing  chan struct{} // held while the membership changes
	admitted  chan struct{} // closed when a leader has admitted this empty node

	ctx    context.Context // ends once the node can do nothing more
	cancel context.CancelFunc
	work   sync.WaitGroup // the node's own goroutines; they end with ctx

	reconfiguring sync.Mutex // held while Raft's configuration is read and written back

	mu        sync.Mutex
	raft      *raft.Raft     // written once by start, under mu; nil before
	closed    bool           // guarded by mu: no new proposals
	proposals sync.WaitGroup // added to under mu while not closed
	exitOnce  sync.Once
	closeOnce sync.Once
	closeDone chan struct{}
	closeErr  error // set before closeDone is closed
}

// seams are what tests replace.
type seams struct {
	wrap func(stores) stores // around the disk, inside the guard
}

// Open starts a node and returns it once it may take part.
//
// A node that has been a member needs nobody for that. On its first start it
// waits, until ctx ends, for every configured peer to have said hello, or, without
// peers, for a leader to admit it; meanwhile it answers the others' hellos but
// neither votes nor stores anything of theirs (rule R15).
//
// Errors that a caller may tell apart: [ErrForeignDir], [ErrCorruptDir],
// [ErrDirInUse], [ErrLogStore], [ErrDataLost], [ErrEmptyDisk], [ErrPeersDiffer],
// [ErrNotInvited], [ErrRemoved], and the context's. After an error nothing is left
// running.
func Open(ctx context.Context, cfg Config) (*Node, error) { return open(ctx, cfg, seams{}) }

func open(ctx context.Context, cfg Config, s seams) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cluster configuration: %w", err)
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger,
		changing: make(chan struct{}, 1), admitted: make(chan struct{}), closeDone: make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.barriers.pass = n.passBarrier
	n.terms = newTerms(n)
	n.transfers = n.newTransferWatch()
	if err := n.start(ctx, s); err != nil {
		n.cancel()
		n.terms.abandon()
		return nil, errors.Join(err, n.release())
	}
	return n, nil
}

// start opens disk and port, waits for admission, and starts Raft.
func (n *Node) start(ctx context.Context, s seams) error {
	var err error
	if n.disk, err = openDisk(n.cfg); err != nil {
		return err
	}
	n.watchSpace()
	n.backlog = newBacklog(n.cfg)
	n.state = newState(n.cfg.FSM, n.disk, n.trail)
	if n.port, err = listen(n.cfg); err != nil {
		return err
	}
	n.port.open(n.answerHello)
	if err := n.enterCluster(ctx); err != nil {
		return err
	}
	n.port.belongTo(n.disk.identity().Lineage)
	n.trans = newTransport(n.port, n.cfg.RPCTimeout, n.log.Named("transport"))
	if err := n.startRaft(s); err != nil {
		return errors.Join(err, n.trans.Close())
	}
	if err := n.checkAddress(); err != nil {
		return err
	}
	n.work.Go(n.changes.watch(n))
	n.work.Go(n.watchRemoval)
	n.work.Go(n.watchBacklog)
	n.work.Go(n.watchSilence)
	n.terms.begin()
	return nil
}

// startRaft founds the cluster if that is due, and runs Raft.
func (n *Node) startRaft(s seams) error {
	conf := n.raftConfig()
	if n.disk.identity().Phase == phaseAgreed {
		// The founders are on disk. A crash before the next line finds them there
		// and founds with the same; a crash after it finds a member.
		if err := n.disk.found(conf, n.trans); err != nil {
			return err
		}
	}
	var store stores = n.disk.store
	if s.wrap != nil {
		store = s.wrap(store)
	}
	g := &guard{
		stores: store, limit: n.cfg.StoreTimeout, fail: n.exit, look: n.space.glance,
		used: func() error { return n.disk.advance(phaseMember) }, appended: n.cfg.OnLogWrite,
	}
	logs := &logCache{LogStore: g, backlog: n.backlog}
	r, err := newRaft(conf, n.state, logs, g, n.disk, n.trans)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.raft = r
	n.mu.Unlock()
	receiver := newReceiver(r, logs, n.disk.snapshots, n.trans.toRaft)
	n.port.wg.Go(func() { receiver.run(n.port.ctx, n.trans.NetworkTransport.Consumer()) })
	return nil
}

// newRaft runs raft.NewRaft on a goroutine of its own, which the guard may end. A crash
// may have come between a snapshot and what it overrules in the log.
func newRaft(conf *raft.Config, fsm raft.FSM, logs raft.LogStore, g *guard, d *disk, t raft.Transport) (*raft.Raft, error) {
	var r *raft.Raft
	err := errors.New("the disk failed") // stays where the guard ends the goroutine
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer explainPanic(d.place, &err)()
		if failed := dropOverruled(logs, d.snapshots); failed != nil {
			err = failed
			return
		}
		r, err = raft.NewRaft(conf, fsm, logs, g, d.snapshots, t)
	}()
	<-ended
	if err != nil {
		return nil, fmt.Errorf("start Raft: %w", err)
	}
	return r, nil
}

// raftConfig is what Raft runs with. PreVote is on by default.
func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.ProtocolVersion = 3
	c.LocalID = raft.ServerID(n.cfg.ID)
	c.HeartbeatTimeout = n.cfg.HeartbeatTimeout
	c.ElectionTimeout = n.cfg.ElectionTimeout
	c.LeaderLeaseTimeout = n.cfg.LeaderLease
	c.SnapshotThreshold = n.cfg.SnapshotThreshold
	c.SnapshotInterval = n.cfg.SnapshotInterval
	c.TrailingLogs = n.cfg.TrailingLogs
	// One append carries as much as the library allows, since only one is in
	// flight: see maxRPCsInFlight.
	c.MaxAppendEntries = 64
	// With the batching channel 15 % of the futures in flight were never answered
	// after a shutdown, and a proposal could be appended after its timeout.
	c.BatchApplyCh = false
	// A removed leader steps down and is told by watchRemoval, like any other node.
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.NotifyCh = n.terms.notify
	c.Logger = n.log.Named("raft")
	return c
}

// checkAddress refuses to run where the others would look for this node in vain.
func (n *Node) checkAddress() error {
	members := n.Status().Members
	for _, m := range members {
		if m.ID == n.cfg.ID && m.RaftAddress != string(n.port.advertise) && len(members) > 1 {
			return fmt.Errorf("the cluster knows node %s at %s, but it advertises %s: keep the address, or remove the node and add one with a new id",
				m.ID, m.RaftAddress, n.port.advertise)
		}
	}
	return nil
}

// exit ends the process, once. Where cfg.Exit returns, the node is cut off at
// once, as a dead process would be.
func (n *Node) exit(err error) {
	n.exitOnce.Do(func() {
		n.log.Error("the node stops", "error", err)
		n.cfg.Exit(fmt.Errorf("node %s: %w", n.cfg.ID, err))
		n.terms.stop()
		n.cancel()
		n.trans.Close()
	})
}

// Close stops the node: it hands over leadership, ends its term's work, closes its
// port and then Raft and the disk. ctx bounds the graceful part; one that has
// ended already makes it an abrupt stop. Close may be called again, and then
// waits for the first call. The node is closed whatever the error says.
func (n *Node) Close(ctx context.Context) error {
	n.closeOnce.Do(func() {
		n.closeErr = n.close(ctx)
		close(n.closeDone)
	})
	<-n.closeDone
	return n.closeErr
}

func (n *Node) close(ctx context.Context) error {
	if ctx.Err() == nil && n.leads() {
		n.handOver(ctx)
	}
	n.terms.stop()
	n.terms.wait()
	return n.release()
}

// handOver gives leadership to another voter, if there is one that can take it.
func (n *Node) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.ElectionTimeout)
	defer cancel()
	if voters(n.Status().Members) < 2 {
		return
	}
	if err := n.TransferLeadership(ctx, ""); err != nil {
		n.log.Warn("no other node took the leadership over; the others will elect a leader", "error", err)
	}
}

// release lets go of whatever start has opened.
func (n *Node) release() error {
	var problems []error
	if n.raft != nil {
		problems = append(problems, n.stopRaft())
	}
	n.cancel()
	n.work.Wait()
	n.barriers.close()
	n.transfers.wait()
	if n.port != nil {
		problems = append(problems, n.port.close())
		n.port.wait()
	}
	if n.disk != nil {
		problems = append(problems, n.disk.close())
	}
	return errors.Join(problems...)
}

// stopRaft closes the transport first: then no message of a peer can reach a node
// that is half closed, and a leader steps down and answers its proposals. Only
// then Shutdown, which would leave them without an answer.
func (n *Node) stopRaft() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	err := n.trans.Close()
	drained := make(chan struct{})
	go func() {
		n.proposals.Wait()
		close(drained)
	}()
	timeout := time.NewTimer(drainTimeout)
	defer timeout.Stop()
	select {
	case <-drained:
	case <-timeout.C:
		n.log.Warn("closing with proposals that Raft has not answered")
	case <-n.ctx.Done(): // past exit nobody waits for them
	}
	return errors.Join(err, n.raft.Shutdown().Error())
}
