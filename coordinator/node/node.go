// Package node assembles one decree node: the Raft member of cluster, the state
// machine of fsm, and the coordinator that drives transactions while the member
// leads.
//
// It owns what lies between them: the writer that packs waiting commands into log
// entries, the epoch entry that opens a leadership, and the clock and retention
// that travel in entry headers. The commands and the simulation use the same
// assembly.
package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Config of a node. Zero values mean defaults.
type Config struct {
	// Cluster is the Raft member's; FSM, LevelInUse and Logger are filled in here, Level
	// where it is 0, and Admit of the Coordinator's.
	Cluster     cluster.Config
	Coordinator coordinator.Config
	Drivers     participants.Drivers
	Logger      hclog.Logger

	// Retention is how long a finished transaction answers retries with its
	// outcome, 24h. Older txids are refused as expired.
	Retention time.Duration
	// MaxRetained bounds the finished transactions kept, 1,000,000, at some 400 bytes
	// each: past it the oldest go early, though at first none before MinRetention. A
	// quarter more, and a minute is all that they are kept for; twice as many, and no
	// new transactions are admitted (rule R14).
	MaxRetained int

	// Wall tells wall time, time.Now by default. It is read once in an epoch. Where it
	// is ahead by more than half of Retention of the time that the node has heard from
	// live leaders, it does not count.
	Wall func() time.Time
}

// MinRetention is the least time for which a finished transaction is kept where the
// room allows it: longer than any sensible client retries.
const MinRetention = 10 * time.Minute

func (c Config) withDefaults() Config {
	if c.Retention == 0 {
		c.Retention = 24 * time.Hour
	}
	if c.MaxRetained == 0 {
		c.MaxRetained = 1_000_000
	}
	if c.Wall == nil {
		c.Wall = time.Now
	}
	if c.Cluster.Level == 0 {
		c.Cluster.Level = uint32(fsm.Newest)
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// Validate reports every problem at once, those of the parts included.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.Retention < MinRetention {
		errs = append(errs, fmt.Errorf("retention %s is less than %s", c.Retention, MinRetention))
	}
	if c.MaxRetained < 0 {
		errs = append(errs, errors.New("max retained must be positive"))
	}
	errs = append(errs, c.Coordinator.Validate())
	return errors.Join(errs...)
}

// Node is one running node. Its parts are set once by Open.
type Node struct {
	Coordinator *coordinator.Coordinator
	Machine     *fsm.Machine
	Cluster     *cluster.Node

	cfg    Config
	logger hclog.Logger
	writer *writer
	clock  *clock
	full   *atomic.Bool // as leader: there is no room for more finished transactions
	// lagging is why the level did not rise when this node last led and tried to raise it.
	lagging *atomic.Pointer[error]
}

// Open starts a node. It blocks while the cluster admits it: an empty node joins
// nobody's votes before that (rule R15). ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	n := &Node{cfg: cfg, logger: cfg.Logger.With("node", cfg.Cluster.ID), clock: newClock(asleep), full: new(atomic.Bool), lagging: new(atomic.Pointer[error])}
	n.Machine = fsm.New(fsm.Options{Logger: n.logger, Halt: cfg.Cluster.Exit, Heard: n.clock.hear})

	member := cfg.Cluster
	member.FSM = n.Machine
	member.LevelInUse = func() uint32 { return uint32(n.Machine.Level()) }
	member.Logger = n.logger
	var err error
	if n.Cluster, err = cluster.Open(ctx, member); err != nil {
		return nil, err
	}
	n.writer = newWriter(n.Cluster, n.Machine)
	bounds := cfg.Coordinator
	bounds.Admit = n.admit
	n.Coordinator, err = coordinator.New(bounds, n.writer, view{n.Machine}, cfg.Drivers, n.logger)
	if err != nil {
		n.writer.close()
		return nil, errors.Join(err, n.Cluster.Close(ctx))
	}
	n.Cluster.Lead(n.lead)
	return n, nil
}

// Close hands leadership over where this node leads, ends all work and releases
// the data directory. ctx bounds the handing over.
func (n *Node) Close(ctx context.Context) error {
	err := n.Cluster.Close(ctx)
	n.writer.close()
	return err
}

// fullDiskDelay is when a client that found the disk full tries again: somebody has
// to make room first.
const fullDiskDelay = 5 * time.Second

// admit keeps new transactions out while this node's disk has room for decisions
// only, and while its memory has none for more outcomes.
func (n *Node) admit() error {
	switch {
	case n.Cluster.Disk().Low:
		return &coordinator.BusyError{What: "the leader's disk is nearly full", RetryAfter: fullDiskDelay}
	case n.full.Load():
		return &coordinator.BusyError{What: "too many finished transactions are kept", RetryAfter: fullDelay}
	}
	return nil
}

// lead is one term: it opens the epoch, and then drives transactions until the
// leadership ends (rule R3). The member has passed its barrier already.
func (n *Node) lead(ctx context.Context, term uint64) {
	if !n.openEpoch(ctx, term) {
		return
	}
	n.writer.open(ctx, term, n.Machine.Cluster().Now)
	n.raiseLevelOfNewCluster(ctx)
	var upkeep sync.WaitGroup
	upkeep.Go(func() { n.retain(ctx, term) })
	upkeep.Go(func() { n.raiseLevel(ctx) })
	n.Coordinator.Lead(ctx, term)
	n.writer.shut()
	upkeep.Wait()
}

// openEpoch writes the epoch entry, again where its fate is not known, until the
// state machine is at this term or the leadership is over. It carries the
// horizon, so that a new cluster refuses ids older than its retention too: they
// may have run in the one before it.
func (n *Node) openEpoch(ctx context.Context, term uint64) bool {
	for ctx.Err() == nil {
		now := max(n.present(), n.Machine.Cluster().Now)
		header := txn.Header{Epoch: term, Time: now, Horizon: n.horizon(now)}
		lead := fsm.Lead{Node: n.cfg.Cluster.ID, Cluster: uuid.NewString()}
		entry, err := fsm.Encode(fsm.Entry{Header: header, Commands: []fsm.Command{lead}})
		if err != nil {
			n.logger.Error("the epoch entry cannot be encoded", "error", err)
			return false
		}
		_, _, err = n.Cluster.Apply(entry).Wait(ctx)
		if at := n.Machine.Cluster().Epoch; at >= term {
			return at == term
		}
		n.logger.Warn("opening an epoch failed", "epoch", term, "error", err)
		select {
		case <-time.After(epochRetry): // a transfer of leadership that is being given up refuses at once
		case <-ctx.Done():
		}
	}
	return false
}

// present is cluster time as a new leader believes it to be: by its wall clock, so that
// a cluster whose clocks were behind and were put right catches up; but not where that
// is so far ahead of what it has heard that the horizon would pass what is of today,
// and not where it is behind.
func (n *Node) present() txn.Time {
	wall := txn.Time(n.cfg.Wall().UnixNano())
	heard, sure := n.clock.now()
	if !sure {
		return wall
	}
	if ahead := wall.Sub(heard); ahead > n.cfg.Retention/2 {
		n.logger.Warn("this node's wall clock is too far ahead of cluster time to be believed", "ahead", ahead)
		return heard
	}
	return max(wall, heard)
}

// epochRetry paces the epoch entry where it fails.
const epochRetry = 20 * time.Millisecond

// PutParticipant registers a participant or changes it, after a look at its
// resource where the driver can. It answers participants.ErrUnfit and
// fsm.ErrParticipantInUse; other errors are those of a coordinator.Log.
func (n *Node) PutParticipant(ctx context.Context, by fsm.Operator, r participants.Registration) (participants.Registration, error) {
	if !n.Coordinator.Leads() {
		return participants.Registration{}, coordinator.ErrNotLeader // no reason to reach the resource
	}
	r, err := n.cfg.Drivers.Probe(ctx, r, n.logger)
	if err != nil {
		return participants.Registration{}, err
	}
	p := fsm.Participant{Name: r.Name, Driver: r.Driver, Config: r.Config, Identity: r.Identity}
	result, err := n.register(ctx, n.audited(fsm.Audited{
		Who: by.Who, Why: by.Why, Action: "put participant", Target: p.Name, Detail: "driver " + p.Driver,
		Command: fsm.PutParticipant{Participant: p},
	}))
	if err != nil || result.Participant == nil {
		return participants.Registration{}, err
	}
	return registration(*result.Participant), nil
}

// DeleteParticipant removes one that no unfinished transaction touches; it
// answers fsm.ErrUnknownParticipant and fsm.ErrParticipantInUse.
func (n *Node) DeleteParticipant(ctx context.Context, by fsm.Operator, name string) error {
	_, err := n.register(ctx, n.audited(fsm.Audited{
		Who: by.Who, Why: by.Why, Action: "delete participant", Target: name, Command: fsm.DeleteParticipant{Name: name},
	}))
	return err
}

// register writes a command that is not a transaction's and waits until it is applied here.
func (n *Node) register(ctx context.Context, c fsm.Command) (fsm.Result, error) {
	type answer struct {
		result fsm.Result
		err    error
	}
	answers := make(chan answer, 1)
	n.writer.propose(proposal{
		epoch:   n.writer.epoch(),
		command: c,
		done:    func(r fsm.Result, err error) { answers <- answer{r, err} },
	})
	select {
	case a := <-answers:
		return a.result, n.sayWhoLags(a.err)
	case <-ctx.Done():
		return fsm.Result{}, fmt.Errorf("%w: %w", coordinator.ErrOutcomeUnknown, context.Cause(ctx))
	}
}

// view shows the state machine to the coordinator.
type view struct{ *fsm.Machine }

func (v view) Participant(name string) (participants.Registration, bool) {
	p, ok := v.Machine.Participant(name)
	return registration(p), ok
}

func (v view) Participants() []participants.Registration {
	all := v.Machine.Participants()
	rs := make([]participants.Registration, len(all))
	for i, p := range all {
		rs[i] = registration(p)
	}
	return rs
}

func registration(p fsm.Participant) participants.Registration {
	return participants.Registration{Name: p.Name, Driver: p.Driver, Config: p.Config, Identity: p.Identity, Revision: p.Revision}
}
