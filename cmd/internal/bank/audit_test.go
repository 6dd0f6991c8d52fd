package bank

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/kv"
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
			e.Result.Outcome = client.Committed
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
			"deposit":   {State: decreev1.State_STATE_COMMITTED},
			"transfer":  {State: decreev1.State_STATE_COMMITTED},
			"overdraft": {State: decreev1.State_STATE_ABORTED},
		}})
	}
	w.books = []Books{
		{"bank-a", map[string]int64{"alice": 70}, map[Branch]participants.Status{
			{"deposit", 1}: participants.StatusCommitted, {"transfer", 1}: participants.StatusCommitted, {"overdraft", 2}: participants.StatusAborted,
		}},
		{"bank-b", map[string]int64{"bob": 130}, map[Branch]participants.Status{
			{"deposit", 2}: participants.StatusCommitted, {"transfer", 2}: participants.StatusCommitted, {"overdraft", 1}: participants.StatusAborted,
		}},
	}
	return w
}

func (w *world) audit() string {
	var texts []string
	for _, f := range []Findings{
		AuditAnswers(w.entries), AuditNodes(w.entries, w.views), AuditBranches(w.entries, w.books), AuditMoney(w.entries, w.books, w.total),
	} {
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
			w.views[1].Transactions["transfer"] = &decreev1.Transaction{State: decreev1.State_STATE_ABORTED}
		}, "n2 has transfer as STATE_ABORTED, the client was told committed"},
		{"a node forgets", func(w *world) { delete(w.views[2].Transactions, "transfer") }, "n3 does not know transfer"},
		{"a node has not finished", func(w *world) {
			w.views[0].Transactions["transfer"] = &decreev1.Transaction{State: decreev1.State_STATE_COMMITTING}
		}, "n1 has transfer as STATE_COMMITTING"},
		{"a node knows of damage", func(w *world) {
			w.views[0].Transactions["transfer"].Damage = decreev1.Receipt_RECEIPT_HEURISTIC_ABORT
		}, "n1 has transfer as damaged"},
		{"a node knows more", func(w *world) {
			w.views[0].Transactions["ghost"] = &decreev1.Transaction{State: decreev1.State_STATE_COMMITTED}
		}, "n1 knows ghost, which nobody ordered"},
		{"a branch left prepared", func(w *world) { w.books[0].Fates[Branch{"transfer", 1}] = participants.StatusPrepared }, "bank-a still holds transfer prepared"},
		{"a branch rolled back", func(w *world) { w.books[1].Fates[Branch{"transfer", 2}] = participants.StatusAborted }, "bank-b has transfer as aborted, which is committed"},
		{"a branch lost", func(w *world) { delete(w.books[1].Fates, Branch{"transfer", 2}) }, "bank-b has transfer as unknown, which is committed"},
		{"a branch committed alone", func(w *world) { w.books[0].Fates[Branch{"overdraft", 2}] = participants.StatusCommitted }, "bank-a has committed overdraft, which is aborted"},
		{"a branch of nobody", func(w *world) { w.books[0].Fates[Branch{"ghost", 1}] = participants.StatusPrepared }, "bank-a holds branch 1 of ghost as prepared"},
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

// TestAbortedBranchesNeedNoRecord holds that a participant which was never
// reached, or has forgotten an abort, is not accused.
func TestAbortedBranchesNeedNoRecord(t *testing.T) {
	w := newWorld()
	delete(w.books[0].Fates, Branch{"overdraft", 2})
	if got := w.audit(); got != "" {
		t.Errorf("found: %s", got)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	var f Findings
	for range 10 * maxFindings {
		f.add("wrong")
	}
	if f.Count != 10*maxFindings || len(f.Texts) != maxFindings {
		t.Errorf("%d findings, %d texts", f.Count, len(f.Texts))
	}
}

// TestReadBooks reads a real kv file.
func TestReadBooks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bank.db")
	ctx := context.Background()
	store, err := kv.Open(ctx, path, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	order := Order{Moves: []Move{{alice, 100}, {Account{"bank-a", "carol"}, 7}}}
	payloads := order.payloads(t)
	committed := branchOf(t, payloads["bank-a"])
	held := branchOf(t, []byte(`{"ops":[{"op":"put","key":"x","value":"1"}]}`))
	for _, b := range []participants.Branch{committed, held} {
		if vote, err := store.Prepare(ctx, b); err != nil || vote.Reason != "" {
			t.Fatalf("prepare: %v %v", vote, err)
		}
	}
	if err := store.Commit(ctx, committed); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	books, err := ReadBooks(ctx, "bank-a", path)
	if err != nil {
		t.Fatal(err)
	}
	if books.Balances["alice"] != 100 || books.Balances["carol"] != 7 || len(books.Balances) != 2 {
		t.Errorf("balances %v", books.Balances)
	}
	if books.Fates[Branch{committed.TxID.String(), 1}] != participants.StatusCommitted ||
		books.Fates[Branch{held.TxID.String(), 1}] != participants.StatusPrepared {
		t.Errorf("fates %v", books.Fates)
	}
}

func branchOf(t *testing.T, payload []byte) participants.Branch {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	b := participants.Branch{Cluster: "c1", Number: 1, Epoch: 1, Payload: payload}
	copy(b.TxID[:], id[:])
	return b
}
