package coordinator

import (
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// Config bounds the coordinator (rule R14). The zero value of a field means its
// default.
type Config struct {
	// DefaultTimeout of a transaction that names none: 15s.
	DefaultTimeout time.Duration
	// MaxTimeout of a one-shot transaction, 1h: while it is undecided its branches
	// hold locks. MaxInteractiveTimeout, 24h, covers people and batch jobs.
	MaxTimeout            time.Duration
	MaxInteractiveTimeout time.Duration

	// PrepareTimeout bounds a prepare, 10s from when it leaves, or, among those of a
	// transaction that have a goroutine, from when the first of them leaves; and
	// DeliveryTimeout one commit or abort call, 5s, and up to a sixteenth more. Prepares
	// are also bounded by their transaction's time.
	PrepareTimeout  time.Duration
	DeliveryTimeout time.Duration

	// MaxUnfinished bounds the transactions that this leader drives, 131072 (at
	// some 2 KiB each), and MaxUnfinishedPerParticipant those that touch one
	// participant, 16384, so that one that is down cannot take all the room.
	MaxUnfinished               int
	MaxUnfinishedPerParticipant int
	// MaxPayload bounds one branch's payload and MaxTransactionBytes all of one
	// transaction's, 1 MiB each: a log entry is replicated as one message.
	MaxPayload          int
	MaxTransactionBytes int
	// MaxUndecidedBytes bounds the payloads of undecided transactions, 256 MiB.
	MaxUndecidedBytes int

	// PreparesInFlight and DeliveriesInFlight bound the calls under way to one
	// participant, 256 each; each is a goroutine where the participant is no
	// participants.Starter. Prepares and deliveries have rooms of their own, because a
	// prepare may wait for a lock that only a delivery frees.
	PreparesInFlight   int
	DeliveriesInFlight int

	// Backoff of deliveries: full jitter, doubling from BackoffBase, 50ms, to
	// BackoffCap, 10s.
	BackoffBase time.Duration
	BackoffCap  time.Duration

	// ScanInterval is the pause between two orphan scans, 30s. OrphanGrace, 5s, goes
	// before a term's first one: what prepared early under the leader before is the
	// client's to take up again, and clients retry within moments.
	// A participant that was away is scanned again after an OrphanGrace.
	ScanInterval time.Duration
	OrphanGrace  time.Duration
	// ReceiptDelay is how long receipts wait for company before they are logged,
	// 20ms. Nobody waits for that entry.
	ReceiptDelay time.Duration

	// Admit, where set, is asked before a new transaction is admitted or a branch is
	// enlisted, and refuses with a [BusyError]: room for a decision must be there
	// before the transaction is. Transactions under way are not asked about. It is
	// called with locks held and must not block.
	Admit func() error

	// OnDamage, where set, hears of every branch that ended against the decision,
	// when this leader learns of it: a counter for an alarm. A later leader may learn
	// of the same branch again, if this one falls before the receipt is replicated.
	// It is called with locks held and must not block.
	OnDamage func(Damage)

	// SlowTransaction is how long a transaction takes, from its admission to its last
	// acknowledgement, that is told of in the log; 0 for none. At most ten a second are.
	SlowTransaction time.Duration

	// Tracer, where set, makes traces of transactions.
	Tracer Tracer

	// Meter, where set, counts what this coordinator does.
	Meter Meter
}

// Damage is one branch that ended against its transaction's decision.
type Damage struct {
	TxID        txn.TxID
	Participant string
	Branch      int // from 1
	Receipt     txn.Receipt
	Evidence    string // the participant's, for people
}

func (c Config) withDefaults() Config {
	orDuration := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	orInt := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	if c.Admit == nil {
		c.Admit = func() error { return nil }
	}
	if c.Meter == nil {
		c.Meter = unmetered{}
	}
	orDuration(&c.DefaultTimeout, 15*time.Second)
	orDuration(&c.MaxTimeout, time.Hour)
	orDuration(&c.MaxInteractiveTimeout, 24*time.Hour)
	orDuration(&c.PrepareTimeout, 10*time.Second)
	orDuration(&c.DeliveryTimeout, 5*time.Second)
	orInt(&c.MaxUnfinished, 131072)
	orInt(&c.MaxUnfinishedPerParticipant, 16384)
	orInt(&c.MaxPayload, 1<<20)
	orInt(&c.MaxTransactionBytes, 1<<20)
	orInt(&c.MaxUndecidedBytes, 256<<20)
	orInt(&c.PreparesInFlight, 256)
	orInt(&c.DeliveriesInFlight, 256)
	orDuration(&c.BackoffBase, 50*time.Millisecond)
	orDuration(&c.BackoffCap, 10*time.Second)
	orDuration(&c.ScanInterval, 30*time.Second)
	orDuration(&c.OrphanGrace, 5*time.Second)
	orDuration(&c.ReceiptDelay, 20*time.Millisecond)
	return c
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	positive := func(name string, ok bool) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s must be positive", name))
		}
	}
	for name, d := range map[string]time.Duration{
		"default timeout": c.DefaultTimeout, "max timeout": c.MaxTimeout,
		"max interactive timeout": c.MaxInteractiveTimeout, "prepare timeout": c.PrepareTimeout,
		"delivery timeout": c.DeliveryTimeout, "backoff base": c.BackoffBase, "backoff cap": c.BackoffCap,
		"scan interval": c.ScanInterval, "orphan grace": c.OrphanGrace, "receipt delay": c.ReceiptDelay,
	} {
		positive(name, d > 0)
	}
	for name, n := range map[string]int{
		"max unfinished": c.MaxUnfinished, "max unfinished per participant": c.MaxUnfinishedPerParticipant,
		"max payload": c.MaxPayload, "max transaction bytes": c.MaxTransactionBytes,
		"max undecided bytes": c.MaxUndecidedBytes, "prepares in flight": c.PreparesInFlight,
		"deliveries in flight": c.DeliveriesInFlight,
	} {
		positive(name, n > 0)
	}
	if c.SlowTransaction < 0 {
		errs = append(errs, fmt.Errorf("slow transaction %s is negative", c.SlowTransaction))
	}
	if c.DefaultTimeout > c.MaxTimeout {
		errs = append(errs, fmt.Errorf("default timeout %s exceeds max timeout %s", c.DefaultTimeout, c.MaxTimeout))
	}
	if c.BackoffBase > c.BackoffCap {
		errs = append(errs, fmt.Errorf("backoff base %s exceeds its cap %s", c.BackoffBase, c.BackoffCap))
	}
	return errors.Join(errs...)
}
