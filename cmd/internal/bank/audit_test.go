package bank

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/decree-tx/decree/participants"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// What is proven here: the audit is not blind. A world in which all is well has no
// findings, and each single thing that can go wrong in it is found (rules R1, R2,
// R5, R7 and R9 as an outsider can see them).

var (
	alice = Account{"bank-a", "alice"}
	bob   = Account{"bank-b", "bob"}
)

// world is what nodes and participants show after some orders.
type world struct {
	entries []Entry
	running []Order
	views   []NodeView
	books   []Books
	total   int64
}

// newWorld is one in which all is well: a deposit, a transfer, and a transfer
// that was aborted.
func newWorld() *world {
	entry := func(txid string, committed bool, expect Expectation, moves ...Move) Entry {
		e := Entry{Order: Order{TxID: txid, Moves: moves, Expect: expect}}
		e.Result.Outcome = client.Aborted
		if committed {
			e.Result.Outcome, e.Result.Delivered = client.Committed, true
		}
		return e
	}
	w := &world{total: 200, entries: []Entry{
		entry("deposit", true, MustCommit, Move{alice, 100}, Move{bob, 100}),
		entry("transfer", true, Either, Move{alice, -30}, Move{bob, 30}),
		entry("overdraft", false, MustAbort, Move{bob, -500}, Move{alice, 500}),
	}}
	for _, node := range []string{"n1", "n2", "n3"} {
		w.views = append(w.views, NodeView{node, map[string]*decreev1.Transaction{
			"deposit":   logged("deposit", decreev1.State_STATE_COMMITTED, "bank-a", "bank-b"),
			"transfer":  logged("transfer", decreev1.State_STATE_COMMITTED, "bank-a", "bank-b"),
			"overdraft": logged("overdraft", decreev1.State_STATE_ABORTED, "bank-b", "bank-a"),
		}})
	}
	w.books = []Books{
		{"bank-a", map[string]int64{"alice": 70}, map[Branch]participants.Status{
			{"deposit", 1}: participants.StatusCommitted, {"transfer", 1}: participants.StatusCommitted, {"overdraft", 2}: participants.StatusAborted,
		}, nil},
		{"bank-b", map[string]int64{"bob": 130}, map[Branch]participants.Status{
			{"deposit", 2}: participants.StatusCommitted, {"transfer", 2}: participants.StatusCommitted, {"overdraft", 1}: participants.StatusAborted,
		}, nil},
	}
	return w
}

// logged is a transaction as a node tells it.
func logged(txid string, state decreev1.State, banks ...string) *decreev1.Transaction {
	t := &decreev1.Transaction{Txid: txid, State: state}
	for i, bank := range banks {
		t.Branches = append(t.Branches, &decreev1.Branch{Number: uint32(i + 1), Participant: bank})
	}
	return t
}

// audit is that of the world at rest, and that of each bank while business goes
// on.
func (w *world) audit() string {
	findings := []Findings{
		AuditAnswers(w.entries), AuditNodes(w.entries, w.views), AuditDamage(w.views), AuditBranches(w.views[0], w.books),
		AuditMoney(w.entries, w.views[0], w.books, w.total),
	}
	for _, b := range w.books {
		findings = append(findings, AuditPosted(w.entries, w.entries, w.running, b))
	}
	var texts []string
	for _, f := range findings {
		texts = append(texts, f.Texts...)
	}
	return strings.Join(texts, "\n")
}

func TestAuditOfAGoodWorld(t *testing.T) {
	if got := newWorld().audit(); got != "" {
		t.Errorf("found: %s", got)
	}
}

func TestAuditFindsWhatIsWrong(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*world)
		want  string
	}{
		{"no outcome", func(w *world) { w.entries[1].Err = errors.New("lost") }, "transfer got no outcome: lost"},
		{"damage", func(w *world) { w.entries[1].Result.Damage = client.HeuristicAbort }, "transfer is damaged: heuristic abort"},
		{"what had to commit did not", func(w *world) { w.entries[0].Result.Outcome = client.Aborted }, "deposit had to commit and is aborted"},
		{"what had to abort did not", func(w *world) { w.entries[2].Result.Outcome = client.Committed }, "overdraft had to abort and is committed"},
		{"undecided is no commit", func(w *world) { w.entries[0].Result.Outcome = client.Undecided }, "deposit had to commit and is undecided"},
		{"a node flips", func(w *world) {
			w.views[1].Transactions["transfer"] = logged("transfer", decreev1.State_STATE_ABORTED)
		}, "n2 has transfer as STATE_ABORTED, the client was told committed"},
		{"a node has damage that no client asked about", func(w *world) {
			w.entries[1].Err = errors.New("lost")
			w.views[2].Transactions["transfer"].Damage = decreev1.Receipt_RECEIPT_HEURISTIC_COMMIT
		}, "n3 has transfer as damaged: RECEIPT_HEURISTIC_COMMIT"},
		{"a node forgets", func(w *world) { delete(w.views[2].Transactions, "transfer") }, "n3 does not know transfer"},
		{"a node has not finished", func(w *world) {
			w.views[0].Transactions["transfer"].State = decreev1.State_STATE_COMMITTING
		}, "n1 has transfer as STATE_COMMITTING"},
		{"a node knows of damage", func(w *world) {
			w.views[0].Transactions["transfer"].Damage = decreev1.Receipt_RECEIPT_HEURISTIC_ABORT
		}, "n1 has transfer as damaged"},
		{"a node knows more", func(w *world) {
			w.views[0].Transactions["ghost"] = logged("ghost", decreev1.State_STATE_COMMITTED)
		}, "n1 knows ghost, which nobody ordered"},
		{"a branch left prepared", func(w *world) { w.books[0].Fates[Branch{"transfer", 1}] = participants.StatusPrepared }, "bank-a still holds transfer prepared"},
		{"a branch rolled back", func(w *world) { w.books[1].Fates[Branch{"transfer", 2}] = participants.StatusAborted }, "bank-b has transfer as aborted, which is committed"},
		{"a branch lost", func(w *world) { delete(w.books[1].Fates, Branch{"transfer", 2}) }, "bank-b has transfer as unknown, which is committed"},
		{"a branch committed alone", func(w *world) { w.books[0].Fates[Branch{"overdraft", 2}] = participants.StatusCommitted }, "bank-a has committed overdraft, which is aborted"},
		{"a branch of nobody", func(w *world) { w.books[0].Fates[Branch{"ghost", 1}] = participants.StatusPrepared }, "bank-a holds branch 1 of ghost as prepared, which the log does not know"},
		{"a tombstone of nobody", func(w *world) { w.books[0].Fates[Branch{"ghost", 1}] = participants.StatusAborted }, "bank-a holds branch 1 of ghost as aborted, which the log does not know"},
		{"a branch too many", func(w *world) { w.books[0].Fates[Branch{"transfer", 3}] = participants.StatusCommitted }, "bank-a holds branch 3 of transfer as committed, which the log does not know"},
		{"another's branch", func(w *world) { w.books[0].Strangers = []string{"decree_x_1"} }, "bank-a holds decree_x_1, which is none of the cluster's"},
		{"the nodes disagree on what no client knows", func(w *world) {
			w.entries[1].Err = errors.New("lost")
			w.views[2].Transactions["transfer"] = logged("transfer", decreev1.State_STATE_ABORTED)
		}, "n3 has transfer as STATE_ABORTED, n1 has it as STATE_COMMITTED"},
		{"work without its marker", func(w *world) { delete(w.books[0].Fates, Branch{"transfer", 1}) }, "bank-a/alice holds 70, what is posted makes it 100"},
		{"a marker without its work", func(w *world) { w.books[0].Balances["alice"] = 100 }, "bank-a/alice holds 100, what is posted makes it 70"},
		{"a delivery that does not show", func(w *world) { delete(w.books[1].Fates, Branch{"transfer", 2}) }, "bank-b does not show transfer, which was committed and delivered before"},
		{"posted and told to be aborted", func(w *world) { w.books[1].Fates[Branch{"overdraft", 1}] = participants.StatusCommitted }, "bank-b has committed overdraft, which its client was told to be aborted"},
		{"posted and ordered by nobody", func(w *world) { w.books[1].Fates[Branch{"ghost", 1}] = participants.StatusCommitted }, "bank-b has committed ghost, which nobody ordered"},
		{"an account that had not enough", func(w *world) { w.books[0].Balances["alice"] = -1 }, "bank-a/alice holds -1: it has paid what it had not"},
		{"a posted account that is lost", func(w *world) { delete(w.books[0].Balances, "alice") }, "bank-a/alice is missing; what is posted makes it 70"},
		{"money lost", func(w *world) { w.books[1].Balances["bob"] = 100 }, "there are 170 coins, 200 were put in"},
		{"money moved", func(w *world) { w.books[0].Balances["alice"], w.books[1].Balances["bob"] = 71, 129 }, "bank-a/alice holds 71, the committed transfers make it 70"},
		{"an account lost", func(w *world) { delete(w.books[0].Balances, "alice") }, "bank-a/alice is missing"},
		{"an account of nobody", func(w *world) { w.books[0].Balances["eve"] = 5 }, "bank-a/eve holds 5, the committed transfers make it 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			tt.spoil(w)
			if got := w.audit(); !strings.Contains(got, tt.want) {
				t.Errorf("found %q, want %q in it", got, tt.want)
			}
		})
	}
}

// TestUnknownOutcomesAreTheLogs holds that an order whose client learnt no outcome
// is judged by the log (rule R5: unknown is an outcome), also by what it did to
// the money, and that business under way is not taken for damage.
func TestUnknownOutcomesAreTheLogs(t *testing.T) {
	w := newWorld()
	w.entries[1].Err, w.entries[1].Result = errors.New("lost"), client.Result{}
	if got := w.audit(); got != "transfer got no outcome: lost" {
		t.Errorf("found: %s", got)
	}
	w.running = []Order{w.entries[1].Order}
	w.entries = slices.Delete(w.entries, 1, 2)
	for _, b := range w.books {
		if f := AuditPosted(w.entries, w.entries, w.running, b); f.Count != 0 {
			t.Errorf("found while it runs: %s", f.Texts)
		}
	}
}

// TestReadOnlyBranchesNeedNoRecord: they changed nothing and were told nothing.
func TestReadOnlyBranchesNeedNoRecord(t *testing.T) {
	w := newWorld()
	for _, v := range w.views {
		v.Transactions["transfer"].Branches = append(v.Transactions["transfer"].Branches,
			&decreev1.Branch{Number: 3, Participant: "bank-b", Vote: decreev1.Vote_VOTE_READ_ONLY})
	}
	if got := w.audit(); got != "" {
		t.Errorf("found: %s", got)
	}
}

// TestAbortedBranchesNeedNoRecord holds that a participant which was never
// reached, or has forgotten an abort, is not accused.
func TestAbortedBranchesNeedNoRecord(t *testing.T) {
	w := newWorld()
	delete(w.books[0].Fates, Branch{"overdraft", 2})
	if got := w.audit(); got != "" {
		t.Errorf("found: %s", got)
	}
}

// TestFencedBeforeItsBranchesWereKnown holds that a tombstone is no stranger where
// the log aborted the transaction before it knew its branches.
func TestFencedBeforeItsBranchesWereKnown(t *testing.T) {
	w := newWorld()
	w.entries = append(w.entries, Entry{Order: Order{TxID: "orphan"}, Result: client.Result{Outcome: client.Aborted}})
	for _, v := range w.views {
		v.Transactions["orphan"] = logged("orphan", decreev1.State_STATE_ABORTED)
	}
	w.books[0].Fates[Branch{"orphan", 1}] = participants.StatusAborted
	if got := w.audit(); got != "" {
		t.Errorf("found: %s", got)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	var f, all Findings
	for range 10 * maxFindings {
		f.add("wrong")
	}
	all.Add(f)
	all.Add(f)
	if f.Count != 10*maxFindings || len(f.Texts) != maxFindings || all.Count != 2*f.Count || len(all.Texts) != maxFindings {
		t.Errorf("%d findings, %d texts; of two %d and %d", f.Count, len(f.Texts), all.Count, len(all.Texts))
	}
}
