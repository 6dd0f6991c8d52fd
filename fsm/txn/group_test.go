package txn_test

import (
	"errors"
	"testing"

	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
)

// TestATransactionHasOneGroup holds R1 and R6 across clusters that share out the txids:
// of a txid that is another's, no command makes a transaction.
func TestATransactionHasOneGroup(t *testing.T) {
	id := newID(beginning, 1)
	work := []txn.Branch{txn.NewBranch("a", nil)}
	for number := 1; number <= 3; number++ {
		own := group.Number(id, 3) == number
		at := txn.At{Cluster: txn.Cluster{Epoch: 1, Now: beginning, Group: group.Group{Number: number, Of: 3}}, Index: 1}
		for _, c := range []txn.Command{
			txn.Stage{ID: id, Branches: work},
			txn.Stage{ID: id, Interactive: true},
			txn.Presume{ID: id},
			txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.TimeIsUp, Branches: work},
		} {
			next, due, err := txn.Step(at, nil, c)
			if errors.Is(err, txn.ErrOtherGroup) == own || (next != nil) != own || len(due) > 0 && !own {
				t.Errorf("group %d, %T: %v, %v", number, c, next, err)
			}
		}
		if err := at.CheckID(id); errors.Is(err, txn.ErrOtherGroup) == own {
			t.Errorf("group %d: %v", number, err)
		}
	}
}
