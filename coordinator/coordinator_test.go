package coordinator

// What the coordinator does with votes, time, a log that answers late or not at
// all, and participants that misbehave. Each test tells one story in virtual
// time; the names of the rules are those of the design.

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
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
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
	})
}

func TestOneNoAbortsAll(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Vote: participants.No("balance too low")})
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		want := txn.Reason{Code: txn.ReasonVote, Branch: 2, Detail: "balance too low"}
		if res.Transaction.Reason != want {
			t.Errorf("reason %s, want %s", res.Transaction.Reason, want)
		}
		r.wantCalls("a", id, prepareOp, abortOp)
		r.wantCalls("b", id, prepareOp, abortOp)
	})
}

// An ambiguous answer counts as a no, and is fenced by the abort.
func TestAmbiguousPrepareAborts(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Err: errors.New("connection reset")}) // carried out, answer lost
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		if res.Transaction.Reason.Code != txn.ReasonUnavailable {
			t.Errorf("reason %s", res.Transaction.Reason)
		}
		if s := r.fakes["b"].State(r.branch(id, 2)); s != participants.StatusAborted {
			t.Errorf("b holds the branch as %s", s)
		}
	})
}

// The timeout races the last vote: it only proposes an abort, and loses against a
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
				res, err := r.c.Submit(background, transfer(id, "a", "b"))
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
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
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
		_, err := r.c.Submit(background, transfer(id, "a", "b"))
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

// R5: when the fate of a decision is unknown, the driver stops: the client learns
// Unknown, nobody is told anything, and after a barrier the applied state decides.
func TestUnknownDecision(t *testing.T) {
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprintf("applied=%t", applied), func(t *testing.T) {
			run(t, Config{}, func(r *rig) {
				id := r.id()
				struck := false
				r.log.withFate(func(c txn.Command) fate {
					if _, decide := c.(txn.Decide); decide && !struck {
						struck = true
						return fate{lost: !applied, err: ErrOutcomeUnknown}
					}
					return fate{}
				})
				barred := errors.New("no barrier yet")
				r.log.barrier = func() error { return barred }

				_, err := r.c.Submit(background, transfer(id, "a", "b"))
				if !errors.Is(err, ErrOutcomeUnknown) {
					t.Fatalf("got %v", err)
				}
				time.Sleep(time.Minute)
				r.wantCalls("a", id, prepareOp)
				r.wantCalls("b", id, prepareOp)

				r.log.mu.Lock()
				r.log.barrier = nil
				r.log.mu.Unlock()
				time.Sleep(time.Minute)
				tx := r.stored(id)
				want := txn.Committed
				if !applied {
					want = txn.Aborted // its time ran out behind the barrier
				}
				if tx.State != want {
					t.Errorf("ended %s, want %s", tx.State, want)
				}
			})
		})
	}
}

// R5, of staging: after the barrier shows that nothing was staged, the branches
// that prepared are aborted through the log.
func TestUnknownStagingIsCleanedUp(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.withFate(func(c txn.Command) fate {
			if _, stage := c.(txn.Stage); stage {
				return fate{lost: true, err: ErrOutcomeUnknown}
			}
			return fate{}
		})
		_, err := r.c.Submit(background, transfer(id, "a", "b"))
		if !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Minute)
		r.wantCalls("a", id, prepareOp, abortOp)
		if tx := r.stored(id); tx == nil || tx.State != txn.Aborted {
			t.Errorf("the log has %+v", tx)
		}
		r.log.withFate(nil)
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
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
		if _, err := r.c.Submit(background, transfer(id, "a", "c")); !errors.Is(err, txn.ErrContentMismatch) {
			t.Errorf("other content, live: %v", err)
		}
		close(release)
		<-first.done
		<-second.done
		r.mustDecide(first.result, first.err, txn.Commit)
		r.mustDecide(second.result, second.err, txn.Commit)

		time.Sleep(time.Second)
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if _, err := r.c.Submit(background, transfer(id, "a", "c")); !errors.Is(err, txn.ErrContentMismatch) {
			t.Errorf("other content, finished: %v", err)
		}
		r.wantCalls("a", id, prepareOp, commitOp)
		r.wantCalls("b", id, prepareOp, commitOp)
	})
}

// R10 and R11: while a commit keeps failing, nobody who submits the txid is told
// that it is delivered; the decision is told in time for the client's deadline.
func TestNotDeliveredBeforeEveryBranchAcknowledged(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(commitOp, id, participanttest.Answer{Fate: participanttest.Dropped, Err: errors.New("down"), Stay: true})
		for range 3 {
			ctx, cancel := context.WithTimeout(background, 5*time.Second)
			res, err := r.c.Submit(ctx, transfer(id, "a", "b"))
			cancel()
			r.mustDecide(res, err, txn.Commit)
			if res.Delivered {
				t.Fatal("told delivered while a branch had not acknowledged")
			}
		}
		time.Sleep(time.Hour)
		if tx := r.stored(id); tx.State != txn.Committing || tx.Branches[0].Receipt != txn.Done || tx.Branches[1].Receipt != txn.ReceiptNone {
			t.Errorf("the log has %s, receipts %v %v", tx.State, tx.Branches[0].Receipt, tx.Branches[1].Receipt)
		}
		d := r.c.Deliveries(id)
		if d[1].Attempts < 100 || d[1].LastError == "" {
			t.Errorf("an hour of retries is told as %+v", d[1])
		}
		tries := r.fakes["b"].Count(commitOp, id)
		if most := 3600*2/10 + 200; tries > most { // full jitter: half the cap on average
			t.Errorf("%d tries in an hour: no backoff", tries)
		}
		r.fakes["b"].Unscript(commitOp, id)
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if !res.Delivered {
			t.Error("not delivered after b came back")
		}
	})
}

// R13: a new term prepares again what was preparing, and delivers what was
// decided.
func TestNewTermGoesOn(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		preparing, committing := r.id(), r.id()
		r.fakes["b"].Script(prepareOp, preparing, participanttest.Answer{Hold: make(chan struct{})})
		r.fakes["b"].Script(commitOp, committing, participanttest.Answer{Hold: make(chan struct{})})
		first := r.submit(background, transfer(preparing, "a", "b"))
		second := r.submit(background, transfer(committing, "a", "b"))
		time.Sleep(2 * time.Second)
		r.depose()
		if !first.answered() || !errors.Is(first.err, ErrOutcomeUnknown) {
			t.Errorf("the undecided one was answered %v", first.err)
		}
		if !second.answered() || second.err != nil || second.result.Decision() != txn.Commit || second.result.Delivered {
			t.Errorf("the decided one was answered %+v, %v", second.result, second.err)
		}
		r.lead()
		res, err := r.c.Submit(background, transfer(preparing, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		res, err = r.c.Submit(background, transfer(committing, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if !res.Delivered {
			t.Error("not delivered in the new term")
		}
		for _, c := range r.fakes["b"].Calls() {
			if c.Branch.TxID == committing && c.Op == prepareOp && c.Branch.Epoch == 2 {
				t.Error("a decided transaction was prepared again")
			}
		}
	})
}

// R3: after its term a coordinator refuses, and nothing of the term is left.
func TestNotLeading(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.depose()
		id := r.id()
		if _, err := r.c.Submit(background, transfer(id, "a")); !errors.Is(err, ErrNotLeader) {
			t.Errorf("submit: %v", err)
		}
		if _, err := r.c.Inquire(background, id); !errors.Is(err, ErrNotLeader) {
			t.Errorf("inquire: %v", err)
		}
		if r.c.Leads() {
			t.Error("leads")
		}
		r.lead()
	})
}

func TestInteractive(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		tx, err := r.c.Begin(background, id, time.Minute)
		if err != nil || tx.State != txn.Active {
			t.Fatalf("begin: %v %v", tx, err)
		}
		if _, err := r.c.Begin(background, id, time.Minute); err != nil {
			t.Errorf("begin again: %v", err)
		}
		for range 2 {
			if tx, err = r.c.Enlist(background, id, txn.NewBranch("a", []byte("x"))); err != nil || tx.Branch("a") != 1 {
				t.Fatalf("enlist: %v %v", tx, err)
			}
		}
		if _, err = r.c.Enlist(background, id, txn.NewBranch("a", []byte("y"))); !errors.Is(err, txn.ErrDuplicateBranch) {
			t.Errorf("enlist other content: %v", err)
		}
		external := txn.NewBranch("b", nil)
		external.External = true
		if _, err = r.c.Enlist(background, id, external); err != nil {
			t.Fatal(err)
		}
		staged := r.branch(id, 2)
		staged.Epoch = r.epoch
		r.fakes["b"].Stage(staged)
		res, err := r.c.Commit(background, id, []txn.BranchVote{{Branch: 2, Vote: txn.VoteCommit}}, WaitDelivery)
		r.mustDecide(res, err, txn.Commit)
		r.wantCalls("a", id, prepareOp, commitOp)
		r.wantCalls("b", id, commitOp)

		res, err = r.c.Commit(background, id, nil, WaitDelivery)
		r.mustDecide(res, err, txn.Commit)
		if _, err = r.c.Enlist(background, id, txn.NewBranch("c", nil)); !errors.Is(err, txn.ErrSealed) {
			t.Errorf("enlist after commit: %v", err)
		}
		if _, err = r.c.Abort(background, id, "", WaitDelivery); !errors.Is(err, ErrCommitted) {
			t.Errorf("abort after commit: %v", err)
		}
	})
}

func TestInteractiveEnds(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		empty := r.id()
		if _, err := r.c.Begin(background, empty, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Commit(background, empty, nil, WaitDelivery); !errors.Is(err, txn.ErrEmpty) {
			t.Errorf("commit of nothing: %v", err)
		}
		res, err := r.c.Abort(background, empty, "changed my mind", WaitDelivery)
		r.mustDecide(res, err, txn.Abort)
		if _, err := r.c.Commit(background, empty, nil, WaitDelivery); !errors.Is(err, ErrAborted) {
			t.Errorf("commit after abort: %v", err)
		}

		idle := r.id()
		if _, err := r.c.Begin(background, idle, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Enlist(background, idle, txn.NewBranch("a", nil)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if tx := r.stored(idle); tx.State != txn.Aborted || tx.Reason.Code != txn.ReasonTimeout {
			t.Errorf("an idle transaction is %s, %s", tx.State, tx.Reason)
		}
		r.wantCalls("a", idle, abortOp)
		if _, err := r.c.Commit(background, r.id(), nil, WaitDelivery); !errors.Is(err, txn.ErrUnknown) {
			t.Errorf("commit of what never began: %v", err)
		}
	})
}

// R6: an inquiry about an unknown txid writes its abort first; a submission that
// comes later is answered with it. An inquiry about a live one changes nothing.
func TestInquiry(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		res, err := r.c.Inquire(background, id)
		r.mustDecide(res, err, txn.Abort)
		if tx, ok := r.log.Transaction(id); !ok || tx.State != txn.Aborted {
			t.Error("answered abort without writing it")
		}
		res, err = r.c.Submit(background, transfer(id, "a"))
		r.mustDecide(res, err, txn.Abort)
		r.wantCalls("a", id)

		live := r.id()
		release := make(chan struct{})
		r.fakes["a"].Script(prepareOp, live, participanttest.Answer{Hold: release})
		w := r.submit(background, transfer(live, "a"))
		synctest.Wait()
		res, err = r.c.Inquire(background, live)
		r.mustDecide(res, err, txn.Undecided)
		close(release)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Commit)
	})
}

// A client's abort that overtakes everything leaves a tombstone; one that comes
// while votes are out aborts what is live.
func TestClientAbort(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		first := r.id()
		res, err := r.c.Abort(background, first, "never mind", WaitDelivery)
		r.mustDecide(res, err, txn.Abort)
		res, err = r.c.Submit(background, transfer(first, "a"))
		r.mustDecide(res, err, txn.Abort)

		second := r.id()
		r.fakes["a"].Script(prepareOp, second, participanttest.Answer{Hold: make(chan struct{})})
		w := r.submit(background, transfer(second, "a", "b"))
		synctest.Wait()
		res, err = r.c.Abort(background, second, "too slow", WaitDelivery)
		r.mustDecide(res, err, txn.Abort)
		<-w.done
		r.mustDecide(w.result, w.err, txn.Abort)
	})
}

// An abort that was proposed for an unknown txid while its staging was on the way
// must still reach the branches.
func TestAbortMeetsStagingInTheLog(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.latency = time.Second
		aborted := make(chan struct{})
		go func() {
			defer close(aborted)
			if _, err := r.c.Abort(background, id, "", WaitDelivery); err != nil {
				t.Errorf("abort: %v", err)
			}
		}()
		synctest.Wait()
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Abort)
		<-aborted
		time.Sleep(time.Minute)
		for name, n := range map[string]int{"a": 1, "b": 2} {
			if s := r.fakes[name].State(r.branch(id, n)); s != participants.StatusAborted {
				t.Errorf("%s holds the branch as %s", name, s)
			}
		}
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

// A prepare that arrives after its transaction is over and done is an orphan too,
// and hears the decision that stands.
func TestLatePrepareIsFoundByTheScan(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(prepareOp, id, participanttest.Answer{Vote: participants.No("no")})
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
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

// R9: damage is recorded as damage, and ends the delivery.
func TestHeuristicIsRecorded(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["b"].Script(commitOp, id, participanttest.Answer{
			Fate: participanttest.Dropped,
			Err:  &participants.Heuristic{Receipt: txn.HeuristicAbort, Detail: "rolled back by hand"},
		})
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Second)
		if tx := r.stored(id); tx.Damage() != txn.HeuristicAbort || tx.State != txn.Committed {
			t.Errorf("the log has %s, damage %s", tx.State, tx.Damage())
		}
		r.wantCalls("b", id, prepareOp, commitOp)
	})
}

// R14: a participant that never answers costs no goroutine for each transaction
// that waits for it, is refused past its quota, and slows nobody else down.
func TestDeadParticipantIsBounded(t *testing.T) {
	const waiting = 2000
	cfg := Config{MaxUnfinishedPerParticipant: waiting, DefaultTimeout: time.Hour, PreparesInFlight: 32, DeliveriesInFlight: 16}
	run(t, cfg, func(r *rig) {
		down := participanttest.Answer{Hold: make(chan struct{}), Stay: true}
		r.fakes["b"].Script(commitOp, participanttest.AnyTx, down)
		before := runtime.NumGoroutine()
		for i := range waiting {
			s := transfer(idAt(time.Now(), 0), "b")
			s.ID[14], s.ID[15], s.ID[13] = byte(i), byte(i>>8), 1
			s.Wait = WaitDecision
			res, err := r.c.Submit(background, s)
			r.mustDecide(res, err, txn.Commit)
		}
		synctest.Wait()
		if grown := runtime.NumGoroutine() - before; grown > cfg.DeliveriesInFlight+8 {
			t.Errorf("%d more goroutines for %d waiting transactions", grown, waiting)
		}
		var busy *BusyError
		if _, err := r.c.Submit(background, transfer(r.id(), "a", "b")); !errors.As(err, &busy) || busy.RetryAfter <= 0 {
			t.Errorf("past the quota: %v", err)
		}
		start := time.Now()
		res, err := r.c.Submit(background, transfer(r.id(), "a", "c"))
		r.mustDecide(res, err, txn.Commit)
		if took := time.Since(start); took > 2*r.log.latency { // virtual: staging and decision
			t.Errorf("a transaction elsewhere took %s", took)
		}

		r.fakes["b"].Unscript(commitOp, participanttest.AnyTx)
		time.Sleep(time.Hour)
		if held := r.fakes["b"].Held(); held != 0 {
			t.Errorf("%d branches still prepared an hour after b came back", held)
		}
	})
}

// A branch that alone fails does not hold up its neighbours at the same
// participant.
func TestPoisonedBranchDelaysNobody(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		poisoned := r.id()
		r.fakes["a"].Script(commitOp, poisoned, participanttest.Answer{Fate: participanttest.Dropped, Err: errors.New("disk sector"), Stay: true})
		s := transfer(poisoned, "a")
		s.Wait = WaitDecision
		res, err := r.c.Submit(background, s)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Minute)
		for range 50 {
			start := time.Now()
			res, err := r.c.Submit(background, transfer(r.id(), "a", "b"))
			r.mustDecide(res, err, txn.Commit)
			if took := time.Since(start); !res.Delivered || took > r.c.cfg.BackoffCap {
				t.Fatalf("a neighbour took %s, delivered %t", took, res.Delivered)
			}
		}
	})
}

// Bad input is refused before anything leaves this node, and leaves nothing
// behind.
func TestRefusals(t *testing.T) {
	run(t, Config{MaxPayload: 100, MaxTransactionBytes: 150}, func(r *rig) {
		ok := func() Submission { return transfer(r.id(), "a", "b") }
		payload := func(s Submission, i, n int) Submission {
			s.Branches[i] = txn.NewBranch(s.Branches[i].Participant, make([]byte, n))
			return s
		}
		for name, c := range map[string]struct {
			s    Submission
			want error
		}{
			"empty":               {Submission{ID: r.id()}, txn.ErrEmpty},
			"unknown participant": {transfer(r.id(), "a", "nobody"), ErrUnknownParticipant},
			"duplicate branch":    {transfer(r.id(), "a", "a"), txn.ErrDuplicateBranch},
			"payload":             {payload(ok(), 0, 101), ErrTooLarge},
			"payloads in all":     {payload(payload(ok(), 0, 90), 1, 90), ErrTooLarge},
			"malformed id":        {transfer(txn.TxID{}, "a"), txn.ErrMalformedTxID},
			"id from the future":  {transfer(idAt(time.Now().Add(6*time.Minute), 1), "a"), txn.ErrFuture},
			"negative timeout":    {Submission{ID: r.id(), Branches: ok().Branches, Timeout: -1}, ErrInvalid},
			"absurd timeout":      {Submission{ID: r.id(), Branches: ok().Branches, Timeout: 1000 * time.Hour}, ErrInvalid},
		} {
			if _, err := r.c.Submit(background, c.s); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
			if _, known := r.log.Transaction(c.s.ID); known {
				t.Errorf("%s: left a transaction behind", name)
			}
			r.wantCalls("a", c.s.ID)
		}
		if got := r.driven(); got != 0 {
			t.Errorf("%d transactions left behind", got)
		}
	})
}

// The cost that the design sets: one staging, one decision, and one receipt for
// the whole transaction.
func TestCommandsPerTransaction(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		const n = 20
		for range n {
			res, err := r.c.Submit(background, transfer(r.id(), "a", "b", "c"))
			r.mustDecide(res, err, txn.Commit)
		}
		time.Sleep(time.Second)
		for _, command := range []string{"txn.Stage", "txn.Decide", "txn.Acknowledge"} {
			if got := r.written(command); got != n {
				t.Errorf("%d commands of %s for %d transactions", got, command, n)
			}
		}
	})
}

// A read-only branch is left out of phase two.
func TestReadOnlyBranch(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.fakes["a"].Script(prepareOp, id, participanttest.Answer{Vote: participants.ReadOnly()})
		res, err := r.c.Submit(background, transfer(id, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		r.wantCalls("a", id, prepareOp)
		r.wantCalls("b", id, prepareOp, commitOp)
	})
}

// A definite refusal of staging is told as such: nothing was written, ask the
// leader.
func TestStagingOnADeposedLeader(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		r.log.withFate(func(txn.Command) fate { return fate{lost: true, err: ErrNotLeader} })
		_, err := r.c.Submit(background, transfer(id, "a"))
		if !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("got %v", err)
		}
		if _, err := r.c.Begin(background, r.id(), 0); !errors.Is(err, ErrNotLeader) {
			t.Errorf("begin: %v", err)
		}
		if got := r.driven(); got != 0 {
			t.Errorf("%d transactions still driven", got)
		}
	})
}

// A changed registration is opened anew, once the calls under way are done; a
// deleted one is closed.
func TestRegistrationsChange(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		res, err := r.c.Submit(background, transfer(r.id(), "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		r.register("a", 2)
		res, err = r.c.Submit(background, transfer(r.id(), "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		if got := r.revision("a"); got != 2 {
			t.Errorf("a is open at revision %d", got)
		}
		r.log.mu.Lock()
		delete(r.log.participants, "c")
		r.log.mu.Unlock()
		time.Sleep(2 * r.c.cfg.ScanInterval)
		r.c.current().mu.Lock()
		_, kept := r.c.current().lanes["c"]
		r.c.current().mu.Unlock()
		if kept {
			t.Error("a deleted participant keeps its lane")
		}
		if _, err := r.c.Check(background, "c"); !errors.Is(err, ErrUnknownParticipant) {
			t.Errorf("check of a deleted participant: %v", err)
		}
		r.fakes["b"].Stage(participants.Branch{Cluster: r.log.ClusterID(), TxID: r.id(), Number: 1, Epoch: r.epoch})
		if got, err := r.c.Check(background, "b"); err != nil || got.Prepared != 1 || !got.Recovers {
			t.Errorf("check: %+v, %v", got, err)
		}
	})
}

// R13: an interactive transaction survives its leader while it is Active, with
// what is left of its time.
func TestInteractiveSurvivesItsLeader(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		kept, idle := r.id(), r.id()
		for _, id := range []txn.TxID{kept, idle} {
			if _, err := r.c.Begin(background, id, time.Minute); err != nil {
				t.Fatal(err)
			}
			if _, err := r.c.Enlist(background, id, txn.NewBranch("a", nil)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Second)
		r.depose()
		r.lead()
		if _, err := r.c.Enlist(background, kept, txn.NewBranch("b", nil)); err != nil {
			t.Fatal(err)
		}
		res, err := r.c.Commit(background, kept, nil, WaitDelivery)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(15 * time.Second)
		if tx := r.stored(idle); tx.State != txn.Aborted {
			t.Errorf("the idle one is %s past its time", tx.State)
		}
	})
}

// A client that goes away leaves its transaction to run on.
func TestClientGoesAway(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		id := r.id()
		release := make(chan struct{})
		r.fakes["a"].Script(prepareOp, id, participanttest.Answer{Hold: release})
		ctx, cancel := context.WithCancel(background)
		w := r.submit(ctx, transfer(id, "a", "b"))
		synctest.Wait()
		cancel()
		if !w.answered() || !errors.Is(w.err, ErrOutcomeUnknown) {
			t.Fatalf("answered %v", w.err)
		}
		close(release)
		time.Sleep(time.Second)
		if tx := r.stored(id); tx.State != txn.Committed {
			t.Errorf("ended %s", tx.State)
		}
	})
}

// R10 and R11: the horizon that a participant is told never passes a branch that
// it is owed, or it could forget the proof that it committed before the
// acknowledgement arrives. Other participants are not held back.
func TestHorizonWaitsForWhatIsOwed(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		stuck := r.id()
		lost := participanttest.Answer{Err: errors.New("answer lost"), Stay: true} // carried out, every time
		r.fakes["b"].Script(commitOp, stuck, lost)
		s := transfer(stuck, "a", "b")
		s.Wait = WaitDecision
		res, err := r.c.Submit(background, s)
		r.mustDecide(res, err, txn.Commit)
		time.Sleep(time.Hour)
		horizon := txn.Time(time.Now().Add(-time.Minute).UnixNano())
		r.log.mu.Lock()
		r.log.cluster.Horizon = horizon
		r.log.mu.Unlock()

		res, err = r.c.Submit(background, transfer(r.id(), "a", "b"))
		r.mustDecide(res, err, txn.Commit)
		for _, c := range r.fakes["b"].Calls() {
			if c.Branch.Horizon > stuck.Time() {
				t.Errorf("b, which is owed a branch of %s, was told the horizon %s", stuck.Time().Std(), c.Branch.Horizon.Std())
			}
		}
		calls := r.fakes["a"].Calls()
		if last := calls[len(calls)-1]; last.Branch.Horizon != horizon {
			t.Errorf("a was told the horizon %s, want %s", last.Branch.Horizon.Std(), horizon.Std())
		}
		r.fakes["b"].Unscript(commitOp, stuck)
		time.Sleep(time.Minute)
		if tx := r.stored(stuck); tx.State != txn.Committed || tx.Damage() != txn.ReceiptNone {
			t.Errorf("ended %s, damage %s", tx.State, tx.Damage())
		}
	})
}
