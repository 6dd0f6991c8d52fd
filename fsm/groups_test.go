package fsm

// What is proven here: a cluster is told once which group it is, before it can have heard
// of a transaction; from then on nothing makes a transaction of another group's txid, or
// presumes one aborted (R1, R6, R11), on any node, whatever was restored in between (R12).

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
)

// founded is a cluster of the newest level that has a leader and nothing else.
func founded(t tester) *journal {
	t.Helper()
	j := &journal{t: t, m: newMachine(t), now: beginning}
	j.lead()
	j.must(RaiseLevel{Level: Newest})
	return j
}

// grouped is one that was told a group, and has participants.
func grouped(t tester, g group.Group) *journal {
	t.Helper()
	j := founded(t)
	j.must(SetGroup{g})
	j.must(put("bank"), put("hotel"), put("shop"))
	return j
}

var second = group.Group{Number: 2, Of: 3}

// idOf makes an id of a group, of this many.
func idOf(at txn.Time, g group.Group) txn.TxID {
	for n := 0; ; n++ {
		if id := idAt(at, n); g.Takes(id) {
			return id
		}
	}
}

func TestAGroupRefusesWhatIsAnothers(t *testing.T) {
	j := grouped(t, second)
	before := persist(t, j.m)
	foreign := idOf(j.now, group.Group{Number: 1, Of: 3})
	work := []txn.Branch{txn.NewBranch("bank", nil)}
	for _, c := range []Command{
		txn.Stage{ID: foreign, Branches: work, Timeout: time.Second},
		txn.Stage{ID: foreign, Interactive: true, Timeout: time.Second},
		txn.Enlist{ID: foreign, Branch: work[0]},
		txn.Prepare{ID: foreign},
		txn.Decide{ID: foreign, Decision: txn.Commit},
		txn.Decide{ID: foreign, Decision: txn.Abort, Reason: txn.TimeIsUp},
		txn.Decide{ID: foreign, Decision: txn.Abort, Reason: txn.TimeIsUp, Branches: work},
		txn.Presume{ID: foreign},
		txn.Arbitrate{ID: foreign, Decision: txn.Commit},
		txn.Acknowledge{ID: foreign},
		txn.Resolve{ID: foreign, Branch: 1, As: txn.Commit},
	} {
		r := j.apply(c)[0]
		if !errors.Is(r.Err, txn.ErrOtherGroup) || !strings.Contains(r.Err.Error(), "group 1 of 3, and this cluster is group 2") {
			t.Errorf("%T: %v", c, r.Err)
		}
	}
	after := newMachine(t)
	if err := restore(after, before); err != nil {
		t.Fatal(err)
	}
	after.state.index = j.m.state.index
	if !bytes.Equal(persist(t, j.m), persist(t, after)) {
		t.Error("a refusal changed something")
	}
	if own := j.finish(idOf(j.now, second), txn.Done); own.State != txn.Committed {
		t.Errorf("its own transaction is %s", own.State)
	}
}

// TestTheGroupHoldsFromItsOwnCommandOn sets it and stages in one entry: the writer packs
// the commands of many callers.
func TestTheGroupHoldsFromItsOwnCommandOn(t *testing.T) {
	j := founded(t)
	foreign := idOf(j.now, group.Group{Number: 3, Of: 3})
	r := j.apply(SetGroup{second}, txn.Stage{ID: foreign, Interactive: true, Timeout: time.Second})
	if r[0].Err != nil || !errors.Is(r[1].Err, txn.ErrOtherGroup) {
		t.Errorf("%v, %v", r[0].Err, r[1].Err)
	}
}

func TestAGroupIsToldOnce(t *testing.T) {
	j := founded(t)
	audited := Audited{Who: "ann", Action: "set group", Command: SetGroup{second}}
	j.must(audited, audited)
	for _, other := range []group.Group{{Number: 1, Of: 3}, {Number: 2, Of: 4}, {Number: 1, Of: 1}} {
		if r := j.apply(SetGroup{other})[0]; !errors.Is(r.Err, ErrGroupStays) || !strings.Contains(r.Err.Error(), "this is group 2 of 3") {
			t.Errorf("%s: %v", other, r.Err)
		}
	}
	j.must(put("bank"))
	j.finish(idOf(j.now, second), txn.Done)
	j.must(audited) // the same again, however late
	if page, _ := j.m.Trail(0, 0, 10); len(page) != 3 || page[0].Refused {
		t.Errorf("the audit trail has %+v", page)
	}
}

// TestTooLateForAGroup holds that no cluster becomes one that may have decided, or
// prepared, anything: registered a participant, though it be gone again; staged an
// interactive transaction, or presumed one aborted, with no participant; or lost its
// memory of what it did.
func TestTooLateForAGroup(t *testing.T) {
	for name, do := range map[string]func(j *journal){
		"a participant":         func(j *journal) { j.must(put("bank")) },
		"a participant deleted": func(j *journal) { j.must(put("bank"), DeleteParticipant{Name: "bank"}) },
		"an open transaction":   func(j *journal) { j.must(txn.Stage{ID: idAt(j.now, 1), Interactive: true, Timeout: time.Second}) },
		"a presumed abort":      func(j *journal) { j.must(txn.Presume{ID: idAt(j.now, 1)}) },
		"a forgotten transaction": func(j *journal) {
			j.must(put("bank"))
			j.finish(idAt(j.now, 1), txn.Done)
			j.now = j.now.Add(time.Hour)
			h := j.header()
			h.Horizon = j.now
			j.write(h, Collect{Limit: 10}, DeleteParticipant{Name: "bank"})
			if n := j.m.Stats().Retained; n != 0 {
				t.Fatalf("%d transactions are left", n)
			}
		},
		"a restore": func(j *journal) {
			j.term = 100
			if err := j.m.Reopen(txn.Restored{Epoch: j.term, Until: j.now.Add(txn.MaxSkew)}); err != nil {
				t.Fatal(err)
			}
			j.lead()
		},
	} {
		j := founded(t)
		do(j)
		restored := newMachine(t)
		if err := restore(restored, persist(t, j.m)); err != nil {
			t.Fatal(err)
		}
		for which, m := range map[string]*Machine{"": j.m, ", in a snapshot": restored} {
			j.m = m
			if r := j.apply(SetGroup{second})[0]; !errors.Is(r.Err, ErrTooLateForGroup) {
				t.Errorf("%s%s: %v", name, which, r.Err)
			}
			if g := m.Cluster().Group; g != (group.Group{}) {
				t.Errorf("%s%s: it is %s", name, which, g)
			}
			j.index--
		}
	}
}

// TestSnapshotsKeepTheGroup holds that it survives a snapshot and a restore from a backup,
// and that a snapshot of nonsense is refused.
func TestSnapshotsKeepTheGroup(t *testing.T) {
	j := grouped(t, second)
	snapshot := persist(t, j.m)
	m := newMachine(t)
	if err := restore(m, snapshot); err != nil || m.Cluster().Group != second || !bytes.Equal(persist(t, m), snapshot) {
		t.Errorf("restored as %+v, %v", m.Cluster(), err)
	}
	if err := m.Reopen(txn.Restored{Epoch: 9, Until: j.now}); err != nil || m.Cluster().Group != second {
		t.Errorf("reopened as %+v, %v", m.Cluster(), err)
	}
	for want, change := range map[string]func(h *fsmpb.Header){
		"at level 6, which needs 7": func(h *fsmpb.Header) { h.Version = uint32(LevelResolve) },
		"group 4 of 3":              func(h *fsmpb.Header) { h.Group.Number = 4 },
		"of 0 groups":               func(h *fsmpb.Header) { h.Group.Of = 0 },
		"or a group, without":       func(h *fsmpb.Header) { *h = fsmpb.Header{Version: h.Version, Group: h.Group} }, //nolint:govet // a test's
	} {
		list := records(t, snapshot)
		change(list[0].GetHeader())
		if err := restore(newMachine(t), join(list)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestNoTransactionOfAnotherGroup plays random logs, and holds that every transaction
// which is in the state is the group's own, and that a restored node agrees.
func TestNoTransactionOfAnotherGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := group.Group{Of: rapid.IntRange(1, 4).Draw(t, "groups")}
		g.Number = rapid.IntRange(1, g.Of).Draw(t, "group")
		j := grouped(t, g)
		for range rapid.IntRange(1, 25).Draw(t, "entries") {
			j.drawOrReopen(t)
		}
		if j.m.Cluster().Group != g {
			t.Fatalf("it has become %s", j.m.Cluster().Group)
		}
		j.m.state.transactions.ascend(func(i item) bool {
			if !g.Takes(i.id) {
				t.Fatalf("%s has %s", g, i.id)
			}
			return true
		})
		again := newMachine(t)
		if err := restore(again, persist(t, j.m)); err != nil || !bytes.Equal(persist(t, again), persist(t, j.m)) {
			t.Fatalf("the restored state differs (%v)", err)
		}
	})
}

// TestTheGroupsGoldenBytes holds the bytes of the command, for all binaries to come.
func TestTheGroupsGoldenBytes(t *testing.T) {
	b, err := Encode(Entry{Header: txn.Header{Epoch: 1, Time: 2}, Commands: []Command{SetGroup{second}}})
	const want = "080710011802" + "2a09" + "820106" + "0a04" + "0802" + "1003"
	if got := fmt.Sprintf("%x", b); err != nil || got != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
}
