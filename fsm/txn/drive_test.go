package txn_test

// A drive's rarer turns, one by one; the common ones are walked by the simulator a
// million times (failovers_test.go). Held are R2, R4, R5, R6 and R13, at the place
// where a leader decides what to do next.

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// desk is a state machine of one transaction, beside the drive under test.
type desk struct {
	t     *testing.T
	at    txn.At
	state *txn.Transaction
}

func newDesk(t *testing.T) *desk {
	return &desk{t: t, at: txn.At{Cluster: txn.Cluster{Epoch: 1, Now: beginning}}}
}

func (k *desk) apply(c txn.Command) *txn.Transaction {
	k.t.Helper()
	k.at.Index++
	next, _, err := txn.Step(k.at, k.state, c)
	if err != nil {
		k.t.Fatalf("%T: %v", c, err)
	}
	k.state = next
	return next
}

func pair() []txn.Branch {
	return []txn.Branch{txn.NewBranch("bank", []byte("take")), txn.NewBranch("shop", []byte("give"))}
}

func staging() txn.Stage {
	return txn.Stage{ID: newID(beginning, 1), Branches: pair(), Timeout: time.Minute}
}

// wants checks what an event made due: the proposal by its kind, calls, the end.
func (k *desk) wants(got txn.Acts, propose string, end txn.End, calls ...txn.Work) {
	k.t.Helper()
	kind := ""
	if got.Propose != nil {
		kind = fmt.Sprintf("%T", got.Propose)
		if d, ok := got.Propose.(txn.Decide); ok {
			kind += " " + d.Decision.String()
		}
	}
	if kind != propose || got.End != end || !slices.Equal(got.Calls, calls) {
		k.t.Fatalf("due is %q %v end %d, want %q %v end %d", kind, got.Calls, got.End, propose, calls, end)
	}
}

func (k *desk) wantsNothing(got txn.Acts) {
	k.t.Helper()
	k.wants(got, "", txn.GoesOn)
}

var (
	prepares = []txn.Work{{Kind: txn.PrepareBranch, Branch: 1}, {Kind: txn.PrepareBranch, Branch: 2}}
	commits  = []txn.Work{{Kind: txn.CommitBranch, Branch: 1}, {Kind: txn.CommitBranch, Branch: 2}}
	aborts   = []txn.Work{{Kind: txn.AbortBranch, Branch: 1}, {Kind: txn.AbortBranch, Branch: 2}}
)

const (
	stages         = "txn.Stage"
	decidesCommit  = "txn.Decide commit"
	decidesAbort   = "txn.Decide abort"
	decidesNothing = ""
)

// R4: prepares leave before staging is applied where the caller says so, and only
// then. A commit then follows its staging into the log, and goes there once; an abort
// waits until staging is applied.
func TestPreparesLeaveEarlyOrLate(t *testing.T) {
	for _, early := range []bool{true, false} {
		k := newDesk(t)
		d, acts := txn.Open(staging(), early)
		if early {
			k.wants(acts, stages, txn.GoesOn, prepares...)
			k.wantsNothing(d.Voted(1, txn.VoteCommit, txn.Reason{}))
			acts := d.Voted(2, txn.VoteCommit, txn.Reason{})
			k.wants(acts, decidesCommit, txn.GoesOn)
			k.wantsNothing(d.Withdraw(txn.TimeIsUp)) // too late
			k.wantsNothing(d.Answered(staging(), txn.Applied, k.apply(staging()), nil))
			k.wants(d.Answered(acts.Propose, txn.Applied, k.apply(acts.Propose), nil), decidesNothing, txn.GoesOn, commits...)

			k = newDesk(t)
			d, _ = txn.Open(staging(), true)
			k.wantsNothing(d.Voted(1, txn.VoteAbort, txn.Reason{Code: txn.ReasonVote, Branch: 1}))
			k.wants(d.Answered(staging(), txn.Applied, k.apply(staging()), nil), decidesAbort, txn.GoesOn)
			continue
		}
		k.wants(acts, stages, txn.GoesOn)
		k.wants(d.Answered(staging(), txn.Applied, k.apply(staging()), nil), decidesNothing, txn.GoesOn, prepares...)
	}
}

// R4: what was prepared for a transaction that the state machine refuses is aborted
// by a logged decision that names the branches, without the payloads that may be why.
func TestRefusedStagingAbortsWhatIsPrepared(t *testing.T) {
	k := newDesk(t)
	d, _ := txn.Open(staging(), true)
	acts := d.Answered(staging(), txn.Refused, nil, txn.ErrFuture)
	k.wants(acts, decidesAbort, txn.GoesOn)
	if !acts.Refused {
		t.Error("the client is not told")
	}
	c := acts.Propose.(txn.Decide)
	if len(c.Branches) != 2 || c.Branches[0].Payload != nil || c.Branches[0].Digest != pair()[0].Digest {
		t.Errorf("the abort names %+v", c.Branches)
	}
	k.wants(d.Answered(c, txn.Applied, k.apply(c), nil), decidesNothing, txn.GoesOn, aborts...)
}

// R1, R4: a commit that followed its staging into the log is nothing where the state
// machine did not stage, or found a tombstone: the drive goes by the abort alone.
func TestCommitBehindRefusedStaging(t *testing.T) {
	for _, tombstone := range []bool{false, true} {
		k := newDesk(t)
		d, _ := txn.Open(staging(), true)
		d.Voted(1, txn.VoteCommit, txn.Reason{})
		commit := d.Voted(2, txn.VoteCommit, txn.Reason{}).Propose
		var abort txn.Acts
		if tombstone {
			k.apply(txn.Presume{ID: staging().ID})
			abort = d.Answered(staging(), txn.Applied, k.apply(staging()), nil)
			k.wantsNothing(d.Answered(commit, txn.Applied, k.apply(commit), nil))
		} else {
			abort = d.Answered(staging(), txn.Refused, nil, txn.ErrFuture)
			_, _, err := txn.Step(k.at, nil, commit)
			if !errors.Is(err, txn.ErrUnknown) {
				t.Fatalf("the commit of what was not staged: %v", err)
			}
			k.wantsNothing(d.Answered(commit, txn.Refused, nil, err))
		}
		k.wants(abort, decidesAbort, txn.GoesOn)
		k.wants(d.Answered(abort.Propose, txn.Applied, k.apply(abort.Propose), nil), decidesNothing, txn.GoesOn, aborts...)
	}
}

// R5: where it is not known what became of the commit behind a staging, the drive
// stops.
func TestUnclearCommitBehindStaging(t *testing.T) {
	for _, fate := range []txn.Fate{txn.Unclear, txn.Unwritten} {
		k := newDesk(t)
		d, _ := txn.Open(staging(), true)
		d.Voted(1, txn.VoteCommit, txn.Reason{})
		commit := d.Voted(2, txn.VoteCommit, txn.Reason{}).Propose
		k.wants(d.Answered(commit, fate, nil, nil), decidesNothing, txn.Settle)
	}
}

// Nothing is to be aborted where no prepare has left, and not by the one whose txid
// belongs to another's content.
func TestRefusedStagingThatEndsThere(t *testing.T) {
	for _, tt := range []struct {
		early bool
		fate  txn.Fate
		why   error
	}{
		{false, txn.Refused, txn.ErrFuture},
		{true, txn.Refused, fmt.Errorf("entry: %w", txn.ErrContentMismatch)},
		{true, txn.Unwritten, nil}, // the next leader's orphan scan ends what is prepared
	} {
		k := newDesk(t)
		d, _ := txn.Open(staging(), tt.early)
		acts := d.Answered(staging(), tt.fate, nil, tt.why)
		k.wants(acts, decidesNothing, txn.Release)
		if !acts.Refused || !d.Stopped() {
			t.Errorf("%v: told %t, stopped %t", tt.why, acts.Refused, d.Stopped())
		}
	}
}

// R4, R6: a tombstone that was there first takes over the branches to which prepares
// have left.
func TestTombstoneTakesOverEarlyPrepares(t *testing.T) {
	k := newDesk(t)
	k.apply(txn.Presume{ID: staging().ID})
	d, _ := txn.Open(staging(), true)
	acts := d.Answered(staging(), txn.Applied, k.apply(staging()), nil)
	k.wants(acts, decidesAbort, txn.GoesOn)
	if acts.Refused {
		t.Error("an abort that stands is an answer, and no refusal")
	}
	k.wants(d.Answered(acts.Propose, txn.Applied, k.apply(acts.Propose), nil), decidesNothing, txn.GoesOn, aborts...)
}

// R5: a drive that cannot know stops, whatever it was told of and whatever it hears
// afterwards; what the barrier shows decides who goes on.
func TestUnclearProposal(t *testing.T) {
	open := func() (*desk, *txn.Drive) {
		d, _ := txn.Open(staging(), true)
		return newDesk(t), d
	}
	k, d := open()
	k.wants(d.Answered(staging(), txn.Unclear, nil, nil), decidesNothing, txn.Settle)
	if d.Heard(1, txn.Done) || d.Wants(prepares[0]) || d.Wants(commits[0]) {
		t.Error("a stopped drive goes on")
	}
	for _, acts := range []txn.Acts{
		d.Answered(staging(), txn.Applied, k.apply(staging()), nil), d.Noticed(txn.Applied, k.state),
		d.Voted(1, txn.VoteAbort, txn.Reason{Code: txn.ReasonVote}), d.Withdraw(txn.TimeIsUp),
	} {
		k.wantsNothing(acts)
	}
	next, acts := d.Settled(k.state, beginning) // it was staged after all
	k.wants(acts, decidesNothing, txn.GoesOn, prepares...)
	if next.Decided() {
		t.Error("decided by nobody")
	}

	k, d = open()
	d.Answered(staging(), txn.Unclear, nil, nil)
	_, acts = d.Settled(nil, beginning) // it was not
	k.wants(acts, decidesAbort, txn.GoesOn)

	late, _ := txn.Open(staging(), false)
	late.Answered(staging(), txn.Unclear, nil, nil)
	if next, acts := late.Settled(nil, beginning); next != nil || acts.Propose != nil {
		t.Errorf("nothing was prepared, and %+v is due", acts)
	}

	k, d = open()
	d.Answered(staging(), txn.Applied, k.apply(staging()), nil)
	k.wants(d.Noticed(txn.Unclear, nil), decidesNothing, txn.Settle) // somebody else's command
	k.wantsNothing(d.Voted(1, txn.VoteAbort, txn.Reason{Code: txn.ReasonVote}))
	k.wantsNothing(d.Withdraw(txn.TimeIsUp))
	k.apply(txn.Decide{ID: staging().ID, Decision: txn.Commit, ReadOnly: []int{1, 2}})
	if next, _ := d.Settled(k.state, beginning); next != nil {
		t.Errorf("%s is driven on", k.state.State)
	}
}

// A definite refusal of a decision leaves it to the next leader: this one knows
// nothing more (R5). Receipts of what was forgotten meanwhile need nobody.
func TestRefusedProposals(t *testing.T) {
	k := newDesk(t)
	d, _ := txn.Resume(k.apply(staging()), beginning)
	c := d.Withdraw(txn.TimeIsUp).Propose
	k.wants(d.Answered(c, txn.Unwritten, nil, nil), decidesNothing, txn.Settle)

	d, _ = txn.Resume(k.apply(c), beginning)
	d.Heard(1, txn.Done)
	d.Heard(2, txn.Done)
	receipts := d.Receipts()
	if len(receipts.Receipts) != 2 {
		t.Fatalf("receipts %+v", receipts)
	}
	k.wants(d.Answered(receipts, txn.Refused, nil, fmt.Errorf("entry: %w", txn.ErrUnknown)), decidesNothing, txn.Release)
}

// A barrier may show a state before the answer to an earlier entry arrives.
func TestOlderStatesAreDropped(t *testing.T) {
	k := newDesk(t)
	preparing := k.apply(staging())
	committing := k.apply(txn.Decide{ID: staging().ID, Decision: txn.Commit})
	half := k.apply(txn.Acknowledge{ID: staging().ID, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}}})
	d, acts := txn.Resume(half, beginning)
	k.wants(acts, decidesNothing, txn.GoesOn, commits[1])
	for _, older := range []*txn.Transaction{preparing, committing} {
		k.wantsNothing(d.Noticed(txn.Applied, older))
		if d.Transaction() != half {
			t.Errorf("went back to %s", older.State)
		}
	}

	begun := newDesk(t)
	begun.apply(txn.Stage{ID: staging().ID, Interactive: true, Timeout: time.Minute})
	without := begun.state
	with := begun.apply(txn.Enlist{ID: staging().ID, Branch: pair()[0]})
	d, _ = txn.Resume(with, beginning)
	k.wantsNothing(d.Noticed(txn.Applied, without))
	if len(d.Branches()) != 1 {
		t.Error("lost a branch")
	}
}

// R13: what is left of its time is all that a transaction has under the next leader.
func TestResumeAfterTheDeadline(t *testing.T) {
	k := newDesk(t)
	tx := k.apply(staging())
	_, acts := txn.Resume(tx, tx.Deadline()-1)
	k.wants(acts, decidesNothing, txn.GoesOn, prepares...)
	_, acts = txn.Resume(tx, tx.Deadline())
	k.wants(acts, decidesAbort, txn.GoesOn)
}

// R9: whoever waits for delivery hears of it together with the damage, which is read
// from the applied state.
func TestDeliveredWaitsForTheDamage(t *testing.T) {
	k := newDesk(t)
	k.apply(staging())
	d, _ := txn.Resume(k.apply(txn.Decide{ID: staging().ID, Decision: txn.Commit}), beginning)
	if d.Heard(1, txn.Done); d.Delivered() {
		t.Error("delivered to a half")
	}
	if !d.Heard(2, txn.HeuristicAbort) || d.Heard(2, txn.Done) {
		t.Error("the first answer stands")
	}
	if d.Delivered() {
		t.Error("delivered before the damage is replicated")
	}
	k.wants(d.Answered(d.Receipts(), txn.Applied, k.apply(d.Receipts()), nil), decidesNothing, txn.Release)
	if !d.Delivered() || d.Transaction().Damage() != txn.HeuristicAbort {
		t.Errorf("delivered %t, damage %s", d.Delivered(), d.Transaction().Damage())
	}
}

// R6: what a prepared branch that nobody drives is told.
func TestOrphan(t *testing.T) {
	id := staging().ID
	k := newDesk(t)
	preparing := k.apply(staging())
	committing := k.apply(txn.Decide{ID: id, Decision: txn.Commit})
	committed := k.apply(txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}, {Branch: 2, Receipt: txn.Done}}})
	tombstone := newDesk(t).apply(txn.Presume{ID: id})
	// Its first branch only read, and is owed nothing: what is prepared under its name
	// was left by a submission of other content.
	reader := newDesk(t)
	reader.apply(staging())
	reading := reader.apply(txn.Decide{ID: id, Decision: txn.Commit, ReadOnly: []int{1}})
	read := reader.apply(txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 2, Receipt: txn.Done}}})
	for _, tt := range []struct {
		tx     *txn.Transaction
		at     string
		branch int
		want   txn.WorkKind
	}{
		{preparing, "bank", 1, 0},
		{committing, "bank", 1, txn.CommitBranch},
		{committed, "bank", 1, txn.CommitBranch},
		{committing, "bank-by-another-name", 1, 0},
		{committed, "bank-by-another-name", 1, txn.AbortBranch},
		{committed, "bank", 2, txn.AbortBranch},
		{tombstone, "bank", 1, txn.AbortBranch},
		{reading, "bank", 1, 0},
		{read, "bank", 1, txn.AbortBranch},
		{read, "shop", 2, txn.CommitBranch},
	} {
		if got := txn.Orphan(tt.tx, tt.at, tt.branch); got != tt.want {
			t.Errorf("branch %d at %s of one that is %s: %s, want %s", tt.branch, tt.at, tt.tx.State, got, tt.want)
		}
	}
}

// R6: while a transaction is being staged any prepared branch of its txid may be its
// own, and is no orphan; later only those that it has are not.
func TestDrives(t *testing.T) {
	d, _ := txn.Open(staging(), true)
	if !d.Drives("bank", 1) || !d.Drives("shop", 2) {
		t.Error("what is being staged is given up")
	}
	d, _ = txn.Resume(newDesk(t).apply(staging()), beginning)
	if !d.Drives("bank", 1) || !d.Drives("shop", 2) || d.Drives("bank", 2) || d.Drives("bank", 3) {
		t.Error("branches are mistaken")
	}
}

// R11: the same content joins, other content does not; a tombstone answers all.
func TestSame(t *testing.T) {
	d, _ := txn.Open(staging(), false)
	print := txn.ContentFingerprint(false, pair())
	other := txn.ContentFingerprint(false, pair()[:1])
	if !d.Same(print) || d.Same(other) {
		t.Error("content is mistaken")
	}
	d, _ = txn.Resume(newDesk(t).apply(txn.Presume{ID: staging().ID}), beginning)
	if !d.Same(print) || !d.Same(other) {
		t.Error("a tombstone refuses")
	}
	if d.Drives("bank", 1) {
		t.Error("a tombstone without branches drives one")
	}
	if !reflect.DeepEqual(d.Transaction().Branches, d.Branches()) {
		t.Error("two kinds of branches")
	}
}
