package bank

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// Ledger keeps every order and its answer. It is safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	entries []Entry // guarded by mu
}

func (l *Ledger) add(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
}

// Entries are a copy, in the order of the answers.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// FirstAnswer is when the first order was answered after a moment; false while
// none was.
func (l *Ledger) FirstAnswer(after time.Time) (time.Time, bool) {
	for _, e := range l.Entries() {
		if e.Err == nil && e.Answered.After(after) {
			return e.Answered, true
		}
	}
	return time.Time{}, false
}

// Teller submits orders and writes the ledger.
type Teller struct {
	Client   *client.Client
	Banks    []string  // at least two
	Accounts int       // in each bank
	Balance  int64     // of each account at first
	Reserved []Account // further accounts, which Transfer does not touch
	Courier  string    // a simulated service
	Patience time.Duration
	Ledger   *Ledger
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
	if o.TxID == "" {
		txid, err := client.NewTxID()
		if err != nil {
			return Entry{}, err
		}
		o.TxID = txid
	}
	ctx, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	e := Entry{Order: o}
	e.Result, e.Err = t.Client.Submit(ctx, o.Transaction())
	e.Answered = time.Now()
	t.Ledger.add(e)
	return e, nil
}

// Open gives every account its first balance, by one transaction over all banks.
func (t *Teller) Open(ctx context.Context) error {
	o := Order{Expect: MustCommit}
	for _, bank := range t.Banks {
		for n := range t.Accounts {
			o.Moves = append(o.Moves, Move{t.Account(bank, n), t.Balance})
		}
	}
	for _, account := range t.Reserved {
		o.Moves = append(o.Moves, Move{account, t.Balance})
	}
	e, err := t.Submit(ctx, o)
	if err == nil {
		err = e.Err
	}
	if err == nil {
		err = e.Result.Err()
	}
	return err
}

// Every so many transfers, one must abort because it asks for too much, one
// because the courier says no, and one has a courier that does its part.
const (
	overdraftEvery = 10
	refusedEvery   = 15
	errandEvery    = 4
)

// Transfer is the n-th of a run of transfers that repeats itself with its seed.
func (t *Teller) Transfer(seed uint64, n int) Order {
	chance := rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // traffic, not secrets
	from := chance.IntN(len(t.Banks))
	to := (from + 1 + chance.IntN(len(t.Banks)-1)) % len(t.Banks)
	amount := 1 + chance.Int64N(t.Balance/10)
	o := Order{}
	switch {
	case n%overdraftEvery == overdraftEvery-1:
		o.Expect = MustAbort
		amount = t.Total() + 1
	case n%refusedEvery == refusedEvery-1:
		o.Expect = MustAbort
		o.Errand = &Errand{Participant: t.Courier, Vote: "abort", Reason: "no van today"}
	case n%errandEvery == errandEvery-1:
		o.Errand = &Errand{Participant: t.Courier}
	}
	o.Moves = []Move{
		{t.Account(t.Banks[from], chance.IntN(t.Accounts)), -amount},
		{t.Account(t.Banks[to], chance.IntN(t.Accounts)), amount},
	}
	return o
}

// Run submits transfers from..., so many workers side by side and at most one
// each pace, and calls progress after each answer, from several goroutines. It
// submits at least so many, and goes on until enough is closed. It returns the
// number of the transfer that comes next.
func (t *Teller) Run(ctx context.Context, run Traffic, progress func(Entry)) (next int, err error) {
	numbers := make(chan int)
	failures := make(chan error, run.Workers)
	var work sync.WaitGroup
	for range run.Workers {
		work.Go(func() {
			for n := range numbers {
				e, err := t.Submit(ctx, t.Transfer(run.Seed, n))
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

// Traffic says how much of it Run makes.
type Traffic struct {
	Seed    uint64
	From    int // the number of the first transfer
	AtLeast int
	Enough  <-chan struct{} // nil stops after AtLeast
	Workers int
	Pace    time.Duration
}

func (r Traffic) feed(ctx context.Context, numbers chan<- int, failures <-chan error) (next int, err error) {
	tick := time.NewTicker(r.Pace)
	defer tick.Stop()
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
		case <-tick.C:
		case <-ctx.Done():
		}
	}
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
