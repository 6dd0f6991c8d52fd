// Package sim is the simulated participant: the abstract service of the
// specification, with a chance of success and a delay for each call, a staging
// area by branch, and commits and aborts that may be repeated.
//
// It owns a service that exists in memory only, and says so: when its process
// ends, everything is gone, and a branch that was prepared in it is then reported
// as a heuristic abort. Within one process the service of a name outlives its
// participants, so that the nodes of a cluster in one process find the same one
// when leadership moves. A cluster of several processes reaches one service over
// gRPC. It refuses to be mistaken for storage; that is package kv.
//
// Chance comes from the seed, the branch, the kind of call and how often it was
// asked, and from nothing else: however calls interleave, a run repeats itself.
package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
)

// errChance is the failure that chance brings about.
var errChance = errors.New("the simulated service failed, as it is set to")

type op uint8

const (
	prepare op = iota + 1
	commit
	abort
)

// Driver opens simulated services. The zero Driver is ready for use; it must not
// be copied.
type Driver struct {
	mu       sync.Mutex
	services map[string]*Service // by name; they stay
}

// Check implements participants.Driver.
func (d *Driver) Check(config []byte) error {
	_, err := parseConfig(config)
	return err
}

// Open implements participants.Driver: a participant with its own configuration,
// over the service of the registered name.
func (d *Driver) Open(_ context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	c, err := parseConfig(r.Config)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.services[r.Name]
	if s == nil {
		s = NewService(nil)
		if d.services == nil {
			d.services = map[string]*Service{}
		}
		d.services[r.Name] = s
	}
	return s.Participant(c, log)
}

// participant is a service as seen through one configuration.
type participant struct {
	service *Service
	config  Config
	seed    uint64
}

// Prepare implements participants.Participant. A prepare whose context ends
// while it is delayed has staged nothing.
func (p *participant) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	if err := b.Validate(); err != nil {
		return participants.Vote{}, err
	}
	w, malformed := wishOf(b.Payload)
	// Asked again, a prepare has the same fate: its chance knows no attempts.
	success, err := p.call(ctx, p.chance(prepare, b, 0), prepare, w.Delay)
	if err != nil {
		return participants.Vote{}, err
	}
	answer := participants.Yes()
	switch {
	case malformed != nil:
		answer = participants.No("%v", malformed)
	case w.Vote == "abort" && w.Reason == "":
		answer = participants.No("the payload asks for it")
	case w.Vote == "abort":
		answer = participants.No("%s", w.Reason)
	case !success:
		answer = participants.No("%v", errChance)
	case w.Vote == "read-only":
		answer = participants.ReadOnly()
	}
	return p.service.prepare(b, w, answer)
}

// Commit implements participants.Participant.
func (p *participant) Commit(ctx context.Context, b participants.Branch) error {
	return p.end(ctx, commit, b, participants.Record.Commit)
}

// Abort implements participants.Participant.
func (p *participant) Abort(ctx context.Context, b participants.Branch) error {
	return p.end(ctx, abort, b, participants.Record.Abort)
}

func (p *participant) end(ctx context.Context, o op, b participants.Branch, decide decision) error {
	if err := b.Validate(); err != nil {
		return err
	}
	attempt, wished, err := p.service.ask(o, b)
	if err != nil {
		return err
	}
	success, err := p.call(ctx, p.chance(o, b, attempt), o, wished)
	if err != nil {
		return err
	}
	if !success {
		return errChance
	}
	return p.service.end(b, decide)
}

// call waits out a call's delay and draws its fate.
func (p *participant) call(ctx context.Context, chance *rand.Rand, o op, wished Duration) (success bool, err error) {
	delay := p.config.delay(o) + time.Duration(wished)
	if most := p.config.DelayMax; most > 0 {
		delay += time.Duration(chance.Int64N(int64(most) + 1))
	}
	success = chance.Float64() < p.config.rate(o)
	return success, wait(ctx, delay)
}

func wait(ctx context.Context, delay time.Duration) error {
	if delay <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// chance is the source of randomness of one attempt at a call.
func (p *participant) chance(o op, b participants.Branch, attempt uint64) *rand.Rand {
	h := fnv.New64a()
	h.Write(b.TxID[:]) //nolint:errcheck // a hash never fails to write
	for _, n := range []uint64{uint64(b.Number), uint64(o), attempt} {
		h.Write(binary.BigEndian.AppendUint64(nil, n)) //nolint:errcheck // a hash never fails to write
	}
	return rand.New(rand.NewPCG(p.seed, h.Sum64()))
}

// Recover implements participants.Participant. The list is in the order of
// txids.
func (p *participant) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return p.service.prepared(cluster), nil
}

// Recovers implements participants.Participant: what the service has lost with
// its process is not prepared any more.
func (p *participant) Recovers() bool { return true }

// Status implements participants.StatusReporter.
func (p *participant) Status(ctx context.Context, b participants.Branch) (participants.Status, error) {
	if err := errors.Join(ctx.Err(), b.Validate()); err != nil {
		return participants.StatusUnknown, err
	}
	return p.service.status(b), nil
}

// Close implements participants.Participant.
func (p *participant) Close() error { return nil }
