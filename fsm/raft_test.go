package fsm

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm/txn"
)

// TestUnderRaft runs the machine under a real Raft node of one: through elections,
// configuration entries among its own in one batch, a snapshot, and a restart that
// restores it and replays the rest.
func TestUnderRaft(t *testing.T) {
	store, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	first := startRaft(t, store, snapshots)
	first.lead(t)
	first.write(t, put("bank"))
	id := idAt(beginning, 1)
	first.write(t, txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank", []byte("-10"))}, Timeout: time.Second})
	if err := first.raft.AddNonvoter("other", "other", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	if err := first.raft.RemoveServer("other", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	if err := first.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	first.write(t, txn.Decide{ID: id, Decision: txn.Commit})
	before := persist(t, first.m)
	first.shutdown(t)

	second := startRaft(t, store, snapshots)
	second.lead(t)
	got, ok := second.m.Transaction(id)
	if !ok || got.State != txn.Committing || got.Decided.Epoch != first.term {
		t.Fatalf("after the restart: %+v", got)
	}
	want := New(Options{})
	if err := want.Restore(io.NopCloser(bytes.NewReader(before))); err != nil {
		t.Fatal(err)
	}
	if second.m.ClusterID() != want.ClusterID() || second.m.OpenAt("bank") != 1 {
		t.Errorf("cluster %q, %d open", second.m.ClusterID(), second.m.OpenAt("bank"))
	}
	second.shutdown(t)
}

// node is one Raft node with a machine.
type node struct {
	m    *Machine
	raft *raft.Raft
	term uint64
}

func startRaft(t *testing.T, store *raft.InmemStore, snapshots raft.SnapshotStore) *node {
	t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID = "only"
	conf.Logger = hclog.NewNullLogger()
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 25*time.Millisecond
	_, transport := raft.NewInmemTransport("only")
	servers := raft.Configuration{Servers: []raft.Server{{ID: "only", Address: "only"}}}
	if last, _ := store.LastIndex(); last == 0 {
		if err := raft.BootstrapCluster(conf, store, store, snapshots, transport, servers); err != nil {
			t.Fatal(err)
		}
	}
	n := &node{m: newMachine(t)}
	var err error
	if n.raft, err = raft.NewRaft(conf, n.m, store, store, snapshots, transport); err != nil {
		t.Fatal(err)
	}
	return n
}

// lead waits for the election and opens the epoch.
func (n *node) lead(t *testing.T) {
	t.Helper()
	for leads := range n.raft.LeaderCh() {
		if leads {
			break
		}
	}
	if err := n.raft.Barrier(0).Error(); err != nil {
		t.Fatal(err)
	}
	n.term = n.raft.CurrentTerm()
	n.write(t, Lead{Node: "only", Cluster: "c"})
}

func (n *node) write(t *testing.T, c Command) {
	t.Helper()
	b, err := Encode(Entry{Header: txn.Header{Epoch: n.term, Time: beginning}, Commands: []Command{c}})
	if err != nil {
		t.Fatal(err)
	}
	f := n.raft.Apply(b, 0)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	out := f.Response().(Applied)
	if out.Err != nil || out.Index != f.Index() || out.Results[0].Err != nil {
		t.Fatalf("%T answered %+v", c, out)
	}
}

func (n *node) shutdown(t *testing.T) {
	t.Helper()
	if err := n.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
}
