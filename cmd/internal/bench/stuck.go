package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// Stuck is what transactions that wait at participants which do not answer, or answer
// late, cost the others, and the leader's memory.
type Stuck struct {
	Without  Measured `json:"without"` // the load alone
	With     Measured `json:"with"`    // the same load while others wait
	P99Ratio float64  `json:"p99_ratio"`
	Waiting  uint64   `json:"waiting"` // unfinished when the second measurement began
	// HeapEach and ResidentEach are what the leader's live heap and its resident memory
	// grew by, in bytes, for each that waits.
	HeapEach     float64 `json:"heap_bytes_each"`
	ResidentEach float64 `json:"resident_bytes_each"`
}

// The two participants that hold transactions up.
const (
	silent = "bench-silent" // never answers
	late   = "bench-late"   // answers after lateness
)

const (
	// lateness is how long the late one takes over a prepare.
	lateness = 5 * time.Second
	// lateShare of the waiting transactions are at the late one. They begin anew each
	// time, which is load of its own, 20 a second for each 10,000; the others wait for good.
	lateShare = 0.01
	// callsPerClient is how many calls that wait go over one SDK client: fewer than a
	// server takes on one connection.
	callsPerClient = 500
	// arrival is for the last of the waiting transactions, and for what their coming in a
	// crowd has cost, before anything is measured.
	arrival = 3 * time.Second
	// silentTimeout is the transactions' own. A transaction at the silent one is
	// undecided until its prepare times out, and then owed an abort for ever.
	silentTimeout = time.Minute
)

// stuck measures the load, leaves transactions waiting, and measures it again.
func (b *bench) stuck(ctx context.Context) (err error) {
	defer collectNothing()()
	var s Stuck
	if err := b.startHolding(ctx); err != nil {
		return b.ground.explain(err)
	}
	b.say("%s, with nobody waiting", b.cfg.Steps[0])
	if s.Without, err = b.measure(ctx, b.cfg.Steps[0], ""); err != nil {
		return err
	}
	if err := b.settle(ctx, 0); err != nil {
		return err
	}
	before, err := b.leaderMemory(ctx)
	if err != nil {
		return err
	}
	h, err := b.hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.release()) }()
	after, err := b.leaderMemory(ctx)
	if err != nil {
		return err
	}
	s.Waiting = after.unfinished
	grown := float64(after.unfinished - before.unfinished)
	s.HeapEach = ratio(float64(after.heap-before.heap), grown)
	s.ResidentEach = ratio(float64(after.resident-before.resident), grown)
	b.say("%s, while %d wait", b.cfg.Steps[0], s.Waiting)
	if s.With, err = b.measure(ctx, b.cfg.Steps[0], b.cfg.Profile); err != nil {
		return err
	}
	s.P99Ratio = ratio(float64(s.With.Latency.P99), float64(s.Without.Latency.P99))
	b.report.Stuck = append(b.report.Stuck, s)
	return nil
}

// collectLimit is the memory that this process may fill before it collects garbage.
const collectLimit = 1 << 30

// collectNothing has this process collect no garbage, until the limit, before what it
// returns is called. The calls that wait are in the process that measures the others: to
// look through ten thousand of them takes long enough to be seen in the others' p99, and
// is not decree's doing.
func collectNothing() (collectAgain func()) {
	limit, percent := debug.SetMemoryLimit(collectLimit), debug.SetGCPercent(-1)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// startHolding starts and registers the two participants. The silent one cannot be
// asked whether it is reachable.
func (b *bench) startHolding(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	address, err := b.ground.startService(ctx, late, Trivial, "--prepare-delay", lateness.String())
	if err != nil {
		return err
	}
	if err := b.ground.register(ctx, late, address); err != nil {
		return err
	}
	if address, err = b.ground.startService(ctx, silent, Trivial, "--silent"); err != nil {
		return err
	}
	return b.ground.put(ctx, silent, address)
}

// holding are the transactions that wait.
type holding struct {
	clients []*client.Client
	cancel  context.CancelFunc
	calls   sync.WaitGroup
}

// release gives the waiting calls up; the transactions stay.
func (h *holding) release() error {
	h.cancel()
	h.calls.Wait()
	var errs []error
	for _, c := range h.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// hold submits the transactions and returns once all of them wait.
func (b *bench) hold(ctx context.Context) (*holding, error) {
	ctx, cancel := context.WithCancel(ctx)
	h := &holding{cancel: cancel}
	atLate := int(lateShare * float64(b.cfg.Stuck))
	for n := range b.cfg.Stuck {
		if n%callsPerClient == 0 {
			c, err := client.New(client.Config{Endpoints: b.ground.cluster.Endpoints(), Security: b.ground.papers.Operator()})
			if err != nil {
				return h, errors.Join(err, h.release())
			}
			h.clients = append(h.clients, c)
		}
		at, again := silent, false
		if n < atLate {
			at, again = late, true
		}
		c := h.clients[len(h.clients)-1]
		h.calls.Go(func() { b.wait(ctx, c, at, again) })
		if again { // clients that know nothing of each other: no herd that begins anew at once
			pause(ctx, lateness/time.Duration(atLate))
		}
	}
	b.say("leaving %d transactions at a participant that never answers, %d at one that takes %s", b.cfg.Stuck-atLate, atLate, lateness)
	if err := b.settle(ctx, uint64(b.cfg.Stuck)*9/10); err != nil { //nolint:gosec // positive
		return h, errors.Join(err, h.release())
	}
	pause(ctx, arrival)
	return h, nil
}

// settle waits until all transactions are finished, or until at least so many are not.
func (b *bench) settle(ctx context.Context, unfinished uint64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return poll(ctx, fmt.Sprintf("%d transactions to be unfinished", unfinished), func() (bool, error) {
		view, err := b.ground.leader(ctx)
		if err != nil {
			return false, err
		}
		n := view.GetUnfinished()
		return n == unfinished || unfinished > 0 && n > unfinished, nil
	})
}

// wait submits one transaction that will not end soon, and again when it has.
func (b *bench) wait(ctx context.Context, c *client.Client, at string, again bool) {
	payload := []byte(strings.Repeat("y", b.cfg.Payload))
	for first := true; ctx.Err() == nil && (first || again); first = false {
		tx := client.Transaction{
			Wait: client.WaitDecision, Timeout: silentTimeout,
			Branches: []client.Branch{client.Bytes(at, payload), client.Bytes(names(1)[0], payload)},
		}
		c.Submit(ctx, tx) //nolint:errcheck // that it takes long is the point
	}
}

// memory is the leader's at a moment.
type memory struct {
	heap, resident int64
	unfinished     uint64
}

// leaderMemory has the leader collect its garbage, and reads what is left.
func (b *bench) leaderMemory(ctx context.Context) (memory, error) {
	view, err := b.ground.leader(ctx)
	if err != nil {
		return memory{}, err
	}
	m := memory{unfinished: view.GetUnfinished()}
	answer, err := get(ctx, b.ground.debug[view.GetLeader()], "/debug/pprof/heap?debug=1&gc=1")
	if err != nil {
		return m, err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	profile, err := io.ReadAll(answer.Body)
	if err != nil {
		return m, err
	}
	if m.heap, err = heapAlloc(string(profile)); err != nil {
		return m, err
	}
	node, ok := b.ground.cluster.Node(view.GetLeader())
	if !ok {
		return m, fmt.Errorf("%s leads and is none of the nodes", view.GetLeader())
	}
	u, err := usageOf(node.PID())
	m.resident = u.rss
	return m, err
}

// heapAlloc reads the live heap out of a heap profile's text.
func heapAlloc(profile string) (int64, error) {
	for line := range strings.Lines(profile) {
		if digits, ok := strings.CutPrefix(line, "# HeapAlloc = "); ok {
			return strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		}
	}
	return 0, errors.New("the heap profile does not tell HeapAlloc")
}
