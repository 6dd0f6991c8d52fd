package main

import (
	"context"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	benchmark "github.com/decree-tx/decree/cmd/internal/bench"
	"github.com/decree-tx/decree/cmd/internal/bench/trivial"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/transport/client"
)

func (p *program) benchCommand() *cobra.Command {
	cfg := benchmark.Defaults()
	wait := waitFlag(cfg.Wait)
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "measure a cluster on this machine, and what a transaction costs it",
		Long: `Starts three nodes and two participants as processes of their own, all throwaway, has
clients run transactions, and tells how many there were, how long they took, and what
they cost: processor time by role, entries of the log, bytes on disk.

Every decision is on the disks of a majority when it is answered. Keep the data on a
real one (--dir): where /tmp is in memory, fsync costs nothing and the figures are
nobody's.`,
		Example: "  decree bench\n  decree bench --clients 256 --duration 30s --wait delivery\n  decree bench --participants kv --profile profiles",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Wait = client.Wait(wait)
			if asJSON {
				p.out.format = formatJSON
			}
			return p.bench(cmd.Context(), cfg)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false // in the order of importance
	flags.IntVar(&cfg.Clients, "clients", cfg.Clients, "the `number` of clients, each with one transaction at a time")
	flags.DurationVar(&cfg.Duration, "duration", cfg.Duration, "measure for this `time`")
	flags.DurationVar(&cfg.Warmup, "warmup", cfg.Warmup, "after this `time`, which is not measured")
	flags.IntVar(&cfg.Branches, "branches", cfg.Branches, "the `number` of branches of a transaction")
	flags.IntVar(&cfg.Payload, "payload", cfg.Payload, "`bytes` of each branch")
	flags.Var(&wait, "wait", "clients wait for the decision, or for delivery to every branch")
	flags.StringVar(&cfg.Participants, "participants", cfg.Participants, "`kind` of the participants: trivial or kv")
	flags.IntVar(&cfg.ParticipantsCount, "participants-count", cfg.ParticipantsCount, "the `number` of participants, in two processes")
	flags.IntVar(&cfg.Connections, "connections", cfg.Connections, "the `number` of SDK clients that all clients share")
	flags.StringVar(&cfg.Profile, "profile", "", "write CPU profiles of all processes to this `directory`")
	flags.StringVar(&cfg.Dir, "dir", "", "keep the nodes' data and logs in this `directory` (default: a temporary one)")
	flags.BoolVar(&asJSON, "json", false, "the same as -o json: one object, for programs")
	return cmd
}

func (p *program) bench(ctx context.Context, cfg benchmark.Config) (err error) {
	if err := cfg.Validate(); err != nil {
		return &usageError{err}
	}
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
	if p.out.format == formatJSON {
		p.out.object(report)
		return nil
	}
	return report.Write(p.out.w)
}

// serveTrivialCommand is the participant of a bench, in a process of its own.
func (p *program) serveTrivialCommand() *cobra.Command {
	var flags serving
	var participant trivial.Participant
	cmd := &cobra.Command{
		Use:    "trivial",
		Short:  "serve a participant that keeps nothing and agrees at once",
		Hidden: true, // the bench starts it
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.serveParticipant(cmd.Context(), flags, func(context.Context, hclog.Logger) (participants.Participant, error) {
				return participant, nil
			})
		},
	}
	flags.register(cmd)
	cmd.Flags().DurationVar(&participant.PrepareDelay, "prepare-delay", 0, "`time` that every prepare takes")
	cmd.Flags().BoolVar(&participant.Silent, "silent", false, "answer nothing")
	return cmd
}
