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
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// bench is one run.
type bench struct {
	cfg    Config
	ground *ground
	report *Report
}

// Run measures what the configuration asks for. It leaves nothing running.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &bench{cfg: cfg, report: &Report{Version: cfg.Version, Started: time.Now(), Setting: setting(cfg)}}
	var err error
	switch {
	case cfg.Stuck > 0:
		err = b.eachGround(ctx, b.stuck)
	case cfg.KillLeaderAt > 0 || cfg.TransferLeaderAt > 0:
		err = b.eachGround(ctx, b.failover)
	default:
		err = b.onGround(ctx, b.ramp)
	}
	return b.report, err
}

// eachGround runs every round on a cluster of its own, for each leaves one behind that
// is no longer what it was.
func (b *bench) eachGround(ctx context.Context, round func(context.Context) error) error {
	for range b.cfg.Rounds {
		if err := b.onGround(ctx, round); err != nil {
			return err
		}
	}
	return nil
}

// onGround starts a cluster, has something measured there, and ends it.
func (b *bench) onGround(ctx context.Context, measure func(context.Context) error) (err error) {
	if len(b.cfg.Endpoints) == 0 {
		b.say("starting %d nodes and %d %s participants", b.cfg.Groups*b.cfg.Nodes, b.cfg.ParticipantsCount, b.cfg.Participants)
	}
	b.ground, err = newGround(ctx, b.cfg)
	defer func() { err = errors.Join(err, b.ground.close()) }()
	if err != nil {
		return err
	}
	if err := b.describe(ctx); err != nil {
		return err
	}
	return measure(ctx)
}

// describe writes down where the run takes place.
func (b *bench) describe(ctx context.Context) error {
	dir := os.TempDir()
	if b.ground.fleet != nil {
		dir = b.ground.fleet.Dir()
	}
	var err error
	if b.report.Machine, err = describeMachine(dir); err != nil {
		return err
	}
	if b.ground.fleet == nil {
		return nil
	}
	if b.report.Machine.FileSystem == "tmpfs" {
		b.say("WARNING: %s is in memory (tmpfs): no fsync there is real; set --dir", dir)
	}
	b.report.Machine.RoundTripMicros, err = measureRoundTrip(ctx, b.ground.ports.fleet.Service(1))
	return err
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.cfg.Out, format+"\n", args...) }

func setting(cfg Config) Setting {
	s := Setting{
		Own: len(cfg.Endpoints) == 0, Nodes: cfg.Nodes, Groups: cfg.Groups, ServerArgs: strings.Join(cfg.serverArgs(), " "),
		Participants: cfg.Participants, ParticipantsCount: cfg.ParticipantsCount,
		Branches: cfg.Branches, PayloadBytes: cfg.Payload, Abort: cfg.Abort, ReadOnly: cfg.ReadOnly, Wait: "delivery",
		Connections: cfg.Connections, InFlight: cfg.InFlight,
		WarmupSeconds: cfg.Warmup.Seconds(), DurationSeconds: cfg.Duration.Seconds(), Rounds: cfg.Rounds,
	}
	if cfg.Groups == 1 {
		s.Groups = 0
	}
	if cfg.Wait == client.WaitDecision {
		s.Wait = "decision"
	}
	if !s.Own {
		var targets []string
		for _, t := range cfg.Targets {
			targets = append(targets, t.Participant)
		}
		s.Nodes, s.PayloadBytes = 0, 0
		s.Participants, s.ParticipantsCount = strings.Join(targets, ","), len(targets)
	}
	return s
}

// ramp measures every step, in rounds: bare Raft, decree, bare Raft, decree, and so on.
func (b *bench) ramp(ctx context.Context) error {
	var raft *bareRaft
	if b.cfg.AgainstRaft {
		var err error
		if raft, err = b.ground.startBare(ctx, b.cfg); err != nil {
			return b.ground.explain(err)
		}
		if raft.entryBytes, err = b.entryBytes(ctx); err != nil {
			return err
		}
	}
	for _, step := range b.cfg.Steps {
		s := StepReport{Step: step}
		for n := range b.cfg.Rounds {
			r, err := b.round(ctx, step, raft, n+1)
			if err != nil {
				return err
			}
			s.Rounds = append(s.Rounds, r)
		}
		s.Summary = summarize(s.Rounds)
		b.report.Steps = append(b.report.Steps, s)
	}
	return nil
}

// samples are enough transactions to tell what one takes in the log.
const samples = 50

// entryBytes is how large a bare entry is: what was asked for, or what one transaction
// after the other takes in the log.
func (b *bench) entryBytes(ctx context.Context) (int, error) {
	if b.cfg.EntryBytes > 0 {
		return b.cfg.EntryBytes, nil
	}
	before, err := b.ground.leader(ctx)
	if err != nil {
		return 0, err
	}
	t := newTraffic(b.cfg, b.ground.clients)
	for n := range uint64(samples) {
		if _, err := t.run(ctx, n); err != nil {
			return 0, err
		}
	}
	after, err := b.ground.leader(ctx)
	if err != nil {
		return 0, err
	}
	return max(int(after.GetEntryBytes()-before.GetEntryBytes())/samples, 1), nil //nolint:gosec // some hundred
}

// round is the n-th measurement of a step.
func (b *bench) round(ctx context.Context, step Step, raft *bareRaft, n int) (r Round, err error) {
	of := ""
	if b.cfg.Rounds > 1 {
		of = fmt.Sprintf(", round %d of %d", n, b.cfg.Rounds)
	}
	if raft != nil {
		b.say("bare Raft: %d callers%s", step.Clients, of)
		m, err := raft.measure(ctx, b.cfg, step.Clients)
		if err != nil {
			return r, err
		}
		b.say("        %9s entries/s  p50 %s  p99 %s", Thousands(m.Throughput), Micros(m.Latency.P50), Micros(m.Latency.P99))
		r.Bare = &m
	}
	b.say("decree: %s%s", step, of)
	r.Decree, err = b.measure(ctx, step, b.profileDir(step, n))
	return r, err
}

// profileDir is where a round's profiles go; empty for nowhere.
func (b *bench) profileDir(step Step, n int) string {
	dir := b.cfg.Profile
	if dir != "" && len(b.cfg.Steps)*b.cfg.Rounds > 1 {
		name := strings.NewReplacer(" ", "-", ",", "", "/", "-per-").Replace(step.String())
		dir = filepath.Join(dir, fmt.Sprintf("%s-%d", name, n))
	}
	return dir
}

// measure puts the cluster under a load, and measures once it is warm.
func (b *bench) measure(ctx context.Context, step Step, profiles string) (Measured, error) {
	l := newLoad(newTraffic(b.cfg, b.ground.clients).run)
	l.start(ctx, step, b.cfg.InFlight)
	m, err := b.observe(ctx, l, profiles)
	l.stop()
	return m, errors.Join(err, ctx.Err())
}

// observe waits for the warm-up to pass, and measures the span after it.
func (b *bench) observe(ctx context.Context, l *load, profiles string) (Measured, error) {
	b.watch(ctx, l, b.cfg.Warmup, "warming up")
	from, err := b.ground.read(ctx)
	if err != nil {
		return Measured{}, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- b.profile(ctx, profiles) }()
	l.tally.cut()
	c := b.watch(ctx, l, b.cfg.Duration, "")
	to, err := b.ground.read(ctx)
	if err := errors.Join(err, <-profiled); err != nil {
		return Measured{}, err
	}
	return b.ground.measured(c, from, to), nil
}

func (b *bench) profile(ctx context.Context, dir string) error {
	if dir == "" {
		return nil
	}
	return b.ground.profile(ctx, dir, b.cfg.Duration)
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
