package main

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"
)

// What is proven here: the simulator obeys the laws that hold for every queueing system,
// gives the figures of the systems that have a formula, and keeps decree's rules. That
// its costs are decree's is not proven but shown, by the calibration.

// plans are small ones of every kind.
func plans() map[string]plan {
	short := func(p plan) plan {
		p.warm, p.length = 500*time.Millisecond, 2*time.Second
		return p
	}
	lan := spread(company(servers(fitted(), 0, 3, 2), 0, 512), 3, 3, true)
	hot := spread(company(servers(fitted(), 0, 3, 2), 0, 256), 3, 3, true)
	hot.participants[0].slots, hot.participants[0].service, hot.hot = 4, time.Millisecond, 0.3
	open := spread(company(servers(fitted(), 0, 3, 2), 0, 0), 3, 1, true)
	offer(open, 8000)
	far := regions().plans[3]
	far.length = 6 * time.Second
	return map[string]plan{
		"one client": short(onOneMachine(1, 1)), "one machine": short(onOneMachine(1, 256)), "six groups": short(onOneMachine(6, 256)),
		"a LAN": short(lan), "a hot participant": short(hot), "an open loop": short(open), "regions": far,
	}
}

// near reports whether two figures differ by less than that share.
func near(got, want, share float64) bool { return math.Abs(got-want) <= share*math.Abs(want) }

// Little's law: what is in flight is what comes a second times how long it stays.
func TestLittlesLaw(t *testing.T) {
	for name, p := range plans() {
		t.Run(name, func(t *testing.T) {
			_, r := simulate(p)
			if want := r.rate * r.mean.Seconds(); !near(r.inFlight, want, 0.03) {
				t.Errorf("%.2f in flight, but %.0f a second for %s are %.2f", r.inFlight, r.rate, r.mean, want)
			}
		})
	}
}

// rounding is what sums of shares may be off by.
const rounding = 1e-9

// The utilisation law: a machine's cores are busy for what its work costs, no more and
// no less, and nothing is ever used more than wholly.
func TestUtilisation(t *testing.T) {
	for name, p := range plans() {
		t.Run(name, func(t *testing.T) {
			w, r := simulate(p)
			var busy float64 // cores
			for _, res := range w.resources() {
				if u := res.utilisation(); u < 0 || u > 1+rounding {
					t.Errorf("%s: a utilisation of %f", res.name, u)
				}
			}
			for _, m := range w.machines {
				busy += m.cpu.used.mean()
			}
			for _, g := range w.groups {
				if u := g.holding.mean(); u <= 0 || u > 1+rounding {
					t.Errorf("the lock of group %d is held for %f of the time", g.place, u)
				}
			}
			if want := r.rate * r.all().Seconds() / (1 - p.lent); !near(busy, want, 0.02) {
				t.Errorf("%.3f cores are busy, but the transactions cost %.3f", busy, want)
			}
		})
	}
}

// A seed gives the same run for ever, and another one another run.
func TestSeed(t *testing.T) {
	for name, p := range plans() {
		t.Run(name, func(t *testing.T) {
			_, first := simulate(p)
			_, second := simulate(p)
			if !reflect.DeepEqual(first, second) {
				t.Errorf("one seed, two results:\n%+v\n%+v", first, second)
			}
			p.seed = 99
			if _, other := simulate(p); reflect.DeepEqual(first, other) {
				t.Error("the seed changes nothing")
			}
		})
	}
}

// Queues with a formula: arrivals at random, service exponential, one server and four.
// The mean wait of M/M/c is Erlang's C / (c mu - lambda).
func TestQueuesWithAFormula(t *testing.T) {
	const service = time.Millisecond
	for _, servers := range []int{1, 4} {
		for _, load := range []float64{0.5, 0.8} {
			t.Run(fmt.Sprintf("%d servers, %.0f %% busy", servers, 100*load), func(t *testing.T) {
				e := newEngine(1)
				r := newResource(e, "a server", servers)
				lambda := load * float64(servers) / service.Seconds()
				every := time.Duration(1e9 / lambda)
				var stayed time.Duration
				ended := 0
				var arrive func()
				arrive = func() {
					began := e.now
					r.take(func() time.Duration { return e.exponential(service) }, func() {
						stayed += e.now - began
						ended++
					})
					e.after(e.exponential(every), arrive)
				}
				arrive()
				e.run(400 * time.Second)

				want := service.Seconds() + erlangC(servers, load*float64(servers))/(float64(servers)/service.Seconds()-lambda)
				if got := stayed.Seconds() / float64(ended); !near(got, want, 0.03) {
					t.Errorf("%d stayed for %.4f ms on average, the formula says %.4f", ended, 1e3*got, 1e3*want)
				}
				if u := r.utilisation(); !near(u, load, 0.02) {
					t.Errorf("busy for %.3f of the time, want %.3f", u, load)
				}
			})
		}
	}
}

// erlangC is the probability that one who comes must wait: c servers, offered a.
func erlangC(c int, a float64) float64 {
	term, sum := 1.0, 0.0 // a^k / k!
	for k := range c {
		sum += term
		term *= a / float64(k+1)
	}
	wait := term / (1 - a/float64(c))
	return wait / (sum + wait)
}

// The writer's rule: one entry on its way, a second only behind a sparse one, and none
// larger than an entry may be.
func TestWriterHasOneEntryOnItsWay(t *testing.T) {
	for name, p := range plans() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(p)
			for _, c := range w.clients {
				c.start()
			}
			for at := time.Duration(0); at < time.Second; at += 20 * time.Microsecond {
				w.run(at)
				for _, g := range w.groups {
					if len(g.flights) > maxInFlight || len(g.flights) == 2 && g.flights[0] > sparseCommands {
						t.Fatalf("entries of %v commands are on their way", g.flights)
					}
					for _, n := range g.flights {
						if n > maxEntryCommands || n*p.costs.bytes > maxEntryBytes {
							t.Fatalf("an entry of %d commands", n)
						}
					}
				}
			}
		})
	}
}

// Nothing is lost on the way: once no client begins another, all have heard, each
// transaction has put three commands into the log, and every call came back.
func TestEverythingEnds(t *testing.T) {
	for name, p := range plans() {
		t.Run(name, func(t *testing.T) {
			for i := range p.clients {
				p.clients[i].open = 0
				p.clients[i].closed = max(p.clients[i].closed, 16)
			}
			w := newWorld(p)
			for _, c := range w.clients {
				c.start()
			}
			w.run(p.warm)
			for i := range w.plan.clients {
				w.plan.clients[i].closed = 0
			}
			w.run(p.warm + 20*time.Second)
			if w.inFlight.level != 0 || w.commands != commandsEach*w.started {
				t.Errorf("%d began, %.0f have not ended, %d commands", w.started, w.inFlight.level, w.commands)
			}
			for _, g := range w.groups {
				for i, l := range g.lanes {
					if l.prepares.under != 0 || l.deliveries.under != 0 || len(l.prepares.waiting)+len(l.deliveries.waiting) > 0 {
						t.Errorf("group %d has calls under way at participant %d: %+v", g.place, i, l)
					}
				}
			}
		})
	}
}

// A transaction that meets no other takes the one entry that the design gives it, two
// appends in series, and not the two entries of a staging that leaves before its commit.
func TestLoneTransactionTakesOneEntry(t *testing.T) {
	p := spread(company(servers(fitted(), 0, 3, 2), 0, 0), 3, 1, true)
	offer(p, 2)
	p.length = 30 * time.Second
	p.disk.store = 20 * time.Millisecond // so that little else counts
	_, r := simulate(p)
	if least, most := 2*p.disk.store*2/3, 3*p.disk.store; r.p50 < least || r.p50 > most {
		t.Errorf("p50 %s, want between %s and %s", r.p50, least, most)
	}
}

// A participant that all transactions need serves what it can, however many groups ask.
func TestGroupsDoNotMoveAParticipant(t *testing.T) {
	for _, groups := range []int{1, 3} {
		p := spread(company(servers(fitted(), 0, 3, 8), 0, 256), 3, groups, true)
		p.participants[0].slots, p.participants[0].service, p.hot = 8, 2*time.Millisecond, 1
		p.length = 5 * time.Second
		_, r := simulate(p)
		if want := 8 / (2 * 2e-3); !near(r.rate, want, 0.05) { // slots over two calls of 2 ms
			t.Errorf("%s: %.0f tx/s, want %.0f", count(groups, "group"), r.rate, want)
		}
		if r.limit() != "participant" {
			t.Errorf("%s: the limit is %s", count(groups, "group"), r.limit())
		}
	}
}
