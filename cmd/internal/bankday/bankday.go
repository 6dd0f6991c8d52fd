// Package bankday runs the bank for a while over real resources and audits it:
// accounts in two PostgreSQL servers, a MariaDB server, a kv store and a wallet
// service, three coordinator nodes, and workers who move money between them.
//
// It owns the order of the day: start everything, open the accounts, move money
// while a person watches, let it settle, audit, and leave nothing behind. The
// traffic and the audit are package bank's, the processes package fleet's, the
// servers package databases'. It talks to the cluster through transport/client,
// as a user would.
package bankday

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/transport/client"
)

// Bounds of a day.
const (
	// maxWorkers keeps the connections to each server within what the throwaway
	// servers take.
	maxWorkers = 256
	// maxAccounts bounds the opening, which reaches every account.
	maxAccounts = 10_000
	// maxFor bounds the ledger, which is in memory.
	maxFor = 2 * time.Hour
	// minBetweenKills lets a killed node come back before the next one goes: with
	// two of three away nobody leads.
	minBetweenKills = 5 * time.Second
)

const (
	// balance is what every account has at first: transfers are up to a tenth of
	// it, so that some accounts run dry.
	balance = 1000
	// patience bounds every single step, and how long an order waits for its
	// outcome. A failover takes about a second.
	patience = 30 * time.Second
)

// Config of a day.
type Config struct {
	Binary   string        // path of the decree binary that plays all the parts
	Dir      string        // keeps the nodes' data and logs; temporary when empty
	For      time.Duration // that money is moved
	Workers  int
	Accounts int // of each of the five banks
	Seed     uint64
	// KillLeaderEvery kills the leader (kill -9) again and again; 0 never does.
	KillLeaderEvery time.Duration
	Port            fleet.Port // where the ports begin that are used, if they are free
	Out             io.Writer  // for people
}

// Validate reports everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.For <= 0 || c.For > maxFor {
		errs = append(errs, fmt.Errorf("for %s: want more than 0 and at most %s", c.For, maxFor))
	}
	if c.Workers < 1 || c.Workers > maxWorkers {
		errs = append(errs, fmt.Errorf("workers %d: want 1 to %d", c.Workers, maxWorkers))
	}
	if c.Accounts < 1 || c.Accounts > maxAccounts {
		errs = append(errs, fmt.Errorf("accounts %d: want 1 to %d", c.Accounts, maxAccounts))
	}
	if c.KillLeaderEvery != 0 && c.KillLeaderEvery < minBetweenKills {
		errs = append(errs, fmt.Errorf("kill the leader every %s: want 0 or at least %s", c.KillLeaderEvery, minBetweenKills))
	}
	return errors.Join(errs...)
}

// ErrWrong says that the audit found something.
var ErrWrong = errors.New("the audit found something wrong")

// day is one run.
type day struct {
	cfg     Config
	out     *speaker
	fleet   *fleet.Fleet
	cluster fleet.Cluster
	servers []io.Closer // databases
	banks   []*branchOffice
	client  *client.Client
	teller  *bank.Teller
	id      string // the cluster's, under which participants know it

	began, ended time.Time // the traffic
	failovers    []time.Duration
	looks        looks
	evidence     evidence // what the audit read
}

// branchOffice is an office and, where it keeps its books in a file, the service
// that has to stop before they can be read.
type branchOffice struct {
	bank.Office
	name    string
	service *fleet.Process
}

// Run runs a day. The end of ctx ends the traffic early; the books are audited
// all the same. An error that wraps ErrWrong is the audit's, and the Result tells
// what it found; with any other error there is none. Nothing is left running, and
// of files only Config.Dir, or the directory of a day that went wrong.
func Run(ctx context.Context, cfg Config) (result Result, err error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, err
	}
	d := &day{cfg: cfg, out: newSpeaker(cfg.Out)}
	if d.fleet, err = fleet.New(fleet.Config{Binary: cfg.Binary, Dir: cfg.Dir}); err != nil {
		return Result{}, err
	}
	defer func() { err = d.end(ctx, err) }()
	if err := d.start(ctx); err != nil {
		return Result{}, err
	}
	// From here on the end of ctx is no reason to leave without an audit.
	if err := d.business(ctx); err != nil {
		return Result{}, err
	}
	ctx = context.WithoutCancel(ctx)
	d.settle(ctx)
	report, err := d.audit(ctx)
	if err != nil {
		return Result{}, err
	}
	result = d.result(report)
	result.print(d.out)
	if !result.Passed {
		path, err := d.evidence.save(d.fleet.Dir())
		if err != nil {
			return result, fmt.Errorf("%w: %d findings; and no evidence: %w", ErrWrong, result.Findings, err)
		}
		d.out.say("all that was read for the audit is in %s", path)
		return result, fmt.Errorf("%w: %d findings", ErrWrong, result.Findings)
	}
	return result, nil
}

// end stops everything, and keeps the files only for those who have to find out
// what went wrong.
func (d *day) end(ctx context.Context, err error) error {
	if err != nil && (ctx.Err() == nil || errors.Is(err, ErrWrong)) {
		d.fleet.Keep()
		d.out.say("data and logs of the nodes are in %s", d.fleet.Dir())
	}
	errs := []error{err}
	for _, o := range d.banks {
		errs = append(errs, o.Close())
	}
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	errs = append(errs, d.fleet.Close())
	for _, s := range d.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
