// Package demo tells decree's story with real processes: three nodes and three
// participants move money while leaders die at the worst moments, and an audit
// then holds every node and every participant against what clients were told.
//
// It talks to the cluster through transport/client, as a user would, and breaks
// it with scripts/cluster.sh, as a user could.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/cmd/internal/bank"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const (
	usualPort = 7100

	// The size of the bank: enough accounts that transfers rarely meet.
	accounts = 40
	balance  = 1000
	tellers  = 8
	// chapter is how many transfers there are at least before and beside each
	// event of the story, and pace how far they are apart: slow enough that a few
	// hundred cover the whole of it.
	chapter = 100
	pace    = 20 * time.Millisecond

	// gap is how long the courier holds a gap of the protocol open, so that the
	// kill lands in it: finding and killing the leader takes a tenth of that, or
	// half on a busy machine.
	gap = 3 * time.Second
	// inFlight is how long an answer that the leader gave before it died may take
	// to arrive; the first one after that is another leader's.
	inFlight = 50 * time.Millisecond
	// maxComplaints bounds the wrong answers that are told as they come; the audit
	// counts them all.
	maxComplaints = 10
	// patience bounds every single step. A failover takes about a second.
	patience = 30 * time.Second
)

// Config of a run.
type Config struct {
	Script string // path of scripts/cluster.sh
	Binary string // path of the decree binary that plays all the parts
	Dir    string // keeps data and logs here; a temporary directory when empty
	Seed   uint64 // of the transfers
	Out    io.Writer
}

// ErrWrong says that the audit found something.
var ErrWrong = errors.New("the audit found something wrong")

// demo is one run.
type demo struct {
	cfg     Config
	dir     string
	say     func(format string, args ...any)
	cluster *localCluster
	courier *service
	banks   []*service
	offices map[string]bank.Office // of the banks
	probes  map[string]*probe
	client  *client.Client
	teller  *bank.Teller

	id        string // the cluster's, under which participants know it
	next      int    // number of the next transfer
	told      atomic.Int64
	wrong     atomic.Int64    // answers that should not be
	failovers []time.Duration // from each kill to the next answer that a client got
}

// Run tells the story. It leaves nothing running, and its directory only where
// something went wrong or one was given. An error that wraps ErrWrong is the
// audit's; it has been printed.
func Run(ctx context.Context, cfg Config) (err error) {
	d := &demo{cfg: cfg, say: lines(cfg.Out), offices: map[string]bank.Office{}, probes: map[string]*probe{}}
	if d.dir, err = workDirectory(cfg.Dir); err != nil {
		return err
	}
	defer func() { err = d.end(ctx, err) }()
	for _, act := range []func(context.Context) error{
		d.start, d.quiet, d.killBetweenPrepareAndCommit, d.killBetweenDecisionAndDelivery, d.settle, d.audit,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// end stops everything, and keeps the directory only for those who have to find
// out what went wrong.
func (d *demo) end(ctx context.Context, err error) error {
	err = errors.Join(err, d.stop())
	switch {
	case d.cfg.Dir != "":
		return err
	case err != nil && ctx.Err() == nil:
		d.say("data and logs are in %s", d.dir)
		return err
	default:
		return errors.Join(err, os.RemoveAll(d.dir))
	}
}

func workDirectory(asked string) (string, error) {
	if asked == "" {
		return os.MkdirTemp("", "decree-demo-")
	}
	dir, err := filepath.Abs(asked)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// start runs the processes and opens the accounts.
func (d *demo) start(ctx context.Context) error {
	port, err := freeBase(ctx, usualPort)
	if err != nil {
		return err
	}
	d.say("starting three nodes and three participants: bank-a and bank-b (kv), courier (sim)")
	d.cluster = &localCluster{script: d.cfg.Script, binary: d.cfg.Binary, dir: d.dir, port: port, say: d.say}
	if _, err := d.cluster.show("start"); err != nil {
		return err
	}
	if err := d.startParticipants(port); err != nil {
		return err
	}
	if d.client, err = client.New(client.Config{Endpoints: d.cluster.endpoints()}); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.register(bounded); err != nil {
		return err
	}
	status, err := d.client.Status(bounded)
	if err != nil {
		return err
	}
	d.id = status.GetCluster()
	d.teller = &bank.Teller{
		Client: d.client, Banks: []string{"bank-a", "bank-b"}, Offices: d.offices, Accounts: accounts, Balance: balance,
		Reserved: []bank.Account{alice, bob}, Courier: "courier", Patience: patience, Ledger: &bank.Ledger{},
	}
	if err := d.teller.Open(ctx); err != nil {
		return fmt.Errorf("open the accounts: %w", err)
	}
	d.say("the accounts are open, with %d each: %d in all", balance, d.teller.Total())
	return nil
}

func (d *demo) startParticipants(port int) error {
	for i, name := range []string{"bank-a", "bank-b", "courier"} {
		address := fmt.Sprintf("127.0.0.1:%d", port+participantPorts+i+1)
		args := []string{"kv", "--path", d.bankFile(name)}
		if name == "courier" {
			args = []string{"sim", "--delay-max", "20ms"}
		}
		s, err := startService(d.cfg.Binary, d.dir, name, address, args...)
		if err != nil {
			return err
		}
		if name == "courier" {
			d.courier = s
		} else {
			d.banks = append(d.banks, s)
			if d.offices[name], err = bank.NewKV(bank.Service{Name: name, Address: address, Path: d.bankFile(name)}); err != nil {
				return err
			}
		}
		if d.probes[name], err = newProbe(name, address); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) bankFile(name string) string { return filepath.Join(d.dir, name+".db") }

func (d *demo) register(ctx context.Context) error {
	for _, s := range append([]*service{d.courier}, d.banks...) {
		target := map[string]*structpb.Value{"target": structpb.NewStringValue(s.address)}
		p := &decreev1.Participant{Name: s.name, Driver: "grpc", Config: &structpb.Struct{Fields: target}}
		if _, err := d.client.PutParticipant(ctx, p); err != nil {
			return fmt.Errorf("register %s: %w", s.name, err)
		}
		err := poll(ctx, s.name+" to answer", func() (bool, error) {
			found, err := d.client.CheckParticipant(ctx, s.name)
			return found.GetReachable(), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// quiet is the first chapter: transfers while nothing fails.
func (d *demo) quiet(ctx context.Context) error {
	d.say("transfers begin, %d at a time; some ask for too much, some meet a courier who says no", tellers)
	return d.transfers(ctx, nil)
}

// transfers runs a chapter's, or more, until enough is closed.
func (d *demo) transfers(ctx context.Context, enough <-chan struct{}) (err error) {
	traffic := bank.Traffic{
		Seed: d.cfg.Seed, From: d.next, AtLeast: chapter, Enough: enough, Workers: tellers, Pace: pace,
	}
	d.next, err = d.teller.Run(ctx, traffic, func(e bank.Entry) {
		if complaint := e.Check(); complaint != "" && d.wrong.Add(1) <= maxComplaints {
			d.say("WRONG: %s", complaint)
		}
		if told := d.told.Add(1); told%chapter == 0 {
			d.say("%s", tally(d.teller.Ledger.Entries()))
		}
	})
	return err
}

// beside runs transfers while an event happens.
func (d *demo) beside(ctx context.Context, event func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	traffic := make(chan error, 1)
	go func() {
		err := d.transfers(ctx, over)
		if err != nil {
			cancel() // the event waits for answers
		}
		traffic <- err
	}()
	err := event(ctx)
	if err != nil {
		cancel()
	}
	close(over)
	return errors.Join(err, <-traffic)
}

// killBetweenPrepareAndCommit kills the leader while both banks hold a transfer
// prepared and the courier has not voted yet.
func (d *demo) killBetweenPrepareAndCommit(ctx context.Context) error {
	return d.beside(ctx, func(ctx context.Context) error {
		o, err := d.special(bank.Errand{Participant: "courier", Delay: gap}, client.WaitDelivery)
		if err != nil {
			return err
		}
		d.say("a transfer whose courier takes %s to vote", gap)
		answer := d.submit(ctx, o)
		for _, name := range d.teller.Banks {
			if err := d.probes[name].awaitPrepared(ctx, d.id, o.TxID); err != nil {
				return err
			}
		}
		d.say("both banks hold it prepared and wait for the decision; nobody has decided")
		if err := d.fail(ctx, o.TxID, undecided); err != nil {
			return err
		}
		return d.tell(<-answer)
	})
}

// killBetweenDecisionAndDelivery kills the leader when a transfer is decided and
// the courier has not carried it out.
func (d *demo) killBetweenDecisionAndDelivery(ctx context.Context) error {
	return d.beside(ctx, func(ctx context.Context) error {
		o, err := d.special(bank.Errand{Participant: "courier", CommitDelay: gap}, client.WaitDecision)
		if err != nil {
			return err
		}
		d.say("a transfer whose courier takes %s to commit", gap)
		e := <-d.submit(ctx, o)
		if err := d.tell(e); err != nil {
			return err
		}
		d.say("it is decided; the courier has not delivered")
		return d.fail(ctx, o.TxID, undelivered)
	})
}

// alice and bob have accounts that only the story touches.
var (
	alice = bank.Account{Bank: "bank-a", Name: "alice"}
	bob   = bank.Account{Bank: "bank-b", Name: "bob"}
)

// special is a transfer from alice to bob, for which nobody can say no.
func (d *demo) special(errand bank.Errand, wait client.Wait) (bank.Order, error) {
	txid, err := client.NewTxID()
	return bank.Order{
		TxID:   txid,
		Moves:  []bank.Move{{Account: alice, Amount: -10}, {Account: bob, Amount: 10}},
		Errand: &errand,
		Expect: bank.MustCommit,
		Wait:   wait,
	}, err
}

// submit sends an order and gives its entry when it is answered.
func (d *demo) submit(ctx context.Context, o bank.Order) <-chan bank.Entry {
	answer := make(chan bank.Entry, 1)
	go func() {
		e, err := d.teller.Submit(ctx, o)
		e.Err = errors.Join(e.Err, err)
		answer <- e
	}()
	return answer
}

func (d *demo) tell(e bank.Entry) error {
	if e.Err != nil {
		return e.Err
	}
	d.say("its client is told: %s", e.Result.Outcome)
	return nil
}

// States in which the kill has to find the transaction.
func undecided(t *decreev1.Transaction) bool { return t.GetDecided() == nil }
func undelivered(t *decreev1.Transaction) bool {
	return t.GetDecided() != nil && t.GetFinished() == nil
}

// fail kills the leader, makes sure that this hit the gap, waits until clients
// are served again, and brings the node back.
func (d *demo) fail(ctx context.Context, txid string, hit func(*decreev1.Transaction) bool) error {
	node, at, err := d.cluster.killLeader()
	if err != nil {
		return err
	}
	t, err := d.client.Get(ctx, txid)
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return err
	}
	if !hit(t) {
		return fmt.Errorf("%s was killed too late: %s is %s already", node, txid, t.GetState())
	}
	first, err := d.firstAnswer(ctx, at)
	if err != nil {
		return err
	}
	d.failovers = append(d.failovers, first)
	d.say("another node leads: the next client is answered %s after the kill", first.Round(time.Millisecond))
	_, err = d.cluster.show("restart", node)
	return err
}

// firstAnswer waits for the first answer that the dead leader cannot have given,
// and tells how long after its death that came.
func (d *demo) firstAnswer(ctx context.Context, death time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var first time.Time
	err := poll(ctx, "an answer after the kill", func() (found bool, err error) {
		first, found = d.teller.Ledger.FirstAnswer(death.Add(inFlight))
		return found, nil
	})
	return first.Sub(death), err
}
