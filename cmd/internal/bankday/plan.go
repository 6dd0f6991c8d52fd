package bankday

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds.
const (
	KillLeader   Kind = "leader"    // kill -9 of the leading node, which comes back later
	KillFollower Kind = "follower"  // the same to a node that does not lead
	PauseLeader  Kind = "pause"     // SIGSTOP of the leading node: it wakes up deposed
	Partition    Kind = "partition" // the leading node and the others don't hear each other, or one side only
	KillDatabase Kind = "database"  // kill -9 of a whole database server, which recovers later
	HangDatabase Kind = "hang"      // SIGSTOP of a whole database server
	KillService  Kind = "service"   // kill -9 of the kv store or the wallet
	CutLink      Kind = "link"      // bytes between nodes and a participant are held back
)

// All stands for all kinds where kinds are named.
const All = "all"

// trait is what is known of a kind before it strikes.
type trait struct {
	kind   Kind
	weight int // how often it comes, beside the others
	// A fault lasts between least and most, more often nearer to least. Where a
	// resource stays silent, most is longer than the time that nodes give a delivery
	// (5s) and a prepare (10s): a short and a long silence have their own ways out.
	least, most time.Duration
	victims     []string // participants; none where it hits the cluster
}

// The participants. Databases can be killed and made to hang, services be killed.
const (
	ledgerA, ledgerB, cards, vault, wallet = "ledger-a", "ledger-b", "cards", "vault", "wallet"
)

// traits is every kind. Half of the faults hit the cluster, and most of those make
// a failover.
var traits = []trait{
	{KillLeader, 6, 300 * time.Millisecond, 3 * time.Second, nil},
	{PauseLeader, 4, 700 * time.Millisecond, 5 * time.Second, nil},
	{Partition, 4, 700 * time.Millisecond, 5 * time.Second, nil},
	{KillFollower, 2, 300 * time.Millisecond, 4 * time.Second, nil},
	{KillDatabase, 5, 100 * time.Millisecond, 3 * time.Second, []string{ledgerA, ledgerB, cards}},
	{HangDatabase, 3, 300 * time.Millisecond, 12 * time.Second, []string{ledgerA, ledgerB, cards}},
	{KillService, 3, 100 * time.Millisecond, 3 * time.Second, []string{vault, wallet}},
	{CutLink, 5, 300 * time.Millisecond, 12 * time.Second, []string{ledgerA, ledgerB, cards, vault, wallet}},
}

// ParseFaults reads kinds separated by commas, or "all".
func ParseFaults(text string) ([]Kind, error) {
	if text == "" {
		return nil, nil
	}
	var kinds []Kind
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == All:
			kinds = append(kinds, AllKinds()...)
		case slices.Contains(AllKinds(), Kind(name)):
			kinds = append(kinds, Kind(name))
		default:
			return nil, fmt.Errorf("fault %q: want %s, or %v", name, All, AllKinds())
		}
	}
	return slices.DeleteFunc(AllKinds(), func(k Kind) bool { return !slices.Contains(kinds, k) }), nil
}

// faultsText is what ParseFaults reads.
func faultsText(kinds []Kind) string {
	if slices.Equal(kinds, AllKinds()) {
		return All
	}
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ",")
}

// AllKinds are all kinds, as they are listed above.
func AllKinds() []Kind {
	var kinds []Kind
	for _, t := range traits {
		kinds = append(kinds, t.kind)
	}
	return kinds
}

// way is which direction of a link is cut, or of which nodes.
type way uint8

const (
	bothWays way = iota // between the leader and the others
	outOnly             // what the leader sends
	inOnly              // what is sent to the leader
	everyone            // between all nodes and a participant, both ways
	ways
)

// fault is one fault of a plan.
type fault struct {
	number int           // from 1
	at     time.Duration // from the beginning
	kind   Kind
	victim string // a participant; empty where it hits the cluster
	second bool   // of the two followers, the second
	way    way    // where something is cut
	lasts  time.Duration
}

// clusterStation is the station of faults that hit nodes.
const clusterStation = "cluster"

// station is whose turn it has to wait for: nothing has two faults at once. Of three
// nodes one may be away, and a participant that is away can't also be cut off.
func (f fault) station() string {
	if f.victim == "" {
		return clusterStation
	}
	return f.victim
}

// stations are all of them.
var stations = []string{clusterStation, ledgerA, ledgerB, cards, vault, wallet}

func (f fault) String() string {
	switch f.kind {
	case KillLeader:
		return "kill -9 of the leader"
	case KillFollower:
		return "kill -9 of a follower"
	case PauseLeader:
		return "SIGSTOP of the leader"
	case Partition:
		return [...]string{
			bothWays: "a partition between the leader and the others",
			outOnly:  "a one-way partition: nobody hears the leader",
			inOnly:   "a one-way partition: the leader hears nobody",
		}[f.way]
	case KillDatabase, KillService:
		return "kill -9 of " + f.victim
	case HangDatabase:
		return "SIGSTOP of " + f.victim
	case CutLink:
		return [...]string{
			bothWays: "a cut between the leader and " + f.victim,
			outOnly:  "a cut of what the leader sends to " + f.victim,
			inOnly:   "a cut of what " + f.victim + " answers to the leader",
			everyone: "a cut between all nodes and " + f.victim,
		}[f.way]
	default:
		return string(f.kind)
	}
}

// longest bounds how long a fault lasts, in intervals: at a fast pace faults are
// short, or each station would have a queue of them.
const longest = 4

// plan is a schedule of faults without end. It depends on its seed, kinds and pace,
// and on nothing that happens.
type plan struct {
	chance *rand.Rand
	traits []trait
	every  time.Duration
	last   int
}

func newPlan(seed uint64, kinds []Kind, every time.Duration) *plan {
	p := &plan{chance: rand.New(rand.NewPCG(seed, 0x6661756c74)), every: every} //nolint:gosec // no secret
	for _, t := range traits {
		if slices.Contains(kinds, t.kind) {
			p.traits = append(p.traits, t)
		}
	}
	return p
}

// reached is the end of the interval of the last fault.
func (p *plan) reached() time.Duration { return time.Duration(p.last) * p.every }

// next is the fault that comes next: one in each interval, at any moment of it.
func (p *plan) next() fault {
	t := p.draw()
	f := fault{
		number: p.last + 1,
		at:     p.reached() + time.Duration(p.chance.Int64N(int64(p.every))),
		kind:   t.kind,
		second: p.chance.IntN(2) == 1,
		way:    way(p.chance.IntN(int(ways))),
	}
	if len(t.victims) > 0 {
		f.victim = t.victims[p.chance.IntN(len(t.victims))]
	}
	if f.kind == Partition && f.way == everyone {
		f.way = bothWays // the others are everyone
	}
	long := p.chance.Float64()
	f.lasts = t.least + time.Duration(long*long*float64(min(t.most, longest*p.every)-t.least))
	p.last++
	return f
}

// draw takes a kind by its weight.
func (p *plan) draw() trait {
	sum := 0
	for _, t := range p.traits {
		sum += t.weight
	}
	n := p.chance.IntN(sum)
	for _, t := range p.traits {
		if n -= t.weight; n < 0 {
			return t
		}
	}
	panic("bankday: a draw past the sum of all weights")
}
