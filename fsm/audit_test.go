package fsm

// The audit trail: who did what and why, in the log's order, bounded, on every node and in
// every snapshot.

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// newAuditedJournal is at the newest level.
func newAuditedJournal(t tester) *journal {
	t.Helper()
	j := newJournal(t)
	j.must(RaiseLevel{Level: Newest})
	return j
}

func note(n int) Audited {
	return Audited{Who: "ann", Action: "add node", Target: fmt.Sprint("n", n), Why: "growth"}
}

// TestWhatOperatorsDoIsRecorded holds that the action and its record are one entry, that
// what was refused is recorded as such, and that a snapshot has it all.
func TestWhatOperatorsDoIsRecorded(t *testing.T) {
	j := newAuditedJournal(t)
	j.now = j.now.Add(time.Minute)
	put := j.must(Audited{Who: "ann", Action: "put participant", Target: "taxi", Detail: "driver sim", Why: "more rides", Command: put("taxi")})
	if put.Participant == nil || put.Participant.Name != "taxi" {
		t.Errorf("answered %+v", put)
	}
	if _, ok := j.m.Participant("taxi"); !ok {
		t.Error("the participant is not registered")
	}
	refused := j.apply(Audited{Who: "bob", Action: "delete participant", Target: "nobody", Command: DeleteParticipant{Name: "nobody"}})[0]
	if !errors.Is(refused.Err, ErrUnknownParticipant) {
		t.Errorf("answered %+v", refused)
	}
	j.must(note(4))

	restored := newMachine(t)
	if err := restore(restored, persist(t, j.m)); err != nil {
		t.Fatal(err)
	}
	want := []Audit{
		{Number: 3, Index: j.index, Epoch: 1, At: j.now, Who: "ann", Action: "add node", Target: "n4", Why: "growth"},
		{Number: 2, Index: j.index - 1, Epoch: 1, At: j.now, Who: "bob", Action: "delete participant", Target: "nobody", Refused: true},
		{Number: 1, Index: j.index - 2, Epoch: 1, At: j.now, Who: "ann", Action: "put participant", Target: "taxi", Detail: "driver sim", Why: "more rides"},
	}
	for _, m := range []*Machine{j.m, restored} {
		if got, more := m.Trail(0, 0, 0); !slices.Equal(got, want) || more {
			t.Errorf("more %t\n got %+v\nwant %+v", more, got, want)
		}
	}
}

// TestResolvedBranchesLetGo holds R10 and R14: what is stuck keeps its participant and its
// damage keeps the transaction, until an operator has resolved every such branch; then the
// one can be deleted and the other grows old.
func TestResolvedBranchesLetGo(t *testing.T) {
	j := newAuditedJournal(t)
	stuck, damaged := idAt(j.now, 1), idAt(j.now, 2)
	for _, id := range []txn.TxID{stuck, damaged} {
		j.must(
			txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank", nil), txn.NewBranch("shop", nil)}, Timeout: time.Second},
			txn.Decide{ID: id, Decision: txn.Commit},
		)
	}
	j.must(txn.Acknowledge{ID: damaged, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.HeuristicHazard}, {Branch: 2, Receipt: txn.HeuristicAbort}}})
	if err := j.apply(DeleteParticipant{Name: "shop"})[0].Err; !errors.Is(err, ErrParticipantInUse) {
		t.Errorf("deleted with %v", err)
	}
	resolve := func(id txn.TxID, branch int, as txn.Decision) Result {
		return j.must(Audited{Who: "ann", Action: "resolve", Command: txn.Resolve{ID: id, Branch: branch, As: as}})
	}
	if r := resolve(stuck, 2, txn.Abort); r.Transaction.State != txn.Committing || len(r.Due) != 0 {
		t.Errorf("answered %+v", r)
	}
	j.must(DeleteParticipant{Name: "shop"}) // although the transaction goes on at the bank
	collect := func() int {
		j.now = j.now.Add(time.Hour)
		h := j.header()
		h.Horizon = j.now
		return j.write(h, Collect{Limit: 10}).Results[0].Collected
	}
	resolve(damaged, 1, txn.Commit)
	if n := collect(); n != 0 {
		t.Errorf("%d forgotten, and one branch is not resolved", n)
	}
	if page, _, _ := j.m.List(Query{Damaged: true}); len(page) != 1 || page[0].ID != damaged {
		t.Errorf("damaged: %v", page)
	}
	if r := resolve(damaged, 2, txn.Abort); r.Transaction.Damage() != txn.HeuristicAbort {
		t.Errorf("the damage is no more a fact: %+v", r.Transaction)
	}
	if page, _, _ := j.m.List(Query{Damaged: true}); len(page) != 0 || j.m.Stats().Damaged != 0 {
		t.Errorf("damaged: %v", page)
	}
	checkIndices(t, j.m)
	restored := newMachine(t)
	if err := restore(restored, persist(t, j.m)); err != nil {
		t.Fatal(err)
	}
	checkIndices(t, restored)
	if tx, _ := restored.Transaction(damaged); tx.Branches[0].Resolved != txn.Commit || tx.Branches[0].Receipt != txn.HeuristicHazard {
		t.Errorf("restored %+v", tx)
	}
	if n := collect(); n != 1 {
		t.Errorf("%d forgotten, want the resolved one", n)
	}
}

// TestTheTrailIsPaged reads it in pages, and what came since.
func TestTheTrailIsPaged(t *testing.T) {
	j := newAuditedJournal(t)
	if page, more := j.m.Trail(0, 0, 10); len(page) != 0 || more {
		t.Errorf("an empty trail has %v", page)
	}
	for n := range 25 {
		j.must(note(n))
	}
	for _, c := range []struct {
		after, before uint64
		limit         int
		first, last   uint64
		more          bool
	}{
		{0, 0, 10, 25, 16, true},
		{0, 16, 10, 15, 6, true},
		{0, 6, 10, 5, 1, false},
		{20, 0, 10, 25, 21, false},
		{20, 0, 3, 25, 23, true},
		{0, 99, 1, 25, 25, true},
		{25, 0, 10, 0, 0, false},
		{0, 1, 10, 0, 0, false},
	} {
		page, more := j.m.Trail(c.after, c.before, c.limit)
		var first, last uint64
		if len(page) > 0 {
			first, last = page[0].Number, page[len(page)-1].Number
		}
		if first != c.first || last != c.last || more != c.more {
			t.Errorf("%+v gives %d to %d, more %t", c, first, last, more)
		}
	}
}

// TestTheTrailIsBounded holds R14 for it: in number, in age, and in what the garbage
// collector has to look at. The last record stays, so that numbers go on after a restore.
func TestTheTrailIsBounded(t *testing.T) {
	j := newAuditedJournal(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for n := range MaxAudits + 10 {
		j.now++
		j.must(note(n))
	}
	j.logs = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := len(j.m.state.audits.records); n != MaxAudits {
		t.Errorf("%d records, at most %d", n, MaxAudits)
	}
	if objects := int(after.HeapObjects) - int(before.HeapObjects); objects > MaxAudits*3/2 {
		t.Errorf("%d objects for %d records", objects, MaxAudits)
	}
	oldest, _ := j.m.Trail(0, 12, 1)
	if len(oldest) != 1 || oldest[0].Number != 11 {
		t.Errorf("the oldest is %+v, want number 11", oldest)
	}
	runtime.KeepAlive(j)

	j.now = j.now.Add(AuditAge + time.Hour)
	j.must(note(0))
	if page, more := j.m.Trail(0, 0, 10); len(page) != 1 || more || page[0].Number != MaxAudits+11 {
		t.Errorf("a year later: %+v, more %t", page, more)
	}
	restored := newMachine(t)
	if err := restore(restored, persist(t, j.m)); err != nil {
		t.Fatal(err)
	}
	restored.Apply(j.log(0, encoded(t, j, note(1))))
	if page, _ := restored.Trail(0, 0, 1); len(page) != 1 || page[0].Number != MaxAudits+12 {
		t.Errorf("after a restore it goes on with %+v", page)
	}
}

func encoded(t tester, j *journal, c Command) []byte {
	t.Helper()
	b, err := Encode(Entry{Header: j.header(), Commands: []Command{c}})
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	return b
}

// TestReadersOfTheTrailSeeOneState reads and takes snapshots while records come. Run it
// with the race detector.
func TestReadersOfTheTrailSeeOneState(t *testing.T) {
	j := newAuditedJournal(t)
	done := make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			select {
			case <-done:
				return
			default:
			}
			page, _ := j.m.Trail(0, 0, 1000)
			for i, r := range page {
				if r.Number != uint64(len(page)-i) || r.Who != "ann" {
					t.Errorf("record %d is %+v", len(page)-i, r)
					return
				}
			}
		}
	}()
	var last []byte
	for n := range 300 {
		j.must(note(n))
		last = persist(t, j.m)
	}
	close(done)
	<-read
	if err := restore(newMachine(t), last); err != nil {
		t.Error(err)
	}
}

// TestWrongTrailsAreRefused changes a snapshot's records.
func TestWrongTrailsAreRefused(t *testing.T) {
	j := newAuditedJournal(t)
	j.must(note(1), note(2))
	j.finish(idAt(j.now, 1), 1)
	good := persist(t, j.m)
	const audits, transaction = 4, 6 // where they begin
	type list = []*fsmpb.Record
	for name, c := range map[string]struct {
		change func(list) list
		want   string
	}{
		"twice":             {func(r list) list { return append(r[:5:5], r[4:]...) }, "comes after"},
		"a gap":             {func(r list) list { r[audits+1].GetAudit().Number = 7; return r }, "record 7 comes after 1"},
		"number 0":          {func(r list) list { r[audits].GetAudit().Number = 0; return r }, "record 0"},
		"time":              {func(r list) list { r[audits].GetAudit().Time = -1; return r }, "time -1"},
		"nobody":            {func(r list) list { r[audits].GetAudit().Who = ""; return r }, "somebody"},
		"unknown":           {func(r list) list { unknown(r[audits].GetAudit(), []byte{0x98, 6, 1}); return r }, "unknown fields in Audit"},
		"lost":              {func(r list) list { return append(r[:5:5], r[6:]...) }, "counts 2 audit records, there are 1"},
		"after transaction": {func(r list) list { r[5], r[transaction] = r[transaction], r[5]; return r }, "after a transaction"},
		"after participant": {func(r list) list { r[3], r[4] = r[4], r[3]; return r }, "an audit record"},
	} {
		err := restore(newMachine(t), join(c.change(records(t, good))))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	many := records(t, good)[:audits]
	for n := range MaxAudits + 1 {
		many = append(many, &fsmpb.Record{Kind: &fsmpb.Record_Audit{Audit: &fsmpb.Audit{Number: uint64(n + 1), Who: "ann", Action: "a"}}})
	}
	if err := restore(newMachine(t), join(many)); err == nil || !strings.Contains(err.Error(), "more than 10000 audit records") {
		t.Error(err)
	}
	if !bytes.Equal(join(records(t, good)), good) {
		t.Error("the test takes snapshots apart wrongly")
	}
}
