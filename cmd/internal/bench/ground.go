package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/cmd/internal/papers"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// ServiceProcesses is how many processes serve the participants that a bench starts,
// however many are registered: two, as the figures to compare with have, and more
// would only share the same cores.
const ServiceProcesses = 2

const (
	// patience bounds every single step of the start.
	patience = 30 * time.Second
	// pollPause is how often the bench looks at what no event announces.
	pollPause = 20 * time.Millisecond
)

// ground is the cluster under load: the nodes and the services that take part. Of a
// cluster that somebody else runs it has clients only.
type ground struct {
	fleet    *fleet.Fleet // nil where the cluster is somebody else's
	cluster  fleet.Cluster
	services []*fleet.Process
	ports    *ports
	debug    map[string]string // where each process serves its profiles, by its name
	clients  []*client.Client
	papers   *papers.Papers // nil where the nodes speak plain text
}

// newGround starts nodes and participants, registers these, and waits until the leader
// reaches them. Close what it returns, with an error too.
func newGround(ctx context.Context, cfg Config) (*ground, error) {
	g := &ground{debug: map[string]string{}}
	if len(cfg.Endpoints) > 0 {
		return g, g.dial(cfg.Endpoints, cfg.Connections)
	}
	dir, err := ownDirectory(cfg.Dir)
	if err != nil {
		return g, err
	}
	if g.fleet, err = fleet.New(fleet.Config{Binary: cfg.Binary, Dir: dir}); err != nil {
		return g, err
	}
	if g.ports, err = newPorts(); err != nil {
		return g, err
	}
	if err := g.startNodes(cfg); err != nil {
		return g, err
	}
	if err := g.dial(g.cluster.Endpoints(), cfg.Connections); err != nil {
		return g, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	addresses, err := g.startServices(ctx, cfg)
	if err != nil {
		return g, g.explain(err)
	}
	for i, name := range names(cfg.ParticipantsCount) {
		if err := g.register(ctx, name, addresses[i%len(addresses)]); err != nil {
			return g, g.explain(err)
		}
	}
	return g, nil
}

// ownDirectory is a new directory below one that the user named, for a cluster must not
// find another's data; empty where none was named.
func ownDirectory(below string) (string, error) {
	if below == "" {
		return "", nil
	}
	if err := os.MkdirAll(below, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(below, "bench-")
}

// dial makes the SDK clients.
func (g *ground) dial(endpoints []string, count int) error {
	for range count {
		c, err := client.New(client.Config{Endpoints: endpoints, Security: g.papers.Operator()})
		if err != nil {
			return err
		}
		g.clients = append(g.clients, c)
	}
	return nil
}

// ports are those of a run: the fleet's own, and more for what a fleet knows nothing
// of.
type ports struct {
	fleet fleet.Port
	more  []fleet.Port // each is good for portsEach
	used  int
}

const (
	// portsApart is how far one fleet's ports reach.
	portsApart = 400
	// portsEach is how many service ports of a fleet are known to be free.
	portsEach = 9
)

func newPorts() (*ports, error) {
	first, err := fleet.FreePort(0)
	return &ports{fleet: first}, err
}

// next is another address.
func (p *ports) next() (string, error) {
	if p.used%portsEach == 0 {
		port, err := p.apart()
		if err != nil {
			return "", err
		}
		p.more = append(p.more, port)
	}
	p.used++
	return p.more[len(p.more)-1].Service((p.used-1)%portsEach + 1), nil
}

// apart is a free port away from all others.
func (p *ports) apart() (fleet.Port, error) {
	for {
		port, err := fleet.FreePort(0)
		if err != nil {
			return 0, err
		}
		near := func(other fleet.Port) bool { return port > other-portsApart && port < other+portsApart }
		if !near(p.fleet) && !slices.ContainsFunc(p.more, near) {
			return port, nil
		}
	}
}

func (g *ground) startNodes(cfg Config) error {
	var addresses []string
	for range cfg.Nodes {
		address, err := g.ports.next()
		if err != nil {
			return err
		}
		addresses = append(addresses, address)
	}
	if err := g.issue(cfg); err != nil {
		return err
	}
	var err error
	g.cluster, err = g.fleet.StartClusterWith(g.ports.fleet, fleet.Options{
		Nodes: cfg.Nodes, Args: cfg.serverArgs(),
		Env: func(id string) []string {
			g.debug[id] = addresses[len(g.debug)]
			return append(g.papers.Node(id), "DECREE_OPERATOR_ADDR="+g.debug[id])
		},
	})
	return err
}

// issue makes certificates for the nodes and the bench, where TLS is measured.
func (g *ground) issue(cfg Config) (err error) {
	if cfg.TLS {
		g.papers, err = papers.New(papers.Config{
			Dir: filepath.Join(g.fleet.Dir(), "certs"), Life: papers.Lasting, Nodes: fleet.NodeIDs(cfg.Nodes),
		})
	}
	return err
}

// startServices starts the participants' processes and gives their addresses.
func (g *ground) startServices(ctx context.Context, cfg Config) ([]string, error) {
	var addresses []string
	for n := 1; n <= min(ServiceProcesses, cfg.ParticipantsCount); n++ {
		name := "service-" + strconv.Itoa(n)
		args := []string{cfg.Participants}
		if cfg.Participants == KV {
			args = append(args, "--path", filepath.Join(g.fleet.Dir(), name+".db"))
		}
		address, err := g.startService(ctx, name, args...)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// startService starts one participant's process, waits until it listens, and gives its
// address.
func (g *ground) startService(ctx context.Context, name string, args ...string) (string, error) {
	profiles, err := g.ports.next()
	if err != nil {
		return "", err
	}
	g.debug[name] = profiles
	address := g.ports.fleet.Service(len(g.services) + 1)
	args = append([]string{"participant"}, append(args, "--listen", address, "--operator-addr", profiles)...)
	process, err := g.fleet.Start(name, args...)
	if err != nil {
		return "", err
	}
	g.services = append(g.services, process)
	return address, poll(ctx, name+" to listen", func() (bool, error) {
		if !process.Alive() {
			return false, fmt.Errorf("%s has ended", name)
		}
		connection, err := net.Dial("tcp", address)
		if err != nil {
			return false, nil
		}
		return true, connection.Close()
	})
}

// register tells the cluster of a participant and waits until the leader reaches it.
func (g *ground) register(ctx context.Context, name, address string) error {
	if err := g.put(ctx, name, address); err != nil {
		return err
	}
	return poll(ctx, name+" to answer", func() (bool, error) {
		found, err := g.clients[0].CheckParticipant(ctx, name)
		return found.GetReachable(), err
	})
}

// put tells the cluster of a participant.
func (g *ground) put(ctx context.Context, name, address string) error {
	target := map[string]*structpb.Value{"target": structpb.NewStringValue(address)}
	p := &decreev1.Participant{Name: name, Driver: "grpc", Config: &structpb.Struct{Fields: target}}
	if _, err := g.clients[0].PutParticipant(ctx, p); err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	return nil
}

// explain adds what the processes logged to an error of the start.
func (g *ground) explain(err error) error { return fmt.Errorf("%w\n%s", err, g.fleet.Logs()) }

// leader is the leading node's view. While none leads, as in an election on a machine
// that is too busy, it waits for one.
func (g *ground) leader(ctx context.Context) (view *decreev1.StatusResponse, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = poll(ctx, "a node to lead", func() (bool, error) {
		view, err = g.clients[0].Status(ctx)
		return err == nil && view.GetLeader() != "" && view.GetNode() == view.GetLeader(), nil
	})
	return view, err
}

// reading is what had been used at a moment.
type reading struct {
	at      time.Time
	leader  *decreev1.StatusResponse
	process map[string]usage // by name
}

// own is the name of this process among the others.
const own = "bench"

// read looks at every process, and at the leader's counters.
func (g *ground) read(ctx context.Context) (reading, error) {
	r := reading{process: map[string]usage{}}
	var err error
	if r.leader, err = g.leader(ctx); err != nil {
		return r, err
	}
	r.at = time.Now()
	if r.process[own], err = usageOf(os.Getpid()); err != nil || g.fleet == nil {
		return r, err
	}
	for _, p := range g.fleet.Processes() {
		if !p.Alive() {
			continue // killed on purpose
		}
		if r.process[p.Name()], err = usageOf(p.PID()); err != nil {
			return r, err
		}
	}
	return r, nil
}

// roleOf is a process's part, while a node leads.
func (g *ground) roleOf(name, leader string) role {
	_, isNode := g.cluster.Node(name)
	switch {
	case name == own:
		return asking
	case name == leader:
		return leading
	case isNode:
		return following
	case strings.HasPrefix(name, bareNode):
		return idling
	default:
		return participating
	}
}

// close ends clients and processes.
func (g *ground) close() error {
	var errs []error
	for _, c := range g.clients {
		errs = append(errs, c.Close())
	}
	errs = append(errs, g.papers.Close()) // its directory goes with the fleet
	if g.fleet != nil {
		errs = append(errs, g.fleet.Close())
	}
	return errors.Join(errs...)
}

// poll calls holds until it is true, or fails, or ctx ends.
func poll(ctx context.Context, what string, holds func() (bool, error)) error {
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
