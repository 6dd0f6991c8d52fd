package fsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// TestRevisionsChangeWithContent holds that a node opens a participant anew exactly
// when its registration has changed, and that no revision comes twice, not even
// over a deletion.
func TestRevisionsChangeWithContent(t *testing.T) {
	j := newJournal(t)
	taxi := func(driver, config string) uint64 {
		t.Helper()
		r := j.must(PutParticipant{Participant{Name: "taxi", Driver: driver, Config: []byte(config), Revision: 77}})
		if got, ok := j.m.Participant("taxi"); !ok || got.Revision != r.Participant.Revision || got.Driver != driver {
			t.Fatalf("answered %+v, reads as %+v", r.Participant, got)
		}
		return r.Participant.Revision
	}
	first := taxi("sim", "{}")
	if again := taxi("sim", "{}"); again != first {
		t.Errorf("the same registration went from revision %d to %d", first, again)
	}
	seen := []uint64{first, taxi("grpc", "{}"), taxi("grpc", `{"a":1}`)}
	j.must(DeleteParticipant{Name: "taxi"})
	if _, ok := j.m.Participant("taxi"); ok {
		t.Error("it is still there")
	}
	seen = append(seen, taxi("sim", "{}"))
	if !slices.IsSorted(seen) || len(slices.Compact(seen)) != 4 {
		t.Errorf("revisions %v", seen)
	}
}

func TestParticipantsAreListedByName(t *testing.T) {
	j := newJournal(t)
	j.must(put("airline"), put("zoo"), put("cinema"), DeleteParticipant{Name: "hotel"})
	var names []string
	for _, p := range j.m.Participants() {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "airline bank cinema shop zoo" {
		t.Errorf("%s", got)
	}
}

// TestUnknownParticipantsAreRefused holds that no branch is replicated for a
// participant that no operator registered, and that an abort is not held up by
// one: prepares have left, and its branches must hear of it (R4).
func TestUnknownParticipantsAreRefused(t *testing.T) {
	j := newJournal(t)
	id, open, adopted := idAt(j.now, 1), idAt(j.now, 2), idAt(j.now, 3)
	stage := txn.Stage{ID: id, Timeout: time.Second,
		Branches: []txn.Branch{txn.NewBranch("bank", nil), txn.NewBranch("nobody", nil), txn.NewBranch("noone", nil)}}
	j.must(txn.Stage{ID: open, Interactive: true, Timeout: time.Second})
	for _, c := range []Command{stage, txn.Enlist{ID: open, Branch: txn.NewBranch("nobody", nil)}} {
		r := j.apply(c)[0]
		if !errors.Is(r.Err, ErrUnknownParticipant) || !strings.Contains(r.Err.Error(), "nobody") {
			t.Errorf("%T: %v", c, r.Err)
		}
	}
	if r := j.apply(stage)[0]; !strings.Contains(r.Err.Error(), "nobody, noone") {
		t.Errorf("%v does not name both", r.Err)
	}
	if _, ok := j.m.Transaction(id); ok {
		t.Error("a refused staging left a transaction")
	}
	if got, _ := j.m.Transaction(open); len(got.Branches) != 0 {
		t.Error("a refused branch was enlisted")
	}
	abort := txn.Decide{ID: adopted, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonRefused}, Branches: []txn.Branch{txn.NewBranch("nobody", nil)}}
	if got := j.must(abort).Transaction; got.State != txn.Aborting || j.m.OpenAt("nobody") != 1 {
		t.Errorf("%+v, %d open", got, j.m.OpenAt("nobody"))
	}
}

// TestAParticipantInUseStays holds R10: as long as a transaction owes something to
// a participant, its registration cannot go; and that a retry of a transaction
// which ran before is answered although the participant has gone (R11).
func TestAParticipantInUseStays(t *testing.T) {
	j := newJournal(t)
	id := idAt(j.now, 1)
	stage := txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second}
	steps := []Command{
		stage,
		txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonTimeout}},
	}
	for _, c := range steps {
		j.must(c)
		r := j.apply(DeleteParticipant{Name: "bank"})[0]
		if !errors.Is(r.Err, ErrParticipantInUse) || !strings.Contains(r.Err.Error(), "bank has 1") {
			t.Errorf("after %T: %v", c, r.Err)
		}
	}
	j.must(txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}}}, DeleteParticipant{Name: "bank"})
	if r := j.apply(DeleteParticipant{Name: "bank"})[0]; !errors.Is(r.Err, ErrUnknownParticipant) {
		t.Errorf("deleted twice: %v", r.Err)
	}
	if r := j.must(stage); r.Transaction.State != txn.Aborted {
		t.Errorf("retried: %+v", r.Transaction)
	}
}

// TestAParticipantInUseStaysItsResource: while a transaction has a branch there, a
// registration can change (a password's new place, a bound) but not lead to another
// resource, where the commit would find nothing and be taken for damage (R9, R10).
// It is part of what a snapshot keeps.
func TestAParticipantInUseStaysItsResource(t *testing.T) {
	j := newJournal(t)
	at := func(driver, config, identity string) PutParticipant {
		return PutParticipant{Participant{Name: "db", Driver: driver, Config: []byte(config), Identity: identity}}
	}
	j.must(at("postgres", `{"a":1}`, "postgresql:1/orders"))
	id := idAt(j.now, 1)
	j.must(
		txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("db", nil)}, Timeout: time.Second},
		txn.Decide{ID: id, Decision: txn.Commit},
	)
	for _, elsewhere := range []PutParticipant{
		at("postgres", `{"a":1}`, "postgresql:2/orders"), at("postgres", `{"a":2}`, "postgresql:1/other"), at("kv", `{}`, ""),
	} {
		if r := j.apply(elsewhere)[0]; !errors.Is(r.Err, ErrParticipantInUse) || !strings.Contains(r.Err.Error(), "another resource") {
			t.Errorf("%+v: %v", elsewhere, r.Err)
		}
	}
	moved := j.must(at("postgres", `{"a":3}`, "postgresql:1/orders")).Participant
	if got, _ := j.m.Participant("db"); got.Identity != "postgresql:1/orders" || string(got.Config) != `{"a":3}` || got.Revision != moved.Revision {
		t.Errorf("%+v", got)
	}
	if again := j.must(at("postgres", `{"a":3}`, "postgresql:1/orders")).Participant; again.Revision != moved.Revision {
		t.Errorf("the same again is revision %d, was %d", again.Revision, moved.Revision)
	}
	j.must(txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}}}, at("postgres", `{"a":1}`, "postgresql:2/orders"))
}

// TestTheRegistryIsBounded holds R14; a change of one that is there still goes.
func TestTheRegistryIsBounded(t *testing.T) {
	j := newJournal(t)
	var commands []Command
	for i := range MaxParticipants - 3 {
		commands = append(commands, put(fmt.Sprint("p", i)))
	}
	j.must(commands...)
	if r := j.apply(put("one more"))[0]; !errors.Is(r.Err, ErrTooManyParticipants) || r.Participant != nil {
		t.Errorf("%+v", r)
	}
	j.must(PutParticipant{Participant{Name: "bank", Driver: "kv"}})
}

// TestATransactionHasRoomInASnapshot holds R14: payloads add up to a bound, one
// below what a snapshot's record can hold, however they come.
func TestATransactionHasRoomInASnapshot(t *testing.T) {
	j := newJournal(t)
	half := make([]byte, MaxTransactionBytes/2)
	id := idAt(j.now, 1)
	j.must(txn.Stage{ID: id, Interactive: true, Timeout: time.Second})
	j.must(txn.Enlist{ID: id, Branch: txn.NewBranch("bank", half)})
	j.must(txn.Enlist{ID: id, Branch: txn.NewBranch("hotel", half)})
	if r := j.apply(txn.Enlist{ID: id, Branch: txn.NewBranch("shop", []byte{1})})[0]; !errors.Is(r.Err, ErrTransactionTooLarge) {
		t.Errorf("enlisted: %v", r.Err)
	}
	branches := []txn.Branch{txn.NewBranch("bank", half), txn.NewBranch("shop", half), txn.NewBranch("hotel", []byte{1})}
	if r := j.apply(txn.Stage{ID: idAt(j.now, 2), Branches: branches, Timeout: time.Second})[0]; !errors.Is(r.Err, ErrTransactionTooLarge) {
		t.Errorf("staged: %v", r.Err)
	}
	if err := restore(newMachine(t), persist(t, j.m)); err != nil {
		t.Error(err)
	}
}
