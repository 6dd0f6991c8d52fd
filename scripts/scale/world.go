package main

import (
	"fmt"
	"time"
)

// A role is what CPU is spent as.
type role int

const (
	leading role = iota
	following
	taking // part
	asking
	roles
)

// kind is what a message is about.
type kind int

const (
	submission kind = iota
	prepareCall
	commitCall
	vote
	receipt
	landing
)

// world is a plan that runs.
type world struct {
	*engine
	plan         plan
	machines     []*machine
	groups       []*group
	participants []*participant
	clients      []*client

	spent    [roles]time.Duration
	inFlight meter // transactions, from their clients' point of view
	started  int
	took     []time.Duration   // by transactions that ended since the warming up
	tookAt   [][]time.Duration // the same, by their clients' sites
	entries  int
	commands int
}

type machine struct {
	site int
	cpu  *resource
	disk *resource
}

// transaction has two branches, and always commits.
type transaction struct {
	client   *client
	group    *group
	at       [branches]*participant
	began    time.Duration
	votes    int
	receipts int
	left     [branches]time.Duration // when the prepares left
	held     bool                    // its staging waits for the votes
}

func newWorld(p plan) *world {
	w := &world{engine: newEngine(p.seed), plan: p}
	w.inFlight.e = w.engine
	for i, m := range p.machines {
		w.machines = append(w.machines, &machine{
			site: m.site,
			cpu:  newResource(w.engine, fmt.Sprintf("cores of machine %d", i), m.cores),
			disk: newResource(w.engine, fmt.Sprintf("disk of machine %d", i), p.disk.lanes),
		})
	}
	for i := range p.participants {
		w.participants = append(w.participants, newParticipant(w, i))
	}
	for i := range p.clients {
		w.clients = append(w.clients, &client{w: w, place: i, on: w.machines[p.clients[i].machine]})
	}
	for _, g := range p.groups {
		w.groups = append(w.groups, newGroup(w, g))
	}
	for _, c := range w.clients {
		c.connect()
	}
	return w
}

// simulate runs a plan.
func simulate(p plan) (*world, result) {
	w := newWorld(p)
	for _, c := range w.clients {
		c.start()
	}
	w.run(p.warm)
	w.restart()
	w.run(p.warm + p.length)
	return w, w.result()
}

// restart forgets what was counted while the world warmed up.
func (w *world) restart() {
	w.spent, w.took, w.entries, w.commands = [roles]time.Duration{}, nil, 0, 0
	w.tookAt = make([][]time.Duration, len(w.plan.trips))
	w.inFlight.restart()
	for _, r := range w.resources() {
		r.used.restart()
	}
	for _, g := range w.groups {
		g.holding.restart()
	}
}

func (w *world) resources() (all []*resource) {
	for _, m := range w.machines {
		all = append(all, m.cpu, m.disk)
	}
	for _, p := range w.participants {
		if p.slots != nil {
			all = append(all, p.slots)
		}
	}
	return all
}

// routine makes one that plays a role on a machine.
func (w *world) routine(on *machine, as role, frame time.Duration, each func(message) time.Duration, does func([]message)) *routine {
	return &routine{on: on.cpu, lasts: func(cost time.Duration) time.Duration { return w.compute(as, cost) }, frame: frame, each: each, does: does}
}

// compute is how long a turn lasts that costs so much CPU, give or take.
func (w *world) compute(as role, cost time.Duration) time.Duration {
	cost = w.vary(cost)
	w.spent[as] += cost
	return time.Duration(float64(cost) / (1 - w.plan.lent))
}

// work is a turn on a machine's cores that is no routine's.
func (w *world) work(on *machine, as role, cost time.Duration, then func()) {
	on.cpu.take(func() time.Duration { return w.compute(as, cost) }, then)
}

// store appends to a log and waits until it is durable.
func (w *world) store(on *machine, bytes int, then func()) {
	d := w.plan.disk
	on.disk.take(func() time.Duration {
		most := d.store * 2 / 3 // and now and then much more
		return most + w.exponential(d.store-most) + time.Duration(float64(bytes)/d.perSecond*1e9)
	}, then)
}

// travel takes a frame from one process to another, and raft what a node sends another.
func (w *world) travel(from, to *machine, arrive func()) { w.pass(w.plan.trip, from, to, arrive) }
func (w *world) raft(from, to *machine, arrive func())   { w.pass(w.plan.raftTrip, from, to, arrive) }

func (w *world) pass(d time.Duration, from, to *machine, arrive func()) {
	if from != to {
		d += w.plan.trips[from.site][to.site] / 2
	}
	w.after(w.vary(d), arrive)
}

// flat is the cost of a message that is always the same.
func flat(d time.Duration) func(message) time.Duration {
	return func(message) time.Duration { return d }
}

// client is a process of clients.
type client struct {
	w      *world
	place  int
	on     *machine
	submit []*routine // by group
	told   []*routine
	groups []*group // that its ids are made for
}

func (c *client) connect() {
	w, cost := c.w, c.w.plan.costs
	for _, g := range w.groups {
		c.submit = append(c.submit, w.routine(c.on, asking, cost.frame, flat(cost.submit), func(ms []message) {
			w.travel(c.on, g.leader, func() { g.receive[c.place].hear(ms...) })
		}))
		c.told = append(c.told, w.routine(c.on, asking, cost.frame, flat(cost.told), c.ended))
		if !w.plan.near || g.leader.site == c.on.site {
			c.groups = append(c.groups, g)
		}
	}
}

func (c *client) start() {
	p := c.w.plan.clients[c.place]
	for range p.closed {
		c.begin()
	}
	if p.open > 0 {
		c.arrive(time.Duration(1e9 / p.open))
	}
}

// arrive begins transactions at random, so many on average whatever becomes of them.
func (c *client) arrive(every time.Duration) {
	c.w.after(c.w.exponential(every), func() {
		c.begin()
		c.arrive(every)
	})
}

func (c *client) begin() {
	g := c.groups[c.w.rand.IntN(len(c.groups))]
	t := &transaction{client: c, group: g, at: c.w.choose(c.on.site), began: c.w.now}
	c.w.started++
	c.w.inFlight.add(1)
	c.submit[g.place].hear(message{kind: submission, tx: t})
}

func (c *client) ended(ms []message) {
	for _, m := range ms {
		c.w.inFlight.add(-1)
		c.w.record(c.on.site, c.w.now-m.tx.began)
		if c.w.plan.clients[c.place].closed > 0 {
			c.begin()
		}
	}
}

func (w *world) record(site int, took time.Duration) {
	if w.tookAt == nil { // still warming up
		return
	}
	w.took = append(w.took, took)
	w.tookAt[site] = append(w.tookAt[site], took)
}

// choose takes two participants at the site, or as the plan's shares say. A hot one is
// met by its share alone.
func (w *world) choose(site int) (two [branches]*participant) {
	pick := func(near bool, not *participant) *participant {
		for {
			p := w.participants[w.rand.IntN(len(w.participants))]
			hot := p.place == 0 && w.plan.hot > 0
			if p != not && !hot && (p.on.site == site) == near {
				return p
			}
		}
	}
	two[0] = pick(true, nil)
	if w.rand.Float64() < w.plan.hot {
		two[0] = w.participants[0]
	}
	two[1] = pick(!(w.rand.Float64() < w.plan.far), two[0])
	return two
}

// participant answers calls, each group's on a stream of its own.
type participant struct {
	w     *world
	place int
	on    *machine
	slots *resource // nil where it does nothing but answer
}

func newParticipant(w *world, place int) *participant {
	plan := w.plan.participants[place]
	p := &participant{w: w, place: place, on: w.machines[plan.machine]}
	if plan.slots > 0 {
		p.slots = newResource(w.engine, fmt.Sprintf("slots of participant %d", place), plan.slots)
	}
	return p
}

// stream is a group's way to the participant.
func (p *participant) stream(g *group) *routine {
	cost := p.w.plan.costs
	return p.w.routine(p.on, taking, 2*cost.frame, flat(cost.call), func(ms []message) {
		if p.slots == nil {
			p.reply(g, ms)
			return
		}
		for _, m := range ms {
			service := p.w.plan.participants[p.place].service
			p.slots.take(func() time.Duration { return p.w.exponential(service) }, func() { p.reply(g, []message{m}) })
		}
	})
}

func (p *participant) reply(g *group, ms []message) {
	p.w.travel(p.on, g.leader, func() {
		for i := range ms {
			if ms[i].kind == prepareCall {
				ms[i].kind = vote
			} else {
				ms[i].kind = receipt
			}
		}
		g.hear[p.place].hear(ms...)
	})
}
