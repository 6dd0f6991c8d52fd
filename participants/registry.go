package participants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// Registration is what an operator registered under a name. It is replicated, so
// every node opens the same resource.
type Registration struct {
	Name   string
	Driver string
	// Config is the driver's own JSON object, checked by Driver.Check when it is
	// registered. Secrets stand in it only as references.
	Config []byte
	// Identity names the resource that the configuration led to when it was
	// registered, as Prober.Probe found it; empty where the driver has no Prober.
	Identity string
	// Revision changes with every registration of the name, so that a node knows
	// when to open it anew.
	Revision uint64
}

// Driver opens one kind of participant.
type Driver interface {
	// Check reports what is wrong with a configuration, all of it at once, without
	// reaching the resource.
	Check(config []byte) error
	// Open makes a participant. It does not wait for the resource: one that is
	// down must not keep a leader from leading. It may block for the time of a
	// local file open.
	Open(ctx context.Context, r Registration, log hclog.Logger) (Participant, error)
}

// Prober is implemented by drivers that look at their resource when it is
// registered.
type Prober interface {
	// Probe reaches the resource, makes what the driver needs in it, and reports
	// everything that keeps it from taking part, all of it at once, each with the
	// line to change; such an error wraps ErrUnfit. The identity names the resource
	// itself, whatever address leads to it: a driver that is opened with it later
	// refuses to work on any other. Probe is idempotent, and blocks until ctx ends
	// where the resource does not answer.
	Probe(ctx context.Context, r Registration, log hclog.Logger) (identity string, err error)
}

// ErrUnfit is wrapped where a resource is not as its driver needs it, or cannot be
// reached to find out.
var ErrUnfit = errors.New("the resource cannot take part")

// Drivers is the set of drivers that a binary was built with, by name.
type Drivers map[string]Driver

// ErrUnknownDriver is wrapped where a registration names a driver that this
// binary does not have.
var ErrUnknownDriver = errors.New("unknown driver")

// Check validates a registration's driver and configuration.
func (d Drivers) Check(r Registration) error {
	driver, err := d.lookup(r.Driver)
	if err != nil {
		return err
	}
	return driver.Check(r.Config)
}

// Probe looks at the resource of a registration and returns the registration with
// its identity, where its driver is a Prober; any other is returned as it is.
func (d Drivers) Probe(ctx context.Context, r Registration, log hclog.Logger) (Registration, error) {
	driver, err := d.lookup(r.Driver)
	if err != nil {
		return r, err
	}
	if prober, ok := driver.(Prober); ok {
		r.Identity, err = prober.Probe(ctx, r, log.With("participant", r.Name))
	}
	return r, err
}

// Open makes the participant that r describes.
func (d Drivers) Open(ctx context.Context, r Registration, log hclog.Logger) (Participant, error) {
	driver, err := d.lookup(r.Driver)
	if err != nil {
		return nil, err
	}
	p, err := driver.Open(ctx, r, log.With("participant", r.Name))
	if err != nil {
		return nil, fmt.Errorf("open participant %q: %w", r.Name, err)
	}
	return p, nil
}

func (d Drivers) lookup(name string) (Driver, error) {
	if driver, ok := d[name]; ok {
		return driver, nil
	}
	have := slices.Sorted(maps.Keys(d))
	return nil, fmt.Errorf("%w %q, have %s", ErrUnknownDriver, name, strings.Join(have, ", "))
}
