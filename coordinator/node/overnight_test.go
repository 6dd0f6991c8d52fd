package node

import (
	"context"
	"encoding/binary"
	"flag"
	"io/fs"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

var overnight = flag.Int("overnight", 60_000, "how many `transactions` TestOvernight writes")

// TestOvernight holds R14 for a log that grows all night: however many transactions
// finish, memory and disk stay what they were when the bound on their number was
// reached; and what is unfinished is still there at the end (R10).
//
// The node and its files are real, and time is virtual: 20,000 transactions a second
// at the default bounds, and at bounds that are as much smaller as -overnight is than
// ten millions. Retention, snapshots and truncation come when they are due. Run all
// ten millions with
//
//	go test ./coordinator/node -run TestOvernight -v -timeout 1h -overnight 10000000
func TestOvernight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNight(t, *overnight)
		defer n.close()
		var evening, morning weight
		for step := 1; step <= nightSteps; step++ {
			n.write(*overnight / nightSteps)
			time.Sleep(nightLength / nightSteps)
			if step%(nightSteps/20) != 0 {
				continue
			}
			w := n.weigh()
			t.Logf("after %9d transactions: %v", step*(*overnight/nightSteps), w)
			if w.finished > n.most*13/10 {
				t.Fatalf("%d finished transactions are kept, of at most %d", w.finished, n.most)
			}
			switch {
			case step > nightSteps*6/10:
				morning = morning.or(w)
			case step > nightSteps*2/10:
				evening = evening.or(w)
			}
		}
		// What files are rounded to, and what is under way, is of no account.
		const little = 8 << 20
		if morning.heap > evening.heap*115/100+little || morning.disk > evening.disk*115/100+little {
			t.Errorf("in the evening %v, in the morning %v", evening, morning)
		}
		if perTransaction := (morning.heap - little) / morning.finished; perTransaction > 450 && *overnight >= 1_000_000 {
			t.Errorf("%d bytes of memory for each transaction kept", perTransaction)
		}
		if got := n.Machine.Stats().Unfinished; got != n.open {
			t.Errorf("%d are unfinished, and were %d", got, n.open)
		}
	})
}

// The night's length at 20,000 transactions a second, in as many steps as keep what
// is under way small beside what is kept.
const (
	nightLength = 500 * time.Second
	nightSteps  = 300
)

// night is a node whose transactions come from a test.
type night struct {
	*Node
	t    *testing.T
	dir  string
	ids  uint64
	most int // finished transactions that it may keep
	open int // transactions that stay unfinished
}

// weight is what a night has come to.
type weight struct {
	finished   int
	heap, disk int // bytes
}

func (w weight) or(other weight) weight {
	return weight{max(w.finished, other.finished), max(w.heap, other.heap), max(w.disk, other.disk)}
}

func startNight(t *testing.T, n int) *night {
	t.Helper()
	const whole = 10_000_000 // at which the bounds are the defaults
	net := clustertest.Prepare(t, clustertest.Options{
		Nodes: 1, FSM: func(string) raft.FSM { return nil }, // the node brings its own
		Configure: func(c *cluster.Config) {
			c.SnapshotBytes = cluster.DefaultSnapshotBytes * int64(n) / whole
			c.TrailingBytes = cluster.DefaultTrailingBytes * int64(n) / whole
		},
	})
	member := net.Config("n1")
	x := &night{t: t, dir: member.Dir, most: n / 10, open: n / 100}
	var err error
	x.Node, err = Open(t.Context(), Config{
		Cluster: member, MaxRetained: x.most, Logger: hclog.NewNullLogger(),
		Drivers: participants.Drivers{"instant": instant{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	awaitLeader(t, []*Node{x.Node})
	for _, name := range []string{"a", "b"} {
		if _, err := x.PutParticipant(t.Context(), fsm.Operator{}, participants.Registration{Name: name, Driver: "instant", Config: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	for at := 0; at < x.open; at += 1000 {
		x.stage(min(1000, x.open-at))
	}
	return x
}

func (n *night) close() {
	if err := n.Close(context.Background()); err != nil {
		n.t.Error(err)
	}
	time.Sleep(time.Minute) // what Raft left behind ends
}

// write brings transactions from their staging to their end.
func (n *night) write(transactions int) {
	ids := n.stage(transactions)
	n.each(ids, func(id txn.TxID) txn.Command { return txn.Decide{ID: id, Decision: txn.Commit} })
	n.each(ids, func(id txn.TxID) txn.Command {
		return txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}, {Branch: 2, Receipt: txn.Done}}}
	})
}

// newID is of the bubble's time, which package uuid would not go back to.
func (n *night) newID() (id txn.TxID) {
	n.ids++
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|0x7000)
	binary.BigEndian.PutUint64(id[8:], 1<<63|n.ids)
	return id
}

func (n *night) stage(transactions int) []txn.TxID {
	ids := make([]txn.TxID, transactions)
	for i := range ids {
		ids[i] = n.newID()
	}
	n.each(ids, func(id txn.TxID) txn.Command {
		return txn.Stage{ID: id, Timeout: time.Minute, Branches: []txn.Branch{txn.NewBranch("a", payload), txn.NewBranch("b", payload)}}
	})
	return ids
}

// each writes a command for each transaction, and waits until all are applied.
func (n *night) each(ids []txn.TxID, command func(txn.TxID) txn.Command) {
	answers := make(chan error, len(ids))
	epoch := n.writer.epoch()
	for _, id := range ids {
		n.writer.propose(proposal{epoch: epoch, command: command(id), done: func(r fsm.Result, err error) { answers <- err }})
	}
	for range ids {
		if err := <-answers; err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *night) weigh() (w weight) {
	w.finished = n.Machine.Stats().Finished
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	w.heap = int(m.HeapAlloc)
	err := filepath.WalkDir(n.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a snapshot that went meanwhile
		}
		if info, err := d.Info(); err == nil {
			w.disk += int(info.Size())
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return w
}
