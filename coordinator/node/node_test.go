package node

// Three whole nodes in one process, over links that can be cut, with fakes for
// participants: what a client and a participant see of failovers, in real time
// and over the real Raft. The fakes hold every call to the contract; a branch
// that takes effect twice or is told both decisions fails its test.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// patience bounds waits for events; nothing is measured by it.
const patience = time.Minute

// trio is three nodes that share two fakes.
type trio struct {
	t     *testing.T
	net   *clustertest.Cluster
	fakes participanttest.Fakes
	wall  func(id string) func() time.Time
	// probed is a second driver, where it is set.
	probed participants.Driver
	adjust func(id string, c *Config)

	mu    sync.Mutex
	nodes map[string]*Node
}

func newTrio(t *testing.T, configure func(*trio)) *trio {
	t.Helper()
	x := &trio{t: t, nodes: map[string]*Node{}, fakes: participanttest.Fakes{
		"a": participanttest.NewFake(), "b": participanttest.NewFake(),
	}}
	if configure != nil {
		configure(x)
	}
	x.net = clustertest.Prepare(t, clustertest.Options{
		FSM: func(string) raft.FSM { return nil }, // the node brings its own
		Configure: func(c *cluster.Config) {
			c.RPCTimeout = 500 * time.Millisecond // how long a healed link stays unused
		},
	})
	t.Cleanup(x.close)
	var starts sync.WaitGroup
	for _, id := range x.net.IDs() {
		starts.Go(func() { x.start(id) })
	}
	starts.Wait()
	for name := range x.fakes {
		x.put(name)
	}
	return x
}

func (x *trio) put(name string) {
	x.t.Helper()
	err := x.atLeader(func(n *Node) error {
		_, err := n.PutParticipant(x.ctx(), fsm.Operator{Who: "the tests"}, participants.Registration{Name: name, Driver: "fake", Config: []byte("{}")})
		return err
	})
	if err != nil {
		x.t.Fatal(err)
	}
}

// atLeader repeats a call at whoever leads until its answer is definite. A busy
// machine may depose a leader at any time.
func (x *trio) atLeader(call func(*Node) error) error {
	x.t.Helper()
	for {
		err := call(x.leader(nil))
		if !errors.Is(err, coordinator.ErrNotLeader) && !errors.Is(err, coordinator.ErrOutcomeUnknown) {
			return err
		}
		if ctx := x.ctx(); ctx.Err() != nil {
			x.t.Fatal("no definite answer")
		}
	}
}

func (x *trio) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	x.t.Cleanup(cancel)
	return ctx
}

func (x *trio) start(id string) *Node {
	cfg := Config{
		Cluster: x.net.Config(id),
		Drivers: participants.Drivers{"fake": x.fakes},
		Logger:  hclog.New(&hclog.LoggerOptions{Level: hclog.Off}),
		Coordinator: coordinator.Config{
			DeliveryTimeout: time.Second, BackoffCap: 200 * time.Millisecond,
			ScanInterval: 200 * time.Millisecond, OrphanGrace: 200 * time.Millisecond,
		},
	}
	if x.probed != nil {
		cfg.Drivers["probed"] = x.probed
	}
	if x.wall != nil {
		cfg.Wall = x.wall(id)
	}
	if x.adjust != nil {
		x.adjust(id, &cfg)
	}
	n, err := Open(x.ctx(), cfg)
	if err != nil {
		x.t.Errorf("open %s: %v", id, err)
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.nodes[id] = n
	return n
}

func (x *trio) stop(id string) {
	x.mu.Lock()
	n := x.nodes[id]
	delete(x.nodes, id)
	x.mu.Unlock()
	if n == nil {
		return
	}
	if err := n.Close(x.ctx()); err != nil {
		x.t.Errorf("close %s: %v", id, err)
	}
}

func (x *trio) close() {
	x.net.Network.Heal()
	for _, id := range x.net.IDs() {
		x.stop(id)
	}
	for _, f := range x.fakes {
		f.Verify(x.t)
		if err := f.Close(); err != nil {
			x.t.Error(err)
		}
	}
}

func (x *trio) all() []*Node {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []*Node
	for _, n := range x.nodes {
		all = append(all, n)
	}
	return all
}

// leader waits until a node other than except drives transactions.
func (x *trio) leader(except *Node) *Node {
	x.t.Helper()
	var found *Node
	x.await("a leader", func() bool {
		for _, n := range x.all() {
			if n != except && n.Coordinator.Leads() {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// await polls for what no event announces.
func (x *trio) await(what string, holds func() bool) {
	x.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ctx := x.ctx()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			x.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// submit runs a transaction at whoever leads, until its outcome is known: what
// the SDK does.
func (x *trio) submit(s coordinator.Submission) coordinator.Result {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pause := time.NewTicker(time.Millisecond)
	defer pause.Stop()
	for ; ctx.Err() == nil; <-pause.C {
		for _, n := range x.all() {
			r, err := n.Coordinator.Submit(ctx, s)
			switch {
			case err == nil:
				return r
			case !errors.Is(err, coordinator.ErrNotLeader) && !errors.Is(err, coordinator.ErrOutcomeUnknown):
				x.t.Fatalf("submit: %v", err)
			}
		}
	}
	x.t.Fatal("no outcome")
	return coordinator.Result{}
}

// sameOutcome waits until every node has finished the transaction, and checks
// that all tell the same of it (R1).
func (x *trio) sameOutcome(id txn.TxID) *txn.Transaction {
	x.t.Helper()
	var first *txn.Transaction
	for _, n := range x.all() {
		x.await("the end everywhere", func() bool {
			tx, ok := n.Machine.Transaction(id)
			return ok && tx.State.Finished()
		})
		tx, _ := n.Machine.Transaction(id)
		if first == nil {
			first = tx
		}
		if tx.State != first.State || tx.Decided != first.Decided {
			x.t.Errorf("%s decided at %+v, elsewhere %s at %+v", tx.State, tx.Decided, first.State, first.Decided)
		}
	}
	return first
}

func newID() txn.TxID { return txn.TxID(uuid.Must(uuid.NewV7())) }

func transfer(id txn.TxID) coordinator.Submission {
	return coordinator.Submission{ID: id, Timeout: patience, Branches: []txn.Branch{
		txn.NewBranch("a", []byte("take")), txn.NewBranch("b", []byte("give")),
	}}
}

// R3, R5, R13: the leader is cut off at each step; its client learns no outcome
// that does not stand, another leader goes on, and the old one changes nothing
// when the links heal.
func TestLeaderIsCutOff(t *testing.T) {
	for _, step := range []struct {
		name string
		op   participanttest.Op
		want txn.Decision
	}{
		{"while a branch prepares", participanttest.Prepare, txn.Commit},
		{"while a branch commits", participanttest.Commit, txn.Commit},
	} {
		t.Run(step.name, func(t *testing.T) {
			x := newTrio(t, nil)
			id := newID()
			release := make(chan struct{})
			x.fakes["b"].Script(step.op, id, participanttest.Answer{Hold: release})
			old := x.leader(nil)
			told := make(chan error, 1)
			go func() {
				r, err := old.Coordinator.Submit(x.ctx(), transfer(id))
				if err == nil && r.Decision() != step.want {
					err = fmt.Errorf("told %s", r.Decision())
				}
				told <- err
			}()
			if err := x.fakes["b"].Await(x.ctx(), step.op, id, 1); err != nil {
				t.Fatal(err)
			}
			x.net.Isolate(old.cfg.Cluster.ID)
			x.leader(old)
			close(release)
			if err := <-told; err != nil && !errors.Is(err, coordinator.ErrOutcomeUnknown) {
				t.Errorf("the cut off leader's client: %v", err)
			}
			if r := x.submit(transfer(id)); r.Decision() != step.want {
				t.Errorf("the new leader says %s, %s", r.Decision(), r.Transaction.Reason)
			}
			x.net.Network.Heal()
			x.sameOutcome(id)
			x.effects(id, 1)
		})
	}
}

// effects checks how often both branches took effect.
func (x *trio) effects(id txn.TxID, want int) {
	x.t.Helper()
	cluster := x.leader(nil).Machine.ClusterID()
	for i, name := range []string{"a", "b"} {
		b := participants.Branch{Cluster: cluster, TxID: id, Number: i + 1}
		if got := x.fakes[name].Effects(b); got != want {
			x.t.Errorf("%s took effect %d times, want %d", name, got, want)
		}
		if s := x.fakes[name].State(b); s == participants.StatusPrepared {
			x.t.Errorf("%s still holds the branch", name)
		}
	}
}

// Links fail one after the other, in both directions and in one, while clients go
// on: every txid gets one outcome, the same on all nodes, and takes effect once or
// not at all.
func TestLinksComeAndGo(t *testing.T) {
	x := newTrio(t, nil)
	var ids []txn.TxID
	var mu sync.Mutex
	var stop atomic.Bool
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				id := newID()
				x.submit(transfer(id))
				mu.Lock()
				ids = append(ids, id)
				mu.Unlock()
			}
		})
	}
	for round := range 6 {
		mu.Lock()
		done := len(ids)
		mu.Unlock()
		x.await("transactions between two failures", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(ids) >= done+20
		})
		old := x.leader(nil)
		self := old.cfg.Cluster.ID
		if round%2 == 0 {
			x.net.Isolate(self)
		} else {
			for _, id := range x.net.IDs() { // it hears the others, and cannot reach them
				if id != self {
					x.net.Network.Cut(self, id)
				}
			}
		}
		x.leader(old)
		x.net.Network.Heal()
	}
	stop.Store(true)
	clients.Wait()
	for _, id := range ids {
		tx := x.sameOutcome(id)
		want := 0
		if tx.Decision() == txn.Commit {
			want = 1
		}
		x.effects(id, want)
	}
	t.Logf("%d transactions through 6 failovers", len(ids))
}

// The design's budget in section 3: a committed transaction costs one staging, one
// decision, and a share of one receipt entry; and concurrent ones share entries.
func TestLogEntriesPerTransaction(t *testing.T) {
	x := newTrio(t, nil)
	leader := x.leader(nil)
	settle := func() uint64 {
		x.await("all receipts", func() bool { return leader.Machine.Stats().Unfinished == 0 })
		return leader.Machine.Stats().Entries
	}
	before := settle()
	const alone = 50
	for range alone {
		x.submit(transfer(newID()))
	}
	perTx := float64(settle()-before) / alone
	t.Logf("one client: %.2f entries a transaction", perTx)
	if perTx > 3 {
		t.Errorf("one client: %.2f entries a transaction, at most staging + decision + one receipt", perTx)
	}

	before = settle()
	const clients, each = 64, 20
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				x.submit(transfer(newID()))
			}
		})
	}
	wg.Wait()
	perTx = float64(settle()-before) / (clients * each)
	t.Logf("%d clients: %.3f entries a transaction", clients, perTx)
	if perTx >= 1 {
		t.Errorf("%d clients: %.2f entries a transaction; they do not share", clients, perTx)
	}
}

// A restarted node, and one that was behind, come to the same state.
func TestRestart(t *testing.T) {
	x := newTrio(t, nil)
	follower := x.follower()
	x.stop(follower)
	var ids []txn.TxID
	for range 20 {
		ids = append(ids, newID())
		x.submit(transfer(ids[len(ids)-1]))
	}
	x.start(follower)
	for _, id := range ids {
		x.sameOutcome(id)
	}
	for _, id := range x.net.IDs() {
		x.stop(id)
		x.start(id)
	}
	for _, id := range ids {
		if r := x.submit(transfer(id)); r.Decision() != txn.Commit { // R11: answered, not run again
			t.Errorf("%s after the restarts", r.Decision())
		}
		x.effects(id, 1)
	}
}

func (x *trio) follower() string {
	leader := x.leader(nil)
	for _, id := range x.net.IDs() {
		if id != leader.cfg.Cluster.ID {
			return id
		}
	}
	panic("a cluster of one")
}

// R11: wall clocks that are an hour off, either way, move cluster time at most
// forward, and neither expire nor abort what is under way in another epoch.
func TestWallClocksAreWrong(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			wrong := map[string]time.Duration{}
			var mu sync.Mutex
			x := newTrio(t, func(x *trio) {
				x.wall = func(id string) func() time.Time {
					return func() time.Time {
						mu.Lock()
						defer mu.Unlock()
						return time.Now().Add(wrong[id])
					}
				}
			})
			first := x.leader(nil)
			mu.Lock()
			for _, id := range x.net.IDs() {
				if id != first.cfg.Cluster.ID {
					wrong[id] = off
				}
			}
			mu.Unlock()
			before := first.Machine.Cluster().Now
			x.submit(transfer(newID()))
			x.net.Isolate(first.cfg.Cluster.ID)
			x.leader(first)
			x.net.Network.Heal()
			id := newID()
			if r := x.submit(transfer(id)); r.Decision() != txn.Commit {
				t.Errorf("%s: %s", r.Decision(), r.Transaction.Reason)
			}
			next := x.leader(nil)
			at := next.Machine.Cluster().Now
			if now := next.writer.Now(); now < at {
				t.Errorf("the leader's time lies %s behind cluster time", at.Sub(now))
			}
			tx := x.sameOutcome(id)
			if tx.Decided.At < before {
				t.Errorf("cluster time went back by %s", before.Sub(tx.Decided.At))
			}
		})
	}
}

// R11: what is older than the retention is forgotten, refused as expired, and the
// room is bounded.
func TestRetention(t *testing.T) {
	x := newTrio(t, nil)
	leader := x.leader(nil)
	for range 10 {
		x.submit(transfer(newID()))
	}
	x.await("all receipts", func() bool { return leader.Machine.Stats().Unfinished == 0 })
	now := leader.writer.Now()
	if back := now.Sub(leader.horizon(now)); back != 24*time.Hour {
		t.Errorf("the horizon lies %s back", back)
	}
	old := expiredID() // not yet: the horizon lies a day back
	x.submit(transfer(old))
	x.await("all receipts", func() bool { return leader.Machine.Stats().Unfinished == 0 })
	var forgot int
	err := x.atLeader(func(n *Node) error {
		hasty := *n
		hasty.cfg.Retention = MinRetention
		forgot = hasty.collect(x.ctx(), n.writer.epoch())
		_, err := n.Coordinator.Submit(x.ctx(), transfer(expiredID()))
		return err
	})
	if !errors.Is(err, txn.ErrExpired) {
		t.Errorf("an expired id: %v", err)
	}
	if forgot != 0 {
		t.Errorf("forgot %d transactions that finished a moment ago", forgot)
	}
	if r := x.submit(transfer(old)); r.Decision() != txn.Commit {
		t.Errorf("an old id that finished a moment ago is answered %s", r.Decision())
	}
}

// expiredID was made an hour ago.
func expiredID() txn.TxID { return idOfAge(time.Hour) }

func idOfAge(age time.Duration) txn.TxID {
	id := newID()
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().Add(-age).UnixMilli())<<16|0x7000)
	return id
}

// R11: a new cluster has a horizon from its first epoch on.
func TestNewClusterRefusesOldIDs(t *testing.T) {
	x := newTrio(t, nil)
	err := x.atLeader(func(n *Node) error {
		_, err := n.Coordinator.Submit(x.ctx(), transfer(idOfAge(25*time.Hour)))
		return err
	})
	if !errors.Is(err, txn.ErrExpired) {
		t.Errorf("an id of yesterday: %v", err)
	}
	if r := x.submit(transfer(idOfAge(23 * time.Hour))); r.Decision() != txn.Commit {
		t.Errorf("an id within the retention: %s", r.Decision())
	}
}
