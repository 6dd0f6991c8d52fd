package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

// Bounds of one log entry. Past 512 KiB an entry delays heartbeats on a slow
// link; thousands of commands make it cheap enough to be worth no more.
const (
	maxEntryBytes    = 512 << 10
	maxEntryCommands = 4096
)

// maxInFlight is how many entries may be on their way. The second may leave only
// while the first is sparse: it holds no more than sparseCommands. So the decision of
// a lone transaction need not wait for its staging to come back, while under load
// commands gather until the one entry has returned, since each round of Raft costs
// CPU whatever it carries.
const (
	maxInFlight    = 2
	sparseCommands = 8
)

// proposalTimeout is how long an entry may take before its commands' outcome
// counts as unknown. Only a disk or a majority that is close to failing takes so
// long.
const proposalTimeout = 10 * time.Second

// writer is the one place that writes commands to the log: whatever waits while
// an entry is on its way goes into the next one. That beats Raft's own batching,
// because each round of Raft costs CPU whatever it carries. It implements
// coordinator.Log.
type writer struct {
	// set once by newWriter
	member  *cluster.Node
	machine *fsm.Machine
	stopped context.Context
	stop    context.CancelFunc
	done    chan struct{} // closed when run has ended
	wake    chan struct{} // holds one token while the queue may be non-empty

	flight []flight // owned by run: the entries on their way, in log order

	mu      sync.Mutex
	queue   []proposal
	closed  bool
	leading context.Context // nil while this node does not lead
	term    uint64
	base    txn.Time  // cluster time when the epoch opened
	since   stopwatch // from that moment on
}

// proposal is a command on its way.
type proposal struct {
	epoch   uint64
	command fsm.Command
	horizon txn.Time // raises the horizon where not zero
	done    func(fsm.Result, error)
}

// flight is an entry on its way.
type flight struct {
	batch   []proposal
	pending cluster.Pending
	ctx     context.Context // ends with the leadership, or the patience
	cancel  context.CancelFunc
}

func newWriter(member *cluster.Node, machine *fsm.Machine) *writer {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{
		member: member, machine: machine, stopped: ctx, stop: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		since: startWatch(asleep),
	}
	go w.run()
	return w
}

// open lets an epoch's proposals through, until its leadership ends.
func (w *writer) open(leading context.Context, term uint64, now txn.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leading, w.term, w.base, w.since = leading, term, now, startWatch(asleep)
}

// shut refuses what is proposed from now on.
func (w *writer) shut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leading = nil
}

// close answers what waits and ends the writer.
func (w *writer) close() {
	w.shut()
	w.stop()
	<-w.done
}

// Now implements coordinator.Log.
func (w *writer) Now() txn.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now()
}

func (w *writer) now() txn.Time { return w.base.Add(w.since.elapsed()) }

func (w *writer) epoch() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.term
}

// Propose implements coordinator.Log. Its queue is bounded by the coordinator,
// which admits transactions and callers' commands to bounds of its own.
func (w *writer) Propose(epoch uint64, c txn.Command, done func(*txn.Transaction, error)) {
	w.propose(proposal{epoch: epoch, command: c, done: func(r fsm.Result, err error) { done(r.Transaction, err) }})
}

func (w *writer) propose(p proposal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.machine.Allows(p.command)
	if w.closed {
		err = coordinator.ErrNotLeader
	}
	if err != nil {
		go p.done(fsm.Result{}, err) // never from within Propose
		return
	}
	w.queue = append(w.queue, p)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Barrier implements coordinator.Log.
func (w *writer) Barrier(ctx context.Context) error {
	return classify(w.member.Barrier(ctx))
}

func (w *writer) run() {
	defer close(w.done)
	for {
		var back, patience <-chan struct{}
		if len(w.flight) > 0 {
			back, patience = w.flight[0].pending.Done(), w.flight[0].ctx.Done()
		}
		select {
		case <-w.wake:
		case <-back:
			w.land()
		case <-patience:
			w.land()
		case <-w.stopped.Done():
			w.settle()
			w.refuse(w.last())
			return
		}
		w.depart()
	}
}

// depart sends what waits, in as many entries as may be on their way.
func (w *writer) depart() {
	for w.room() {
		batch := w.take()
		if len(batch) == 0 {
			return
		}
		w.send(batch)
	}
}

func (w *writer) room() bool {
	n := len(w.flight)
	return n == 0 || n < maxInFlight && len(w.flight[n-1].batch) <= sparseCommands
}

// last empties the queue for good.
func (w *writer) last() []proposal {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	batch := w.queue
	w.queue = nil
	return batch
}

// take removes from the queue what fits one entry. It measures without the lock,
// for which the coordinator would wait: nobody else removes anything.
func (w *writer) take() []proposal {
	w.mu.Lock()
	waiting := w.queue
	w.mu.Unlock()
	n, bytes := 0, 0
	for n < len(waiting) && n < maxEntryCommands {
		bytes += fsm.Size(waiting[n].command)
		if n > 0 && bytes > maxEntryBytes {
			break
		}
		n++
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue = w.queue[n:]; len(w.queue) == 0 {
		w.queue = nil // lets go of what was answered
	}
	return waiting[:n:n]
}

// send lets one entry leave. Entries that this goroutine proposes are appended in
// its order.
func (w *writer) send(batch []proposal) {
	leading, header := w.header(batch)
	if leading == nil {
		w.settle()
		w.refuse(batch)
		return
	}
	if batch = w.current(batch, header.Epoch); len(batch) == 0 {
		return
	}
	entry := fsm.Entry{Header: header, Commands: make([]fsm.Command, len(batch))}
	for i, p := range batch {
		entry.Commands[i] = p.command
	}
	encoded, err := fsm.Encode(entry)
	if err != nil {
		w.isolate(batch, err)
		return
	}
	ctx, cancel := context.WithTimeout(leading, proposalTimeout)
	w.flight = append(w.flight, flight{batch, w.member.Apply(encoded), ctx, cancel})
}

// settle waits for all that is on its way: answers are given in log order.
func (w *writer) settle() {
	for len(w.flight) > 0 {
		w.land()
	}
}

// land waits for the first entry on its way and answers its proposals.
func (w *writer) land() {
	f := w.flight[0]
	w.flight = append(w.flight[:0], w.flight[1:]...)
	defer f.cancel()
	_, response, err := f.pending.Wait(f.ctx)
	if err == nil {
		err = response.(fsm.Applied).Err // the whole entry was refused: its epoch is over
	}
	if err != nil {
		answerAll(f.batch, classify(err))
		return
	}
	for i, r := range response.(fsm.Applied).Results {
		f.batch[i].done(r, translate(r.Err))
	}
}

func (w *writer) header(batch []proposal) (context.Context, txn.Header) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := txn.Header{Epoch: w.term, Time: w.now()}
	for _, p := range batch {
		h.Horizon = max(h.Horizon, p.horizon)
	}
	if w.leading != nil && w.leading.Err() != nil {
		return nil, h // what is on its way is given up: an entry that left now would prove nothing of it (see Proven)
	}
	return w.leading, h
}

// current answers the proposals of other epochs and returns the rest.
func (w *writer) current(batch []proposal, epoch uint64) []proposal {
	kept := batch[:0]
	for _, p := range batch {
		if p.epoch == epoch {
			kept = append(kept, p)
		} else {
			w.settle()
			p.done(fsm.Result{}, coordinator.ErrNotLeader)
		}
	}
	return kept
}

// isolate keeps a command that cannot be encoded from taking its neighbours down.
func (w *writer) isolate(batch []proposal, err error) {
	if len(batch) == 1 {
		w.settle()
		batch[0].done(fsm.Result{}, fmt.Errorf("%w: %w", coordinator.ErrInvalid, err))
		return
	}
	for i := range batch {
		w.send(batch[i : i+1 : i+1])
		w.settle()
	}
}

func (w *writer) refuse(batch []proposal) { answerAll(batch, coordinator.ErrNotLeader) }

func answerAll(batch []proposal, err error) {
	for _, p := range batch {
		p.done(fsm.Result{}, err)
	}
}

// classify turns the member's errors into the coordinator's (rule R5): definite
// only where nothing was written.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrNotLeader), errors.Is(err, txn.ErrStaleEpoch):
		return fmt.Errorf("%w: %w", coordinator.ErrNotLeader, err)
	default:
		return fmt.Errorf("%w: %w", coordinator.ErrOutcomeUnknown, err)
	}
}

// translate gives the coordinator its own word for what the registry says.
func translate(err error) error {
	switch {
	case errors.Is(err, fsm.ErrUnknownParticipant):
		return fmt.Errorf("%w: %w", coordinator.ErrUnknownParticipant, err)
	case errors.Is(err, fsm.ErrTransactionTooLarge):
		return fmt.Errorf("%w: %w", coordinator.ErrTooLarge, err)
	default:
		return err
	}
}
