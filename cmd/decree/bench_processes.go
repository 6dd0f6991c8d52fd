package main

import (
	"context"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cmd/internal/bench/bare"
	"github.com/decree-tx/decree/cmd/internal/bench/trivial"
	"github.com/decree-tx/decree/participants"
)

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

// serveBareCommand is a node that runs only Raft, in a process of its own.
func (p *program) serveBareCommand() *cobra.Command {
	var cfg bare.Config
	var peers, logStore, logLevel string
	cmd := &cobra.Command{
		Use:    "bare",
		Short:  "run a node with nothing but Raft in it",
		Hidden: true, // the bench starts it
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cfg.Cluster.Peers, err = bare.Peers(peers); err != nil {
				return usagef("--peers: %w", err)
			}
			cfg.Cluster.LogStore = cluster.LogStore(logStore)
			cfg.Cluster.Logger, _ = newLogger(p.stderr, logLevel, "text")
			cfg.Cluster.Exit = p.die
			return bare.Serve(cmd.Context(), cfg)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.Cluster.ID, "node-id", "", "this node's `id`")
	flags.StringVar(&cfg.Cluster.Dir, "data-dir", "", "`directory` of this node's log")
	flags.StringVar(&cfg.Cluster.Bind, "raft-addr", "", "listen to other nodes at `host:port`")
	flags.StringVar(&peers, "peers", "", "all nodes, as `id=host:port,...`")
	flags.StringVar(&cfg.Control, "control", "", "take orders at `host:port`")
	flags.StringVar(&logStore, "log-store", "", "the log `store`, as decree server takes it")
	flags.StringVar(&logLevel, "log-level", "warn", "trace, debug, info, warn, error or off")
	return cmd
}
