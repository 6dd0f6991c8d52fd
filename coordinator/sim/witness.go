package sim

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

const driverName = "fake"

// A life is the driver of its own node: it opens the fakes, and stands between them
// and the node as a witness. It knows what the node has applied, so that it can
// tell whether a decision travels before that (rule R2), and it lets nothing
// through once the process is dead, or while its way to a participant is cut.

// Check implements participants.Driver.
func (l *life) Check(config []byte) error { return l.world.fakes.Check(config) }

// Open implements participants.Driver.
func (l *life) Open(ctx context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	select {
	case <-l.opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p, err := l.world.fakes.Open(ctx, r, log)
	if err != nil {
		return nil, err
	}
	return &witness{Participant: p, life: l, name: r.Name}, nil
}

// ways are the ways from members to participants that are cut.
type ways struct {
	mu  sync.Mutex
	cut map[[2]string]bool // guarded by mu: member, participant
}

func (c *ways) set(member, participant string, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == nil {
		c.cut = make(map[[2]string]bool)
	}
	c.cut[[2]string{member, participant}] = cut
}

func (c *ways) works(member, participant string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.cut[[2]string{member, participant}]
}

// witness is one participant as one process sees it.
type witness struct {
	participants.Participant
	life *life
	name string
}

var errNoWay = errors.New("no route to the participant")

// passable is whether a call may leave.
func (v *witness) passable() error {
	if v.life.dead.Load() {
		return participanttest.ErrCut
	}
	if !v.life.world.ways.works(v.life.member.id, v.name) {
		return errNoWay
	}
	return nil
}

// Prepare implements participants.Participant.
func (v *witness) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	if err := v.passable(); err != nil {
		return participants.Vote{}, err
	}
	return v.Participant.Prepare(ctx, b)
}

// Commit implements participants.Participant.
func (v *witness) Commit(ctx context.Context, b participants.Branch) error {
	v.heard(b, txn.Commit)
	if err := v.passable(); err != nil {
		return err
	}
	return v.Participant.Commit(ctx, b)
}

// Abort implements participants.Participant.
func (v *witness) Abort(ctx context.Context, b participants.Branch) error {
	v.heard(b, txn.Abort)
	if err := v.passable(); err != nil {
		return err
	}
	return v.Participant.Abort(ctx, b)
}

// Recover implements participants.Participant.
func (v *witness) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	if err := v.passable(); err != nil {
		return nil, err
	}
	return v.Participant.Recover(ctx, cluster)
}

// heard holds what leaves against what this node has applied (rule R2). A branch
// that is not its transaction's own is aborted whatever the decision is: it was
// prepared for other content under the same txid.
func (v *witness) heard(b participants.Branch, d txn.Decision) {
	tx, known := v.life.node.Machine.Transaction(b.TxID)
	switch {
	case known && tx.Decision() == d:
	case known && d == txn.Abort && tx.Decision() == txn.Commit && tx.Branch(v.name) != b.Number:
	case known:
		v.life.world.wrong("%s tells %s to %s %s, of which it has applied %s", v.life.member.id, v.name, d, b.Name(), tx.State)
	default:
		v.life.world.wrong("%s tells %s to %s %s, of which it has applied nothing", v.life.member.id, v.name, d, b.Name())
	}
}
