package main

import (
	"slices"
	"time"
)

// result is what a plan came to. Utilisations are shares, from 0 to 1.
type result struct {
	rate           float64 // transactions a second that clients heard the decision of
	p50, p99, mean time.Duration
	site           []time.Duration // p50 of its clients
	inFlight       float64         // mean, clients' view

	cpu          [roles]time.Duration // a transaction; a role's processes together
	cores        float64              // of the busiest machine with a leader
	disk         float64              // the busiest
	lock         float64              // of the busiest group's leader
	participants float64              // the busiest participant's cores, or its slots
	clients      float64              // the busiest clients' cores
	entries      float64              // a transaction
	full         float64              // of an entry's room, on average
}

func (w *world) result() result {
	n := len(w.took)
	if n == 0 {
		return result{}
	}
	slices.Sort(w.took)
	r := result{
		rate:     float64(n) / w.plan.length.Seconds(),
		p50:      w.took[n/2],
		p99:      w.took[n*99/100],
		inFlight: w.inFlight.mean(),
		entries:  float64(w.entries) / float64(n),
		full:     float64(w.commands) / float64(max(w.entries, 1)) / maxEntryCommands,
	}
	for _, took := range w.tookAt {
		slices.Sort(took)
		r.site = append(r.site, middle(took))
	}
	for _, d := range w.took {
		r.mean += d
	}
	r.mean /= time.Duration(n)
	for i, d := range w.spent {
		r.cpu[i] = d / time.Duration(n)
	}
	for _, g := range w.groups {
		r.cores = max(r.cores, g.leader.cpu.utilisation())
		r.lock = max(r.lock, g.holding.mean())
	}
	for _, m := range w.machines {
		r.disk = max(r.disk, m.disk.utilisation())
	}
	for _, p := range w.participants {
		r.participants = max(r.participants, p.on.cpu.utilisation())
		if p.slots != nil {
			r.participants = max(r.participants, p.slots.utilisation())
		}
	}
	for _, c := range w.clients {
		r.clients = max(r.clients, c.on.cpu.utilisation())
	}
	return r
}

func middle(sorted []time.Duration) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
}

// all is the CPU of a transaction over all processes.
func (r result) all() (sum time.Duration) {
	for _, d := range r.cpu {
		sum += d
	}
	return sum
}

// saturated is where a resource counts as the limit.
const saturated = 0.9

// limit names what holds the rate down. Where nothing is used up it is the way
// that a transaction goes, and more clients are answered more.
func (r result) limit() string {
	switch {
	case r.participants >= saturated && r.participants > r.cores:
		return "participant"
	case r.cores >= saturated:
		return "node's cores"
	case r.clients >= saturated:
		return "clients"
	case r.lock >= saturated:
		return "leader's lock"
	case r.disk >= saturated:
		return "disk"
	case r.full >= saturated:
		return "full entries"
	default:
		return "latency"
	}
}
