// Package bench measures a decree cluster as its users see it, and what a transaction
// costs the machine.
//
// It owns the load and its clocks, and the processes of a cluster of its own. It
// reaches the cluster through transport/client only, as a user would. It refuses to
// measure inside a node: what a node counts about itself it asks for over the API.
package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// bench is one run.
type bench struct {
	cfg    Config
	ground *ground
}

// Run starts a cluster, measures, and leaves nothing running.
func Run(ctx context.Context, cfg Config) (report *Report, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &bench{cfg: cfg}
	b.say("starting three nodes and %d %s participants", cfg.ParticipantsCount, cfg.Participants)
	b.ground, err = newGround(ctx, cfg)
	defer func() { err = errors.Join(err, b.ground.close()) }()
	if err != nil {
		return nil, err
	}
	report = &Report{Version: cfg.Version, Started: time.Now(), Setting: setting(cfg)}
	if report.Machine, err = describeMachine(b.ground.fleet.Dir()); err != nil {
		return nil, err
	}
	if kind := report.Machine.FileSystem; kind == "tmpfs" {
		b.say("WARNING: %s is in memory (tmpfs): no fsync there is real; set --dir", b.ground.fleet.Dir())
	}
	report.Result, err = b.measure(ctx)
	return report, err
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.cfg.Out, format+"\n", args...) }

func setting(cfg Config) Setting {
	wait := "delivery"
	if cfg.Wait == client.WaitDecision {
		wait = "decision"
	}
	return Setting{
		Clients: cfg.Clients, Connections: cfg.Connections, Branches: cfg.Branches, PayloadBytes: cfg.Payload,
		Wait: wait, Participants: cfg.Participants, ParticipantsCount: cfg.ParticipantsCount,
		WarmupSeconds: cfg.Warmup.Seconds(), DurationSeconds: cfg.Duration.Seconds(),
	}
}

func (b *bench) traffic() *traffic {
	payload := trivialPayloads(b.cfg.Payload)
	if b.cfg.Participants == KV {
		payload = kvPayloads(b.cfg.Payload)
	}
	return &traffic{
		clients: b.ground.clients, wait: b.cfg.Wait, branches: b.cfg.Branches,
		names: names(b.cfg.ParticipantsCount), payload: payload,
	}
}

// measure puts the cluster under load, and measures once it is warm.
func (b *bench) measure(ctx context.Context) (Measured, error) {
	l := &load{run: b.traffic().run, tally: newTally()}
	l.closed(ctx, b.cfg.Clients)
	m, err := b.observe(ctx, l)
	l.stop()
	return m, errors.Join(err, ctx.Err())
}

// observe waits for the warm-up to pass, and measures the span after it.
func (b *bench) observe(ctx context.Context, l *load) (Measured, error) {
	b.watch(ctx, l, b.cfg.Warmup, "warming up")
	var profiled chan error
	if b.cfg.Profile != "" {
		profiled = make(chan error, 1)
		go func() { profiled <- b.ground.profile(ctx, b.cfg.Profile, b.cfg.Duration) }()
	}
	from, err := b.ground.read(ctx)
	if err != nil {
		return Measured{}, err
	}
	l.tally.cut()
	c := b.watch(ctx, l, b.cfg.Duration, "")
	to, err := b.ground.read(ctx)
	if err != nil {
		return Measured{}, err
	}
	m := b.ground.measured(c, from, to)
	if fault := l.tally.lastFault(); fault != nil {
		m.Fault = fault.Error()
	}
	if profiled != nil {
		err = <-profiled
	}
	return m, err
}

// watch writes a line a second for so long, and returns what was counted.
func (b *bench) watch(ctx context.Context, l *load, d time.Duration, note string) *counted {
	all := newCounted()
	start := time.Now()
	last := start
	for time.Since(start) < d && ctx.Err() == nil {
		pause(ctx, min(time.Second, d-time.Since(start)))
		now := l.tally.cut()
		all.add(now)
		b.say("%s", liveLine(time.Since(start), time.Since(last), now, l.inFlight.Load(), note))
		last = time.Now()
	}
	return all
}
