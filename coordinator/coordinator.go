// Package coordinator drives transactions while its node leads: it admits them,
// has their branches prepared, proposes the decision once the votes allow it,
// and delivers that decision until every branch has acknowledged.
//
// It owns the volatile half of the protocol: calls under way, votes heard in this
// epoch, retries and their pace. It never makes an outcome: that is the replicated
// state machine's, and what this package tells a client or a participant it has
// first seen applied (rules R1 and R2).
//
// The work of one epoch is a term. A term begins by deriving everything that is
// owed from the applied state, with the same txn.Pending that moves each
// transaction on afterwards (rule R13), and ends with its leadership; nothing
// volatile survives it.
package coordinator

import (
	"context"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Coordinator drives transactions while its node leads, and refuses with
// ErrNotLeader while it does not. Its methods are safe for concurrent use.
type Coordinator struct {
	// set once by New
	cfg     Config
	log     Log
	view    View
	drivers participants.Drivers
	logger  hclog.Logger

	term   atomic.Pointer[term] // nil while this node does not lead
	annals annals
}

// New makes a coordinator that leads nothing yet. The error is that of
// Config.Validate.
func New(cfg Config, log Log, view View, drivers participants.Drivers, logger hclog.Logger) (*Coordinator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Coordinator{
		cfg:     cfg.withDefaults(),
		log:     log,
		view:    view,
		drivers: drivers,
		logger:  logger.Named("coordinator"),
	}, nil
}

// Lead drives transactions in an epoch until ctx, which is the leadership, ends.
// The caller has applied the epoch's entry. It returns only after every goroutine
// of the term has ended, so that the next term never meets the work of this one
// (rule R3).
func (c *Coordinator) Lead(ctx context.Context, epoch uint64) {
	t := newTerm(ctx, c, epoch)
	t.takeOver()
	c.term.Store(t)
	<-ctx.Done()
	c.term.Store(nil)
	t.end()
}

// Leads reports whether this node drives transactions now.
func (c *Coordinator) Leads() bool { return c.current() != nil }

func (c *Coordinator) current() *term { return c.term.Load() }

// Deliveries tells what this leader knows, beyond the replicated state, of the
// branches of a transaction that it drives; nil of any other.
func (c *Coordinator) Deliveries(id txn.TxID) []Delivery {
	t := c.current()
	if t == nil {
		return nil
	}
	return t.deliveries(id)
}
