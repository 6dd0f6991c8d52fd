// Package trivial is the participant that a benchmark measures the rest against: it
// keeps nothing and agrees at once, so that what is left is decree's own cost.
//
// It owns no promise. It forgets what it has voted, and so breaks on purpose most of
// what participants.Participant asks for; it is served by a hidden command, for load
// that nobody will miss.
package trivial

import (
	"context"
	"time"

	"github.com/decree-tx/decree/participants"
)

// The first byte of a payload says how the branch votes. Any other is a yes.
const (
	VoteNo       = 'n'
	VoteReadOnly = 'r'
)

// Participant answers every call at once, or as late as it is told to.
type Participant struct {
	// PrepareDelay is how long a prepare takes.
	PrepareDelay time.Duration
	// Silent leaves every call unanswered until its caller gives up.
	Silent bool
}

// Prepare implements participants.Participant.
func (p Participant) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	if err := p.wait(ctx, p.PrepareDelay); err != nil {
		return participants.Vote{}, err
	}
	if len(b.Payload) > 0 {
		switch b.Payload[0] {
		case VoteNo:
			return participants.No("the payload asked for it"), nil
		case VoteReadOnly:
			return participants.ReadOnly(), nil
		}
	}
	return participants.Yes(), nil
}

// Commit implements participants.Participant.
func (p Participant) Commit(ctx context.Context, _ participants.Branch) error { return p.wait(ctx, 0) }

// Abort implements participants.Participant.
func (p Participant) Abort(ctx context.Context, _ participants.Branch) error { return p.wait(ctx, 0) }

// Recover implements participants.Participant. It lists nothing, for nothing is kept.
func (p Participant) Recover(context.Context, string) ([]participants.Branch, error) {
	return nil, nil
}

// Recovers implements participants.Participant. It lets prepares run beside staging,
// as with any participant that keeps its promises.
func (p Participant) Recovers() bool { return true }

// Close implements participants.Participant.
func (p Participant) Close() error { return nil }

func (p Participant) wait(ctx context.Context, d time.Duration) error {
	if p.Silent {
		<-ctx.Done()
		return ctx.Err()
	}
	if d == 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
