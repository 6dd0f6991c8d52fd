package main

import "time"

func micros(n float64) time.Duration { return time.Duration(n * float64(time.Microsecond)) }

// fitted is what a machine costs. The shares of the leader's CPU are those of the table
// in coordinator/DESIGN.md, of 34 us a transaction at 1,024 clients, less what frames
// and entries are charged with here, and the CPU of followers, participants and clients
// is theirs of the same run. What nobody has measured alone was fitted, so that the
// calibration comes out: frame; the three costs of an entry, which were measured as 0.4
// to 0.7 ms over three nodes; store and raftTrip, by a bare entry; trip, by one client;
// and lent, by the rate at 256 clients.
func fitted() plan {
	return plan{
		costs: costs{
			frame:   micros(12),
			receive: micros(7.5), send: micros(0.43), hear: micros(0.25), answer: micros(2),
			admit: micros(4.4), vote: micros(0.75), land: micros(4.1),
			encode: micros(0.47), apply: micros(1.6), propose: micros(100), spread: micros(100),
			follow: micros(125), followApply: micros(2.8),
			call: micros(2.2), submit: micros(3.5), told: micros(3.5),
			bytes: 128, // 385 a transaction
		},
		trips:    [][]time.Duration{{lan}},
		trip:     micros(200),
		raftTrip: micros(40),
		disk:     diskPlan{store: micros(300), perSecond: 300e6, lanes: 1},
		lent:     0.3,
		warm:     400 * time.Millisecond,
		length:   time.Second,
	}
}

// lan is a round trip inside one site, beside the wake-ups of trip.
const lan = 300 * time.Microsecond

// onOneMachine is how decree was measured: two cores, one disk, and everything on them.
func onOneMachine(groups, clients int) plan {
	p := fitted()
	p.machines = []machinePlan{{cores: 2}}
	for range groups {
		p.groups = append(p.groups, groupPlan{followers: []int{0, 0}})
	}
	p.participants = make([]participantPlan, 2)
	p.clients = []clientPlan{{closed: clients}}
	return p
}

// bare is a group of the plan without transactions: so many callers in the leader's
// process, each with one entry's worth of command at a time.
func bare(p plan, callers int) result {
	w := newWorld(p)
	var call func()
	call = func() {
		began := w.now
		w.groups[0].propose(command{bare: func() {
			w.record(0, w.now-began)
			call()
		}})
	}
	for range callers {
		call()
	}
	w.run(p.warm)
	w.restart()
	w.run(p.warm + p.length)
	return w.result()
}

// measured is what decree did on a machine of two cores that it shared with other work,
// in the words that the table shows. An empty one was not measured.
type measured struct {
	clients                  int
	rate, p50, cpu, entries  string
	leader, follower, others string
}

var measurements = []measured{
	{clients: 1, p50: "1.8 bare entries", entries: "1.1"},
	{clients: 256, rate: "13,000 to 17,000", p50: "15 to 17 ms", leader: "32 to 40", follower: "9", others: "11 to 14 + 8 to 10"},
	{clients: 512, rate: "18,200 (older)", cpu: "84", leader: "40"}, // by a version that took more CPU
	{clients: 1024, cpu: "70", entries: "0.003", leader: "34", follower: "9", others: "10 + 8"},
}
