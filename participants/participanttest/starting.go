package participanttest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Starting is a driver whose participants are those of another one, as
// participants.Starter.
type Starting struct {
	participants.Driver
	// Sometimes has a third of the calls not begun, and another third not left, in
	// turn. The rest end by themselves at their deadline, in the moment in which they are
	// given up; without it calls leave that to their caller.
	Sometimes bool
}

// Open implements participants.Driver.
func (d Starting) Open(ctx context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	p, err := d.Driver.Open(ctx, r, log)
	if err != nil {
		return nil, err
	}
	return &starting{Participant: p, sometimes: d.Sometimes}, nil
}

// starting makes calls on goroutines of its own.
type starting struct {
	participants.Participant
	sometimes bool
	asked     atomic.Int64
	calls     sync.WaitGroup
}

// Close implements participants.Participant.
func (s *starting) Close() error {
	s.calls.Wait() // those given up are under way still
	return s.Participant.Close()
}

// Status implements participants.StatusReporter.
func (s *starting) Status(ctx context.Context, b participants.Branch) (participants.Status, error) {
	if r, ok := s.Participant.(participants.StatusReporter); ok {
		return r.Status(ctx, b)
	}
	return participants.StatusUnknown, errors.ErrUnsupported
}

// Start implements participants.Starter.
func (s *starting) Start(c participants.Call, to participants.Listener) (participants.Started, bool) {
	turn := s.asked.Add(1) % 3
	if s.sometimes && turn == 1 {
		return nil, false
	}
	ctx, cancel := context.WithCancel(context.Background())
	if s.sometimes {
		ctx, cancel = context.WithDeadline(context.Background(), c.Deadline)
	}
	o := &ongoing{cancel: cancel}
	s.calls.Go(func() {
		defer cancel()
		var vote participants.Vote
		var err error
		switch {
		case s.sometimes && turn == 2:
			err = participants.ErrNotStarted
		case c.Kind == txn.PrepareBranch:
			vote, err = s.Prepare(ctx, c.Branch)
		case c.Kind == txn.CommitBranch:
			err = s.Commit(ctx, c.Branch)
		case c.Kind == txn.AbortBranch:
			err = s.Abort(ctx, c.Branch)
		}
		if o.end() {
			to.Ended(vote, err)
		}
	})
	return o, true
}

// ongoing is one call under way.
type ongoing struct {
	cancel context.CancelFunc

	mu    sync.Mutex
	ended bool // guarded by mu: answered, or given up
}

func (o *ongoing) end() (first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first = !o.ended
	o.ended = true
	return first
}

// Cancel implements participants.Started.
func (o *ongoing) Cancel() bool {
	o.cancel()
	return o.end()
}
