package fsm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm/txn"
)

// TestWhatCannotBeReadStopsTheNode holds R12: a committed entry that this binary
// cannot read halts the node, with a text that says which entry, of which term,
// and what to do; and nothing is applied or kept after it.
func TestWhatCannotBeReadStopsTheNode(t *testing.T) {
	newer := []byte{0x08, 9} // version 9
	for name, c := range map[string]struct {
		data []byte
		want []string
	}{
		"a newer version": {newer, []string{"log entry 3 of term 1", "too old for entry version 9", "upgrade decree"}},
		"no entry":        {[]byte("garbage"), []string{"log entry 3 of term 1", "can't be decoded", "add a new node"}},
		"an empty entry":  {nil, []string{"log entry 3 of term 1", "no version", "add a new node"}},
	} {
		j := newJournal(t)
		var halted error
		j.m.halt = func(err error) { halted = err }
		answer := j.m.Apply(j.log(raft.LogCommand, c.data)).(Applied)
		if halted == nil || answer.Err != halted || answer.Index != 3 {
			t.Fatalf("%s: halted with %v, answered %+v", name, halted, answer)
		}
		for _, want := range c.want {
			if !strings.Contains(halted.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, halted, want)
			}
		}
		if after := j.write(j.header(), put("taxi")); after.Err != halted {
			t.Errorf("%s: went on with %+v", name, after)
		}
		if _, err := j.m.Snapshot(); err != halted {
			t.Errorf("%s: a snapshot that lacks the entry was taken: %v", name, err)
		}
		if _, ok := j.m.Participant("taxi"); ok || j.m.AppliedIndex() != 2 {
			t.Errorf("%s: applied up to %d", name, j.m.AppliedIndex())
		}
	}
}

// TestHaltPanicsUnlessTold holds that a machine without a Halt never goes on.
func TestHaltPanicsUnlessTold(t *testing.T) {
	defer func() {
		if r := recover(); r == nil {
			t.Error("it went on")
		}
	}()
	New(Options{}).Apply(&raft.Log{Index: 1, Term: 1, Type: raft.LogCommand, Data: []byte("garbage")})
}

// TestAnEntryIsAppliedOnce holds that a log which goes back stops the node (R12).
func TestAnEntryIsAppliedOnce(t *testing.T) {
	j := newJournal(t)
	var halted error
	j.m.halt = func(err error) { halted = err }
	j.m.Apply(j.logs[1])
	if halted == nil || !strings.Contains(halted.Error(), "applied already") {
		t.Errorf("halted with %v", halted)
	}
}

// TestStaleEpochsChangeNothing holds R3 at the state machine: an entry of another
// epoch is refused whole, and so is one whose Raft term is not its epoch, which a
// deposed leader can make (DESIGN section 8).
func TestStaleEpochsChangeNothing(t *testing.T) {
	j := newJournal(t)
	j.lead()
	stage := txn.Stage{ID: idAt(j.now, 1), Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second}
	later := txn.Header{Time: j.now.Add(time.Hour), Horizon: j.now}
	with := func(epoch uint64) txn.Header { later.Epoch = epoch; return later }

	for name, c := range map[string]struct {
		term    uint64
		header  txn.Header
		command Command
	}{
		"the leader before":                  {1, with(1), stage},
		"the leader before, under this term": {2, with(1), stage},
		"this leader, under the next term":   {3, with(2), stage},
		"one that has not opened its epoch":  {3, with(3), stage},
		"an old epoch entry":                 {1, with(1), Lead{Node: "n", Cluster: "c"}},
		"the same epoch entry":               {2, with(2), Lead{Node: "n", Cluster: "c"}},
		"an epoch entry under another term":  {3, with(4), Lead{Node: "n", Cluster: "c"}},
	} {
		before, refused := persist(t, j.m), j.m.Stats().Refused
		j.term = c.term
		out := j.write(c.header, c.command)
		if !errors.Is(out.Err, txn.ErrStaleEpoch) || out.Results != nil || out.Index != j.index {
			t.Errorf("%s: %+v", name, out)
		}
		if j.m.AppliedIndex() != j.index || j.m.Stats().Refused != refused+1 {
			t.Errorf("%s: applied %d of %d, refused %d", name, j.m.AppliedIndex(), j.index, j.m.Stats().Refused)
		}
		j.m.state.index-- // the only thing that may have changed
		if !bytes.Equal(persist(t, j.m), before) {
			t.Errorf("%s: something changed", name)
		}
		j.m.state.index++
	}
	j.term = 2
	j.must(stage)
}

// TestTheFirstLeaderNamesTheCluster holds that the id under which participants know
// the cluster never changes.
func TestTheFirstLeaderNamesTheCluster(t *testing.T) {
	m := newMachine(t)
	if m.ClusterID() != "" {
		t.Errorf("%q before there was a leader", m.ClusterID())
	}
	j := newJournal(t)
	j.lead()
	if j.m.ClusterID() != "cluster-1" || j.m.Cluster().Epoch != 2 {
		t.Errorf("cluster %q, epoch %d", j.m.ClusterID(), j.m.Cluster().Epoch)
	}
}

// TestEachEntryOfABatchIsAnswered holds DESIGN section 8: Raft hands over
// configuration entries too, and needs as many answers as entries.
func TestEachEntryOfABatchIsAnswered(t *testing.T) {
	j := newJournal(t)
	entry, err := Encode(Entry{Header: j.header(), Commands: []Command{put("taxi")}})
	if err != nil {
		t.Fatal(err)
	}
	logs := []*raft.Log{j.log(raft.LogConfiguration, []byte("servers")), j.log(raft.LogCommand, entry), j.log(raft.LogConfiguration, nil)}
	answers := j.m.ApplyBatch(logs)
	if len(answers) != len(logs) {
		t.Fatalf("%d answers to %d entries", len(answers), len(logs))
	}
	for i, a := range answers {
		if a := a.(Applied); a.Index != logs[i].Index || a.Err != nil || len(a.Results) != i%2 {
			t.Errorf("entry %d answered %+v", logs[i].Index, a)
		}
	}
	if j.m.AppliedIndex() != logs[2].Index {
		t.Errorf("applied %d", j.m.AppliedIndex())
	}
}

// TestCommandsOfOneEntrySeeEachOther holds that an entry is a sequence, that one
// refused command does not touch the others, and that a second decision is
// answered with the first (R1).
func TestCommandsOfOneEntrySeeEachOther(t *testing.T) {
	j := newJournal(t)
	id, other := idAt(j.now, 1), idAt(j.now, 2)
	r := j.apply(
		txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second},
		txn.Decide{ID: other, Decision: txn.Commit},
		txn.Decide{ID: id, Decision: txn.Commit},
		txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonTimeout}},
	)
	if r[0].Err != nil || r[0].Transaction.State != txn.Preparing || len(r[0].Due) != 1 {
		t.Errorf("staged: %+v", r[0])
	}
	if !errors.Is(r[1].Err, txn.ErrUnknown) || r[1].Transaction != nil {
		t.Errorf("decided of an unknown transaction: %+v", r[1])
	}
	if r[2].Err != nil || r[2].Transaction.State != txn.Committing || r[2].Transaction.Decided.Index != j.index {
		t.Errorf("decided: %+v", r[2])
	}
	if r[3].Err != nil || r[3].Transaction != r[2].Transaction || r[3].Due != nil {
		t.Errorf("decided again: %+v", r[3])
	}
	if got, ok := j.m.Transaction(id); !ok || got != r[2].Transaction {
		t.Errorf("read %+v", got)
	}
	if _, ok := j.m.Transaction(other); ok {
		t.Error("a refused command left something behind")
	}
	s := j.m.Stats()
	if s.Entries != 3 || s.Commands != 1+3+4 || s.Unfinished != 1 || s.Retained != 1 || s.Participants != 3 || s.Bytes == 0 {
		t.Errorf("%+v", s)
	}
}

// TestAnEntryWithoutCommandsMovesTime holds that cluster time and horizon advance
// with any admitted entry, and never go back (R11).
func TestAnEntryWithoutCommandsMovesTime(t *testing.T) {
	j := newJournal(t)
	h := j.header()
	h.Time, h.Horizon = j.now.Add(time.Hour), j.now
	j.write(h)
	j.write(j.header())
	if c := j.m.Cluster(); c.Now != h.Time || c.Horizon != h.Horizon {
		t.Errorf("%+v, want %+v", c, h)
	}
}

// TestRestoreClosesItsSource holds that a snapshot file is not left open.
func TestRestoreClosesItsSource(t *testing.T) {
	from := &closer{Reader: bytes.NewReader(persist(t, newJournal(t).m))}
	if err := newMachine(t).Restore(from); err != nil || !from.closed {
		t.Errorf("%v, closed %t", err, from.closed)
	}
}

type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

// TestACommandOfNoRuleStopsTheNode holds that a command which the decoder lets
// through, and nobody applies, is never skipped (R12).
func TestACommandOfNoRuleStopsTheNode(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it was skipped")
		}
	}()
	newState().administer("no command")
}
