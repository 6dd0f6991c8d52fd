package main

import (
	"fmt"
	"time"
)

// table is a question, and the plans that answer it.
type table struct {
	title string
	notes string   // under the title
	sites []string // whose clients have a column
	plans []plan
}

func tables() []table {
	return []table{oneMachine(), threeMachines(), openLoop(), nineMachines(), regions(), hotParticipant(), slowDisk()}
}

func oneMachine() table {
	t := table{title: "One machine of two cores, everything on it"}
	for _, clients := range []int{64, 256, 1024} {
		for _, groups := range []int{1, 3, 6} {
			p := onOneMachine(groups, clients)
			p.name = fmt.Sprintf("%d clients, %s", clients, count(groups, "group"))
			t.plans = append(t.plans, p)
		}
	}
	return t
}

// servers is a site of machines that run nodes, with participants and clients on
// machines that have cores to spare.
func servers(p plan, site, machines, cores int) plan {
	for range machines {
		p.machines = append(p.machines, machinePlan{site, cores})
	}
	return p
}

// company adds participants and processes of clients at a site, each on a machine of
// its own, which are not what the plan is about.
func company(p plan, site, closed int) plan {
	const participants, processes, cores = 8, 4, 32
	for range participants {
		p.participants = append(p.participants, participantPlan{machine: len(p.machines)})
		p.machines = append(p.machines, machinePlan{site, cores})
	}
	for range processes {
		p.clients = append(p.clients, clientPlan{machine: len(p.machines), closed: closed / processes})
		p.machines = append(p.machines, machinePlan{site, cores})
	}
	return p
}

// spread places groups of three replicas on so many machines, the leaders in turn on
// each or all on the first, and their followers on the next two.
func spread(p plan, machines, groups int, leaders bool) plan {
	for g := range groups {
		first := 0
		if leaders {
			first = g % machines
		}
		p.groups = append(p.groups, groupPlan{first, []int{(first + 1) % machines, (first + 2) % machines}})
	}
	return p
}

func threeMachines() table {
	t := table{title: "Three machines of a LAN, 6,144 clients in a closed loop",
		notes: "Participants and clients have machines of their own, with cores to spare."}
	for _, cores := range []int{2, 8, 32} {
		add := func(what string, groups int, leaders, second bool) {
			p := company(servers(fitted(), 0, 3, cores), 0, 6144)
			p = spread(p, 3, groups, leaders)
			p.second = second
			p.name = fmt.Sprintf("%d cores, %s%s", cores, count(groups, "group"), what)
			t.plans = append(t.plans, p)
		}
		add("", 1, true, false)
		add(" with two entries on their way", 1, true, true)
		add(" led by one machine", 3, false, false)
		for _, groups := range []int{3, 6, 12} {
			add("", groups, true, false)
		}
	}
	return t
}

// offer has the clients come at random, so many a second over all.
func offer(p plan, rate float64) {
	for i := range p.clients {
		p.clients[i].open = rate / float64(len(p.clients))
	}
}

func openLoop() table {
	t := table{title: "Three machines of two cores, an open loop"}
	for _, groups := range []int{1, 3} {
		for _, rate := range []float64{10_000, 20_000, 30_000, 40_000} {
			p := company(servers(fitted(), 0, 3, 2), 0, 0)
			offer(p, rate)
			p = spread(p, 3, groups, true)
			p.name = fmt.Sprintf("%s tx/s offered, %s", thousands(rate), count(groups, "group"))
			t.plans = append(t.plans, p)
		}
	}
	return t
}

func nineMachines() table {
	t := table{title: "Nine machines of 8 cores, three replicas a group, 18,432 clients"}
	for _, groups := range []int{1, 3, 9, 18} {
		p := company(servers(fitted(), 0, 9, 8), 0, 18432)
		p = spread(p, 9, groups, true)
		p.name = count(groups, "group")
		t.plans = append(t.plans, p)
	}
	return t
}

// regional is three regions with three machines each. Groups are placed on machines 0 to 2
// of region a, 3 to 5 of b, 6 to 8 of c.
func regional(groups func(plan) plan, near bool, far float64) plan {
	p := fitted()
	const ab, bc, ac = 30 * time.Millisecond, 80 * time.Millisecond, 150 * time.Millisecond
	p.trips = [][]time.Duration{{lan, ab, ac}, {ab, lan, bc}, {ac, bc, lan}}
	p.near, p.far = near, far
	p.warm, p.length = 2*time.Second, 4*time.Second
	for site := range 3 {
		p = servers(p, site, 3, 8)
	}
	for site := range 3 {
		p = company(p, site, 0)
	}
	offer(p, 6000)
	return groups(p)
}

func regions() table {
	one := func(p plan) plan { p.groups = []groupPlan{{0, []int{1, 2}}}; return p }
	inside := func(p plan) plan {
		p.groups = []groupPlan{{0, []int{1, 2}}, {3, []int{4, 5}}, {6, []int{7, 8}}}
		return p
	}
	across := func(p plan) plan {
		p.groups = []groupPlan{{0, []int{3, 6}}, {4, []int{1, 7}}, {8, []int{5, 2}}}
		return p
	}
	t := table{title: "Three regions, 30 ms a-b, 80 ms b-c, 150 ms a-c; 2,000 tx/s offered in each",
		notes: "Participants are in the client's region, but for the rows with far branches.",
		sites: []string{"a", "b", "c"}}
	add := func(name string, p plan) {
		p.name = name
		t.plans = append(t.plans, p)
	}
	add("one group, all of it in a", regional(one, false, 0))
	add("three groups, each in one region, by hash", regional(inside, false, 0))
	add("three groups, each in one region, ids for the near one", regional(inside, true, 0))
	add("the same, one transaction in ten with a far branch", regional(inside, true, 0.1))
	add("three groups, each with a replica a region, by hash", regional(across, false, 0))
	add("three groups, each with a replica a region, ids for the near one", regional(across, true, 0))
	return t
}

func hotParticipant() table {
	t := table{title: "A participant with 16 slots of 2 ms, three machines of 8 cores, 2,048 clients",
		notes: "Two calls a branch: it serves 4,000 branches a second at most."}
	for _, hot := range []float64{0.01, 0.05, 0.2, 1} {
		for _, groups := range []int{1, 3, 6} {
			p := servers(fitted(), 0, 3, 8)
			p.participants = []participantPlan{{machine: len(p.machines), slots: 16, service: 2 * time.Millisecond}}
			p = company(servers(p, 0, 1, 32), 0, 2048)
			p = spread(p, 3, groups, true)
			p.hot = hot
			p.name = fmt.Sprintf("%.0f %% of transactions, %s", 100*hot, count(groups, "group"))
			t.plans = append(t.plans, p)
		}
	}
	return t
}

// slowDisk asks where the disk becomes the limit.
func slowDisk() table {
	t := table{title: "Disks that take 5 ms an append, three machines of 8 cores, 6,144 clients"}
	for _, groups := range []int{1, 3, 6, 12} {
		p := company(servers(fitted(), 0, 3, 8), 0, 6144)
		p = spread(p, 3, groups, true)
		p.disk.store = 5 * time.Millisecond
		p.name = count(groups, "group")
		t.plans = append(t.plans, p)
	}
	return t
}

func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
