package participanttest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
)

// Fakes is a driver whose participants are fakes, by registered name. Each Open
// is a hold of its own on the shared fake, so that several nodes may open it and
// close it without ending it for the others.
type Fakes map[string]*Fake

// Check implements participants.Driver: a fake needs no configuration.
func (Fakes) Check([]byte) error { return nil }

// Open implements participants.Driver.
func (d Fakes) Open(_ context.Context, r participants.Registration, _ hclog.Logger) (participants.Participant, error) {
	f, ok := d[r.Name]
	if !ok {
		return nil, fmt.Errorf("no fake is called %q, have %v", r.Name, slices.Sorted(maps.Keys(d)))
	}
	return &hold{Fake: f, name: r.Name}, nil
}

// hold is one node's use of a fake. It watches the promise of Close: no call is
// under way or follows.
type hold struct {
	*Fake
	name string

	hmu    sync.Mutex // guards what follows
	active int
	closed bool
}

func (h *hold) enter(op Op) {
	h.hmu.Lock()
	defer h.hmu.Unlock()
	h.active++
	if h.closed {
		h.complain("%s after Close", op)
	}
}

func (h *hold) exit() {
	h.hmu.Lock()
	defer h.hmu.Unlock()
	h.active--
}

func (h *hold) complain(format string, args ...any) {
	h.Fake.mu.Lock()
	defer h.Fake.mu.Unlock()
	h.Fake.wrongs = append(h.Fake.wrongs, h.name+": "+fmt.Sprintf(format, args...))
}

func (h *hold) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	h.enter(Prepare)
	defer h.exit()
	return h.Fake.Prepare(ctx, b)
}

func (h *hold) Commit(ctx context.Context, b participants.Branch) error {
	h.enter(Commit)
	defer h.exit()
	return h.Fake.Commit(ctx, b)
}

func (h *hold) Abort(ctx context.Context, b participants.Branch) error {
	h.enter(Abort)
	defer h.exit()
	return h.Fake.Abort(ctx, b)
}

func (h *hold) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	h.enter(Recover)
	defer h.exit()
	return h.Fake.Recover(ctx, cluster)
}

// Close ends this hold, and leaves the fake as it is.
func (h *hold) Close() error {
	h.hmu.Lock()
	defer h.hmu.Unlock()
	if h.active > 0 {
		h.complain("Close while %d calls are under way", h.active)
	}
	if h.closed {
		h.complain("Close twice")
	}
	h.closed = true
	return nil
}
