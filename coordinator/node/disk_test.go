package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// full is a disk without a free byte, on which everything can be written all the same.
type full struct{ cluster.Storage }

func (full) Free() (int64, error)     { return 0, nil }
func (full) Reserved() (int64, error) { return 1 << 30, nil }
func (full) Reserve(int64) error      { return nil }

// The hazard "disk full", where cluster and coordinator meet: a leader whose disk is
// low refuses a new transaction as busy, and goes on with all that is not new.
func TestALowDiskShutsTheDoor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := Open(ctx, Config{
		Cluster: cluster.Config{
			ID: "n1", Bind: "127.0.0.1:0", Peers: []cluster.Peer{{ID: "n1"}},
			Storage: full{clustertest.NewDisk("full", 1)},
			Exit:    func(err error) { t.Errorf("exit: %v", err) },
		},
		Drivers: participants.Drivers{"fake": participanttest.Fakes{"a": participanttest.NewFake()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	for {
		_, err = n.PutParticipant(ctx, fsm.Operator{}, participants.Registration{Name: "a", Driver: "fake", Config: []byte("{}")})
		if !errors.Is(err, coordinator.ErrNotLeader) {
			break
		}
		<-time.After(time.Millisecond) // it is being elected
	}
	if err != nil {
		t.Fatalf("register a participant: %v", err)
	}
	_, err = n.Coordinator.Submit(ctx, coordinator.Submission{ID: newID(), Branches: []txn.Branch{txn.NewBranch("a", nil)}})
	var busy *coordinator.BusyError
	if !errors.As(err, &busy) || busy.RetryAfter <= 0 || !strings.Contains(err.Error(), "the leader's disk is nearly full") {
		t.Errorf("a new transaction: %v", err)
	}
	if r, err := n.Coordinator.Inquire(ctx, newID()); err != nil || r.Transaction.State != txn.Aborted {
		t.Errorf("an inquiry: %+v, %v", r, err)
	}
}
