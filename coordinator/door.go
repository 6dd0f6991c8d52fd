package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/decree-tx/decree/participants"
)

// door is the way to one participant: it opens the driver at the first call, and
// again when the registration has changed, once the calls under way are done.
// Some resources can be open only once.
type door struct {
	t    *term // set once
	name string

	// Held for reading by every call, for writing while the driver is opened.
	mu       sync.RWMutex
	p        participants.Participant // nil while closed
	revision uint64
	locked   bool // closed for good
}

// errLocked answers who comes through a door that was closed for good: its term is
// over, or its participant was deleted.
var errLocked = errors.New("the way to the participant is closed")

// through makes a call. It fails before the call where the participant cannot be
// opened.
func (d *door) through(ctx context.Context, call func(participants.Participant) error) error {
	for {
		r, ok := d.t.view.Participant(d.name)
		if !ok {
			return fmt.Errorf("%w %q", ErrUnknownParticipant, d.name)
		}
		d.mu.RLock()
		if d.p != nil && d.revision == r.Revision {
			defer d.mu.RUnlock()
			return call(d.p)
		}
		d.mu.RUnlock()
		if err := d.open(ctx, r); err != nil {
			return err
		}
	}
}

// start begins a call where the driver is open and needs no goroutine for it; leave
// ends that. It returns nil where the call must come through. It does not block.
func (d *door) start(c participants.Call, staged bool, to participants.Listener) participants.Started {
	r, ok := d.t.view.Participant(d.name)
	if !ok || !d.mu.TryRLock() {
		return nil
	}
	starter, ok := d.p.(participants.Starter)
	if ok && d.revision == r.Revision && (staged || d.p.Recovers()) {
		if started, ok := starter.Start(c, to); ok {
			return started
		}
	}
	d.leave()
	return nil
}

// leave ends what start began.
func (d *door) leave() { d.mu.RUnlock() }

// open replaces the driver, unless somebody was faster.
func (d *door) open(ctx context.Context, r participants.Registration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.locked {
		return errLocked
	}
	if d.p != nil && d.revision >= r.Revision {
		return nil
	}
	d.shut()
	p, err := d.t.drivers.Open(ctx, r, d.t.logger)
	if err != nil {
		return err
	}
	d.p, d.revision = p, r.Revision
	return nil
}

// recovers does not block: a door that is being opened answers no.
func (d *door) recovers() bool {
	if !d.mu.TryRLock() {
		return false
	}
	defer d.mu.RUnlock()
	return d.p != nil && d.p.Recovers()
}

// close waits for the calls under way, and lets none follow.
func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.locked = true
	d.shut()
}

// shut closes the driver; mu is held.
func (d *door) shut() {
	if d.p == nil {
		return
	}
	if err := d.p.Close(); err != nil {
		d.t.logger.Warn("closing a participant failed", "participant", d.name, "error", err)
	}
	d.p = nil
}
