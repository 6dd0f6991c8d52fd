package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/cmd/internal/daemon"
	"github.com/decree-tx/decree/cmd/internal/operator"
	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/kv"
	"github.com/decree-tx/decree/participants/sim"
	"github.com/decree-tx/decree/transport/certs"
)

// serving are the flags of the commands that serve a participant.
type serving struct {
	listen, logLevel, operatorAddr string
	operatorPublic                 bool
	files                          certs.Files
	insecure                       bool
}

func (s *serving) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.listen, "listen", "127.0.0.1:7401", "serve gRPC at `host:port`")
	cmd.Flags().StringVar(&s.logLevel, "log-level", "info", "trace, debug, info, warn, error or off")
	cmd.Flags().StringVar(&s.operatorAddr, "operator-addr", "", "serve health, profiles (net/http/pprof) and log levels at `host:port`, a loopback one; empty for none")
	cmd.Flags().StringVar(&s.files.CA, "ca", "", "PEM `file` of the cluster's authorities: serve its nodes, and nobody else")
	cmd.Flags().StringVar(&s.files.Certificate, "cert", "", "PEM `file` of the certificate to serve with (decree cert issue participant)")
	cmd.Flags().StringVar(&s.files.Key, "key", "", "PEM `file` of its key")
	cmd.Flags().BoolVar(&s.insecure, "insecure", false, "serve plain text to whoever reaches the address, other than loopback too")
	cmd.Flags().BoolVar(&s.operatorPublic, "operator-public", false, "let --operator-addr be other than loopback: profiles show what is in memory")
}

func (s *serving) check() error {
	if hclog.LevelFromString(s.logLevel) == hclog.NoLevel {
		return usagef("--log-level %q: want trace, debug, info, warn, error or off", s.logLevel)
	}
	if s.operatorAddr != "" {
		if err := operator.Check(s.operatorAddr, s.operatorPublic); err != nil {
			return usagef("--operator-addr %w", err)
		}
	}
	switch some, all := s.files != (certs.Files{}), s.files.CA != "" && s.files.Certificate != "" && s.files.Key != ""; {
	case some && !all:
		return usagef("--ca, --cert and --key: want all of them or none")
	case !some && !s.insecure && !config.Loopback(s.listen):
		return usagef("--listen %s: whoever reaches it could prepare, commit and abort: give --ca, --cert and --key (decree cert makes them), or say --insecure", s.listen)
	}
	return nil
}

// credentials are those that the server asks its callers for: TLS, and a node's
// certificate.
func (s *serving) credentials(ctx context.Context, log hclog.Logger) ([]grpc.ServerOption, error) {
	if s.files == (certs.Files{}) {
		return nil, nil
	}
	source, err := certs.Open(s.files, log)
	if err != nil {
		return nil, &usageError{err}
	}
	go source.Watch(ctx)
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(source.ServerForNodes("h2")))}, nil
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

// simFlags are the flags of a simulated service by their names in its
// configuration.
type simFlags struct {
	rates  map[string]*float64
	delays map[string]*time.Duration
	seed   uint64
}

func (f *simFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	rate := func(name, usage string) { f.rates[name] = flags.Float64(flagName(name), 1, usage) }
	delay := func(name, usage string) { f.delays[name] = flags.Duration(flagName(name), 0, usage) }
	rate("success_rate", "`chance` from 0 to 1 that a call succeeds")
	rate("prepare_success_rate", "of a prepare; one that does not succeed is a no")
	rate("commit_success_rate", "of a commit; one that does not succeed is asked for again")
	rate("abort_success_rate", "of an abort; one that does not succeed is asked for again")
	delay("delay_max", "longest random `time` of a call, at most 100ms")
	delay("prepare_delay", "`time` that every prepare takes on top")
	delay("commit_delay", "`time` that every commit takes on top")
	delay("abort_delay", "`time` that every abort takes on top")
	flags.Uint64Var(&f.seed, "seed", 0, "makes chance repeat itself")
}

func flagName(key string) string { return strings.ReplaceAll(key, "_", "-") }

// config makes the driver's configuration of the flags that were given.
func (f *simFlags) config(given func(string) bool) ([]byte, error) {
	fields := map[string]any{}
	for key, rate := range f.rates {
		if given(flagName(key)) {
			fields[key] = *rate
		}
	}
	for key, delay := range f.delays {
		if given(flagName(key)) {
			fields[key] = delay.String()
		}
	}
	if given("seed") {
		fields["seed"] = f.seed
	}
	return json.Marshal(fields)
}

func (p *program) serveSimCommand() *cobra.Command {
	var flags serving
	chance := simFlags{rates: map[string]*float64{}, delays: map[string]*time.Duration{}}
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "serve a simulated service as a participant",
		Long: `Serves a simulated service over gRPC, with health and reflection, until it is stopped.
It keeps everything in memory. A branch may say what is to become of it:

  {"vote": "abort", "reason": "no van today"}
  {"delay": "2s", "commit_delay": "1s"}

Any other payload is data. A commit success rate of 0 never finishes.`,
		Example: "  decree participant sim --listen 127.0.0.1:7403 --success-rate 0.9 --delay-max 100ms\n  decree participant put courier --target 127.0.0.1:7403",
		Args:    cobra.NoArgs,
	}
	flags.register(cmd)
	chance.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := chance.config(cmd.Flags().Changed)
		if err != nil {
			return err
		}
		driver := &sim.Driver{}
		if err := driver.Check(config); err != nil {
			return &usageError{err}
		}
		return p.serveParticipant(cmd.Context(), flags, func(ctx context.Context, log hclog.Logger) (participants.Participant, error) {
			return driver.Open(ctx, participants.Registration{Name: "sim", Driver: "sim", Config: config}, log)
		})
	}
	return cmd
}

// service is what a participant's process serves with.
type service struct {
	log      hclog.Logger
	listener net.Listener
	secured  []grpc.ServerOption
}

// serveParticipant serves what open makes until ctx ends.
func (p *program) serveParticipant(ctx context.Context, flags serving, open func(context.Context, hclog.Logger) (participants.Participant, error)) error {
	return p.takePart(ctx, flags, func(ctx context.Context, s service) error {
		participant, err := open(ctx, s.log)
		if err != nil {
			return errors.Join(err, s.listener.Close())
		}
		s.log.Info("participant serves", "grpc", s.listener.Addr())
		err = grpcparticipant.Serve(ctx, s.listener, participant, s.secured...)
		s.log.Info("participant stops")
		return errors.Join(err, participant.Close())
	})
}

// takePart runs a participant's process as its flags ask for. run closes the listener.
func (p *program) takePart(ctx context.Context, flags serving, run func(context.Context, service) error) error {
	if err := flags.check(); err != nil {
		return err
	}
	log, levels := newLogger(p.stderr, flags.logLevel, "text")
	log = log.Named("participant")
	if flags.operatorAddr != "" {
		operators, err := operator.Listen(flags.operatorAddr, operator.Config{Levels: levels})
		if err != nil {
			return err
		}
		defer operators.Close() //nolint:errcheck // nothing depends on it
	}
	secured, err := flags.credentials(ctx, log)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", flags.listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("--listen: %w: another process listens on %s", daemon.ErrPortInUse, flags.listen)
	case err != nil:
		return &usageError{fmt.Errorf("--listen: %w", err)}
	}
	return run(ctx, service{log, l, secured})
}
