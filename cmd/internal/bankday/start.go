package bankday

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/fleet"
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
	if d.cluster, err = d.fleet.StartCluster(port); err != nil {
		return err
	}
	if err := d.openBanks(ctx, port); err != nil {
		return err
	}
	if d.client, err = client.New(client.Config{Endpoints: d.cluster.Endpoints()}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.register(ctx); err != nil {
		return err
	}
	d.out.say("they run; to look in: export DECREE_ENDPOINTS=%s", strings.Join(d.cluster.Endpoints(), ","))
	status, err := d.client.Status(ctx)
	if err != nil {
		return err
	}
	d.id = status.GetCluster()
	d.teller = &bank.Teller{
		Client: d.client, Offices: map[string]bank.Office{}, Accounts: d.cfg.Accounts, Balance: balance,
		Patience: patience, Ledger: &bank.Ledger{},
	}
	for _, o := range d.banks {
		d.teller.Banks = append(d.teller.Banks, o.name)
		d.teller.Offices[o.name] = o
	}
	if err := d.teller.Open(ctx); err != nil {
		return fmt.Errorf("open the accounts: %w", err)
	}
	d.out.say("%d accounts are open, with %d each: %d in all", len(d.banks)*d.cfg.Accounts, balance, d.teller.Total())
	return nil
}

// openBanks starts what keeps the accounts, side by side.
func (d *day) openBanks(ctx context.Context, port fleet.Port) error {
	openings := []func(context.Context) (*branchOffice, io.Closer, error){
		func(ctx context.Context) (*branchOffice, io.Closer, error) {
			return d.openDatabase(ctx, "ledger-a", databases.Postgres, bank.NewPostgres)
		},
		func(ctx context.Context) (*branchOffice, io.Closer, error) {
			return d.openDatabase(ctx, "ledger-b", databases.Postgres, bank.NewPostgres)
		},
		func(ctx context.Context) (*branchOffice, io.Closer, error) {
			return d.openDatabase(ctx, "cards", databases.MariaDB, bank.NewMariaDB)
		},
		func(ctx context.Context) (*branchOffice, io.Closer, error) {
			return d.openService(ctx, "vault", port.Service(1), bank.NewKV, "participant", "kv")
		},
		func(ctx context.Context) (*branchOffice, io.Closer, error) {
			return d.openService(ctx, "wallet", port.Service(2), bank.NewWallet, "bank", "wallet")
		},
	}
	offices := make([]*branchOffice, len(openings))
	servers := make([]io.Closer, len(openings))
	errs := make([]error, len(openings))
	var opening sync.WaitGroup
	for i, open := range openings {
		opening.Go(func() { offices[i], servers[i], errs[i] = open(ctx) })
	}
	opening.Wait()
	var first error
	for i := range openings {
		if servers[i] != nil {
			d.servers = append(d.servers, servers[i])
		}
		if offices[i] != nil {
			d.banks = append(d.banks, offices[i])
		}
		if first == nil {
			first = errs[i]
		}
	}
	return first
}

// openDatabase starts a server with one database. The nodes find its DSN in a
// file, as they would a secret.
func (d *day) openDatabase(
	ctx context.Context, name string, e databases.Engine, open func(context.Context, bank.SQLConfig) (bank.Office, error),
) (*branchOffice, io.Closer, error) {
	server, err := databases.Start(ctx, e, databases.Options{})
	if err != nil {
		return nil, nil, err
	}
	if err := server.Create(ctx, databaseName); err != nil {
		return nil, server, err
	}
	secret := filepath.Join(d.fleet.Dir(), name+".dsn")
	if err := os.WriteFile(secret, []byte(server.DSN(databaseName)+"\n"), 0o600); err != nil {
		return nil, server, err
	}
	office, err := open(ctx, bank.SQLConfig{Name: name, DSN: server.DSN(databaseName), Reference: "file:" + secret})
	if err != nil {
		return nil, server, err
	}
	return &branchOffice{Office: office, name: name}, server, nil
}

// openService starts a participant's process and waits until it listens.
func (d *day) openService(
	ctx context.Context, name, address string, open func(name, address, path string) (bank.Office, error), command ...string,
) (*branchOffice, io.Closer, error) {
	path := filepath.Join(d.fleet.Dir(), name+".db")
	process, err := d.fleet.Start(name, append(command, "--listen", address, "--path", path)...)
	if err != nil {
		return nil, nil, err
	}
	office, err := open(name, address, path)
	if err != nil {
		return nil, nil, err
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
	return &branchOffice{office, name, process}, nil, err
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
