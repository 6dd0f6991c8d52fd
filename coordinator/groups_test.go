package coordinator

// R1, R6: what is another group's is refused at every way in, before anything is written
// or sent, and what is prepared of it is left alone.

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// idOf makes a txid of a group.
func (r *rig) idOf(g group.Group) txn.TxID {
	for {
		if id := r.id(); g.Takes(id) {
			return id
		}
	}
}

// join makes the cluster one of several.
func (r *rig) join(g group.Group) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.cluster.Group = g
}

func TestAnotherGroupsTransactionIsRefusedAtEveryDoor(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.join(group.Group{Number: 1, Of: 2})
		own, foreign := r.idOf(group.Group{Number: 1, Of: 2}), r.idOf(group.Group{Number: 2, Of: 2})
		before := r.log.index
		for name, call := range map[string]func(ctx context.Context) error{
			"submit": func(ctx context.Context) error { _, err := r.run(ctx, transfer(foreign, "a", "b")); return err },
			"begin":  func(ctx context.Context) error { _, err := r.c.Begin(ctx, foreign, 0); return err },
			"enlist": func(ctx context.Context) error {
				_, err := r.c.Enlist(ctx, foreign, txn.NewBranch("a", nil))
				return err
			},
			"commit":   func(ctx context.Context) error { _, err := r.c.Commit(ctx, foreign, nil, WaitDecision); return err },
			"abort":    func(ctx context.Context) error { _, err := r.c.Abort(ctx, foreign, "", WaitDecision); return err },
			"inquire":  func(ctx context.Context) error { _, err := r.c.Inquire(ctx, foreign); return err },
			"examine":  func(ctx context.Context) error { _, _, err := r.c.Examine(ctx, foreign, 1); return err },
			"evidence": func(ctx context.Context) error { _, err := r.c.Evidence(ctx, foreign); return err },
		} {
			if err := call(background); !errors.Is(err, txn.ErrOtherGroup) || errors.Is(err, txn.ErrUnknown) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if r.log.index != before || r.driven() != 0 {
			t.Errorf("%d entries were written, %d are driven", r.log.index-before, r.driven())
		}
		r.wantCalls("a", foreign)
		_, err := r.c.Arbitrate(background, []txn.Command{txn.Arbitrate{ID: foreign, Decision: txn.Commit}})
		if !errors.Is(err, txn.ErrOtherGroup) {
			t.Errorf("arbitrate: %v", err)
		}
		res, err := r.run(background, transfer(own, "a", "b"))
		r.mustDecide(res, err, txn.Commit)
	})
}

// A branch that is prepared under this cluster's id for another group's transaction can
// only be a participant's fault. The scan writes no tombstone for it, sends it nothing, and
// ends the others.
func TestTheScanLeavesAnotherGroupsBranches(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		r.join(group.Group{Number: 1, Of: 2})
		foreign := r.branch(r.idOf(group.Group{Number: 2, Of: 2}), 1)
		orphan := r.branch(r.idOf(group.Group{Number: 1, Of: 2}), 1)
		foreign.Epoch, orphan.Epoch = r.epoch, r.epoch
		r.fakes["a"].Stage(foreign)
		r.fakes["a"].Stage(orphan)
		time.Sleep(3 * r.c.cfg.ScanInterval)
		if s := r.fakes["a"].State(foreign); s != participants.StatusPrepared || r.stored(foreign.TxID) != nil {
			t.Errorf("the foreign branch is %s, and the log has %v", s, r.stored(foreign.TxID))
		}
		if s := r.fakes["a"].State(orphan); s != participants.StatusAborted {
			t.Errorf("the orphan is %s", s)
		}
		r.fakes["a"].Abort(background, foreign) //nolint:errcheck // as an operator would, at the participant
	})
}

// R4: a cluster that is told its group while a submission is being admitted refuses it
// before a prepare leaves. The group and the participant appear between the look at the
// txid and the look at the participants, which no client can arrange; the test's view can.
func TestTheGroupIsLookedAtAfterTheParticipants(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		g := group.Group{Number: 1, Of: 2}
		foreign := r.idOf(group.Group{Number: 2, Of: 2})
		look := func(do func()) {
			r.log.mu.Lock()
			defer r.log.mu.Unlock()
			r.log.whileLooking = do
		}
		look(func() { r.log.cluster.Group = g })
		_, err := r.run(background, transfer(foreign, "a", "b"))
		look(nil)
		if !errors.Is(err, txn.ErrOtherGroup) {
			t.Errorf("it was let in: %v", err)
		}
		r.wantCalls("a", foreign)
		r.wantCalls("b", foreign)
	})
}
