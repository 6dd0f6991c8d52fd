package txn_test

// The world of the failover simulator: one clock, one queue of events, one source of
// chance. Everything happens on one goroutine, in an order that the seed alone
// decides.

import (
	"container/heap"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// The paces of the world. Only their proportions matter: a message takes some
// milliseconds, an entry of the log too, and a transaction some of both, so that a
// leader which falls every fifty milliseconds or so falls into the middle of them.
const (
	think        = 40 * time.Millisecond // between a client's transactions
	patience     = 400 * time.Millisecond
	callTimeout  = 60 * time.Millisecond
	backoffCap   = 200 * time.Millisecond
	receiptDelay = 20 * time.Millisecond
	partialAfter = 200 * time.Millisecond
	orphanGrace  = 50 * time.Millisecond
	scanInterval = 300 * time.Millisecond
	belatedMost  = 2 * time.Second // how late the latest message arrives
	clients      = 3
	resources    = 3

	// shortRetention is that of a world in which finished transactions are forgotten
	// while others run; late messages still find their tombstones.
	shortRetention = belatedMost + time.Second

	// calmTime is long enough for everything to come to rest once nothing fails any
	// more: the latest message, and some scans behind it.
	calmTime = belatedMost + 5*scanInterval + 5*backoffCap
)

// world is a cluster, its clients and its participants. There is one log: Raft is
// taken for what it promises. What the log holds at most at one moment is what the
// leader has proposed and not seen committed; when it falls, a beginning of that,
// chosen by chance, turns out to be committed.
type world struct {
	rng    *rand.Rand
	now    txn.Time
	events events
	seq    uint64
	story  io.Writer // nil for none
	names  map[txn.TxID]string

	// The replicated state, after every committed entry.
	cluster txn.Cluster
	index   uint64
	states  map[txn.TxID]*txn.Transaction
	open    []txn.TxID                    // unfinished, in order
	last    map[txn.TxID]*txn.Transaction // forgotten ones too

	term     uint64
	opened   uint64    // the last term whose epoch was opened
	leader   *leader   // nil between two
	deposed  []*leader // that have not noticed
	arrivals []*entry  // of the leader that fell: to be committed before the next one's

	resources []*resource
	plans     []*plan

	// What was saved, and what the judge knows of what was lost (rule R15).
	saved    []backup
	restored txn.Time                      // when the last life began
	lost     map[txn.TxID]*txn.Transaction // as they were, of what a restore has lost or left undecided
	heard    map[txn.TxID]txn.Decision     // what somebody was told
	disputed map[txn.TxID]bool             // used with several contents

	// What this world is like, besides.
	forgetful bool // finished transactions are forgotten soon
	meddled   bool // somebody ends prepared branches by hand
	perilous  bool // all nodes are lost now and then, and a backup restored
	// contested: txids are often used twice, with other content for the same
	// participants; branches often only read, messages are often late, and entries not
	// taken.
	contested bool

	armed string // the step at which the leader falls next; empty where time decides
	calm  bool   // nothing fails any more
	stats stats
}

// stats are counted over many worlds.
type stats struct {
	failovers, transactions           int
	committed, aborted                int
	answers, unknown, late, misplaced int
	refused, forgotten, damaged       int
	bounced                           int
	restores, lost, words             int            // decisions lost by restores, and of operators
	left                              int            // prepared branches that an operator has to end: older than the horizon
	falls                             map[string]int // by step
}

func (s *stats) add(o stats) {
	s.failovers += o.failovers
	s.transactions += o.transactions
	s.committed += o.committed
	s.aborted += o.aborted
	s.answers += o.answers
	s.unknown += o.unknown
	s.late += o.late
	s.misplaced += o.misplaced
	s.refused += o.refused
	s.bounced += o.bounced
	s.forgotten += o.forgotten
	s.damaged += o.damaged
	s.left += o.left
	s.restores += o.restores
	s.lost += o.lost
	s.words += o.words
	for k, n := range o.falls {
		s.falls[k] += n
	}
}

// violation is what a world stops with.
type violation struct{ text string }

func newWorld(seed uint64, story io.Writer) *world {
	w := &world{
		rng:    rand.New(rand.NewPCG(seed, 1)),
		now:    beginning,
		story:  story,
		names:  map[txn.TxID]string{},
		states: map[txn.TxID]*txn.Transaction{},
		last:   map[txn.TxID]*txn.Transaction{},
		stats:  stats{falls: map[string]int{}},

		lost: map[txn.TxID]*txn.Transaction{}, heard: map[txn.TxID]txn.Decision{}, disputed: map[txn.TxID]bool{},
	}
	w.forgetful, w.meddled, w.contested = w.rng.IntN(4) == 0, w.rng.IntN(4) == 0, w.rng.IntN(4) == 0
	w.perilous = !w.meddled && w.rng.IntN(4) == 0
	for i := range resources {
		w.resources = append(w.resources, newResource(w, []string{"bank", "shop", "hotel"}[i]))
	}
	return w
}

// violate stops the world.
func (w *world) violate(format string, args ...any) {
	panic(violation{fmt.Sprintf(format, args...)})
}

// run plays a number of failovers, lets everything come to rest, and audits. It
// panics with a violation.
func (w *world) run(failovers int) {
	w.elect()
	for range clients {
		w.after(w.upTo(think), w.nextPlan)
	}
	if w.perilous {
		w.save()
		w.after(w.upTo(lifespan), w.perish)
	}
	if w.perilous || w.meddled {
		w.after(shift, w.operate)
	}
	for w.stats.failovers < failovers {
		w.step()
	}
	w.calmDown()
	for end := w.now.Add(calmTime); w.now < end && len(w.events) > 0; {
		w.step()
	}
	w.audit()
}

func (w *world) calmDown() {
	w.calm, w.armed = true, ""
	w.say("--- nothing fails any more")
	for _, l := range slices.Clone(w.deposed) {
		l.notice()
	}
}

// step plays the next event.
func (w *world) step() {
	e := heap.Pop(&w.events).(event)
	w.now = e.at
	e.do()
}

// after has something happen later.
func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{w.now.Add(d), w.seq, do})
}

// chance is true in so many of a thousand cases, while things fail.
func (w *world) chance(permille int) bool {
	return !w.calm && w.rng.IntN(1000) < permille
}

// often is one chance, and another in a contested world.
func (w *world) often(permille, contested int) bool {
	if w.contested {
		permille = contested
	}
	return w.chance(permille)
}

// upTo is a duration of at most d.
func (w *world) upTo(d time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(d))) + 1
}

// short is the time that a message or an entry takes.
func (w *world) short() time.Duration { return time.Millisecond + w.upTo(3*time.Millisecond) }

// late is the time of one that comes late: by some milliseconds or by seconds, each
// order of magnitude as often as the next.
func (w *world) late() time.Duration { return w.upTo(belatedMost >> w.rng.IntN(9)) }

// say adds a line to the story.
func (w *world) say(format string, args ...any) {
	if w.story != nil {
		fmt.Fprintf(w.story, "%9.3fs  %s\n", w.now.Sub(beginning).Seconds(), fmt.Sprintf(format, args...))
	}
}

// name is what the story calls a transaction.
func (w *world) name(id txn.TxID) string { return w.names[id] }

type event struct {
	at  txn.Time
	seq uint64
	do  func()
}

// events is a queue by time, then by arrival.
type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}
