// Package daemon runs one coordinator node with its servers, as a process does:
// it opens everything in an order in which mistakes show early, and closes it in
// one in which clients notice little.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/cmd/internal/logs"
	"github.com/decree-tx/decree/cmd/internal/metrics"
	"github.com/decree-tx/decree/cmd/internal/operator"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/coordinator/node"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/transport"
	"github.com/decree-tx/decree/transport/web"
)

// leastTransaction is how large a transaction's payloads may be in all, even
// where a single one is bounded lower.
const leastTransaction = 1 << 20

// Options are what does not come from an operator.
type Options struct {
	Drivers participants.Drivers
	Logger  hclog.Logger
	Version string
	// Metrics count what the node does; nil for none that anybody reads.
	Metrics *metrics.Metrics
	// Tracer makes traces of transactions; nil for none.
	Tracer coordinator.Tracer
	// Levels are Logger's, for operators to change; nil where they may not.
	Levels *logs.Levels
	// Exit ends the process at once and does not return. It is called when going
	// on could break a promise, such as after a failed fsync.
	Exit func(error)
}

// ErrPortInUse is wrapped where another process listens at a node's address.
var ErrPortInUse = errors.New("port in use")

// Daemon is one node that serves.
type Daemon struct {
	// GRPC, HTTP and Operator are where it listens; nil where that is off.
	GRPC, HTTP, Operator net.Addr

	// set once by Open
	cfg       config.Server
	logger    hclog.Logger
	metrics   *metrics.Metrics
	listeners listeners
	security  *security // nil where the node speaks plain text
	node      *node.Node
	server    *transport.Server
	operators *operator.Server // nil where they are not served

	fitness fitness
}

// Open starts the node. It blocks until the node may take part in its cluster: on
// a first start that is once every configured peer has been heard, or a leader
// has admitted it. ctx bounds that. After an error nothing is left running.
//
// The ports come first, for a port in use is the likeliest mistake.
func Open(ctx context.Context, cfg config.Server, o Options) (*Daemon, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if o.Metrics == nil {
		o.Metrics = metrics.New(metrics.Build{Version: o.Version})
	}
	d := &Daemon{cfg: cfg, logger: o.Logger, metrics: o.Metrics}
	var err error
	if d.security, err = openSecurity(cfg, o.Logger); err != nil {
		return nil, err
	}
	if d.listeners, err = listen(cfg); err != nil {
		return nil, err
	}
	d.GRPC, d.HTTP = d.listeners.grpc.Addr(), d.listeners.http.Addr()
	if err := d.serveOperators(o.Levels); err != nil {
		d.listeners.close()
		return nil, err
	}
	if err := d.openNode(ctx, o); err != nil {
		d.listeners.close()
		d.closeOperators()
		return nil, err
	}
	d.fitness.opened(d.node)
	return d, nil
}

// openNode starts the node and makes its server, which serves when Run says so.
func (d *Daemon) openNode(ctx context.Context, o Options) error {
	cfg := d.cfg
	var err error

	o.Logger.Info("node starts", "node", cfg.NodeID, "data", cfg.DataDir, "raft", cfg.AdvertisedRaft(),
		"grpc", d.GRPC, "http", orOff(d.HTTP), "operator", orOff(d.Operator))
	if d.node, err = node.Open(ctx, nodeConfig(cfg, o, d.advertisedAPI(), d.security)); err != nil {
		return explain(err, cfg)
	}
	d.server, err = transport.New(transport.Config{
		Coordinator:    d.node.Coordinator,
		Node:           d.node.Cluster,
		Machine:        d.node.Machine,
		Registrar:      d.node,
		Drivers:        o.Drivers,
		Logger:         o.Logger,
		Version:        o.Version,
		Security:       d.security.ofAPI(cfg),
		Pulse:          d.metrics.Pulse,
		Page:           web.Handler(),
		DefaultTimeout: cfg.DefaultTimeout,
		MaxTimeout:     cfg.MaxTimeout,
		// Room for JSON's quoting and base64, so that it is the bound on payloads
		// that answers.
		MaxRequestBytes: 4 * max(cfg.MaxPayload, leastTransaction),
	})
	if err == nil {
		err = d.metrics.Observe(d.node)
	}
	if err == nil {
		err = d.metrics.ObserveCertificates(d.security.expiry)
	}
	if err != nil {
		return errors.Join(err, d.node.Close(ctx))
	}
	return nil
}

// advertisedAPI is where followers forward to.
func (d *Daemon) advertisedAPI() string {
	if d.cfg.GRPCAdvertise != "" {
		return d.cfg.GRPCAdvertise
	}
	return d.GRPC.String()
}

func nodeConfig(cfg config.Server, o Options, api string, s *security) node.Config {
	var peers []cluster.Peer
	for _, p := range cfg.Peers {
		peers = append(peers, cluster.Peer{ID: p.ID, RaftAddress: p.Addr})
	}
	return node.Config{
		Cluster: cluster.Config{
			ID:               cfg.NodeID,
			Bind:             cfg.RaftAddr,
			Advertise:        cfg.RaftAdvertise,
			APIAddress:       api,
			Dir:              cfg.DataDir,
			LogStore:         cluster.LogStore(cfg.LogStore),
			Peers:            peers,
			Network:          s.network(),
			HeartbeatTimeout: cfg.HeartbeatTimeout,
			ElectionTimeout:  cfg.ElectionTimeout,
			LeaderLease:      cfg.LeaderLease,
			DiskHeadroom:     int64(cfg.DiskHeadroom),
			DiskReserve:      int64(cfg.DiskReserve),
			StoreTimeout:     cfg.StoreTimeout,
			OnLogWrite:       o.Metrics.LogWritten,
			Exit:             o.Exit,
		},
		Coordinator: coordinator.Config{
			DefaultTimeout:              cfg.DefaultTimeout,
			MaxTimeout:                  cfg.MaxTimeout,
			PrepareTimeout:              cfg.PrepareTimeout,
			DeliveryTimeout:             cfg.DeliveryTimeout,
			MaxUnfinished:               cfg.MaxUnfinished,
			MaxUnfinishedPerParticipant: cfg.MaxUnfinishedPerParticipant,
			MaxPayload:                  cfg.MaxPayload,
			MaxTransactionBytes:         max(cfg.MaxPayload, leastTransaction),
			SlowTransaction:             cfg.SlowTransaction,
			OnDamage:                    o.Metrics.Damaged,
			Meter:                       o.Metrics.Meter(),
			Tracer:                      o.Tracer,
		},
		Drivers:     o.Drivers,
		Logger:      o.Logger,
		Retention:   cfg.Retention,
		MaxRetained: cfg.MaxRetained,
	}
}

// orOff tells where a listener is, if it is.
func orOff(a net.Addr) string {
	if a == nil {
		return "off"
	}
	return a.String()
}

// Run serves until ctx ends and then stops gracefully, within the configured
// time, and returns nil; or until a listener fails. It releases everything.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.security.watch()()
	counting, stopCounting := context.WithCancel(context.Background())
	var counts sync.WaitGroup
	counts.Go(func() { d.metrics.Run(counting) })
	defer counts.Wait()
	defer stopCounting()

	defer d.closeOperators() // last: they watch the others stop
	served := make(chan error, 1)
	go func() { served <- d.serve() }()

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-served:
		served <- nil
	}
	bound, cancel := context.WithTimeout(context.Background(), d.cfg.StopTimeout)
	defer cancel()
	d.stop(bound)
	return errors.Join(failure, <-served)
}

// serve serves until the server stops.
func (d *Daemon) serve() error {
	d.fitness.serves()
	d.logger.Info("node serves", "node", d.cfg.NodeID, "grpc", d.GRPC, "http", orOff(d.HTTP))
	return d.server.Serve(d.listeners.grpc, d.listeners.http)
}

// Abandon releases a node that was opened and will not run.
func (d *Daemon) Abandon() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	d.listeners.close()
	defer d.closeOperators()
	d.stop(ended)
}

// stop ends the node so that clients notice little: new ones look elsewhere, then
// another node leads, to which calls under way are forwarded, and what is left is
// answered before the connections close.
func (d *Daemon) stop(ctx context.Context) {
	d.logger.Info("node stops", "node", d.cfg.NodeID)
	d.fitness.stops()
	d.server.Retire()
	linger(ctx, d.cfg.DrainDelay)
	if err := d.handOver(ctx); err != nil {
		d.logger.Warn("leadership was not handed over", "node", d.cfg.NodeID, "error", err)
	}
	if err := d.server.Stop(ctx); err != nil {
		d.logger.Warn("calls were cut", "node", d.cfg.NodeID, "error", err)
	}
	if err := d.node.Close(ctx); err != nil {
		d.logger.Warn("closing the node", "node", d.cfg.NodeID, "error", err)
	}
}

// linger returns after a time, or when ctx ends.
func linger(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// handOver has another node lead, where this one does and there is another: the one
// whose log is furthest, and where that one is down, any that is not. A busy one may
// miss its time, and is asked a second time.
func (d *Daemon) handOver(ctx context.Context) error {
	var others []string
	for _, m := range d.node.Cluster.Status().Members {
		if m.Voter && m.ID != d.cfg.NodeID {
			others = append(others, m.ID)
		}
	}
	if len(others) == 0 {
		return nil
	}
	candidates := slices.Concat([]string{""}, others, others) // "" is Raft's choice
	var errs []error
	for _, id := range candidates {
		if !d.node.Coordinator.Leads() || ctx.Err() != nil {
			break
		}
		err := d.node.Cluster.TransferLeadership(ctx, id)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if !d.node.Coordinator.Leads() {
		return nil
	}
	return errors.Join(errs...)
}

// listeners are the ports of the two servers.
type listeners struct{ grpc, http net.Listener }

func (l listeners) close() {
	l.grpc.Close() //nolint:errcheck // nothing was accepted
	l.http.Close() //nolint:errcheck
}

func listen(cfg config.Server) (listeners, error) {
	grpc, errGRPC := listenOn("grpc-addr", cfg.GRPCAddr)
	http, errHTTP := net.Listener(newSilence()), error(nil)
	if cfg.HTTPAddr != "" {
		http, errHTTP = listenOn("http-addr", cfg.HTTPAddr)
	}
	if err := errors.Join(errGRPC, errHTTP); err != nil {
		for _, l := range []net.Listener{grpc, http} {
			if l != nil {
				l.Close() //nolint:errcheck // nothing was accepted
			}
		}
		return listeners{}, err
	}
	return listeners{grpc, http}, nil
}

func listenOn(name, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %w: another process listens on %s", name, ErrPortInUse, address)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// explain names the setting behind an error of the cluster.
func explain(err error, cfg config.Server) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("raft-addr: %w: another process listens on %s", ErrPortInUse, cfg.RaftAddr)
	}
	return err
}

// silence is the listener of a server that is off: nobody ever connects.
type silence struct {
	closed    chan struct{}
	closeOnce sync.Once
}

func newSilence() *silence { return &silence{closed: make(chan struct{})} }

func (s *silence) Accept() (net.Conn, error) {
	<-s.closed
	return nil, net.ErrClosed
}

func (s *silence) Close() error {
	s.closeOnce.Do(func() { close(s.closed) })
	return nil
}

func (s *silence) Addr() net.Addr { return nil }
