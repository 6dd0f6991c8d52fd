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
	fleet    *fleet.Fleet  // nil where the cluster is somebody else's
	cluster  fleet.Cluster // the nodes, of all groups
	services []*fleet.Process
	ports    *ports
	debug    map[string]string // where each process serves its profiles, by its name
	clients  []submitter       // of the load
	heads    []*client.Client  // one of each group, for what is not the load's
	papers   *papers.Papers    // nil where the nodes speak plain text
}

// submitter is a client of a cluster, or of several groups.
type submitter interface {
	Submit(ctx context.Context, t client.Transaction) (client.Result, error)
	Close() error
}

// newGround starts nodes and participants, registers these, and waits until the leader
// reaches them. Close what it returns, with an error too.
func newGround(ctx context.Context, cfg Config) (*ground, error) {
	g := &ground{debug: map[string]string{}}
	if len(cfg.Endpoints) > 0 {
		return g, g.dial([]client.Config{{Endpoints: cfg.Endpoints}}, cfg.Connections)
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
	groups, err := g.startGroups(cfg)
	if err != nil {
		return g, err
	}
	if err := g.dial(groups, cfg.Connections); err != nil {
		return g, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := g.tellGroups(ctx); err != nil {
		return g, g.explain(err)
	}
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
func (g *ground) dial(groups []client.Config, count int) error {
	for _, cfg := range groups {
		head, err := client.New(cfg)
		if err != nil {
			return err
		}
		g.heads = append(g.heads, head)
	}
	for range count {
		c, err := newSubmitter(groups)
		if err != nil {
			return err
		}
		g.clients = append(g.clients, c)
	}
	return nil
}

func newSubmitter(groups []client.Config) (submitter, error) {
	if len(groups) == 1 {
		return client.New(groups[0])
	}
	return client.NewGroups(client.GroupsConfig{Clusters: groups})
}

// tellGroups tells several clusters which groups they are, before their participants.
func (g *ground) tellGroups(ctx context.Context) error {
	if len(g.heads) == 1 {
		return nil
	}
	for i, head := range g.heads {
		is := client.Group{Number: i + 1, Of: len(g.heads)}
		err := poll(ctx, "the nodes of "+is.String()+" to know each other's release", func() (bool, error) {
			err := head.SetGroup(ctx, is)
			if errors.Is(err, client.ErrLevel) {
				return false, nil
			}
			return err == nil, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ports are those of a run: the fleet's own, and more for what a fleet knows nothing
// of.
type ports struct {
	fleet  fleet.Port   // the first group's, and the services'
	groups []fleet.Port // of the groups after it
	more   []fleet.Port // each is good for portsEach
	used   int
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
		if !near(p.fleet) && !slices.ContainsFunc(p.groups, near) && !slices.ContainsFunc(p.more, near) {
			return port, nil
		}
	}
}

// group is the port of the n-th group's nodes, from 0.
func (p *ports) group(n int) (fleet.Port, error) {
	if n == 0 {
		return p.fleet, nil
	}
	port, err := p.apart()
	p.groups = append(p.groups, port)
	return port, err
}

// startGroups starts the nodes of all groups, and tells where clients find each.
func (g *ground) startGroups(cfg Config) (groups []client.Config, err error) {
	var ids []string
	for group := range cfg.Groups {
		for n := range cfg.Nodes {
			id := cfg.prefix(group) + fleet.NodeID(n+1)
			ids = append(ids, id)
			if g.debug[id], err = g.ports.next(); err != nil {
				return nil, err
			}
		}
	}
	if err := g.issue(cfg, ids); err != nil {
		return nil, err
	}
	for group := range cfg.Groups {
		port, err := g.ports.group(group)
		if err != nil {
			return nil, err
		}
		nodes, err := g.fleet.StartClusterWith(port, fleet.Options{
			Nodes: cfg.Nodes, Args: cfg.serverArgs(), Prefix: cfg.prefix(group),
			Env: func(id string) []string { return append(g.papers.Node(id), "DECREE_OPERATOR_ADDR="+g.debug[id]) },
		})
		g.cluster = append(g.cluster, nodes...)
		if err != nil {
			return nil, err
		}
		groups = append(groups, client.Config{Endpoints: nodes.Endpoints(), Security: g.papers.Operator()})
	}
	return groups, nil
}

// prefix is that of the nodes' ids in the n-th group, from 0.
func (c Config) prefix(n int) string {
	if c.Groups == 1 {
		return ""
	}
	return fmt.Sprintf("g%d-", n+1)
}

// issue makes certificates for the nodes and the bench, where TLS is measured.
func (g *ground) issue(cfg Config, nodes []string) (err error) {
	if cfg.TLS {
		g.papers, err = papers.New(papers.Config{
			Dir: filepath.Join(g.fleet.Dir(), "certs"), Life: papers.Lasting, Nodes: nodes,
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

// register tells every cluster of a participant and waits until its leader reaches it.
func (g *ground) register(ctx context.Context, name, address string) error {
	if err := g.put(ctx, name, address); err != nil {
		return err
	}
	for _, head := range g.heads {
		err := poll(ctx, name+" to answer", func() (bool, error) {
			found, err := head.CheckParticipant(ctx, name)
			return found.GetReachable(), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// put tells every cluster of a participant.
func (g *ground) put(ctx context.Context, name, address string) error {
	target := map[string]*structpb.Value{"target": structpb.NewStringValue(address)}
	p := &decreev1.Participant{Name: name, Driver: "grpc", Config: &structpb.Struct{Fields: target}}
	for _, head := range g.heads {
		if _, err := head.PutParticipant(ctx, p); err != nil {
			return fmt.Errorf("register %s: %w", name, err)
		}
	}
	return nil
}

// explain adds what the processes logged to an error of the start.
func (g *ground) explain(err error) error { return fmt.Errorf("%w\n%s", err, g.fleet.Logs()) }

// leader is the view of the node that leads the first group. While none leads, as in an
// election on a machine that is too busy, it waits for one.
func (g *ground) leader(ctx context.Context) (*decreev1.StatusResponse, error) {
	return leaderOf(ctx, g.heads[0])
}

func leaderOf(ctx context.Context, head *client.Client) (view *decreev1.StatusResponse, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = poll(ctx, "a node to lead", func() (bool, error) {
		view, err = head.Status(ctx)
		return err == nil && view.GetLeader() != "" && view.GetNode() == view.GetLeader(), nil
	})
	return view, err
}

// reading is what had been used at a moment.
type reading struct {
	at      time.Time
	leaders []*decreev1.StatusResponse // of the groups
	process map[string]usage           // by name
}

// own is the name of this process among the others.
const own = "bench"

// read looks at every process, and at the leaders' counters.
func (g *ground) read(ctx context.Context) (reading, error) {
	r := reading{process: map[string]usage{}}
	for _, head := range g.heads {
		view, err := leaderOf(ctx, head)
		if err != nil {
			return r, err
		}
		r.leaders = append(r.leaders, view)
	}
	r.at = time.Now()
	var err error
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

// roleOf is a process's part, while nodes lead.
func (g *ground) roleOf(name string, leaders []string) role {
	_, isNode := g.cluster.Node(name)
	switch {
	case name == own:
		return asking
	case slices.Contains(leaders, name):
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
	for _, head := range g.heads {
		errs = append(errs, head.Close())
	}
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
