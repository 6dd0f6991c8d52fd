package coordinator

import (
	"errors"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// partialAfter is how long receipts of a transaction wait for the rest of its
// branches before they are logged alone. A branch that is stuck then does not
// cost its neighbours another delivery in every term.
const partialAfter = time.Second

// acknowledged takes a branch's receipt. Receipts of a whole transaction are
// logged as one command, and those of all transactions that end in the same
// moment share an entry: nobody waits for it, since a receipt that is lost with
// its leader is only asked for again. mu is held.
func (t *term) acknowledged(d *drive, number int, r txn.Receipt) {
	if d.halted || d.heard[number-1] != txn.ReceiptNone {
		return
	}
	d.heard[number-1] = r
	p := &d.progress[number-1]
	p.Next, p.LastError = time.Time{}, ""
	if d.heardAt.IsZero() {
		d.heardAt = time.Now()
	}
	t.receipts[d] = struct{}{}
	d.checkDelivered()
	t.scheduleFlush()
	failpoint("between-deliveries")
}

func (t *term) scheduleFlush() {
	if t.flushing || t.ended {
		return
	}
	t.flushing = true
	time.AfterFunc(t.cfg.ReceiptDelay, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.flushing = false
		t.flushReceipts()
	})
}

// flushReceipts proposes what is complete, and what has waited long enough. mu is
// held.
func (t *term) flushReceipts() {
	if t.ended {
		return
	}
	now := time.Now()
	for d := range t.receipts {
		if !d.allHeard() && now.Sub(d.heardAt) < partialAfter {
			continue
		}
		delete(t.receipts, d)
		d.heardAt = time.Time{}
		t.logReceipts(d)
	}
	if len(t.receipts) > 0 {
		t.scheduleFlush()
	}
}

func (t *term) logReceipts(d *drive) {
	failpoint("before-receipts")
	c := txn.Acknowledge{ID: d.id}
	for i, b := range d.tx.Branches {
		if b.Owed() && d.heard[i] != txn.ReceiptNone {
			c.Receipts = append(c.Receipts, txn.BranchReceipt{Branch: i + 1, Receipt: d.heard[i]})
		}
	}
	t.log.Propose(t.epoch, c, func(tx *txn.Transaction, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		switch {
		case t.ended || d.halted:
		case errors.Is(err, txn.ErrUnknown): // finished and forgotten meanwhile
			t.release(d)
		case err != nil:
			t.troubled(d, c, err)
		default:
			t.advance(d, tx)
		}
	})
}
