package main

import "time"

// group is one Raft group: its leader's coordinator, its writer, its followers.
type group struct {
	w         *world
	place     int
	leader    *machine
	followers []*follower
	holding   meter // of the term's lock: 1 while it is held

	receive []*routine // by client process
	answer  []*routine
	send    []*routine // by participant
	hear    []*routine
	books   *routine // all that happens under the term's lock
	apply   *routine // the leader's state machine
	lanes   []lane   // by participant

	queue    []command
	woken    bool  // the writer is about to look at it
	flights  []int // the commands of each entry on its way, in log order
	receipts int   // that wait for company
}

// command is what an entry carries: a decision, or what nobody waits for. A bare one
// knows no transaction and says when it is applied.
type command struct {
	decides *transaction
	bare    func()
}

// entry is on its way.
type entry struct {
	commands []command
	stored   int // on so many disks
}

func (e *entry) decisions() (n int) {
	for _, c := range e.commands {
		if c.decides != nil {
			n++
		}
	}
	return n
}

// lane is the leader's queue for one participant.
type lane struct {
	prepares, deliveries room
	pace                 time.Duration // of prepares, lately
}

// room bounds calls under way; the others wait.
type room struct {
	under   int
	waiting []message
}

func newGroup(w *world, p groupPlan) *group {
	g := &group{w: w, place: len(w.groups), leader: w.machines[p.leader], lanes: make([]lane, len(w.participants))}
	g.holding.e = w.engine
	cost := w.plan.costs
	g.books = w.routine(g.leader, leading, 0, g.underLock, g.settle)
	g.books.holding = &g.holding
	g.apply = w.routine(g.leader, leading, 0, func(m message) time.Duration { return cost.apply * time.Duration(len(m.entry.commands)) }, g.applied)
	for _, c := range w.clients {
		g.receive = append(g.receive, w.routine(g.leader, leading, cost.frame, flat(cost.receive), func(ms []message) { g.books.hear(ms...) }))
		g.answer = append(g.answer, w.routine(g.leader, leading, cost.frame, flat(cost.answer), func(ms []message) {
			w.travel(g.leader, c.on, func() { c.told[g.place].hear(ms...) })
		}))
	}
	for _, p := range w.participants {
		serve := p.stream(g)
		g.send = append(g.send, w.routine(g.leader, leading, cost.frame, flat(cost.send), func(ms []message) {
			w.travel(g.leader, p.on, func() { serve.hear(ms...) })
		}))
		g.hear = append(g.hear, w.routine(g.leader, leading, cost.frame, flat(cost.hear), func(ms []message) { g.books.hear(ms...) }))
	}
	for _, f := range p.followers {
		g.followers = append(g.followers, newFollower(g, w.machines[f]))
	}
	return g
}

// underLock is what a message costs while the lock is held.
func (g *group) underLock(m message) time.Duration {
	switch cost := g.w.plan.costs; m.kind {
	case submission:
		return cost.admit
	case landing:
		return cost.land * time.Duration(m.entry.decisions())
	default:
		return cost.vote
	}
}

// settle is what happens under the lock.
func (g *group) settle(ms []message) {
	for _, m := range ms {
		switch m.kind {
		case submission:
			g.admit(m.tx)
		case vote:
			g.voted(m)
		case receipt:
			g.acknowledged(m)
		case landing:
			g.land(m.entry)
		}
	}
}

func (g *group) admit(t *transaction) {
	t.held = true
	for _, p := range t.at {
		t.held = t.held && g.lanes[p.place].pace < stagingHold
	}
	for _, p := range t.at {
		g.ask(message{kind: prepareCall, tx: t, at: p})
	}
	if !t.held {
		g.propose(command{})
		return
	}
	g.w.after(stagingHold, func() { g.stage(t) })
}

// stage lets go of a staging that is held.
func (g *group) stage(t *transaction) {
	if t.held {
		t.held = false
		g.propose(command{})
	}
}

func (l *lane) room(k kind) *room {
	if k == prepareCall {
		return &l.prepares
	}
	return &l.deliveries
}

// ask sends a call where the lane has room for it.
func (g *group) ask(m message) {
	l := &g.lanes[m.at.place]
	r := l.room(m.kind)
	if r.under >= callsInFlight {
		r.waiting = append(r.waiting, m)
		return
	}
	r.under++
	if m.kind == prepareCall {
		m.tx.left[m.tx.branch(m.at)] = g.w.now
	}
	g.send[m.at.place].hear(m)
}

func (t *transaction) branch(p *participant) int {
	if t.at[0] == p {
		return 0
	}
	return 1
}

// answered makes room for the next call.
func (g *group) answered(k kind, p *participant) {
	r := g.lanes[p.place].room(k)
	r.under--
	if len(r.waiting) > 0 {
		next := r.waiting[0]
		r.waiting = r.waiting[1:]
		g.ask(next)
	}
}

func (g *group) voted(m message) {
	g.answered(prepareCall, m.at)
	l := &g.lanes[m.at.place]
	l.pace += (g.w.now - m.tx.left[m.tx.branch(m.at)] - l.pace) / 8
	if m.tx.votes++; m.tx.votes == branches {
		g.stage(m.tx)
		g.propose(command{decides: m.tx})
	}
}

func (g *group) acknowledged(m message) {
	g.answered(commitCall, m.at)
	if m.tx.receipts++; m.tx.receipts < branches {
		return
	}
	if g.receipts++; g.receipts == 1 {
		g.w.after(receiptDelay, g.flush)
	}
}

// flush logs the receipts of whole transactions.
func (g *group) flush() {
	n := g.receipts
	g.receipts = 0
	g.propose(make([]command, n)...)
}

// propose queues commands. The writer sends what waits once the lock is let go of, so
// that a staging and a commit which came together leave together.
func (g *group) propose(cs ...command) {
	g.queue = append(g.queue, cs...)
	if !g.woken {
		g.woken = true
		g.w.after(0, g.depart)
	}
}

// depart is the writer's rule: one entry on its way, or two while they are sparse.
func (g *group) depart() {
	g.woken = false
	for len(g.queue) > 0 && g.mayDepart() {
		n := min(len(g.queue), maxEntryCommands, max(1, maxEntryBytes/g.w.plan.costs.bytes))
		e := &entry{commands: g.queue[:n:n]}
		g.queue = g.queue[n:]
		g.flights = append(g.flights, n)
		g.w.entries++
		g.w.commands += n
		g.launch(e)
	}
}

func (g *group) mayDepart() bool {
	n := len(g.flights)
	return n == 0 || n < maxInFlight && (g.flights[n-1] <= sparseCommands || g.w.plan.second)
}

// launch stores an entry here, and only then sends it to the followers, as Raft's
// library does.
func (g *group) launch(e *entry) {
	cost, n := g.w.plan.costs, len(e.commands)
	g.w.work(g.leader, leading, cost.propose+cost.encode*time.Duration(n), func() {
		g.w.store(g.leader, cost.bytes*n, func() {
			g.w.work(g.leader, leading, cost.spread, func() {
				g.stored(e)
				for _, f := range g.followers {
					f.outbox = append(f.outbox, e)
					f.next()
				}
			})
		})
	})
}

// stored counts the disks that hold the entry. The log is in order on each of them, so
// what comes later never has a majority first.
func (g *group) stored(e *entry) {
	if e.stored++; e.stored != (len(g.followers)+1)/2+1 {
		return
	}
	g.apply.hear(message{entry: e})
	for _, f := range g.followers {
		g.w.raft(g.leader, f.on, func() { f.apply.hear(message{entry: e}) })
	}
}

func (g *group) applied(ms []message) {
	for _, m := range ms {
		g.books.hear(message{kind: landing, entry: m.entry})
	}
}

// land answers the clients of an entry's decisions, has the participants told, and lets
// the next entry leave.
func (g *group) land(e *entry) {
	g.flights = g.flights[1:]
	for _, c := range e.commands {
		if c.bare != nil {
			c.bare()
		}
		t := c.decides
		if t == nil {
			continue
		}
		g.answer[t.client.place].hear(message{tx: t})
		for _, p := range t.at {
			g.ask(message{kind: commitCall, tx: t, at: p})
		}
	}
	g.depart()
}

// follower is a group's replica that does not lead. One message to it is under way at
// a time, with all the entries that wait.
type follower struct {
	g      *group
	on     *machine
	apply  *routine
	outbox []*entry
	busy   bool
}

func newFollower(g *group, on *machine) *follower {
	cost := g.w.plan.costs
	each := func(m message) time.Duration { return cost.followApply * time.Duration(len(m.entry.commands)) }
	return &follower{g: g, on: on, apply: g.w.routine(on, following, 0, each, func([]message) {})}
}

func (f *follower) next() {
	if f.busy || len(f.outbox) == 0 {
		return
	}
	f.busy = true
	w, batch := f.g.w, f.outbox
	f.outbox = nil
	bytes := 0
	for _, e := range batch {
		bytes += w.plan.costs.bytes * len(e.commands)
	}
	w.raft(f.g.leader, f.on, func() {
		w.work(f.on, following, w.plan.costs.follow, func() {
			w.store(f.on, bytes, func() {
				w.raft(f.on, f.g.leader, func() { f.stored(batch) })
			})
		})
	})
}

func (f *follower) stored(batch []*entry) {
	f.busy = false
	for _, e := range batch {
		f.g.stored(e)
	}
	f.next()
}
