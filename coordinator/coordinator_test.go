package coordinator

// What the coordinator does with votes, time, a log that answers late or not at
// all, and participants that misbehave. Each test tells one story in virtual
// time; the names of the rules are those of the design.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

const (
	prepareOp = participanttest.Prepare
	commitOp  = participanttest.Commit
	abortOp   = participanttest.Abort
)

var background = context.Background()

func TestAllYesCommits(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if !res.Delivered {
			t.Error("the answer came before delivery")
		}
		r.wantCalls("a", id, prepareOp, commitOp)
		r.wantCalls("b", id, prepareOp, commitOp)
		r.wantCalls("c", id)

		time.Sleep(time.Second) // virtual: the receipts are logged in their own time
		if tx := r.stored(id); tx.State != txn.Committed {
			t.Errorf("the log says %s", tx.State)
		}
		if got := r.driven(); got != 0 {
			t.Errorf("%d transactions still driven", got)
		}
	})
}

// R2: what a participant hears in phase two has been applied before.
func TestNoCommitBeforeItsEntryIsApplied(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.latency = time.Second
		r.fakes["a"].OnCommit(func(participants.Branch) {
			if tx, ok := r.log.Transaction(id); !ok || tx.Decision() != txn.Commit {
				t.Error("a was told to commit before the decision was applied")
			}
		})
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
	})
}

// R2: where every branch only reads there is no phase two, and the client still waits
// for the decision's entry.
func TestReadOnlyIsAnsweredOnceItIsApplied(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.latency = time.Second
		for _, name := range []string{"a", "b"} {
			// The votes come while staging is on its way, so that the decision has an entry of its own.
			r.fakes[name].Script(prepareOp, id, participanttest.Answer{Vote: participants.ReadOnly(), Delay: r.log.latency / 2})
		}
		began := time.Now()
		s := transfer(id, "a", "b")
		s.Wait = WaitDecision
		res, err := r.run(background, s)
		r.mustDecide(res, err, txn.Commit)
		if took := time.Since(began); took < 2*r.log.latency {
			t.Errorf("answered after %s, before the second of two entries", took)
		}
	})
}

// R4 and R8: one no is enough, and the abort reaches whoever voted it too.
func TestOneNoAbortsAll(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Vote: participants.No("balance too low")})
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		want := txn.Reason{Code: txn.ReasonVote, Branch: 2, Detail: "balance too low"}
		if res.Transaction.Reason != want {
			t.Errorf("reason %s, want %s", res.Transaction.Reason, want)
		}
		r.wantCalls("a", id, prepareOp, abortOp)
		r.wantCalls("b", id, prepareOp, abortOp)
	})
}

// R8: an ambiguous answer counts as a no, and is fenced by the abort.
func TestAmbiguousPrepareAborts(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Err: errors.New("connection reset")}) // carried out, answer lost
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		if res.Transaction.Reason.Code != txn.ReasonUnavailable {
			t.Errorf("reason %s", res.Transaction.Reason)
		}
		if s := r.fakes["b"].State(r.branch(id, 2)); s != participants.StatusAborted {
			t.Errorf("b holds the branch as %s", s)
		}
	})
}

// R1 and R2: the timeout races the last vote: it only proposes an abort, and loses against a
// vote that came a nanosecond earlier.
func TestTimeoutRacesLastVote(t *testing.T) {
	const timeout = 10 * time.Second
	for _, c := range []struct {
		after time.Duration
		want  txn.Decision
	}{{timeout - 1, txn.Commit}, {timeout + 1, txn.Abort}} {
		t.Run(c.want.String(), func(t *testing.T) {
			run(t, Config{PrepareTimeout: time.Minute}, func(r *rig) {
				id := r.id()
				r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Delay: c.after})
				res, err := r.run(background, transfer(id, "a", "b"))
				r.mustDecide(res, err, c.want)
			})
		})
	}
}

// R4: prepares leave before staging is applied only where every participant can
// list what it holds prepared.
func TestStagingPrecedesPreparesOfWhoCannotList(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.log.latency = time.Second
		early := r.id()
		w := r.submit(background, transfer(early, "a", "b"))
		synctest.Wait()
		r.wantCalls("a", early, prepareOp)
		if _, staged := r.log.Transaction(early); staged {
			t.Error("staged already: this test proves nothing")
		}
		<-w.done

		r.fakes["b"].Mute(true)
		late := r.id()
		w = r.submit(background, transfer(late, "a", "b"))
		synctest.Wait()
		r.wantCalls("a", late)
		r.wantCalls("b", late)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)
	})
}

// R4: no commit is proposed before staging is applied, however early the votes.
func TestDecisionFollowsStaging(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.latency = time.Second
		var order []string
		r.log.withFate(func(c txn.Command) fate {
			order = append(order, fmt.Sprintf("%T", c))
			return fate{}
		})
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if len(order) < 2 || order[0] != "txn.Stage" || order[1] != "txn.Decide" {
			t.Errorf("the log got %v", order)
		}
	})
}

// R4: staging refused after prepares had left: an abort is logged and delivered.
func TestRefusedStagingIsAbortedEverywhere(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		refusal := errors.New("refused")
		r.log.withFate(func(c txn.Command) fate {
			_, stage := c.(txn.Stage)
			return fate{lost: stage, err: map[bool]error{true: refusal}[stage]}
		})
		_, err := r.run(background, transfer(id, "a", "b"))
		if !errors.Is(err, refusal) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Second)
		r.wantCalls("a", id, prepareOp, abortOp)
		r.wantCalls("b", id, prepareOp, abortOp)
		if tx := r.stored(id); tx == nil || tx.State != txn.Aborted || tx.Reason.Code != txn.ReasonRefused {
			t.Errorf("the log has %+v", tx)
		}
	})
}

// R11: the same txid with the same content joins, with other content is refused,
// live or finished; and there is one run.
func TestRepeatedTxid(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		release := make(chan struct{})
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Hold: release})
		first := r.submit(background, transfer(id, "a", "b"))
		second := r.submit(background, transfer(id, "a", "b"))
		synctest.Wait()
		if _, err := r.run(background, transfer(id, "a", "c")); !errors.Is(err, txn.ErrContentMismatch) {
			t.Errorf("other content, live: %v", err)
		}
		close(release)
		<-first.done
		<-second.done
		r.mustDecide(first.result, first.err, txn.Commit)
		r.mustDecide(second.result, second.err, txn.Commit)

		time.Sleep(time.Second)
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if _, err := r.run(background, transfer(id, "a", "c")); !errors.Is(err, txn.ErrContentMismatch) {
			t.Errorf("other content, finished: %v", err)
		}
		r.wantCalls("a", id, prepareOp, commitOp)
		r.wantCalls("b", id, prepareOp, commitOp)
	})
}

// R8 and R6: an orphan is found, aborted through the log and then at its
// participant; a live branch and one that came between the lists are left alone.
func TestOrphans(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		orphan, foreign, expired := r.id(), r.id(), idAt(time.Now().Add(-48*time.Hour), 9)
		stray := func(cluster string, id txn.TxID) {
			b := participants.Branch{Cluster: cluster, TxID: id, Number: 1, Epoch: r.epoch}
			r.fakes["a"].Stage(b)
		}
		stray(r.log.ClusterID(), orphan)
		stray("another-cluster", foreign)
		stray(r.log.ClusterID(), expired)
		r.log.mu.Lock()
		r.log.cluster.Horizon = txn.Time(time.Now().Add(-24 * time.Hour).UnixNano())
		r.log.mu.Unlock()

		live := r.id()
		release := make(chan struct{})
		r.fakes["b"].Script(prepareOp, live, participanttest.Answer{Hold: release})
		s := transfer(live, "a", "b")
		s.Timeout = time.Hour
		w := r.submit(background, s)
		time.Sleep(r.c.cfg.PrepareTimeout - time.Second)
		close(release)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)

		time.Sleep(2 * r.c.cfg.ScanInterval)
		r.wantCalls("a", orphan, abortOp)
		r.wantCalls("a", foreign)
		r.wantCalls("a", expired)
		if tx, ok := r.log.Transaction(orphan); !ok || tx.State != txn.Aborted || tx.Reason.Code != txn.ReasonPresumed {
			t.Errorf("the log has %+v of the orphan", tx)
		}
	})
}

// R8: a prepare that arrives after its transaction is over and done is an orphan too,
// and hears the decision that stands.
func TestLatePrepareIsFoundByTheScan(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Vote: participants.No("no")})
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		time.Sleep(time.Second)
		r.fakes["a"].Lose(r.branch(id, 1)) // it forgot its tombstone, and the prepare came once more
		late := r.branch(id, 1)
		late.Epoch = r.epoch
		r.fakes["a"].Stage(late)
		time.Sleep(2 * r.c.cfg.ScanInterval)
		if s := r.fakes["a"].State(r.branch(id, 1)); s != participants.StatusAborted {
			t.Errorf("the late branch is %s", s)
		}
	})
}

// R9: damage is recorded as damage, told to whoever listens, and ends the delivery.
func TestHeuristicIsRecorded(t *testing.T) {
	var heard []Damage
	run(t, Config{OnDamage: func(d Damage) { heard = append(heard, d) }}, func(r *rig) {
		heard = nil
		id := r.id()
		r.fakes["b"].Script(commitOp, id, participanttest.Answer{
			Fate: participanttest.Dropped,
			Err:  &participants.Heuristic{Receipt: txn.HeuristicAbort, Detail: "rolled back by hand"},
		})
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if res.Delivered && res.Transaction.Damage() != txn.HeuristicAbort {
			t.Error("the client was told of delivery and not of the damage")
		}
		time.Sleep(time.Second)
		if tx := r.stored(id); tx.Damage() != txn.HeuristicAbort || tx.State != txn.Committed {
			t.Errorf("the log has %s, damage %s", tx.State, tx.Damage())
		}
		if want := (Damage{id, "b", 2, txn.HeuristicAbort, "rolled back by hand"}); !slices.Equal(heard, []Damage{want}) {
			t.Errorf("heard of %+v, want %+v once", heard, want)
		}
		r.wantCalls("b", id, prepareOp, commitOp)
	})
}

// A read-only branch is left out of phase two.
func TestReadOnlyBranch(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["a"].Script(prepareOp, id, participanttest.Answer{Vote: participants.ReadOnly()})
		res, err := r.run(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		r.wantCalls("a", id, prepareOp)
		r.wantCalls("b", id, prepareOp, commitOp)
	})
}
