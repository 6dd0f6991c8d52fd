package fsm

// Two releases in one cluster: what an older binary left behind is read for ever, what it
// could not read is written only once the cluster's level allows it, and the level never
// goes back.

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
	"google.golang.org/protobuf/proto"
)

// TestTheFirstLevelIsUnchanged holds that this binary writes what the first level has
// as the binaries of that time did, to the byte, and reads what they wrote: the files
// are theirs.
func TestTheFirstLevelIsUnchanged(t *testing.T) {
	entry, err := os.ReadFile("testdata/level1/entry")
	if err != nil {
		t.Fatal(err)
	}
	var first []Command
	for _, c := range everyCommand() {
		if NeededLevel(c) == LevelFirst {
			first = append(first, c)
		}
	}
	if got, err := Encode(Entry{Header: someHeader, Commands: first}); err != nil || !bytes.Equal(got, entry) {
		t.Errorf("%v\n got %x\nwant %x", err, got, entry)
	}
	if _, ok := readEntry(entry, nil); !ok {
		t.Error("the hand does not read the entry")
	}
	snapshot, err := os.ReadFile("testdata/level1/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	if got := persist(t, lively(t).m); !bytes.Equal(got, snapshot) {
		t.Errorf("\n got %x\nwant %x", got, snapshot)
	}
	m := newMachine(t)
	if err := restore(m, snapshot); err != nil || m.Level() != LevelFirst {
		t.Errorf("level %d, %v", m.Level(), err)
	}
}

// TestEntriesSayWhatTheyNeed holds that an entry's version is the least that has all of
// its commands, so that an older binary knows what it lacks, and that no other is read.
func TestEntriesSayWhatTheyNeed(t *testing.T) {
	for _, c := range everyCommand() {
		needed := NeededLevel(c)
		if needed < LevelFirst || needed > Newest {
			t.Errorf("%T needs level %d", c, needed)
		}
		b, err := Encode(Entry{Header: someHeader, Commands: []Command{txn.Presume{ID: someID}, c}})
		if err != nil {
			t.Fatal(err)
		}
		var pb fsmpb.Entry
		if err := proto.Unmarshal(b, &pb); err != nil || Level(pb.Version) != needed {
			t.Errorf("%T in version %d, %v", c, pb.Version, err)
		}
		for v := LevelFirst; v <= Newest; v++ {
			if v == needed {
				continue
			}
			pb.Version = uint32(v)
			other, err := proto.Marshal(&pb)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decode(other, nil); err == nil {
				t.Errorf("%T was read from an entry of version %d", c, v)
			}
		}
	}
}

// TestTheLevelRisesOnly raises it, raises it again and asks for a lower one, and holds
// that snapshots carry it.
func TestTheLevelRisesOnly(t *testing.T) {
	j := newJournal(t)
	if j.m.Level() != LevelFirst {
		t.Fatalf("a new machine is at level %d", j.m.Level())
	}
	for level := LevelFirst + 1; level <= Newest; level++ {
		j.must(RaiseLevel{Level: level})
		j.must(RaiseLevel{Level: LevelRaise})
		if j.m.Level() != level {
			t.Errorf("level %d, want %d", j.m.Level(), level)
		}
		restored := newMachine(t)
		if err := restore(restored, persist(t, j.m)); err != nil || restored.Level() != level {
			t.Errorf("restored at level %d, %v", restored.Level(), err)
		}
		if version := records(t, persist(t, restored))[0].GetHeader().Version; Level(version) != level {
			t.Errorf("a snapshot of version %d at level %d", version, level)
		}
	}
}

// TestAboveTheLevelNothingHappens holds that a command which the cluster's level does
// not have changes nothing, though this binary could apply it (R12: an older one could
// not, and nodes must not differ).
func TestAboveTheLevelNothingHappens(t *testing.T) {
	for _, c := range everyCommand() {
		j := newJournal(t)
		before := persist(t, j.m)
		_, raises := c.(RaiseLevel)
		refused := NeededLevel(c) > LevelFirst && !raises
		if err := j.m.Allows(c); errors.Is(err, ErrLevel) != refused {
			t.Errorf("%T: allowed with %v", c, err)
		}
		if !refused {
			continue
		}
		if r := j.apply(c)[0]; !errors.Is(r.Err, ErrLevel) {
			t.Errorf("%T: answered %+v", c, r)
		}
		after := newMachine(t)
		if err := restore(after, before); err != nil {
			t.Fatal(err)
		}
		after.state.index = j.m.state.index
		if !bytes.Equal(persist(t, j.m), persist(t, after)) {
			t.Errorf("%T changed something", c)
		}
	}
	low := allows(LevelFirst, LevelFirst+1, txn.Presume{})
	if !errors.Is(low, ErrLevel) || !strings.Contains(low.Error(), "needs level 2, the cluster has 1") {
		t.Error(low)
	}
}

// TestASnapshotOfANewerBinaryStopsTheNode holds that a binary which was put back in place
// of a newer one stops, and says what to do, where it finds a snapshot that it can't
// read: Raft would go on to an older one.
func TestASnapshotOfANewerBinaryStopsTheNode(t *testing.T) {
	newer := records(t, persist(t, lively(t).m))
	newer[0].GetHeader().Version = uint32(Newest + 1)
	var halted error
	m := New(Options{Halt: func(err error) { halted = err }})
	err := restore(m, join(newer))
	if halted == nil || !errors.Is(err, halted) || !strings.Contains(halted.Error(), "upgrade decree on this node") {
		t.Errorf("halted with %v, answered %v", halted, err)
	}
	if m.AppliedIndex() != 0 {
		t.Error("it was restored")
	}
}
