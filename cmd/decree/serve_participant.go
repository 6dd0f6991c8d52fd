package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/kv"
)

// serving are the flags of the commands that serve a participant.
type serving struct{ listen, logLevel string }

func (s *serving) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.listen, "listen", "127.0.0.1:7401", "serve gRPC at `host:port`")
	cmd.Flags().StringVar(&s.logLevel, "log-level", "info", "trace, debug, info, warn, error or off")
}

func (s *serving) check() error {
	if hclog.LevelFromString(s.logLevel) == hclog.NoLevel {
		return usagef("--log-level %q: want trace, debug, info, warn, error or off", s.logLevel)
	}
	return nil
}

func (p *program) serveKVCommand() *cobra.Command {
	var flags serving
	var path string
	cmd := &cobra.Command{
		Use:   "kv",
		Short: "serve a durable key-value store as a participant",
		Long: `Serves a durable key-value store over gRPC, with health and reflection, until it is
stopped. A branch asks for operations on keys:

  {"ops": [{"op": "add", "key": "alice", "amount": -30, "min": 0},
           {"op": "put", "key": "note", "value": "rent"},
           {"op": "delete", "key": "old"},
           {"op": "check", "key": "open", "value": "yes"}]}`,
		Example: "  decree participant kv --listen 127.0.0.1:7401 --path bank-a.db\n  decree participant put bank-a --target 127.0.0.1:7401",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.serveParticipant(cmd.Context(), flags, func(ctx context.Context, log hclog.Logger) (participants.Participant, error) {
				return kv.Open(ctx, path, log)
			})
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&path, "path", "", "keep the data in this `file`; its directory must exist")
	_ = cmd.MarkFlagRequired("path")
	return cmd
}

// serveParticipant serves what open makes until ctx ends.
func (p *program) serveParticipant(ctx context.Context, flags serving, open func(context.Context, hclog.Logger) (participants.Participant, error)) error {
	if err := flags.check(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", flags.listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("--listen: port in use: another process listens on %s", flags.listen)
	case err != nil:
		return &usageError{fmt.Errorf("--listen: %w", err)}
	}
	log := newLogger(p.stderr, flags.logLevel, "text").Named("participant")
	participant, err := open(ctx, log)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	log.Info("participant serves", "grpc", l.Addr())
	err = grpcparticipant.Serve(ctx, l, participant)
	log.Info("participant stops")
	return errors.Join(err, participant.Close())
}
