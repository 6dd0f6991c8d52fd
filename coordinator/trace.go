package coordinator

import "github.com/decree-tx/decree/fsm/txn"

// Tracer makes traces of transactions. Its methods are called with locks held, and must
// not block.
type Tracer interface {
	// Begin is asked once for each transaction that this leader drives, with the
	// traceparent that its client sent, which may be empty. It returns nil for one that
	// is not to be traced.
	Begin(id txn.TxID, traceparent string) Trace
}

// Trace is one transaction's, under one leader.
type Trace interface {
	// Call is the traceparent of the calls of one kind to one branch, from 1.
	Call(kind txn.WorkKind, branch int) string
	// End is told how all went, once; tx is nil where not even staging was applied.
	End(tl Timeline, tx *txn.Transaction)
}

// trace begins a drive's trace. A client that asks again, after a failover, brings the
// trace of its transaction to the leader that took it over: it is not replicated. mu is
// held.
func (t *term) trace(d *drive, traceparent string) {
	if t.cfg.Tracer != nil && d.trace == nil {
		d.trace = t.cfg.Tracer.Begin(d.id, traceparent)
	}
}

// endTrace tells what was seen of a drive that ends, or of one whose leadership does.
// mu is held.
func (t *term) endTrace(d *drive) {
	if d.trace == nil {
		return
	}
	tl := d.chronicle.timeline(t.reign)
	tl.AsOf = t.reign.time(t.moment())
	d.trace.End(tl, d.Transaction())
	d.trace = nil
}

// traceparent is what a call tells of its span.
func (d *drive) traceparent(kind txn.WorkKind, branch int) string {
	if d.trace == nil {
		return ""
	}
	return d.trace.Call(kind, branch)
}
