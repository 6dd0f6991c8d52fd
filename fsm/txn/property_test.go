package txn_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// TestAnyCommandsKeepTheRules throws random commands, sensible and absurd ones, at
// one transaction. After every step it holds that
//
//   - a decision never changes (R1);
//   - the effects are what is owed now and was not before, so that the live path
//     and recovery do the same work (R13);
//   - the state is a possible one: payloads are gone after the decision, a finished
//     transaction is owed nothing and an unfinished decided one is (R10);
//   - an error changes nothing, and no step changes the state that it was given;
//   - the same step on the same state gives the same answer (R12);
//   - the same command again changes nothing more (R11);
//   - an operator's word ends a delivery or takes note of damage, changes nothing else,
//     and stands (R10);
//   - what may have been decided before a restore is decided by an operator alone (R15).
func TestAnyCommandsKeepTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := newID(beginning, 1)
		at := txn.At{Cluster: txn.Cluster{Epoch: 1, Now: beginning}}
		var state *txn.Transaction
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			at = later(t, at)
			c := anyCommand(t, id)
			before := deepCopy(state)

			next, due, err := txn.Step(at, state, c)
			checkStep(t, state, next, due, err)
			if !reflect.DeepEqual(state, before) {
				t.Fatalf("%T changed the state that it was given", c)
			}
			twin, twinDue, twinErr := txn.Step(at, before, c)
			if !reflect.DeepEqual(twin, next) || !reflect.DeepEqual(twinDue, due) || (twinErr == nil) != (err == nil) {
				t.Fatalf("%T gave two answers", c)
			}
			if err == nil {
				if again, due, err := txn.Step(at, next, c); again != next || due != nil {
					t.Fatalf("%T again changed something: %+v, %v", c, again, err)
				}
			}
			checkEnd(t, state, next)
			checkWord(t, state, next, c)
			checkLost(t, at, state, next, c)
			state = next
		}
	})
}

// checkLost holds that a decision that may be a second one is an operator's.
func checkLost(t *rapid.T, at txn.At, prev, next *txn.Transaction, c txn.Command) {
	lost := prev == nil && at.Lost(c.Transaction()) || prev != nil && at.Held(prev)
	_, operator := c.(txn.Arbitrate)
	if lost && next != prev && !operator {
		t.Fatalf("%T changed what may be decided: %+v -> %+v", c, prev, next)
	}
	expired := prev == nil && c.Transaction().Time() < at.Horizon
	if operator && next != prev && !lost && !expired {
		t.Fatalf("an operator decided what the cluster decides: %+v -> %+v", prev, next)
	}
}

// checkWord holds that nobody but an operator resolves a branch, only one that is owed
// something or damaged, once, and that what the participant said stays.
func checkWord(t *rapid.T, prev, next *txn.Transaction, c txn.Command) {
	if prev == nil || next == prev {
		return
	}
	word, operator := c.(txn.Resolve)
	for i := range prev.Branches {
		was, is := prev.Branches[i], next.Branches[i]
		switch {
		case is.Resolved == was.Resolved:
			if operator && i+1 == word.Branch {
				t.Fatalf("resolved in vain: %+v", is)
			}
		case !operator || word.Branch != i+1 || is.Resolved != word.As || was.Resolved != txn.Undecided:
			t.Fatalf("%T made %+v of %+v", c, is, was)
		case !was.Owed() && !was.Receipt.Heuristic():
			t.Fatalf("there was nothing to be resolved: %+v", was)
		}
		if operator && is.Receipt != was.Receipt || operator && is.Owed() && !was.Owed() {
			t.Fatalf("an operator's word changed what the participant said: %+v -> %+v", was, is)
		}
	}
	if operator && !prev.State.Decided() {
		t.Fatalf("resolved before the decision: %+v", next)
	}
}

// checkEnd holds that a finished transaction stays as it is, but for a tombstone
// that takes over branches (R4), and for damage of which an operator takes note.
func checkEnd(t *rapid.T, prev, next *txn.Transaction) {
	if prev == nil || !prev.State.Finished() || next == prev {
		return
	}
	if prev.Troubled() && next.State == prev.State && next.Finished == prev.Finished {
		return
	}
	if !prev.Tombstone() || len(prev.Branches) != 0 || next.State != txn.Aborting {
		t.Fatalf("a finished transaction went on: %+v -> %+v", prev, next)
	}
}

func later(t *rapid.T, at txn.At) txn.At {
	at.Index++
	at.Now = at.Now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "later")))
	if rapid.IntRange(0, 9).Draw(t, "new leader") == 0 {
		at.Epoch++
	}
	if rapid.IntRange(0, 19).Draw(t, "retention") == 0 {
		at.Horizon = at.Now
	}
	if rapid.IntRange(0, 19).Draw(t, "restore") == 0 {
		var err error
		if at.Cluster, err = at.Reopen(txn.Restored{Epoch: at.Epoch + 1, Until: at.Now.Add(txn.MaxSkew)}); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// anyCommand draws a command. Some are nonsense on purpose: Step must refuse them.
func anyCommand(t *rapid.T, id txn.TxID) txn.Command {
	switch rapid.IntRange(0, 9).Draw(t, "command") {
	case 0:
		interactive := rapid.Bool().Draw(t, "interactive")
		c := txn.Stage{ID: id, Interactive: interactive, Timeout: time.Second}
		if !interactive || rapid.IntRange(0, 9).Draw(t, "absurd") == 0 {
			c.Branches = anyBranches(t)
		}
		return c
	case 1:
		b := anyBranch(t)
		b.External = rapid.Bool().Draw(t, "external")
		return txn.Enlist{ID: id, Branch: b}
	case 2:
		c := txn.Prepare{ID: id}
		for range rapid.IntRange(0, 3).Draw(t, "votes") {
			c.Votes = append(c.Votes, txn.BranchVote{Branch: anyNumber(t), Vote: txn.Vote(rapid.IntRange(0, 3).Draw(t, "vote"))})
		}
		return c
	case 3:
		c := txn.Decide{ID: id, Decision: txn.Commit}
		for range rapid.IntRange(0, 2).Draw(t, "read-only branches") {
			c.ReadOnly = append(c.ReadOnly, anyNumber(t))
		}
		return c
	case 4:
		c := txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonTimeout}}
		if rapid.IntRange(0, 3).Draw(t, "takes over") == 0 {
			c.Branches = anyBranches(t)
		}
		return c
	case 5:
		return txn.Presume{ID: id}
	case 6:
		return txn.Arbitrate{ID: id, Decision: txn.Decision(rapid.IntRange(1, 2).Draw(t, "decision")), Detail: "ann"}
	case 7, 8:
		return txn.Resolve{ID: id, Branch: anyNumber(t), As: txn.Decision(rapid.IntRange(1, 2).Draw(t, "as"))}
	default:
		c := txn.Acknowledge{ID: id}
		for range rapid.IntRange(0, 4).Draw(t, "receipts") {
			c.Receipts = append(c.Receipts, txn.BranchReceipt{Branch: anyNumber(t), Receipt: txn.Receipt(rapid.IntRange(0, 4).Draw(t, "receipt"))})
		}
		return c
	}
}

func anyNumber(t *rapid.T) int {
	return rapid.SampledFrom([]int{1, 1, 2, 2, 3, 4, 0}).Draw(t, "branch")
}

func anyBranches(t *rapid.T) (list []txn.Branch) {
	for range rapid.IntRange(0, 3).Draw(t, "branches") {
		list = append(list, anyBranch(t))
	}
	return list
}

func anyBranch(t *rapid.T) txn.Branch {
	participant := rapid.SampledFrom([]string{"bank", "shop", "hotel", "audit"}).Draw(t, "participant")
	return txn.NewBranch(participant, []byte(rapid.SampledFrom([]string{"", "+1", "-1"}).Draw(t, "payload")))
}

func deepCopy(t *txn.Transaction) *txn.Transaction {
	if t == nil {
		return nil
	}
	c := *t
	c.Branches = append([]txn.Branch(nil), t.Branches...)
	for i, b := range c.Branches {
		if b.Payload != nil {
			c.Branches[i].Payload = append([]byte{}, b.Payload...)
		}
	}
	return &c
}

// TestBallotNeedsEveryVote holds that a ballot says commit only when each branch
// has voted and none said no, abort as soon as there is a reason, and nothing
// abort before staging (R4), in whatever order the votes come and however often.
func TestBallotNeedsEveryVote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		branches := make([]txn.Branch, rapid.IntRange(1, 4).Draw(t, "branches"))
		for i := range branches {
			branches[i] = txn.NewBranch(fmt.Sprint("p", i), nil)
		}
		ballot := txn.NewBallot(branches)
		first := make([]txn.Vote, len(branches))
		staged, no := false, false
		for range rapid.IntRange(0, 12).Draw(t, "events") {
			switch event := rapid.IntRange(0, 9).Draw(t, "event"); event {
			case 0:
				ballot.Stage()
				staged = true
			case 1:
				ballot.Withdraw(txn.Reason{Code: txn.ReasonTimeout})
				no = true
			default:
				n := rapid.IntRange(1, len(branches)).Draw(t, "branch")
				v := txn.Vote(rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "vote"))
				ballot.Cast(n, v, txn.Reason{Code: txn.ReasonVote, Branch: n})
				if first[n-1] == txn.VoteNone {
					first[n-1] = v
					no = no || v == txn.VoteAbort
				}
			}
			checkVerdict(t, &ballot, first, staged, no)
		}
	})
}

func checkVerdict(t *rapid.T, ballot *txn.Ballot, votes []txn.Vote, staged, no bool) {
	verdict, ok := ballot.Verdict()
	var readOnly []int
	missing := false
	for i, v := range votes {
		missing = missing || v == txn.VoteNone
		if v == txn.VoteReadOnly {
			readOnly = append(readOnly, i+1)
		}
	}
	switch {
	case missing && !no, no && !staged:
		if ok {
			t.Fatalf("verdict %+v, staged %t, votes %v", verdict, staged, votes)
		}
	case no:
		if !ok || verdict.Decision != txn.Abort || verdict.Reason.Code == txn.ReasonNone {
			t.Fatalf("verdict %+v %t after a reason to abort", verdict, ok)
		}
	case !ok || verdict.Decision != txn.Commit || !reflect.DeepEqual(verdict.ReadOnly, readOnly):
		t.Fatalf("verdict %+v %t of votes %v", verdict, ok, votes)
	}
}

// checkStep holds what is true of every step: an error changes nothing; what was
// made due is what is now owed and was not before; a decision stands (R1); the
// state is one that snapshots accept.
func checkStep(t interface {
	Helper()
	Fatalf(string, ...any)
}, prev, next *txn.Transaction, due []txn.Work, err error) {
	t.Helper()
	if err != nil {
		if next != prev || due != nil {
			t.Fatalf("the error %q came with a new state or effects", err)
		}
		if errors.Is(err, txn.ErrStaleEpoch) {
			t.Fatalf("Step judged an epoch")
		}
		return
	}
	if err := next.Check(); err != nil {
		t.Fatalf("no such state: %s: %+v", err, next)
	}
	if prev != nil && prev.State.Decided() && next.Decision() != prev.Decision() {
		t.Fatalf("R1: %s became %s", prev.Decision(), next.Decision())
	}
	var want []txn.Work
	for _, w := range txn.Pending(next) {
		if prev == nil || !slices.Contains(txn.Pending(prev), w) {
			want = append(want, w)
		}
	}
	if !slices.Equal(due, want) {
		t.Fatalf("effects %v, want %v", due, want)
	}
}
