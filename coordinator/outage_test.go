package coordinator

// What is proven: a participant that is down for ten minutes, with a thousand
// commits pending, costs a bounded piece of memory for each of them and no more as
// its retries go round; no goroutine waits for each; transactions elsewhere take
// the time that they took before; and when it is back, all thousand are delivered,
// each once (R10, R14).

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

const (
	outageBranches = 1000
	outageLasts    = 10 * time.Minute
	// heapEach bounds what a pending delivery may cost, in bytes: the transaction,
	// its drive and its place in the lane's heap, and here also the log's and the
	// fake's memory of it.
	heapEach = 8 << 10
	// heapDrift bounds by how much the heap may differ between two rounds of
	// retries, for each pending delivery: the noise of the runtime, spread over them.
	heapDrift = 128
)

// outage is a driver of one participant that can be down, in three ways. What
// passes through it goes to a fake.
type outage struct {
	participanttest.Fakes
	way   atomic.Pointer[string] // nil while it is up
	tries atomic.Int64           // calls of phase two that met it down
}

const (
	refusing  = "its calls are refused"
	hanging   = "its calls hang"
	unopening = "it cannot be opened"
)

var errDown = errors.New("connection refused")

// fails is how a call fares while the participant is down; nil while it is up.
func (o *outage) fails(ctx context.Context) error {
	switch way := o.way.Load(); {
	case way == nil:
		return nil
	case *way == hanging:
		<-ctx.Done()
		return ctx.Err()
	default:
		return errDown
	}
}

func (o *outage) Open(ctx context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	if way := o.way.Load(); way != nil && *way == unopening {
		o.tries.Add(1)
		return nil, errDown
	}
	p, err := o.Fakes.Open(ctx, r, log)
	return &downable{p, o}, err
}

// downable is a participant behind an outage.
type downable struct {
	participants.Participant
	o *outage
}

func (p *downable) Commit(ctx context.Context, b participants.Branch) error {
	if err := p.o.fails(ctx); err != nil {
		p.o.tries.Add(1)
		return err
	}
	return p.Participant.Commit(ctx, b)
}

func (p *downable) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	if err := p.o.fails(ctx); err != nil {
		return nil, err
	}
	return p.Participant.Recover(ctx, cluster)
}

func TestTenMinutesDown(t *testing.T) {
	for way, cfg := range map[string]Config{
		// Retries at this pace go many times round the thousand in ten minutes.
		refusing:  {BackoffBase: time.Millisecond, BackoffCap: 50 * time.Millisecond},
		unopening: {BackoffBase: time.Millisecond, BackoffCap: 50 * time.Millisecond},
		hanging:   {BackoffBase: time.Millisecond, BackoffCap: 50 * time.Millisecond, DeliveryTimeout: 100 * time.Millisecond},
	} {
		t.Run(way, func(t *testing.T) {
			run(t, cfg, func(r *rig) { playOutage(r, way) })
		})
	}
}

func playOutage(r *rig, way string) {
	r.fakes["d"] = participanttest.NewFake()
	down := &outage{Fakes: r.fakes}
	r.c.drivers["outage"] = down
	r.registerOutage(1)

	// The first of everything is paid for before anything is measured.
	r.pending(0, "a", "d")
	r.slowest("a", "c")
	usual := r.slowest("a", "c")
	heapBefore, callsBefore := liveHeap(), r.fakes["d"].Count(commitOp, participanttest.AnyTx)

	first := refusing // it falls between its votes and the commits
	down.way.Store(&first)
	var waiting []txn.TxID
	for i := range outageBranches {
		waiting = append(waiting, r.pending(1+i, "a", "d"))
	}
	down.way.Store(&way)
	if way == unopening {
		r.registerOutage(2)
	}
	began := time.Now()
	time.Sleep(time.Minute)
	heap, goroutines := liveHeap(), runtime.NumGoroutine()
	if each := (heap - heapBefore) / outageBranches; each > heapEach {
		r.t.Errorf("a pending delivery costs %d bytes, want at most %d", each, heapEach)
	}
	r.t.Logf("%d pending deliveries at %d bytes each, %d goroutines in all", outageBranches, (heap-heapBefore)/outageBranches, goroutines)
	for time.Since(began) < outageLasts/2 {
		time.Sleep(outageLasts / 10)
		if drift := (liveHeap() - heap) / outageBranches; drift > heapDrift {
			r.t.Errorf("after %s and %d tries, a pending delivery costs %d bytes more", time.Since(began), down.tries.Load(), drift)
		}
	}
	for time.Since(began) < outageLasts { // with others at work, whose traces the log keeps
		if took := r.slowest("a", "c"); took > tolerance*usual {
			r.t.Errorf("a transaction elsewhere took %s, and %s before the outage", took, usual)
		}
		time.Sleep(outageLasts / 20)
		if n := runtime.NumGoroutine(); n > goroutines+smallChange {
			r.t.Errorf("after %s there are %d goroutines, and %d after a minute", time.Since(began), n, goroutines)
		}
	}
	if n := r.driven(); n != outageBranches {
		r.t.Errorf("%d transactions are driven after %s, want the %d that wait", n, outageLasts, outageBranches)
	}
	if tries := down.tries.Load(); tries < 2*outageBranches {
		r.t.Errorf("%d tries in %s: too few to see a leak", tries, outageLasts)
	}
	r.t.Logf("%d tries in %s", down.tries.Load(), outageLasts)

	down.way.Store(nil)
	time.Sleep(2 * (r.c.cfg.BackoffCap + r.c.cfg.DeliveryTimeout)) // the last failure's pause, then all at once
	for _, id := range waiting {
		tx := r.stored(id)
		if n := r.fakes["d"].Effects(r.branch(id, 2)); n != 1 || tx.State != txn.Committed || tx.Damage() != txn.ReceiptNone {
			r.t.Fatalf("after the outage %s is %s with damage %s and %d effects, want one effect", id, tx.State, tx.Damage(), n)
		}
	}
	if n := r.fakes["d"].Count(commitOp, participanttest.AnyTx) - callsBefore; n != outageBranches {
		r.t.Errorf("%d commits have reached the participant, want one for each of %d", n, outageBranches)
	}
	if n := r.driven(); n != 0 {
		r.t.Errorf("%d transactions are still driven", n)
	}
}

// tolerance is by how much a transaction may be slower than it was: it may meet an
// entry of receipts that is on its way, in either of its rounds through the log.
const tolerance = 2

// smallChange is how many goroutines of the moment there may be: a scan, a call.
const smallChange = 4

func (r *rig) registerOutage(revision uint64) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.participants["d"] = participants.Registration{Name: "d", Driver: "outage", Revision: revision}
}

// pending commits a transaction whose deliveries go on after the answer.
func (r *rig) pending(n int, names ...string) txn.TxID {
	r.t.Helper()
	s := transfer(idAt(time.Now(), 0), names...)
	binary.BigEndian.PutUint16(s.ID[12:], uint16(n))
	s.Wait = WaitDecision
	res, err := r.run(background, s)
	r.mustDecide(res, err, txn.Commit)
	return s.ID
}

// slowest is the longest that one of a few transactions takes to be delivered.
func (r *rig) slowest(names ...string) (longest time.Duration) {
	r.t.Helper()
	for range 20 {
		start := time.Now()
		res, err := r.run(background, transfer(r.id(), names...))
		r.mustDecide(res, err, txn.Commit)
		if !res.Delivered {
			r.t.Error("not delivered")
		}
		longest = max(longest, time.Since(start))
	}
	return longest
}

// liveHeap is what the heap holds of live objects, in bytes.
func liveHeap() int64 {
	synctest.Wait()
	runtime.GC()
	runtime.GC() // what the first one only moved out of the pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
