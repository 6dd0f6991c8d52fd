package coordinator

// R15: after a restore nothing that may have been decided is presumed. Prepared branches
// wait, whoever asks or retries is told that nobody knows, what the backup holds
// undecided is left alone, and all of it is listed with what the participants can prove.
// An operator's decision then reaches every branch.

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// backup is what the log holds at some moment.
type backup struct {
	cluster txn.Cluster
	state   map[txn.TxID]*txn.Transaction
}

func (r *rig) save() backup {
	r.stored(txn.TxID{}) // all is quiet
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return backup{r.log.cluster, maps.Clone(r.log.state)}
}

// restore has the cluster begin again from a backup.
func (r *rig) restore(b backup) {
	r.t.Helper()
	r.depose()
	until := txn.Time(time.Now().UnixNano()).Add(txn.MaxSkew)
	cluster, err := b.cluster.Reopen(txn.Restored{Epoch: r.epoch + 1000, Until: until})
	if err != nil {
		r.t.Fatal(err)
	}
	r.log.mu.Lock()
	r.log.cluster, r.log.state = cluster, b.state
	r.log.mu.Unlock()
	r.epoch = cluster.Epoch
	r.lead()
}

func (r *rig) status(name string, id txn.TxID, number int) participants.Status {
	return r.fakes[name].State(r.branch(id, number))
}

func TestNothingIsPresumedAfterARestore(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		before := r.id()
		res, err := r.run(background, transfer(before, "a", "b"))
		r.mustDecide(res, err, txn.Commit)

		// It is undecided in the backup, and commits afterwards.
		held := r.id()
		hold := make(chan struct{})
		r.fakes["b"].Script(prepareOp, held, participanttest.Answer{Hold: hold})
		waiting := r.submit(background, transfer(held, "a", "b"))
		time.Sleep(time.Second) // it is staged
		b := r.save()
		close(hold)
		<-waiting.done
		r.mustDecide(waiting.result, waiting.err, txn.Commit)

		// It is not in the backup at all, and half of it has committed.
		lost := r.id()
		r.fakes["b"].Script(commitOp, lost, participanttest.Answer{Fate: participanttest.Dropped, Stay: true})
		s := transfer(lost, "a", "b")
		s.Wait = WaitDecision
		res, err = r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Second)

		// Of this one nobody knows anything but that it is prepared.
		orphan := r.branch(r.id(), 1)
		orphan.Epoch = r.epoch
		r.fakes["c"].Stage(orphan)

		r.restore(b)
		r.fakes["b"].Unscript(commitOp, lost)
		ids := []txn.TxID{held, lost, orphan.TxID}
		time.Sleep(3*r.c.cfg.ScanInterval + s.Timeout)
		for _, id := range ids {
			for _, name := range []string{"a", "b", "c"} {
				if n := r.fakes[name].Count(abortOp, id); n != 0 {
					t.Errorf("%s: %s was told %d times to abort", id, name, n)
				}
			}
			r.isLost(id)
		}
		for name, id := range map[string]txn.TxID{"b": lost, "c": orphan.TxID} {
			if got := r.status(name, id, map[string]int{"b": 2, "c": 1}[name]); got != participants.StatusPrepared {
				t.Errorf("the branch at %s is %s", name, got)
			}
		}
		if res, err := r.run(background, transfer(before, "a", "b")); err != nil || res.Decision() != txn.Commit {
			t.Errorf("a retry of what the backup knows: %v", err)
		}

		list, away, more, err := r.c.Unresolved(background)
		if err != nil || len(away) != 0 || more || len(list) != 3 {
			t.Fatalf("%d listed, away %v, more %t, %v", len(list), away, more, err)
		}
		for i, id := range ids {
			if list[i].ID != id || (list[i].Transaction != nil) != (id == held) {
				t.Errorf("%d: %+v", i, list[i])
			}
		}
		r.wantEvidence(held, txn.Commit, Evidence{"a", 1, participants.StatusCommitted, nil}, Evidence{"b", 2, participants.StatusCommitted, nil})
		r.wantEvidence(lost, txn.Commit, Evidence{"a", 1, participants.StatusCommitted, nil}, Evidence{"b", 2, participants.StatusPrepared, nil})
		r.wantEvidence(orphan.TxID, txn.Undecided, Evidence{"c", 1, participants.StatusPrepared, nil})

		r.arbitrate(txn.Commit, held, lost)
		r.arbitrate(txn.Abort, orphan.TxID)
		time.Sleep(time.Second)
		if got := r.status("b", lost, 2); got != participants.StatusCommitted {
			t.Errorf("what an operator committed is %s", got)
		}
		if got := r.status("c", orphan.TxID, 1); got != participants.StatusAborted {
			t.Errorf("what an operator aborted is %s", got)
		}
		if tx := r.stored(held); tx.State != txn.Committed || tx.Damage() != txn.ReceiptNone {
			t.Errorf("what was undecided in the backup ended %s, damage %s", tx.State, tx.Damage())
		}
		if list, _, _, err := r.c.Unresolved(background); err != nil || len(list) != 0 {
			t.Errorf("still listed: %v %v", list, err)
		}
		if res, err := r.c.Inquire(background, lost); err != nil || res.Decision() != txn.Commit {
			t.Errorf("an inquiry after the decision: %v", err)
		}

		time.Sleep(txn.MaxSkew)
		res, err = r.run(background, transfer(r.id(), "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if _, err := r.c.Arbitrate(background, []txn.Command{txn.Arbitrate{ID: r.id(), Decision: txn.Commit}}); !errors.Is(err, txn.ErrNotLost) {
			t.Errorf("a decision of what the cluster decides: %v", err)
		}
	})
}

// isLost holds that nobody is told an outcome, and that nothing is run.
func (r *rig) isLost(id txn.TxID) {
	r.t.Helper()
	calls := map[string]func() error{
		"submit":  func() error { _, err := r.run(background, transfer(id, "a", "b")); return err },
		"begin":   func() error { _, err := r.c.Begin(background, id, time.Minute); return err },
		"enlist":  func() error { _, err := r.c.Enlist(background, id, txn.NewBranch("c", nil)); return err },
		"commit":  func() error { _, err := r.c.Commit(background, id, nil, WaitDecision); return err },
		"abort":   func() error { _, err := r.c.Abort(background, id, "", WaitDecision); return err },
		"inquire": func() error { _, err := r.c.Inquire(background, id); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, txn.ErrLost) {
			r.t.Errorf("%s of %s: %v", name, id, err)
		}
	}
}

func (r *rig) wantEvidence(id txn.TxID, decided txn.Decision, want ...Evidence) {
	r.t.Helper()
	u, err := r.c.Evidence(background, id)
	if err != nil {
		r.t.Fatal(err)
	}
	if u.Decided() != decided || len(u.Evidence) != len(want) {
		r.t.Errorf("%s: decided %s by %+v", id, u.Decided(), u.Evidence)
		return
	}
	for i, e := range want {
		if u.Evidence[i] != e {
			r.t.Errorf("%s: %+v, want %+v", id, u.Evidence[i], e)
		}
	}
}

func (r *rig) arbitrate(d txn.Decision, ids ...txn.TxID) {
	r.t.Helper()
	var commands []txn.Command
	for _, id := range ids {
		commands = append(commands, txn.Arbitrate{ID: id, Decision: d, Detail: "ann: as the bank's books have it"})
	}
	decided, err := r.c.Arbitrate(background, commands)
	if err != nil || len(decided) != len(ids) {
		r.t.Fatalf("%d decided, %v", len(decided), err)
	}
	for i, tx := range decided {
		if tx.ID != ids[i] || tx.Decision() != d {
			r.t.Errorf("%s is decided %s", tx.ID, tx.Decision())
		}
	}
}

// What is held for an operator is not forgotten by its participants: the horizon that
// they are told does not pass it.
func TestHorizonWaitsForWhatIsHeld(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		hold := make(chan struct{})
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Hold: hold})
		waiting := r.submit(background, transfer(id, "a", "b"))
		time.Sleep(time.Second) // it is staged
		b := r.save()
		close(hold)
		<-waiting.done
		b.cluster.Horizon = id.Time().Add(time.Hour)
		r.restore(b)
		time.Sleep(time.Second)
		term := r.c.current()
		term.mu.Lock()
		told := term.lane("a").branch(r.id(), 1, txn.Branch{}).Horizon
		term.mu.Unlock()
		if told > id.Time() {
			t.Errorf("a participant is told the horizon %s, and holds a branch of %s", told.Std(), id.Time().Std())
		}
	})
}

// R3: an operator's question ends with the term that it was put to, and so does one
// whose participant does not answer.
func TestUnresolvedEndsWithItsTerm(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		time.Sleep(time.Second) // the first scan is over
		r.fakes["a"].Script(participanttest.Recover, participanttest.AnyTx, participanttest.Answer{Hold: make(chan struct{})})
		told := make(chan error, 1)
		go func() {
			_, _, _, err := r.c.Unresolved(background)
			told <- err
		}()
		time.Sleep(time.Second)
		r.depose()
		if err := <-told; err == nil {
			t.Error("it was answered although its term was over")
		}
		if _, _, _, err := r.c.Unresolved(background); !errors.Is(err, ErrNotLeader) {
			t.Errorf("after the term: %v", err)
		}
		r.lead()
	})
}

// A participant that keeps no record of ends still shows what it holds prepared.
func TestEvidenceOfAListAlone(t *testing.T) {
	hidden := func(d participants.Driver) participants.Driver { return unrecorded{d} }
	play(t, Config{}, false, hidden, func(r *rig) {
		b := r.save()
		orphan := r.branch(r.id(), 3)
		orphan.Epoch = r.epoch
		r.fakes["c"].Stage(orphan)
		r.restore(b)
		u, err := r.c.Evidence(background, orphan.TxID)
		if err != nil || len(u.Evidence) != 3 {
			t.Fatalf("%+v, %v", u.Evidence, err)
		}
		if u.Evidence[2] != (Evidence{"c", 3, participants.StatusPrepared, nil}) || !errors.Is(u.Evidence[0].Err, errNoEvidence) {
			t.Errorf("%+v", u.Evidence)
		}
		r.arbitrate(txn.Abort, orphan.TxID)
	})
}

// unrecorded hides the participants' record of ends.
type unrecorded struct{ participants.Driver }

func (d unrecorded) Open(ctx context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	p, err := d.Driver.Open(ctx, r, log)
	return struct{ participants.Participant }{p}, err
}

// What a participant holds that cannot list it no scan finds: an operator's decision
// reaches it all the same, and once more when it is said once more (R10, R15).
func TestAnOperatorReachesWhatCannotBeListed(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.fakes["c"].Mute(true)
		b := r.save()
		var lost []participants.Branch
		for number := 1; number <= 3; number++ {
			branch := r.branch(r.id(), number)
			branch.Epoch = r.epoch
			r.fakes["c"].Stage(branch)
			lost = append(lost, branch)
		}
		r.restore(b)
		r.wantEvidence(lost[0].TxID, txn.Undecided, Evidence{"c", 1, participants.StatusPrepared, nil})
		r.fakes["c"].Script(commitOp, lost[2].TxID, participanttest.Answer{Fate: participanttest.Dropped})
		r.arbitrate(txn.Abort, lost[0].TxID)
		r.arbitrate(txn.Commit, lost[1].TxID, lost[2].TxID)
		want := []participants.Status{participants.StatusAborted, participants.StatusCommitted, participants.StatusPrepared}
		for i, branch := range lost {
			if got := r.status("c", branch.TxID, branch.Number); got != want[i] {
				t.Errorf("branch %d is %s, want %s", branch.Number, got, want[i])
			}
		}
		r.wantEvidence(lost[2].TxID, txn.Undecided, Evidence{"c", 3, participants.StatusPrepared, nil})
		r.arbitrate(txn.Commit, lost[2].TxID)
		if got := r.status("c", lost[2].TxID, 3); got != participants.StatusCommitted {
			t.Errorf("a decision that is said once more leaves the branch %s", got)
		}
	})
}
