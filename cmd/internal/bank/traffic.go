package bank

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/transport/client"
)

// Teller submits orders and writes the ledger.
type Teller struct {
	Client   *client.Client
	Banks    []string          // at least two
	Offices  map[string]Office // of the banks
	Accounts int               // in each bank
	Balance  int64             // of each account at first
	Reserved []Account         // further accounts, which Transfer does not touch
	Courier  string            // a simulated service; empty for none
	Patience time.Duration
	Ledger   *Ledger
	History  *history.Recorder // of every call and its answer; nil keeps none
}

// Account is the n-th of a bank.
func (t *Teller) Account(bank string, n int) Account {
	return Account{bank, fmt.Sprintf("account-%02d", n)}
}

// Total is the money that there is.
func (t *Teller) Total() int64 { return int64(len(t.Banks)*t.Accounts+len(t.Reserved)) * t.Balance }

// Submit runs one order, under a new txid unless it has one, and writes it down
// with its answer.
func (t *Teller) Submit(ctx context.Context, o Order) (Entry, error) {
	return t.submit(ctx, 0, o)
}

// submit is Submit by a client that has a number in the history.
func (t *Teller) submit(ctx context.Context, number int, o Order) (Entry, error) {
	if o.TxID == "" {
		txid, err := client.NewTxID()
		if err != nil {
			return Entry{}, err
		}
		o.TxID = txid
	}
	ctx, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	t.Ledger.begin(o)
	told := t.calls(number, history.Run, o.TxID)
	e := Entry{Order: o, Submitted: time.Now()}
	e.Result, e.Err = t.Client.Submit(ctx, o.Transaction(t.Offices))
	e.Answered = time.Now()
	told(e.Result, e.Err)
	t.Ledger.add(e)
	return e, nil
}

// openAtOnce is how many accounts of each bank one transaction opens: it bounds
// the work of a branch, and the locks that it holds.
const openAtOnce = 100

// Open gives every account its first balance, by transactions over all banks.
func (t *Teller) Open(ctx context.Context) error {
	for first := 0; first < t.Accounts; first += openAtOnce {
		o := Order{Expect: MustCommit, Opening: true}
		for _, bank := range t.Banks {
			for n := first; n < min(first+openAtOnce, t.Accounts); n++ {
				o.Moves = append(o.Moves, Move{t.Account(bank, n), t.Balance})
			}
		}
		if first == 0 {
			for _, account := range t.Reserved {
				o.Moves = append(o.Moves, Move{account, t.Balance})
			}
		}
		e, err := t.Submit(ctx, o)
		if err == nil {
			err = e.Err
		}
		if err == nil {
			err = e.Result.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Every so many transfers, one must abort because it asks for too much, one
// because the courier says no, one has a courier that does its part, one is
// answered at its decision, one pays two and one pays everybody.
const (
	overdraftEvery = 10
	refusedEvery   = 15
	errandEvery    = 4
	decisionEvery  = 7
	pairEvery      = 5
	crowdEvery     = 23
)

// Transfer is the n-th of a run of transfers that repeats itself with its seed:
// an account at one bank pays accounts at others.
func (t *Teller) Transfer(seed uint64, n int) Order {
	chance := rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // traffic, not secrets
	banks := chance.Perm(len(t.Banks))[:min(len(t.Banks), sides(n, len(t.Banks)))]
	o := Order{Moves: make([]Move, len(banks))}
	var paid int64
	for i, bank := range banks {
		o.Moves[i].Account = t.Account(t.Banks[bank], chance.IntN(t.Accounts))
		if i > 0 {
			o.Moves[i].Amount = 1 + chance.Int64N(max(1, t.Balance/10))
			paid += o.Moves[i].Amount
		}
	}
	o.Moves[0].Amount = -paid
	if n%decisionEvery == decisionEvery-1 {
		o.Wait = client.WaitDecision
	}
	switch {
	case n%overdraftEvery == overdraftEvery-1:
		o.Expect = MustAbort
		o.Moves[0].Amount -= t.Total()
		o.Moves[1].Amount += t.Total()
	case t.Courier == "":
	case n%refusedEvery == refusedEvery-1:
		o.Expect = MustAbort
		o.Errand = &Errand{Participant: t.Courier, Vote: "abort", Reason: "no van today"}
	case n%errandEvery == errandEvery-1:
		o.Errand = &Errand{Participant: t.Courier}
	}
	// Whoever pays is the first branch no more often than any other.
	chance.Shuffle(len(o.Moves), func(i, j int) { o.Moves[i], o.Moves[j] = o.Moves[j], o.Moves[i] })
	return o
}

// sides is how many banks the n-th transfer has to do with.
func sides(n, all int) int {
	switch {
	case n%crowdEvery == crowdEvery-1:
		return all
	case n%pairEvery == pairEvery-1:
		return 3
	default:
		return 2
	}
}

// Run submits transfers from..., so many workers side by side and at most one
// each pace, and calls progress after each answer, from several goroutines. It
// submits at least so many, and goes on until enough is closed. It returns the
// number of the transfer that comes next.
func (t *Teller) Run(ctx context.Context, run Traffic, progress func(Entry)) (next int, err error) {
	numbers := make(chan int)
	failures := make(chan error, run.Workers)
	var work sync.WaitGroup
	for worker := range run.Workers {
		work.Go(func() {
			for n := range numbers {
				e, err := t.serve(ctx, run, worker, n)
				if err != nil {
					failures <- err
					return
				}
				progress(e)
			}
		})
	}
	next, err = run.feed(ctx, numbers, failures)
	close(numbers)
	work.Wait()
	return next, err
}

// serve runs the n-th transfer, and lets another client meddle with it where it is
// its turn.
func (t *Teller) serve(ctx context.Context, run Traffic, worker, n int) (Entry, error) {
	o := t.Transfer(run.Seed, n)
	if run.Hasty != 0 && n%2 == 1 {
		bounded, cancel := context.WithTimeout(ctx, run.Hasty)
		defer cancel()
		ctx = bounded
	}
	if run.MeddleEvery == 0 || n%run.MeddleEvery != run.MeddleEvery-1 {
		return t.submit(ctx, worker, o)
	}
	txid, err := client.NewTxID()
	if err != nil {
		return Entry{}, err
	}
	o.TxID = txid
	what, after := run.meddling(n)
	var other sync.WaitGroup
	other.Go(func() { t.meddle(ctx, run.Workers+worker, what, after, o) })
	defer other.Wait()
	return t.submit(ctx, worker, o)
}

// Traffic says how much of it Run makes.
type Traffic struct {
	Seed    uint64
	From    int // the number of the first transfer
	AtLeast int
	Enough  <-chan struct{} // nil stops after AtLeast
	Workers int
	Pace    time.Duration // 0 is as fast as the workers are
	// MeddleEvery has another client meddle with one in so many transfers; 0 leaves
	// all in peace. In the history it has the worker's number and Workers.
	MeddleEvery int
	// Hasty is how long every other client waits for its answer, where that is
	// shorter than the teller's patience; 0 is no matter.
	Hasty time.Duration
}

func (r Traffic) feed(ctx context.Context, numbers chan<- int, failures <-chan error) (next int, err error) {
	tick, stop := r.ticks()
	defer stop()
	for n := r.From; ; n++ {
		if n-r.From >= r.AtLeast && isClosed(r.Enough) {
			return n, nil
		}
		select {
		case numbers <- n:
		case err := <-failures:
			return n, err
		case <-ctx.Done():
			return n, ctx.Err()
		}
		select {
		case <-tick:
		case <-ctx.Done():
		}
	}
}

// ticks is when the next transfer may begin: always, without a pace.
func (r Traffic) ticks() (ticks <-chan time.Time, stop func()) {
	if r.Pace == 0 {
		always := make(chan time.Time)
		close(always)
		return always, func() {}
	}
	t := time.NewTicker(r.Pace)
	return t.C, t.Stop
}

// isClosed reports that there is nothing more to wait for.
func isClosed(c <-chan struct{}) bool {
	if c == nil {
		return true
	}
	select {
	case <-c:
		return true
	default:
		return false
	}
}
