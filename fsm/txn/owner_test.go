package txn_test

import (
	"errors"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// R11 for two who use one txid: a retry is only the one who began it.
func TestOnlyItsOwnerSubmitsATransactionAgain(t *testing.T) {
	web, shop, nobody := txn.OwnerOf("client/web"), txn.OwnerOf("client/shop"), txn.OwnerOf("")
	if web != txn.OwnerOf("client/"+"web") || web.String() != "client/web" || nobody.String() != "" || nobody.Known() {
		t.Fatalf("%s, %s, %q", web, shop, nobody)
	}
	id := txn.TxID{0, 0, 0, 0, 0, 1, 0x70, 0, 0x80}
	at := txn.At{Cluster: txn.Cluster{Epoch: 1, Now: id.Time()}, Index: 1}
	stage := func(by txn.Owner) txn.Stage {
		return txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second, Owner: by}
	}
	for _, tt := range []struct {
		first, second txn.Owner
		joins         bool
	}{
		{web, web, true}, {web, shop, false}, {web, nobody, true}, {nobody, web, true}, {nobody, nobody, true},
	} {
		tx, _, err := txn.Step(at, nil, stage(tt.first))
		if err != nil || tx.Owner != tt.first {
			t.Fatal(tx, err)
		}
		again, _, err := txn.Step(at, tx, stage(tt.second))
		if joined := err == nil && again == tx; joined != tt.joins || !joined && !errors.Is(err, txn.ErrContentMismatch) {
			t.Errorf("%q after %q: %v", tt.second, tt.first, err)
		}
		d, _ := txn.Open(stage(tt.first), true)
		resumed, _ := txn.Resume(tx, at.Now)
		if d.Owner() != tt.first || resumed.Owner() != tt.first {
			t.Errorf("a drive is %q's and %q's, not %q's", d.Owner(), resumed.Owner(), tt.first)
		}
	}
	tombstone, _, err := txn.Step(at, nil, txn.Presume{ID: id})
	if err != nil || tombstone.Owner.Known() {
		t.Fatal(tombstone, err)
	}
	if after, _, err := txn.Step(at, tombstone, stage(web)); err != nil || after != tombstone {
		t.Errorf("a tombstone answers everybody: %v", err)
	}
}
