package coordinator

import (
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
	if !d.Heard(number, r) {
		return
	}
	d.track(number).acknowledges(r, t.moment())
	if d.heardAt.IsZero() {
		d.heardAt = time.Now()
	}
	t.receipts[d] = struct{}{}
	t.tellDelivered(d)
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
		if !d.AllHeard() && now.Sub(d.heardAt) < partialAfter {
			continue
		}
		delete(t.receipts, d)
		d.heardAt = time.Time{}
		t.write(d, d.Receipts())
	}
	if len(t.receipts) > 0 {
		t.scheduleFlush()
	}
}
