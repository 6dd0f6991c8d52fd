//go:build failpoints

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/chaos"
)

// testCommands are commands that only test builds have.
func (p *program) testCommands() []*cobra.Command { return []*cobra.Command{p.chaosCommand()} }

func (p *program) chaosCommand() *cobra.Command {
	var cfg chaos.Config
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "break real processes at every step of the protocol, and audit",
		Long: `Holds the leader of three nodes at every step of the protocol, and each time kills,
stops, cuts off, or breaks the disk of the leader, a follower or a participant, while
clients transfer money. Every cell of the matrix (step x fault x victim) is audited; a
failed one leaves all that is known of it, and says how to play it again.

Everything runs on this machine, on loopback and free ports, and nothing of it is left,
however the command ends. What this machine does not allow (root, loop devices, strace)
is skipped, and told.`,
		Example: "  decree chaos --failovers 500\n  decree chaos --slice 3 --parts 1\n  decree chaos --only 'after-votes/*/leader'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("seed") {
				cfg.Seed = rand.Uint64() //nolint:gosec // traffic, not secrets
			}
			return p.chaos(cmd.Context(), cfg)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.Only, "only", "", "play only these `cells`, step/fault/victim, each of which may be *")
	flags.IntVar(&cfg.Slice, "slice", 0, "begin with this `part` of the matrix, 0 to 8; each part has every fault with every victim once")
	flags.IntVar(&cfg.Parts, "parts", 0, "play this `number` of parts; 0 is all")
	flags.IntVar(&cfg.Failovers, "failovers", 0, "play cells in which leaders fall again until this `number` have")
	flags.IntVar(&cfg.Round, "round", 0, "the `number` of the first round, with which changes what a cell leaves open")
	flags.DurationVar(&cfg.Budget, "budget", 0, "begin no cell after this `time`; 0 is none")
	flags.BoolVar(&cfg.Require, "require", false, "fail where a cell can't be played on this machine")
	flags.StringVar(&cfg.LogStore, "log-store", "", "the nodes keep their log in `boltdb` or wal (default: theirs)")
	flags.BoolVar(&cfg.TLS, "tls", false, "have everything speak mutual TLS, with certificates that expire and are replaced all the while")
	flags.Uint64Var(&cfg.Seed, "seed", 0, "makes the transfers repeat themselves (default: a random one, which is told)")
	return cmd
}

func (p *program) chaos(ctx context.Context, cfg chaos.Config) (err error) {
	if err := cfg.Validate(); err != nil {
		return &usageError{err}
	}
	if cfg.Binary, err = os.Executable(); err != nil {
		return err
	}
	cfg.Out = p.out.w
	if p.out.format == formatJSON {
		cfg.Out = p.stderr
	}
	result, err := chaos.Run(ctx, cfg)
	if result != nil && p.out.format == formatJSON {
		p.out.object(result)
	}
	switch {
	case errors.Is(err, chaos.ErrWrong):
		return &toldError{err}
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("stopped early: %w", err)
	}
	return err
}
