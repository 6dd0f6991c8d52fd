package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/faults"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/cmd/internal/papers"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const (
	// patience bounds every wait for an event, and how long a client waits for its
	// outcome. It only has to be longer than a machine that is busy with other
	// things takes; nothing is measured by it.
	patience = 60 * time.Second
	// pollPause is how often one looks at what no event announces.
	pollPause = 10 * time.Millisecond
	// glance bounds one look at a node, which may be one that hangs.
	glance = 500 * time.Millisecond
	// diskSize has room for what a ground writes in its whole life, some megabytes,
	// and for the sixteen by which the nodes' log files grow, or a file of their wal
	// with a spare one.
	diskSize = 96 << 20
)

// What the nodes are told beyond the usual. A step is held for as long as it takes,
// which is no test of a transaction's time; and nobody should wait ten seconds for
// what hangs on purpose.
var nodeArgs = []string{
	"--default-timeout", patience.String(), "--prepare-timeout", "3s", "--delivery-timeout", "1s", "--store-timeout", "2s",
	"--disk-headroom", "8MiB", "--disk-reserve", "8MiB", // the disks are small
}

// The bank that the clients use: few accounts, so that transfers meet.
const (
	accounts = 8
	balance  = 1000
)

// bankNames are the participants. The probe moves money from the first to the
// second.
var bankNames = []string{"bank-a", "bank-b"}

// probeAccount is the account of the probe at each of them, which no other transfer
// touches: nothing but a fault stands against the probe.
const probeAccount = "probe"

// actor is a process that can be a victim, with its disk.
type actor struct {
	*fleet.Process
	disk *faults.Disk // nil where this machine has none
}

// desk is a participant.
type desk struct {
	actor
	file   string // its data
	copied string // where a copy is made to be read
	office bank.Office
	conn   *grpc.ClientConn
	api    participantv1.ParticipantClient
}

// ground is a cluster with its participants, made so that everything can befall it.
// It plays cells one after the other. It owns all that it started.
type ground struct {
	means   faults.Means
	fleet   *fleet.Fleet
	links   *faults.Links
	nodes   fleet.Cluster
	disks   map[string]*faults.Disk // by process; empty where there are none
	desks   []*desk
	papers  *papers.Papers // nil is plain text
	client  *client.Client // an operator's
	clients *client.Client // the traffic's
	teller  *bank.Teller
	cluster string // its id
	epoch   uint64 // the last that was seen
	next    int    // the number of the next transfer
	played  int    // cells
}

// newGround starts a cluster with its participants and opens the accounts.
func newGround(ctx context.Context, cfg Config, means faults.Means) (_ *ground, err error) {
	f, err := fleet.New(fleet.Config{Binary: cfg.Binary})
	if err != nil {
		return nil, err
	}
	g := &ground{means: means, fleet: f, links: faults.NewLinks(f), disks: map[string]*faults.Disk{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	port, err := fleet.FreePort(0)
	if err != nil {
		return nil, err
	}
	if cfg.TLS {
		if err := g.issue(); err != nil {
			return nil, err
		}
	}
	if err := g.start(port, cfg.LogStore); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := g.register(ctx); err != nil {
		return nil, err
	}
	return g, g.open(ctx)
}

// issue makes certificates for everybody.
func (g *ground) issue() (err error) {
	g.papers, err = papers.New(papers.Config{
		Dir: filepath.Join(g.fleet.Dir(), "certs"), Life: papers.Brief, Nodes: fleet.NodeIDs(fleet.Nodes), Services: bankNames,
	})
	return err
}

// start runs the nodes and the participants.
func (g *ground) start(port fleet.Port, logStore string) error {
	for _, id := range fleet.NodeIDs(fleet.Nodes) {
		if err := errors.Join(g.giveDisk(id), os.MkdirAll(g.failpoints(id), 0o755)); err != nil {
			return err
		}
	}
	args := nodeArgs
	if logStore != "" {
		args = append(slices.Clip(args), "--log-store", logStore)
	}
	var err error
	g.nodes, err = g.fleet.StartClusterWith(port, fleet.Options{
		Args:    args,
		DataDir: func(id string) string { return filepath.Join(g.home(id), "data") },
		Env: func(id string) []string {
			return append(g.papers.Node(id), "DECREE_FAILPOINT_DIR="+g.failpoints(id))
		},
		Front: g.front,
	})
	if err != nil {
		return err
	}
	for i, name := range bankNames {
		if err := g.startDesk(name, port.Service(i+1)); err != nil {
			return err
		}
	}
	return nil
}

// startDesk runs a participant, which the nodes and the audit reach through its
// front.
func (g *ground) startDesk(name, address string) error {
	if err := g.giveDisk(name); err != nil {
		return err
	}
	front, err := g.front(name, address)
	if err != nil {
		return err
	}
	d := &desk{file: filepath.Join(g.home(name), "bank.db"), copied: filepath.Join(g.fleet.Dir(), name+"-copy.db")}
	args := append([]string{"participant", "kv", "--listen", address, "--path", d.file}, g.papers.Service(name)...)
	process, err := g.fleet.Start(name, args...)
	if err != nil {
		return err
	}
	d.actor = actor{process, g.disks[name]}
	if d.conn, err = grpc.NewClient(front, grpc.WithTransportCredentials(g.papers.Calls())); err != nil {
		return err
	}
	d.api = participantv1.NewParticipantClient(d.conn)
	if d.office, err = bank.NewKV(bank.Service{Name: name, Address: front, Path: d.copied, Papers: g.papers}); err != nil {
		return errors.Join(err, d.conn.Close())
	}
	g.desks = append(g.desks, d)
	return nil
}

// front puts the links between an address and whoever dials it, where this machine
// can tell who does.
func (g *ground) front(owner, address string) (string, error) {
	if g.means.Links != nil {
		return address, nil
	}
	return g.links.Front(owner, address)
}

// giveDisk gives a process the best disk that this machine can make.
func (g *ground) giveDisk(name string) (err error) {
	switch {
	case g.means.Power == nil:
		g.disks[name], err = faults.ImageDisk(g.fleet, name, diskSize)
	case g.means.Fill == nil:
		g.disks[name], err = faults.MemoryDisk(g.fleet, name, diskSize)
	default:
		err = os.MkdirAll(g.home(name), 0o755)
	}
	return err
}

// home is where a process keeps its data.
func (g *ground) home(name string) string {
	if d := g.disks[name]; d != nil {
		return d.Dir()
	}
	return filepath.Join(g.fleet.Dir(), "data", name)
}

func (g *ground) failpoints(id string) string {
	return filepath.Join(g.fleet.Dir(), "failpoints", id)
}

// register tells the cluster of the participants and waits until it reaches them.
func (g *ground) register(ctx context.Context) (err error) {
	if g.client, err = client.New(client.Config{Endpoints: g.nodes.Endpoints(), Security: g.papers.Operator()}); err != nil {
		return err
	}
	if g.clients, err = client.New(client.Config{Endpoints: g.nodes.Endpoints(), Security: g.papers.Client()}); err != nil {
		return err
	}
	for _, d := range g.desks {
		if _, err := g.client.PutParticipant(ctx, d.office.Participant()); err != nil {
			return fmt.Errorf("register %s: %w", d.Name(), err)
		}
	}
	return g.reachable(ctx)
}

// reachable waits until the leader reaches every participant.
func (g *ground) reachable(ctx context.Context) error {
	for _, d := range g.desks {
		err := poll(ctx, d.Name()+" to answer the leader", func(ctx context.Context) bool {
			found, err := g.client.CheckParticipant(ctx, d.Name())
			return err == nil && found.GetReachable()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// quiet waits until nothing is under way at the leader: receipts of what was answered
// are written some moments later, and would be held in the probe's place.
func (g *ground) quiet(ctx context.Context, leader *fleet.Node) error {
	return poll(ctx, "nothing to be under way", func(ctx context.Context) bool {
		status, err := g.client.NodeStatus(ctx, leader.Endpoint)
		return err == nil && status.GetUnfinished() == 0
	})
}

// open opens the accounts.
func (g *ground) open(ctx context.Context) error {
	status, err := g.client.Status(ctx)
	if err != nil {
		return err
	}
	g.cluster, g.epoch = status.GetCluster(), status.GetEpoch()
	g.teller = &bank.Teller{
		Client: g.clients, Banks: bankNames, Offices: map[string]bank.Office{}, Accounts: accounts, Balance: balance,
		Patience: patience, Ledger: &bank.Ledger{},
	}
	for _, d := range g.desks {
		g.teller.Offices[d.Name()] = d.office
		g.teller.Reserved = append(g.teller.Reserved, bank.Account{Bank: d.Name(), Name: probeAccount})
	}
	if err := g.teller.Open(ctx); err != nil {
		return fmt.Errorf("open the accounts: %w", err)
	}
	return nil
}

// close ends everything. Without Keep nothing stays.
func (g *ground) close() error {
	var errs []error
	for _, d := range g.desks {
		errs = append(errs, d.office.Close(), d.conn.Close())
	}
	for _, c := range []*client.Client{g.client, g.clients} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	errs = append(errs, g.papers.Close()) // its directory goes with the fleet
	errs = append(errs, g.fleet.Close())
	g.links.Close()
	return errors.Join(errs...)
}

// revive starts whatever has died.
func (g *ground) revive() error {
	var errs []error
	for _, p := range g.fleet.Processes() {
		errs = append(errs, faults.Revive(p))
	}
	return errors.Join(errs...)
}

// leading waits until a node other than except leads an epoch past after.
func (g *ground) leading(ctx context.Context, after uint64, except string) (leader *fleet.Node, epoch uint64, err error) {
	err = poll(ctx, "a leader", func(ctx context.Context) bool {
		for _, n := range g.nodes {
			if n.Name() == except || !n.Alive() {
				continue
			}
			status, ok := g.status(ctx, n)
			if ok && status.GetLeader() == n.Name() && status.GetEpoch() > after {
				leader, epoch = n, status.GetEpoch()
				return true
			}
		}
		return false
	})
	return leader, epoch, err
}

// status is what a node says of itself, if it says anything soon.
func (g *ground) status(ctx context.Context, n *fleet.Node) (*decreev1.StatusResponse, bool) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	status, err := g.client.NodeStatus(ctx, n.Endpoint)
	return status, err == nil
}

// settle waits until nothing is under way: all nodes have applied the same, every
// transaction is finished, the disks have room, and nothing is prepared at a participant.
func (g *ground) settle(ctx context.Context) error {
	return poll(ctx, "everything to be delivered", func(ctx context.Context) bool {
		applied := map[uint64]bool{}
		for _, n := range g.nodes {
			status, ok := g.status(ctx, n)
			if !ok || status.GetUnfinished() > 0 || status.GetLeader() == "" || status.GetDiskLow() {
				return false
			}
			applied[status.GetAppliedIndex()] = true
		}
		if len(applied) > 1 {
			return false
		}
		for _, d := range g.desks {
			if held, err := d.office.Prepared(ctx, g.cluster); err != nil || len(held) > 0 {
				return false
			}
		}
		return true
	})
}

// books reads what a participant's file holds. The file belongs to a process: a
// copy is read, made while that one is stopped, which is what a crash at that
// moment would leave.
func (d *desk) books(ctx context.Context, cluster string) (_ bank.Books, err error) {
	undo, err := faults.Pause(d.Process)
	if err != nil {
		return bank.Books{}, err
	}
	defer func() { err = errors.Join(err, undo()) }()
	if err := copyFile(d.copied, d.file); err != nil {
		return bank.Books{}, err
	}
	return d.office.Books(ctx, cluster)
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // it was only read
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// poll calls holds until it is true or ctx ends, each time for a second at most.
func poll(ctx context.Context, what string, holds func(context.Context) bool) error {
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		ok := holds(bounded)
		cancel()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
