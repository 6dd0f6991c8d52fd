package main

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// engine is virtual time: events happen in the order of their times, and those of one
// time in the order in which they were planned, so that a seed always gives the same run.
type engine struct {
	now    time.Duration
	events eventHeap
	made   uint64
	rand   *rand.Rand
}

type event struct {
	at    time.Duration
	place uint64 // among all that were planned
	do    func()
}

func newEngine(seed uint64) *engine {
	return &engine{rand: rand.New(rand.NewPCG(seed, seed))}
}

// after plans an event.
func (e *engine) after(d time.Duration, do func()) {
	e.made++
	heap.Push(&e.events, event{e.now + d, e.made, do})
}

// run lets time pass up to a moment.
func (e *engine) run(until time.Duration) {
	for len(e.events) > 0 && e.events[0].at <= until {
		next := heap.Pop(&e.events).(event)
		e.now = next.at
		next.do()
	}
	e.now = until
}

// vary spreads a duration by half of it to either side, evenly.
func (e *engine) vary(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.5 + e.rand.Float64()))
}

// exponential draws from the exponential distribution with that mean.
func (e *engine) exponential(mean time.Duration) time.Duration {
	return time.Duration(float64(mean) * e.rand.ExpFloat64())
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].place < h[j].place
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = event{} // lets go of the closure
	*h = (*h)[:last]
	return x
}

// resource is what turns queue for, first come, first served: the cores of a machine, a
// disk, the connections of a database.
type resource struct {
	e     *engine
	name  string
	units int // turns at the same time
	busy  int
	queue []turn
	used  meter // of units
}

type turn struct {
	begin func() time.Duration // called when the turn comes; how long it takes
	end   func()
}

func newResource(e *engine, name string, units int) *resource {
	return &resource{e: e, name: name, units: units, used: meter{e: e}}
}

// take waits for a unit, holds it for what begin says, and calls end.
func (r *resource) take(begin func() time.Duration, end func()) {
	r.queue = append(r.queue, turn{begin, end})
	r.serve()
}

func (r *resource) serve() {
	for r.busy < r.units && len(r.queue) > 0 {
		t := r.queue[0]
		r.queue[0] = turn{}
		r.queue = r.queue[1:]
		r.set(r.busy + 1)
		r.e.after(t.begin(), func() {
			r.set(r.busy - 1)
			t.end()
			r.serve()
		})
	}
}

func (r *resource) set(busy int) {
	r.busy = busy
	r.used.set(float64(busy))
}

// utilisation is the share of the units that was in use since the meters began.
func (r *resource) utilisation() float64 { return r.used.mean() / float64(r.units) }

// meter is a level over time, and its mean.
type meter struct {
	e     *engine
	level float64
	area  float64 // of the level over the seconds up to at
	at    time.Duration
	began time.Duration
}

func (m *meter) set(level float64) {
	m.area += m.level * (m.e.now - m.at).Seconds()
	m.level, m.at = level, m.e.now
}

func (m *meter) add(by float64) { m.set(m.level + by) }

// restart forgets what was, but not the level.
func (m *meter) restart() { m.area, m.at, m.began = 0, m.e.now, m.e.now }

func (m *meter) mean() float64 {
	m.set(m.level)
	if m.at == m.began {
		return 0
	}
	return m.area / (m.at - m.began).Seconds()
}

// routine is a goroutine with an inbox. It takes a turn on its machine's cores when
// something has come, and then takes all that waits: the one rule by which decree's
// streams, its writer and its state machine make batches without a timer. It is serial:
// what it does is never done on two cores at once.
type routine struct {
	on    *resource
	lasts func(cost time.Duration) time.Duration // how long a turn takes that costs so much
	frame time.Duration                          // what a turn costs whatever it takes
	each  func(message) time.Duration
	does  func([]message)
	// holding is 1 while the routine has its turn; nil where nobody asks.
	holding *meter

	inbox   []message
	waiting bool // for a turn, or in one
}

// message is a part of a transaction on its way between routines.
type message struct {
	kind  kind
	tx    *transaction
	at    *participant // that a call is for, or its answer comes from
	entry *entry       // that is applied, or lands
}

func (r *routine) hear(ms ...message) {
	r.inbox = append(r.inbox, ms...)
	r.wake()
}

func (r *routine) wake() {
	if r.waiting || len(r.inbox) == 0 {
		return
	}
	r.waiting = true
	var batch []message
	r.on.take(func() time.Duration {
		batch, r.inbox = r.inbox, nil
		cost := r.frame
		for _, m := range batch {
			cost += r.each(m)
		}
		r.hold(1)
		return r.lasts(cost)
	}, func() {
		r.hold(0)
		r.does(batch)
		r.waiting = false
		r.wake()
	})
}

func (r *routine) hold(level float64) {
	if r.holding != nil {
		r.holding.set(level)
	}
}
