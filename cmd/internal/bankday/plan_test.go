package bankday

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is proven here: a plan of faults follows from its seed and from nothing else,
// has every kind at every victim, and keeps its pace.

// drawn are the first faults of a plan.
func drawn(n int, seed uint64, kinds []Kind, every time.Duration) []fault {
	p := newPlan(seed, kinds, every)
	var all []fault
	for range n {
		all = append(all, p.next())
	}
	return all
}

func TestPlanFollowsFromItsSeed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	a, b := drawn(100, seed, AllKinds(), time.Second), drawn(100, seed, AllKinds(), time.Second)
	if !slices.Equal(a, b) {
		t.Error("the same seed gives another plan")
	}
	if c := drawn(100, seed+1, AllKinds(), time.Second); slices.Equal(a, c) {
		t.Error("another seed gives the same plan")
	}
}

func TestPlanHasEverything(t *testing.T) {
	seed, every := rand.Uint64(), 3*time.Second
	t.Logf("seed %d", seed)
	seen, stationed := map[string]int{}, map[string]bool{}
	for i, f := range drawn(3000, seed, AllKinds(), every) {
		seen[f.String()]++
		stationed[f.station()] = true
		if f.number != i+1 || f.at < time.Duration(i)*every || f.at >= time.Duration(i+1)*every {
			t.Fatalf("fault %d is number %d, at %s", i+1, f.number, f.at)
		}
		trait := traits[slices.IndexFunc(traits, func(t trait) bool { return t.kind == f.kind })]
		if f.lasts < trait.least || f.lasts > trait.most {
			t.Fatalf("%s for %s, want %s to %s", f, f.lasts, trait.least, trait.most)
		}
	}
	// Two of nodes that crash and one that hangs, three partitions, three databases
	// that crash or hang, two services, and five participants in four ways.
	if want := 3 + 3 + 2*3 + 2 + 5*4; len(seen) != want {
		t.Errorf("%d different faults, want %d: %v", len(seen), want, seen)
	}
	if len(stationed) != len(stations) {
		t.Errorf("faults at %v, want all of %v", stationed, stations)
	}
}

// TestFastPlansHaveShortFaults: else there would be a queue at every station.
func TestFastPlansHaveShortFaults(t *testing.T) {
	for _, f := range drawn(1000, 1, AllKinds(), minFaultEvery) {
		if f.lasts < 0 || f.lasts > longest*minFaultEvery {
			t.Fatalf("%s for %s, one each %s", f, f.lasts, minFaultEvery)
		}
	}
}

func TestPlanHasOnlyWhatWasAsked(t *testing.T) {
	for _, f := range drawn(100, 1, []Kind{PauseLeader, KillService}, time.Second) {
		if f.kind != PauseLeader && f.kind != KillService {
			t.Fatalf("a %s, which nobody asked for", f.kind)
		}
	}
}

func TestFaultsAreParsed(t *testing.T) {
	for text, want := range map[string][]Kind{
		"":                  nil,
		"all":               AllKinds(),
		"link, leader,link": {KillLeader, CutLink},
		"leader,all":        AllKinds(),
	} {
		got, err := ParseFaults(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
		if again, err := ParseFaults(faultsText(got)); err != nil || !slices.Equal(again, got) {
			t.Errorf("%q is written as %q", text, faultsText(got))
		}
	}
	if _, err := ParseFaults("leader,earthquake"); err == nil || !strings.Contains(err.Error(), `"earthquake": want all, or [leader pause`) {
		t.Errorf("a fault that there is not: %v", err)
	}
}
