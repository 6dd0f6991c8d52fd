package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	benchmark "github.com/decree-tx/decree/cmd/internal/bench"
	"github.com/decree-tx/decree/transport/client"
)

const benchHelp = `Starts three nodes and two participants as processes of their own, all throwaway, has
clients run transactions, and tells how many there were, how long they took, and what
they cost: processor time by role, entries of the log, bytes on disk. With --endpoints
it measures a cluster that runs already, at participants registered there.

Clients are a closed loop: each begins a transaction when its last is answered. --rate
is an open one: transactions begin when they are due, and latency counts from then, so
that a stall shows as what users would feel. Past --in-flight what is due is shed, and
counted.

Every decision is on the disks of a majority when it is answered. Keep the data on a
real one (--dir): where /tmp is in memory, fsync costs nothing and the figures are
nobody's.

--against-raft has three further processes run nothing but Raft, by the same settings
and on the same disk, before each round: the ratio tells what is decree's own.`

const benchExamples = `  decree bench
  decree bench --clients 256 --duration 30s --wait delivery
  decree bench --ramp 1,16,64,256 --against-raft --rounds 5 --plot ramp.svg
  decree bench --rate 3000 --abort 5% --read-only 10%
  decree bench --kill-leader-at 5s --duration 15s --rounds 5
  decree bench --groups 3 --clients 1024
  decree bench --stuck 10000 --rate 2000
  decree bench --endpoints 10.0.0.1:7101,10.0.0.2:7101 --participant bank-a='{"ops": [{"op": "add", "key": "k{n}", "amount": 1}]}'`

// benchFlags are those of a bench.
type benchFlags struct {
	cfg                   benchmark.Config
	wait                  waitFlag
	clients               int
	rate                  float64
	ramp, abort, readOnly string
	targets               []string
	plot                  string
	given                 func(string) bool
}

func (p *program) benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "measure a cluster on this machine, and what a transaction costs it",
		Long:    benchHelp,
		Example: benchExamples,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return &usageError{err}
			}
			return p.bench(cmd.Context(), cfg, f.plot)
		},
	}
	f.register(cmd)
	cmd.AddCommand(p.serveBareCommand(), p.benchSuiteCommand())
	return cmd
}

func (f *benchFlags) register(cmd *cobra.Command) {
	f.cfg = benchmark.Defaults()
	f.wait = waitFlag(f.cfg.Wait)
	flags := cmd.Flags()
	flags.SortFlags = false // in the order of importance
	f.given = flags.Changed
	c := &f.cfg
	flags.IntVar(&f.clients, "clients", c.Steps[0].Clients, "the `number` of clients, each with one transaction at a time")
	flags.Float64Var(&f.rate, "rate", 0, "begin so many transactions a `second` instead, whatever becomes of them")
	flags.StringVar(&f.ramp, "ramp", "", "measure these `steps`, one after the other: clients, or rates such as 500/s,1000/s")
	flags.DurationVar(&c.Duration, "duration", c.Duration, "measure for this `time`")
	flags.DurationVar(&c.Warmup, "warmup", c.Warmup, "after this `time`, which is not measured")
	flags.IntVar(&c.Rounds, "rounds", c.Rounds, "measure in so many `rounds`, and report medians")
	flags.BoolVar(&c.AgainstRaft, "against-raft", false, "measure bare Raft before each round, with as many callers")
	flags.IntVar(&c.EntryBytes, "entry-bytes", 0, "`bytes` of a bare entry (default: those that a transaction takes in the log)")
	flags.IntVar(&c.Branches, "branches", c.Branches, "the `number` of branches of a transaction")
	flags.IntVar(&c.Payload, "payload", c.Payload, "`bytes` of each branch")
	flags.Var(&f.wait, "wait", "clients wait for the decision, or for delivery to every branch")
	flags.StringVar(&f.abort, "abort", "0%", "the `share` of transactions in which a branch votes no")
	flags.StringVar(&f.readOnly, "read-only", "0%", "the `share` of transactions that have nothing to commit")
	flags.IntVar(&c.InFlight, "in-flight", c.InFlight, "shed what is due while this `number` is under way (--rate)")
	flags.IntVar(&c.Connections, "connections", c.Connections, "the `number` of SDK clients that all clients share")
	flags.IntVar(&c.Nodes, "nodes", c.Nodes, "the `number` of nodes to start")
	flags.IntVar(&c.Groups, "groups", c.Groups, "the `number` of clusters of so many nodes, each transaction on the one of its txid")
	flags.StringVar(&c.Participants, "participants", c.Participants, "`kind` of the participants to start: trivial or kv")
	flags.IntVar(&c.ParticipantsCount, "participants-count", c.ParticipantsCount, "the `number` of participants, in two processes")
	flags.StringVar(&c.LogStore, "log-store", "", "the nodes' log `store`, as decree server --log-store takes it")
	flags.BoolVar(&c.TLS, "tls", false, "have nodes and clients speak TLS, with certificates of the run's own")
	flags.StringArrayVar(&c.ServerArgs, "server-arg", nil, "a further `argument` of every node, such as --heartbeat-timeout=200ms")
	flags.StringSliceVar(&c.Endpoints, "endpoints", nil, "measure the cluster at these gRPC `addresses` instead")
	flags.StringArrayVar(&f.targets, "participant", nil, "a participant of that cluster and its branches' payload, as `name=payload`; {n} in it is the transaction's number")
	flags.DurationVar(&c.KillLeaderAt, "kill-leader-at", 0, "kill -9 the leader at this `time` of the measurement, and tell when decisions came back")
	flags.DurationVar(&c.TransferLeaderAt, "transfer-leader-at", 0, "have it hand over at this `time` instead")
	flags.IntVar(&c.Stuck, "stuck", 0, "measure again while this `number` of transactions wait at participants that do not answer")
	flags.StringVar(&c.Profile, "profile", "", "write CPU profiles of all processes to this `directory`")
	flags.StringVar(&f.plot, "plot", "", "draw latency and rate of each step into this SVG `file`")
	flags.StringVar(&c.Dir, "dir", "", "keep the nodes' data and logs below this `directory` (default: a temporary one, which goes)")
}

// config reads the flags; every mistake is in the error.
func (f *benchFlags) config() (benchmark.Config, error) {
	cfg := f.cfg
	cfg.Wait = client.Wait(f.wait)
	var errs []error
	var err error
	if cfg.Steps, err = f.steps(); err != nil {
		errs = append(errs, err)
	}
	if cfg.Abort, err = parseShare("abort", f.abort); err != nil {
		errs = append(errs, err)
	}
	if cfg.ReadOnly, err = parseShare("read-only", f.readOnly); err != nil {
		errs = append(errs, err)
	}
	for _, argument := range f.targets {
		name, payload, ok := strings.Cut(argument, "=")
		if !ok || name == "" {
			errs = append(errs, fmt.Errorf("--participant %q: want name=payload", argument))
		}
		cfg.Targets = append(cfg.Targets, benchmark.Target{Participant: name, Payload: payload})
	}
	if len(cfg.Targets) > 0 && !f.given("branches") {
		cfg.Branches = len(cfg.Targets)
	}
	return cfg, errors.Join(append(errs, cfg.Validate())...)
}

// steps are the loads: one, or those of a ramp.
func (f *benchFlags) steps() ([]benchmark.Step, error) {
	if f.ramp == "" {
		if f.given("rate") && !(f.rate > 0) {
			return f.validSteps(), fmt.Errorf("--rate %g: want more than 0", f.rate)
		}
		if f.given("rate") {
			return []benchmark.Step{{Rate: f.rate}}, nil
		}
		return []benchmark.Step{{Clients: f.clients}}, nil
	}
	if f.given("rate") || f.given("clients") {
		return f.validSteps(), errors.New("--ramp excludes --clients and --rate")
	}
	var steps []benchmark.Step
	for text := range strings.SplitSeq(f.ramp, ",") {
		step, err := parseStep(strings.TrimSpace(text))
		if err != nil {
			return f.validSteps(), err
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// validSteps stand in for those that could not be read, so that what else is wrong is
// told as well.
func (f *benchFlags) validSteps() []benchmark.Step { return benchmark.Defaults().Steps }

// parseStep reads a number of clients, or a rate: 500/s.
func parseStep(text string) (benchmark.Step, error) {
	wrong := fmt.Errorf("--ramp %q: want clients, such as 64, or a rate, such as 500/s", text)
	if digits, isRate := strings.CutSuffix(text, "/s"); isRate {
		rate, err := strconv.ParseFloat(digits, 64)
		if err != nil || !(rate > 0) {
			return benchmark.Step{}, wrong
		}
		return benchmark.Step{Rate: rate}, nil
	}
	clients, err := strconv.Atoi(text)
	if err != nil {
		return benchmark.Step{}, wrong
	}
	return benchmark.Step{Clients: clients}, nil
}

// parseShare reads 5% or 0.05.
func parseShare(name, text string) (float64, error) {
	digits, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, fmt.Errorf("--%s %q: want a share, such as 5%% or 0.05", name, text)
	}
	if percent {
		share /= 100
	}
	return share, nil
}

func (p *program) bench(ctx context.Context, cfg benchmark.Config, plot string) (err error) {
	if cfg.Binary, err = os.Executable(); err != nil {
		return err
	}
	cfg.Version = buildInfo().String()
	cfg.Out = p.out.w
	if p.out.format == formatJSON {
		cfg.Out = p.stderr
	}
	report, err := benchmark.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if plot != "" {
		if err := os.WriteFile(plot, report.Plot(), 0o644); err != nil { //nolint:gosec // a picture
			return err
		}
	}
	if p.out.format == formatJSON {
		p.out.object(report)
		return nil
	}
	return report.Write(p.out.w)
}
