package chaos

import (
	"context"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
)

const (
	// clients transfer money side by side while a cell is played, each at most once
	// every pace: enough that every fault meets transactions at other steps, few
	// enough that what is kept of them stays small.
	clients = 4
	pace    = 10 * time.Millisecond
	// transfers is how many there are at least, so that some meet the end of a fault.
	transfers = 20
	// meddleEvery has another client meddle with one transfer in so many.
	meddleEvery = 4
	// watchers are numbered from here in the history, behind all clients.
	watchers = 2*clients + 1
)

// business is the traffic beside the probe.
type business struct {
	enough context.CancelFunc
	ended  chan error
}

// doBusiness has clients transfer money until it is ended.
func (g *ground) doBusiness(ctx context.Context, seed uint64) *business {
	open, enough := context.WithCancel(ctx)
	b := &business{enough, make(chan error, 1)}
	go func() {
		next, err := g.teller.Run(context.WithoutCancel(ctx), bank.Traffic{
			Seed: seed, From: g.next, AtLeast: transfers, Enough: open.Done(), Workers: clients, Pace: pace, MeddleEvery: meddleEvery,
		}, func(bank.Entry) {})
		g.next = next
		b.ended <- err
	}()
	return b
}

// end stops new transfers and waits for the answers of the others.
func (b *business) end() error {
	b.enough()
	return <-b.ended
}
