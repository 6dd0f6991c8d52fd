package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/cmd/internal/daemon"
	"github.com/decree-tx/decree/cmd/internal/logs"
	"github.com/decree-tx/decree/cmd/internal/metrics"
	"github.com/decree-tx/decree/cmd/internal/traces"
	"github.com/decree-tx/decree/coordinator"
)

const serverHelp = `Runs one coordinator node.

Settings come from flags, from DECREE_* variables (--grpc-addr is
DECREE_GRPC_ADDR), and from a YAML file (grpc_addr), in this order of precedence.
Every mistake in any of them is reported at once.

The first members of a new cluster are named by the same --peers on each. A later
one starts empty with --join, and waits until "decree cluster add" admits it.

With --tls-cert, --tls-key and --tls-ca the node speaks TLS and knows its callers by
their certificates ("decree cert") or tokens ("decree token"); without, it serves
loopback only, unless --insecure says otherwise. SIGHUP reads those files again; so does
the node by itself, some seconds after they have changed.

SIGINT or SIGTERM stops the node gracefully: its health goes off, another node takes
over, and calls under way are answered. A second signal stops it at once, which is
safe too. Behind a load balancer, --drain-delay gives that the time to notice.`

func (p *program) serverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "run one coordinator node",
		Long:  serverHelp,
		Example: `  decree server --node-id n1 --data-dir /var/lib/decree \
    --peers n1=10.0.0.1:7301,n2=10.0.0.2:7301,n3=10.0.0.3:7301 \
    --raft-addr 10.0.0.1:7301 --grpc-addr 10.0.0.1:7101 --http-addr 127.0.0.1:7201
  decree server --config /etc/decree.yaml`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().SortFlags = false // in the order of importance
	config.Register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config.Load(cmd.Flags(), os.Environ(), foreignVariables())
		if err != nil {
			return &usageError{err}
		}
		return p.serve(cmd.Context(), cfg)
	}
	return cmd
}

// foreignVariables are DECREE_ variables that are not the server's.
func foreignVariables() []string {
	return append(append([]string{}, clientVariables...), testVariables...)
}

// serve runs a node until ctx ends.
func (p *program) serve(ctx context.Context, cfg config.Server) error {
	defer paceCollector(os.LookupEnv)()
	counts := metrics.New(metricsBuild())
	if err := counts.ObserveRaft(); err != nil {
		return err
	}
	logger, levels := newLogger(p.stderr, cfg.LogLevel, cfg.LogFormat)
	tracer, stopTracing, err := openTracer(ctx, cfg)
	if err != nil {
		return err
	}
	defer stopTracing()
	d, err := daemon.Open(ctx, cfg, daemon.Options{
		Drivers: drivers(),
		Logger:  logger,
		Levels:  levels,
		Version: buildInfo().String(),
		Metrics: counts,
		Tracer:  tracer,
		Exit:    p.die,
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // it was stopped while it waited for its peers
	case err != nil:
		return err
	}
	defer onHangup(d.Reload)()
	return d.Run(ctx)
}

// tracesPatience bounds how long the last traces may take to leave.
const tracesPatience = 2 * time.Second

// openTracer returns nil where nobody wants traces.
func openTracer(ctx context.Context, cfg config.Server) (coordinator.Tracer, func(), error) {
	if cfg.OTLPEndpoint == "" && !traces.Wanted(os.LookupEnv) {
		return nil, func() {}, nil
	}
	t, err := traces.Open(ctx, traces.Config{
		Endpoint: cfg.OTLPEndpoint, Share: cfg.TraceShare, Node: cfg.NodeID, Version: buildInfo().String(),
	})
	if err != nil {
		return nil, nil, err
	}
	return t, func() {
		ctx, cancel := context.WithTimeout(context.Background(), tracesPatience)
		defer cancel()
		t.Close(ctx) //nolint:errcheck // what a collector does not take is lost
	}, nil
}

// onHangup calls f at every SIGHUP, until the function that it returns is called.
func onHangup(f func()) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			f()
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
	}
}

// die ends the process at once, for a node that may not go on.
func (p *program) die(err error) {
	if !errors.Is(err, context.Canceled) {
		fmt.Fprintf(p.stderr, "decree: %s\n", safe(err.Error()))
	}
	os.Exit(exitFailed)
}

func newLogger(w io.Writer, level, format string) (hclog.Logger, *logs.Levels) {
	return logs.New(w, hclog.LevelFromString(level), format == "json")
}
