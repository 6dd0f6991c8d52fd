package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/bankday"
	"github.com/decree-tx/decree/cmd/internal/fleet"
)

func (p *program) bankCommand() *cobra.Command {
	cfg := bankday.Config{Port: fleet.UsualPort}
	var faults string
	cmd := &cobra.Command{
		Use:   "bank",
		Short: "move money between real databases here, and audit every coin",
		Long: `Starts two PostgreSQL servers, a MariaDB server, a key-value store, a wallet service
and three nodes, all throwaway and on this machine, and has workers move money between
accounts in all of them. At the end it audits: it reads the databases themselves, behind
decree's back, and holds every account, every marker row and every prepared transaction
against the log of each node and against what clients were told.

With --faults it makes trouble meanwhile: it kills nodes, databases and services, has
them hang, and cuts links. Which fault comes when follows from the seed, and the calls
of all clients are judged as one history. The kinds are:

  leader, follower  kill -9 of the leading node, or of another; it comes back
  pause             SIGSTOP of the leading node, which wakes up deposed
  partition         the leading node and the others are cut off, or one side only
  database, hang    kill -9 or SIGSTOP of a whole database server
  service           kill -9 of the kv store or the wallet
  link              bytes between nodes and a participant are held back

Ctrl-C ends the traffic early and audits; a second one leaves at once. Nothing is left
running in any case. The exit code is 1 when the audit finds anything.

It needs the programs of both servers; scripts/test-databases.sh installs them.`,
		Example: "  decree bank\n  decree bank --for 10m --workers 32 --kill-leader-every 15s\n  decree bank --faults all --failovers 200\n  decree bank --for 10s -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if !cmd.Flags().Changed("seed") {
				cfg.Seed = rand.Uint64() //nolint:gosec // traffic, not secrets
			}
			if cfg.Failovers > 0 && !cmd.Flags().Changed("for") {
				cfg.For = bankday.MaxFor
			}
			if cfg.Faults, err = bankday.ParseFaults(faults); err != nil {
				return &usageError{fmt.Errorf("--faults: %w", err)}
			}
			return p.bank(cmd.Context(), cfg)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&cfg.For, "for", time.Minute, "move money for this `time`")
	flags.IntVar(&cfg.Workers, "workers", 16, "the `number` of clients at once")
	flags.IntVar(&cfg.Accounts, "accounts", 100, "the `number` of accounts in each of the five banks")
	flags.Uint64Var(&cfg.Seed, "seed", 0, "makes the transfers repeat themselves (default: a random one, which is told)")
	flags.DurationVar(&cfg.KillLeaderEvery, "kill-leader-every", 0, "kill -9 the leading node in this `interval`, and restart it; 0 never does")
	flags.StringVar(&faults, "faults", "", "have faults of these `kinds` strike: all, or some of them, separated by commas")
	flags.DurationVar(&cfg.FaultEvery, "fault-every", 3*time.Second, "one fault in each `interval`, where there are faults")
	flags.IntVar(&cfg.Failovers, "failovers", 0, "go on until so many were seen, in `number`; without --for, for as long as it takes")
	flags.DurationVar(&cfg.Pace, "pace", 0, "begin an order in each `interval` at most; 0 is as fast as the workers are")
	flags.BoolVar(&cfg.TLS, "tls", false, "have nodes, services and clients speak mutual TLS, with certificates that expire and are replaced all the while")
	flags.StringVar(&cfg.Dir, "dir", "", "keep the nodes' data and logs in this `directory` (default: a temporary one, kept only when something is wrong)")
	cmd.AddCommand(p.serveWalletCommand())
	return cmd
}

func (p *program) bank(ctx context.Context, cfg bankday.Config) (err error) {
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
	fmt.Fprintf(cfg.Out, "seed %d\n", cfg.Seed)
	result, err := bankday.Run(ctx, cfg)
	if err == nil || errors.Is(err, bankday.ErrWrong) {
		if p.out.format == formatJSON {
			p.out.object(result)
		}
	}
	if errors.Is(err, bankday.ErrWrong) {
		return &toldError{err}
	}
	return err
}

// serveWalletCommand is the bank's gRPC service, in a process of its own.
func (p *program) serveWalletCommand() *cobra.Command {
	var flags serving
	var path string
	cmd := &cobra.Command{
		Use:    "wallet",
		Short:  "serve the bank's wallet as a participant",
		Hidden: true, // the bank starts it
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.takePart(cmd.Context(), flags, func(ctx context.Context, s service) error {
				return bank.ServeWallet(ctx, s.listener, path, s.secured...)
			})
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&path, "path", "", "keep the data in this `file`; its directory must exist")
	_ = cmd.MarkFlagRequired("path")
	return cmd
}
