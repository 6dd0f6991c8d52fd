package bankday

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/faults"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/cmd/internal/papers"
	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/transport/client"
)

// databaseName is that of the one database in each server.
const databaseName = "bank"

// start runs the servers, the nodes and the services, registers the participants
// and opens the accounts.
func (d *day) start(ctx context.Context) error {
	d.out.say("starting PostgreSQL (ledger-a, ledger-b), MariaDB (cards), a kv store (vault), a wallet service (wallet) and three nodes")
	port, err := fleet.FreePort(d.cfg.Port)
	if err != nil {
		return err
	}
	if d.cfg.TLS {
		if d.papers, err = papers.New(papers.Config{
			Dir: filepath.Join(d.fleet.Dir(), "certs"), Life: papers.Brief,
			Nodes: fleet.NodeIDs(fleet.Nodes), Services: []string{vault, wallet},
		}); err != nil {
			return err
		}
	}
	options := fleet.Options{Env: d.papers.Node}
	if len(d.cfg.Faults) > 0 {
		d.links = faults.NewLinks(d.fleet)
		options.Front = d.links.Front
	}
	if d.cluster, err = d.fleet.StartClusterWith(port, options); err != nil {
		return err
	}
	if err := d.openBanks(ctx, port); err != nil {
		return err
	}
	if d.client, err = client.New(client.Config{Endpoints: d.cluster.Endpoints(), Security: d.papers.Operator()}); err != nil {
		return err
	}
	if d.clients, err = client.New(client.Config{Endpoints: d.cluster.Endpoints(), Security: d.papers.Client()}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.register(ctx); err != nil {
		return err
	}
	d.out.say("they run; to look in: export %s", strings.Join(append(d.papers.Look(), "DECREE_ENDPOINTS="+strings.Join(d.cluster.Endpoints(), ",")), " "))
	status, err := d.client.Status(ctx)
	if err != nil {
		return err
	}
	d.id = status.GetCluster()
	d.teller = &bank.Teller{
		Client: d.clients, Offices: map[string]bank.Office{}, Accounts: d.cfg.Accounts, Balance: balance,
		Patience: patience, Ledger: &bank.Ledger{}, History: history.NewRecorder(),
	}
	for _, o := range d.banks {
		d.teller.Banks = append(d.teller.Banks, o.name)
		d.teller.Offices[o.name] = o
	}
	if err := d.teller.Open(ctx); err != nil {
		return fmt.Errorf("open the accounts: %w", err)
	}
	if len(d.cfg.Faults) > 0 {
		d.teller.Patience = waiting
	}
	d.out.say("%d accounts are open, with %d each: %d in all", len(d.banks)*d.cfg.Accounts, balance, d.teller.Total())
	return nil
}

// openBanks starts what keeps the accounts, side by side.
func (d *day) openBanks(ctx context.Context, port fleet.Port) error {
	openings := []func(context.Context) (*branchOffice, error){
		func(ctx context.Context) (*branchOffice, error) {
			return d.openDatabase(ctx, ledgerA, port.Service(1), databases.Postgres, bank.NewPostgres)
		},
		func(ctx context.Context) (*branchOffice, error) {
			return d.openDatabase(ctx, ledgerB, port.Service(2), databases.Postgres, bank.NewPostgres)
		},
		func(ctx context.Context) (*branchOffice, error) {
			return d.openDatabase(ctx, cards, port.Service(3), databases.MariaDB, bank.NewMariaDB)
		},
		func(ctx context.Context) (*branchOffice, error) {
			return d.openService(ctx, vault, port.Service(4), bank.NewKV, "participant", "kv")
		},
		func(ctx context.Context) (*branchOffice, error) {
			return d.openService(ctx, wallet, port.Service(5), bank.NewWallet, "bank", "wallet")
		},
	}
	offices := make([]*branchOffice, len(openings))
	errs := make([]error, len(openings))
	var opening sync.WaitGroup
	for i, open := range openings {
		opening.Go(func() { offices[i], errs[i] = open(ctx) })
	}
	opening.Wait()
	var first error
	for i, o := range offices {
		if o != nil && o.server != nil {
			d.servers = append(d.servers, o.server)
		}
		if o != nil && o.Office != nil {
			d.banks = append(d.banks, o)
		}
		if first == nil {
			first = errs[i]
		}
	}
	return first
}

// openDatabase starts a server with one database. The nodes find its DSN in a file,
// as they would a secret. With an error there may be a server to close.
func (d *day) openDatabase(
	ctx context.Context, name, address string, e databases.Engine, open func(context.Context, bank.SQLConfig) (bank.Office, error),
) (*branchOffice, error) {
	var options databases.Options
	if d.links != nil {
		port, err := portOf(address)
		if err != nil {
			return nil, err
		}
		options.Port = port
	}
	server, err := databases.Start(ctx, e, options)
	if err != nil {
		return nil, err
	}
	o := &branchOffice{name: name, server: server}
	if err := server.Create(ctx, databaseName); err != nil {
		return o, err
	}
	dsn, err := d.dsn(name, address, server)
	if err != nil {
		return o, err
	}
	secret := filepath.Join(d.fleet.Dir(), name+".dsn")
	if err := os.WriteFile(secret, []byte(dsn+"\n"), 0o600); err != nil {
		return o, err
	}
	o.Office, err = open(ctx, bank.SQLConfig{Name: name, DSN: server.DSN(databaseName), Reference: "file:" + secret})
	return o, err
}

// dsn is how the nodes reach a server: by its socket, or by TCP over a link that can
// be cut. The office itself always has the socket.
func (d *day) dsn(name, address string, server *databases.Server) (string, error) {
	if d.links == nil {
		return server.DSN(databaseName), nil
	}
	front, err := d.links.Front(name, address)
	return server.DSNAt(front, databaseName), err
}

func portOf(address string) (int, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// openService starts a participant's process and waits until it listens.
func (d *day) openService(
	ctx context.Context, name, address string, open func(bank.Service) (bank.Office, error), command ...string,
) (*branchOffice, error) {
	path := filepath.Join(d.fleet.Dir(), name+".db")
	process, err := d.fleet.Start(name, slices.Concat(command, []string{"--listen", address, "--path", path}, d.papers.Service(name))...)
	if err != nil {
		return nil, err
	}
	front := address
	if d.links != nil {
		if front, err = d.links.Front(name, address); err != nil {
			return nil, err
		}
	}
	office, err := open(bank.Service{Name: name, Address: front, Path: path, Papers: d.papers})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = poll(ctx, name+" to listen", func() (bool, error) {
		if !process.Alive() {
			return false, fmt.Errorf("%s has ended", name)
		}
		connection, err := net.Dial("tcp", address)
		if err != nil {
			return false, nil
		}
		return true, connection.Close()
	})
	return &branchOffice{Office: office, name: name, service: process}, err
}

// register tells the cluster of every bank, and waits until each answers.
func (d *day) register(ctx context.Context) error {
	for _, o := range d.banks {
		if _, err := d.client.PutParticipant(ctx, o.Participant()); err != nil {
			return fmt.Errorf("register %s: %w", o.name, err)
		}
		err := poll(ctx, o.name+" to answer", func() (bool, error) {
			found, err := d.client.CheckParticipant(ctx, o.name)
			return found.GetReachable(), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pollPause is how often the day looks at what no event announces.
const pollPause = 20 * time.Millisecond

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
