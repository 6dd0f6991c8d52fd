package participanttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Op is a call of the contract.
type Op uint8

// The calls.
const (
	Prepare Op = iota + 1
	Commit
	Abort
	Recover
)

var opNames = [...]string{"none", "prepare", "commit", "abort", "recover"}

func (o Op) String() string { return opNames[o] }

// Fate is what becomes of a scripted call.
type Fate uint8

// The fates. Carried is the zero Fate.
const (
	// Carried calls wait out their hold and delay, are carried out, and answer. A
	// call whose context ends meanwhile is not carried out.
	Carried Fate = iota
	// Dropped calls never reach the resource: the request was lost.
	Dropped
	// Belated calls are carried out after their hold and delay even where the
	// caller has gone: at once when Err is set, else when its context ends. This
	// is the prepare that arrives after its abort.
	Belated
)

// ErrCut is how a dropped call fails when its answer names no error.
var ErrCut = errors.New("connection cut")

// Answer scripts one call. The zero Answer is that of a well-behaved resource.
type Answer struct {
	// Vote is the resource's answer to a prepare that it has not heard before;
	// zero is a yes. What the fake remembers of the branch goes first.
	Vote participants.Vote
	// Err is answered whatever was done: a Carried call with an Err is an answer
	// that was lost.
	Err   error
	Fate  Fate
	Hold  <-chan struct{} // the call waits until it is closed
	Delay time.Duration   // and then so long; virtual under testing/synctest
	// Stay keeps the answer for all later calls too.
	Stay bool
}

// AnyTx scripts the calls of every transaction that has no script of its own.
// Calls of Recover are always scripted under it.
var AnyTx txn.TxID

// Call is one call that arrived, in the order of arrival.
type Call struct {
	Op     Op
	Branch participants.Branch // of Recover, the cluster only
	Ended  bool                // the caller has its answer
	Vote   participants.Vote   // of a prepare that ended well
	Err    error
}

// String tells the call as a line of a transcript, without the txid.
func (c Call) String() string {
	s := fmt.Sprintf("%s branch=%d epoch=%d", c.Op, c.Branch.Number, c.Branch.Epoch)
	switch {
	case !c.Ended:
		return s + " ..."
	case c.Err != nil:
		return s + " error: " + c.Err.Error()
	case c.Op == Prepare:
		return s + " " + c.Vote.Kind.String()
	default:
		return s + " ok"
	}
}

type branchID struct {
	cluster string
	txid    txn.TxID
	number  int
}

func idOf(b participants.Branch) branchID { return branchID{b.Cluster, b.TxID, b.Number} }

type scriptKey struct {
	op   Op
	txid txn.TxID
}

// Fake is a participant in memory. Make it with NewFake, inside the bubble when
// testing/synctest is used. It is safe for concurrent use, and several
// coordinator nodes may hold it at once, each through its own Open.
type Fake struct {
	late sync.WaitGroup // belated calls under way
	done chan struct{}  // closed by Close, ends them

	mu       sync.Mutex // guards what follows
	closed   bool
	mute     bool // does not list
	records  map[branchID]participants.Record
	effects  map[branchID]int // commits carried out; never more than one
	payloads map[branchID][]byte
	fences   map[string]participants.Fence
	scripts  map[scriptKey][]Answer
	calls    []Call
	promised map[branchID]bool // a yes reached the caller
	told     map[branchID]Op   // the decision that the caller delivered first
	wrongs   []string
	news     chan struct{} // closed and replaced whenever calls changes
	onCommit func(participants.Branch)
}

// NewFake makes a participant that lists what it holds prepared and has no
// script.
func NewFake() *Fake {
	return &Fake{
		done:     make(chan struct{}),
		records:  map[branchID]participants.Record{},
		effects:  map[branchID]int{},
		payloads: map[branchID][]byte{},
		fences:   map[string]participants.Fence{},
		scripts:  map[scriptKey][]Answer{},
		promised: map[branchID]bool{},
		told:     map[branchID]Op{},
		news:     make(chan struct{}),
	}
}

// Script appends answers for the next calls of op to a transaction, or to AnyTx.
// A transaction's own script goes first; when no script is left, the fake keeps
// to the contract.
func (f *Fake) Script(op Op, id txn.TxID, answers ...Answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := scriptKey{op, id}
	f.scripts[k] = append(f.scripts[k], answers...)
}

// Unscript drops what is left of a script, and with it answers that Stay.
func (f *Fake) Unscript(op Op, id txn.TxID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.scripts, scriptKey{op, id})
}

// Mute makes Recovers false and Recover empty: a resource that cannot list.
func (f *Fake) Mute(mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mute = mute
}

// OnCommit has fn called, once a branch, when its commit is carried out. The
// branch has the payload of its prepare. fn must not call the fake.
func (f *Fake) OnCommit(fn func(participants.Branch)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onCommit = fn
}

// Stage puts a prepared branch in place that no call prepared, as an application
// that runs its branch itself does.
func (f *Fake) Stage(b participants.Branch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stage(b)
}

// StageNew is Stage for a branch that the fake has not heard of; false where it has,
// because the branch's abort came before the application's work.
func (f *Fake) StageNew(b participants.Branch) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.records[idOf(b)].Status != participants.StatusUnknown {
		return false
	}
	f.stage(b)
	return true
}

func (f *Fake) stage(b participants.Branch) {
	f.records[idOf(b)] = b.Prepared()
	f.payloads[idOf(b)] = b.Payload
	f.promised[idOf(b)] = true
}

// Lose forgets a branch, as an operator who rolls it back by hand does.
func (f *Fake) Lose(b participants.Branch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.records, idOf(b))
}

// Calls lists the calls so far, in the order of their arrival.
func (f *Fake) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Count is the number of calls of op that arrived for a transaction, or for all
// of them with AnyTx.
func (f *Fake) Count(op Op, id txn.TxID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count(op, id)
}

func (f *Fake) count(op Op, id txn.TxID) int {
	n := 0
	for _, c := range f.calls {
		if c.Op == op && (id == AnyTx || c.Branch.TxID == id) {
			n++
		}
	}
	return n
}

// Await blocks until n calls of op have arrived for a transaction, or for all of
// them with AnyTx, or until the context ends.
func (f *Fake) Await(ctx context.Context, op Op, id txn.TxID, n int) error {
	for {
		f.mu.Lock()
		have, news := f.count(op, id), f.news
		f.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d calls of %s: %w", have, n, op, ctx.Err())
		}
	}
}

// State is what the fake remembers of a branch.
func (f *Fake) State(b participants.Branch) participants.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[idOf(b)].Status
}

// Held counts the branches that are prepared, of all clusters.
func (f *Fake) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.records {
		if r.Status == participants.StatusPrepared {
			n++
		}
	}
	return n
}

// Effects is how often the branch's changes were made visible.
func (f *Fake) Effects(b participants.Branch) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.effects[idOf(b)]
}

// Violations tells where the caller broke its side of the contract: a commit
// that no yes preceded, a branch that was told both decisions, a prepare after
// its commit, a branch without a proper name, a call on a closed participant.
func (f *Fake) Violations() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.wrongs)
}

// Verify fails the test for each violation.
func (f *Fake) Verify(t testing.TB) {
	t.Helper()
	for _, v := range f.Violations() {
		t.Errorf("the participant was called against its contract: %s", v)
	}
}
