package transport_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// What is proven here: every node hands out the state with all that was committed before
// the call, and with what only it has applied where that is asked for; and a transaction
// that the cluster decides itself is nobody else's to decide.

func TestSnapshotFromEveryNode(t *testing.T) {
	x := newTrio(t)
	for _, m := range x.members {
		r, err := x.client.Submit(x.ctx(), client.Transaction{Branches: []client.Branch{client.JSON("a", nil), client.JSON("b", nil)}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := txn.ParseTxID(r.TxID)
		if err != nil {
			t.Fatal(err)
		}
		one, err := client.New(client.Config{Endpoints: []string{m.api}})
		if err != nil {
			t.Fatal(err)
		}
		defer one.Close()
		for _, local := range []bool{false, true} {
			header, state := saved(t, x, one, local)
			restored := fsm.New(fsm.Options{})
			if err := restored.Restore(io.NopCloser(state)); err != nil {
				t.Fatal(err)
			}
			if _, ok := restored.Transaction(id); !ok && !local {
				t.Errorf("%s: what was committed before is not in the snapshot", m.id)
			}
			if header.GetCluster() != restored.ClusterID() || header.GetIndex() != restored.AppliedIndex() || local && header.GetNode() != m.id {
				t.Errorf("%s: header %v", m.id, header)
			}
		}
		if _, err := one.Decide(x.ctx(), client.Aborted, "to see", r.TxID); err != nil { // it is decided
			t.Errorf("a decision that stands: %v", err)
		}
		fresh, err := client.NewTxID()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := one.Decide(x.ctx(), client.Aborted, "to see", fresh); !errors.Is(err, client.ErrNotLost) {
			t.Errorf("a decision of what the cluster decides: %v", err)
		}
		if _, err := one.Decide(x.ctx(), client.Aborted, "", fresh); !errors.Is(err, client.ErrInvalidRequest) {
			t.Errorf("a decision without a reason: %v", err)
		}
	}
	list, err := x.client.Unresolved(x.ctx())
	if err != nil || len(list.GetTransactions()) != 0 || len(list.GetAway()) != 0 {
		t.Errorf("unresolved: %v, %v", list, err)
	}
}

func saved(t *testing.T, x *trio, c *client.Client, local bool) (header *decreev1.SnapshotHeader, state *bytes.Buffer) {
	t.Helper()
	err := c.SaveSnapshot(x.ctx(), local, func(h *decreev1.SnapshotHeader) (io.Writer, error) {
		header, state = h, new(bytes.Buffer)
		return state, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return header, state
}

// An error of the side that writes ends a save at once, and is told as it is.
func TestSnapshotThatCannotBeWritten(t *testing.T) {
	x := newTrio(t)
	x.leader(nil)
	full := errors.New("the disk is full")
	if err := x.client.SaveSnapshot(x.ctx(), false, func(*decreev1.SnapshotHeader) (io.Writer, error) { return nil, full }); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}
