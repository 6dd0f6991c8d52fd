package fsm

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// tester is what both *testing.T and *rapid.T are.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// beginning is the cluster time at which the tests begin.
const beginning = txn.Time(1_700_000_000 * int64(time.Second))

// journal writes a log as a leader would, and plays it to one machine.
type journal struct {
	t     tester
	m     *Machine
	index uint64
	term  uint64
	now   txn.Time
	logs  []*raft.Log
}

// newJournal begins with an epoch entry of term 1 and three participants.
func newJournal(t tester) *journal {
	t.Helper()
	j := &journal{t: t, m: newMachine(t), now: beginning}
	j.lead()
	j.must(put("bank"), put("hotel"), put("shop"))
	return j
}

// newMachine makes a machine on which a halt fails the test.
func newMachine(t tester) *Machine {
	t.Helper()
	return New(Options{Halt: func(err error) {
		t.Helper()
		t.Fatalf("halt: %v", err)
	}})
}

func put(name string) PutParticipant {
	return PutParticipant{Participant{Name: name, Driver: "sim", Config: []byte(`{"name":"` + name + `"}`), Identity: "at " + name}}
}

// log makes the next entry of the Raft log.
func (j *journal) log(kind raft.LogType, data []byte) *raft.Log {
	j.index++
	l := &raft.Log{Index: j.index, Term: j.term, Type: kind, Data: data}
	j.logs = append(j.logs, l)
	return l
}

func (j *journal) header() txn.Header { return txn.Header{Epoch: j.term, Time: j.now} }

// write applies an entry under a header.
func (j *journal) write(h txn.Header, commands ...Command) Applied {
	j.t.Helper()
	b, err := Encode(Entry{Header: h, Commands: commands})
	if err != nil {
		j.t.Fatalf("encode: %v", err)
	}
	return j.m.Apply(j.log(raft.LogCommand, b)).(Applied)
}

// apply applies an entry of the present leader, and returns its results.
func (j *journal) apply(commands ...Command) []Result {
	j.t.Helper()
	out := j.write(j.header(), commands...)
	if out.Err != nil || out.Index != j.index || len(out.Results) != len(commands) {
		j.t.Fatalf("entry %d answered %+v", j.index, out)
	}
	return out.Results
}

// must applies commands of which none may fail, and returns the last result.
func (j *journal) must(commands ...Command) (last Result) {
	j.t.Helper()
	for i, r := range j.apply(commands...) {
		if r.Err != nil {
			j.t.Fatalf("command %d of entry %d: %v", i+1, j.index, r.Err)
		}
		last = r
	}
	return last
}

// lead opens the epoch of the next term.
func (j *journal) lead() {
	j.t.Helper()
	j.term++
	j.must(Lead{Node: fmt.Sprint("node-", j.term%3), Cluster: fmt.Sprint("cluster-", j.term)})
}

// finish runs a transaction at the bank from staging to its end.
func (j *journal) finish(id txn.TxID, receipt txn.Receipt) *txn.Transaction {
	j.t.Helper()
	return j.must(
		txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second},
		txn.Decide{ID: id, Decision: txn.Commit},
		txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: receipt}}},
	).Transaction
}

func idAt(at txn.Time, n int) (id txn.TxID) {
	ms := int64(at) / int64(time.Millisecond)
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6], id[8] = 0x70, 0x80
	for i := range 4 {
		id[12+i] = byte(n >> (24 - 8*i))
	}
	return id
}

// sink is a snapshot store of one snapshot.
type sink struct {
	bytes.Buffer
	closed, cancelled bool
	fail              error // of every write
}

func (s *sink) Write(p []byte) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	return s.Buffer.Write(p)
}
func (s *sink) ID() string    { return "test" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

// persist takes a snapshot and returns its bytes.
func persist(t tester, m *Machine) []byte {
	t.Helper()
	taken, err := m.Snapshot()
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	defer taken.Release()
	var s sink
	if err := taken.Persist(&s); err != nil || !s.closed || s.cancelled {
		t.Fatalf("persist: %v, closed %t, cancelled %t", err, s.closed, s.cancelled)
	}
	return s.Bytes()
}

func restore(m *Machine, b []byte) error { return m.Restore(io.NopCloser(bytes.NewReader(b))) }

// draw applies one random entry of a lively cluster: several commands of
// transactions old and new, leaders that change and deposed ones that go on,
// registrations, retention and Raft's own entries.
// Now and then the state begins again, as after a restore.
func (j *journal) drawOrReopen(t *rapid.T) {
	j.t.Helper()
	if rapid.IntRange(0, 9).Draw(t, "reopen") != 0 {
		j.draw(t)
		return
	}
	j.term += 100
	if err := j.m.Reopen(txn.Restored{Epoch: j.term, Until: j.now.Add(time.Minute)}); err != nil {
		j.t.Fatalf("reopen: %v", err)
	}
	j.lead()
}

func (j *journal) draw(t *rapid.T) {
	j.t.Helper()
	j.now = j.now.Add(time.Duration(rapid.Int64Range(0, int64(40*time.Second)).Draw(t, "pause")))
	switch rapid.IntRange(0, 12).Draw(t, "entry") {
	case 0:
		j.lead()
	case 1:
		stale := j.header()
		stale.Epoch = max(1, stale.Epoch-1)
		j.write(stale, j.anyCommand(t))
	case 2:
		j.m.ApplyBatch([]*raft.Log{j.log(raft.LogConfiguration, []byte("servers"))})
	case 3:
		h := j.header()
		h.Horizon = max(0, h.Time.Add(-time.Duration(rapid.Int64Range(0, int64(3*time.Minute)).Draw(t, "retention"))))
		j.write(h, Collect{Limit: rapid.IntRange(1, 5).Draw(t, "limit")})
	default:
		var commands []Command
		for range rapid.IntRange(0, 6).Draw(t, "commands") {
			commands = append(commands, j.anyCommand(t))
		}
		j.write(j.header(), commands...)
	}
}

var anyName = rapid.SampledFrom([]string{"bank", "hotel", "shop", "taxi", "nobody"})

func (j *journal) anyCommand(t *rapid.T) Command {
	id := idAt(j.now.Add(-time.Duration(rapid.Int64Range(-20, 60).Draw(t, "age"))*time.Second), rapid.IntRange(0, 2).Draw(t, "id"))
	if known := j.m.state.transactions.len(); known > 0 && rapid.IntRange(0, 3).Draw(t, "known") > 0 {
		id = nth(j.m, rapid.IntRange(0, known-1).Draw(t, "which"))
	}
	switch rapid.IntRange(0, 10).Draw(t, "command") {
	case 0, 1:
		c := txn.Stage{ID: id, Interactive: rapid.Bool().Draw(t, "interactive"), Timeout: time.Minute}
		c.Owner = txn.OwnerOf(rapid.SampledFrom([]string{"", "client/web", "client/shop"}).Draw(t, "owner"))
		if !c.Interactive {
			c.Branches = anyBranches(t)
		}
		return c
	case 2:
		b := txn.NewBranch(anyName.Draw(t, "participant"), []byte("work"))
		b.External = rapid.Bool().Draw(t, "external")
		return txn.Enlist{ID: id, Branch: b}
	case 3:
		return txn.Prepare{ID: id, Votes: []txn.BranchVote{{Branch: rapid.IntRange(1, 2).Draw(t, "branch"), Vote: txn.VoteCommit}}}
	case 4, 5:
		if rapid.Bool().Draw(t, "commit") {
			return txn.Decide{ID: id, Decision: txn.Commit, ReadOnly: rapid.SliceOfN(rapid.IntRange(1, 2), 0, 1).Draw(t, "read-only")}
		}
		c := txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonVote, Branch: 1, Detail: "sold out"}}
		if rapid.IntRange(0, 3).Draw(t, "takes over") == 0 {
			c.Branches = anyBranches(t)
		}
		return c
	case 6:
		return txn.Presume{ID: id}
	case 9:
		return txn.Arbitrate{ID: id, Decision: txn.Decision(rapid.IntRange(1, 2).Draw(t, "decision")), Detail: "ann"}
	case 7, 8:
		c := txn.Acknowledge{ID: id}
		for n := range rapid.IntRange(1, 3).Draw(t, "receipts") {
			receipt := txn.Receipt(rapid.SampledFrom([]int{1, 1, 1, 1, 3, 4}).Draw(t, "receipt"))
			c.Receipts = append(c.Receipts, txn.BranchReceipt{Branch: n + 1, Receipt: receipt})
		}
		return c
	default:
		if rapid.Bool().Draw(t, "resolve") {
			c := txn.Resolve{ID: id, Branch: rapid.IntRange(1, 3).Draw(t, "branch"), As: txn.Decision(rapid.IntRange(1, 2).Draw(t, "as"))}
			return Audited{Who: "ann", Action: "resolve", Target: id.String(), Command: c}
		}
		if rapid.IntRange(0, 5).Draw(t, "raise") == 0 {
			return RaiseLevel{Level: Level(rapid.IntRange(int(LevelRaise), int(Newest)).Draw(t, "level"))}
		}
		var c Command = put(anyName.Draw(t, "name"))
		if rapid.Bool().Draw(t, "delete") {
			c = DeleteParticipant{Name: anyName.Draw(t, "name")}
		}
		if rapid.Bool().Draw(t, "audited") {
			c = Audited{Who: "ann", Action: "change participant", Command: c}
		}
		return c
	}
}

func anyBranches(t *rapid.T) (list []txn.Branch) {
	for range rapid.IntRange(0, 2).Draw(t, "branches") {
		list = append(list, txn.NewBranch(anyName.Draw(t, "participant"), []byte("work")))
	}
	return list
}

// nth is the id of a known transaction.
func nth(m *Machine, n int) (id txn.TxID) {
	m.state.transactions.ascend(func(i item) bool {
		id = i.id
		n--
		return n >= 0
	})
	return id
}

var _ tester = (*testing.T)(nil)
