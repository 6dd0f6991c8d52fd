package fsm

import (
	"errors"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// What is proven here: a transaction keeps who began it, through its end, snapshots and
// the form in which finished ones are kept; and a cluster with an old node has no owners.

func TestATransactionKeepsItsOwner(t *testing.T) {
	j := newJournal(t)
	j.must(put("bank"))
	web, shop := txn.OwnerOf("client/web"), txn.OwnerOf("client/shop")
	owned := func(n int, by txn.Owner) txn.Stage {
		return txn.Stage{ID: idAt(j.now, n), Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second, Owner: by}
	}
	if r := j.apply(owned(1, web))[0]; !errors.Is(r.Err, ErrLevel) {
		t.Errorf("an owner at level %d: %v", j.m.Level(), r.Err)
	}
	j.must(RaiseLevel{Level: LevelOwner})
	j.must(owned(1, web), owned(2, shop), owned(3, txn.Owner{}))
	first := idAt(j.now, 1)
	j.must(txn.Decide{ID: first, Decision: txn.Commit}, txn.Acknowledge{ID: first, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}}})
	again := New(Options{})
	if err := restore(again, persist(t, j.m)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Machine{j.m, again} {
		if tx, _ := m.Transaction(first); tx.Owner != web || !tx.State.Finished() {
			t.Errorf("it is %s's, and %s", tx.Owner, tx.State)
		}
		for owner, want := range map[txn.Owner]int{web: 1, shop: 1, {}: 3} {
			if page, _, _ := m.List(Query{Owner: owner}); len(page) != want {
				t.Errorf("%d transactions of %q, want %d", len(page), owner, want)
			}
		}
	}
}
