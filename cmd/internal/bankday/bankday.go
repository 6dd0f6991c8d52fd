// Package bankday runs the bank for a while over real resources and audits it:
// accounts in two PostgreSQL servers, a MariaDB server, a kv store and a wallet
// service, three coordinator nodes, and workers who move money between them.
//
// It owns the order of the day: start everything, open the accounts, move money
// while a person watches and faults strike, let it come to rest, audit, and leave
// nothing behind. The traffic and the audit are package bank's, the processes package
// fleet's, the servers package databases', and how a fault is carried out package
// faults'; which comes when is a plan here, made from the seed. It talks to the cluster through transport/client,
// as a user would.
package bankday

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/faults"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/cmd/internal/papers"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/transport/client"
)

// Bounds of a day.
const (
	// maxWorkers keeps the connections to each server within what the throwaway
	// servers take.
	maxWorkers = 256
	// maxAccounts bounds the opening, which reaches every account.
	maxAccounts = 10_000
	// MaxFor bounds the ledger, which is in memory.
	MaxFor = 2 * time.Hour
	// minBetweenKills lets a killed node come back before the next one goes: with
	// two of three away nobody leads.
	minBetweenKills = 5 * time.Second
	// minFaultEvery keeps the queues of faults from being full all the time.
	minFaultEvery = 500 * time.Millisecond
	// maxPace bounds how slow business may be: past it, next to none is under way
	// when a fault strikes.
	maxPace = time.Second
)

const (
	// meddleEvery is how often another client meddles with an order, where faults
	// strike: one in so many.
	meddleEvery = 8
	// Where faults strike, clients wait for an answer for waiting, or every other one
	// for hasty, before they give up and leave their orders to be asked about in the
	// end. Many faults last longer, or the workers would all stand at what hangs.
	waiting = 10 * time.Second
	hasty   = 1500 * time.Millisecond
	// balance is what every account has at first: transfers are up to a tenth of
	// it, so that some accounts run dry.
	balance = 1000
	// patience bounds every single step, how long an order of a quiet day waits for
	// its outcome, and after how long nothing may be left prepared. A failover takes
	// about a second.
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
	Faults          []Kind        // that strike; none on a quiet day
	FaultEvery      time.Duration // one in each such interval
	// Failovers closes the day early once so many were seen, and makes it a failure
	// to see fewer; 0 is no matter.
	Failovers int
	Pace      time.Duration // between two orders at least; 0 is none
	// TLS has nodes, services and clients speak mutual TLS, with certificates that expire
	// and are replaced all the while. Database servers are reached as ever.
	TLS  bool
	Port fleet.Port // where the ports begin that are used, if they are free
	Out  io.Writer  // for people

	// recovery is how long the cluster may take to recover from a fault, and to come to
	// rest in the end; 0 is patience.
	recovery time.Duration
}

// Validate reports everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.For <= 0 || c.For > MaxFor {
		errs = append(errs, fmt.Errorf("for %s: want more than 0 and at most %s", c.For, MaxFor))
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
	if c.KillLeaderEvery != 0 && len(c.Faults) > 0 {
		errs = append(errs, fmt.Errorf("kill the leader every %s: want 0 where faults strike", c.KillLeaderEvery))
	}
	if len(c.Faults) > 0 && c.FaultEvery < minFaultEvery {
		errs = append(errs, fmt.Errorf("a fault every %s: want at least %s", c.FaultEvery, minFaultEvery))
	}
	if c.Failovers < 0 || c.Failovers > 0 && c.KillLeaderEvery == 0 && len(c.Faults) == 0 {
		errs = append(errs, fmt.Errorf("failovers %d: want 0, or faults that make them", c.Failovers))
	}
	if c.Pace < 0 || c.Pace > maxPace {
		errs = append(errs, fmt.Errorf("pace %s: want 0 to %s", c.Pace, maxPace))
	}
	return errors.Join(errs...)
}

// command is the command line of a day like this one: it has the same orders, and
// the same faults at the same times.
func (c Config) command() string {
	s := fmt.Sprintf("decree bank --seed %d --for %s --workers %d --accounts %d", c.Seed, c.For, c.Workers, c.Accounts)
	if c.Pace > 0 {
		s += fmt.Sprintf(" --pace %s", c.Pace)
	}
	if c.KillLeaderEvery > 0 {
		s += fmt.Sprintf(" --kill-leader-every %s", c.KillLeaderEvery)
	}
	if len(c.Faults) > 0 {
		s += fmt.Sprintf(" --faults %s --fault-every %s", faultsText(c.Faults), c.FaultEvery)
	}
	if c.Failovers > 0 {
		s += fmt.Sprintf(" --failovers %d", c.Failovers)
	}
	if c.TLS {
		s += " --tls"
	}
	return s
}

// ErrWrong says that the audit found something.
var ErrWrong = errors.New("the audit found something wrong")

// day is one run.
type day struct {
	cfg     Config
	out     *speaker
	fleet   *fleet.Fleet
	cluster fleet.Cluster
	links   *faults.Links       // nil on a quiet day
	servers []*databases.Server // that were started, also for an office that was not
	banks   []*branchOffice
	papers  *papers.Papers // nil is plain text
	client  *client.Client // an operator's
	clients *client.Client // the traffic's
	teller  *bank.Teller
	id      string // the cluster's, under which participants know it

	close     func() // ends the traffic early; set by business
	shifts    []shift
	next      int // the number of the next transfer
	watch     watch
	failovers []time.Duration
	reigns    reigns
	plan      *plan // of faults
	troubles  troubles
	looks     looks
	evidence  evidence // what the audit read
}

// branchOffice is an office and where its books are: in a database server, or in the
// file of a service, which has to stop before they can be read.
type branchOffice struct {
	bank.Office
	name    string
	server  *databases.Server
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
	d := &day{cfg: cfg, out: newSpeaker(cfg.Out), plan: newPlan(cfg.Seed, cfg.Faults, cfg.FaultEvery)}
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
	if len(cfg.Faults) > 0 {
		d.resolve(ctx)
	}
	report, err := d.audit(ctx)
	if err != nil {
		return Result{}, err
	}
	result = d.result(report)
	result.print(d.out)
	if !result.Passed {
		path, err := d.evidence.save(d.fleet.Dir(), cfg.command())
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
		d.out.say("data and logs of the nodes are in %s; the day was: %s", d.fleet.Dir(), d.cfg.command())
		d.keepLogs()
	}
	errs := []error{err}
	for _, o := range d.banks {
		errs = append(errs, o.Close())
	}
	for _, c := range []*client.Client{d.client, d.clients} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	errs = append(errs, d.papers.Close(), d.fleet.Close()) // whose directory the papers are in
	if d.links != nil {
		d.links.Close()
	}
	for _, s := range d.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
