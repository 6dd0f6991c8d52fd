package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// Plan is what a world is made from. The zero value of a field means its default.
type Plan struct {
	Seed      uint64
	Failovers int // after which the world ends: 100
	Nodes     int // at the beginning; 3, or 5 in one world of five
	// Calm has nothing done to the cluster: the world ends after Failovers rounds.
	Calm bool

	spoil func(*World) // what a test does before the audit, to see it found
}

// defaultFailovers keeps a world small: what it has decided is in every snapshot and
// in every restart.
const defaultFailovers = 100

// Bounds of a world. They are virtual: waiting costs nothing.
const (
	// patience bounds the wait for what must happen once everything is repaired.
	patience = 2 * time.Minute
	// unrest is how long a fault may keep the cluster without a leader before the
	// next thing is done to it.
	unrest = 2 * time.Second
	// settling is longer than the latest message of a participant's is on its way.
	settling = 2 * time.Second
	// afterlife is longer than a goroutine of a dead node's Raft lives.
	afterlife = time.Minute
	// maxClients bounds the clients at a time.
	maxClients = 48
)

// The participants. The mute one cannot list what it holds prepared, so that
// prepares wait for their staging wherever it takes part (rule R4).
var (
	participantNames = []string{"accounts", "booking", "cargo", "dispatch"}
	mute             = "cargo"
)

// World is one cluster, its clients and participants, and what becomes of them.
type World struct {
	plan    Plan
	began   time.Time
	rng     *rand.Rand // the story's alone; see round
	network *clustertest.Network
	fakes   participanttest.Fakes
	record  *history.Recorder
	clients sync.WaitGroup
	deaths  sync.WaitGroup // processes: each is waited for to its end
	ways    ways
	cluster string // its id; set once by found

	mu       sync.Mutex
	members  map[string]*member     // guarded by mu
	wrongs   []string               // guarded by mu
	story    []string               // guarded by mu
	contents map[txn.TxID][]content // guarded by mu: of every transaction, all that were submitted
	unsealed map[txn.TxID]bool      // guarded by mu: their clients never asked for a commit
	underway map[txn.TxID]int       // guarded by mu: clients that wait for it
	effects  map[effect]string      // guarded by mu: payloads of commits that took effect
	now      int                    // guarded by mu: clients at present
	Tally                           // guarded by mu

	// The story's alone.
	next    int      // number of the next node
	epoch   uint64   // the newest term that drives
	driver  string   // who drives in it
	touched bool     // something was done since that term began
	open    []repair // what was done and is not undone yet
	number  int      // of the next client
	chapter uint64   // rounds so far
	mourned int      // how many times in a row nobody led after all was repaired
	stuck   bool     // nobody will
}

// effect names a branch at a participant.
type effect struct {
	participant string
	txid        txn.TxID
	number      int
}

// Run plays a world to its end and returns what it came to. Call it inside a
// bubble; when it returns nothing of the world is left running.
func Run(p Plan) *World {
	w := newWorld(p)
	w.found()
	for w.Failovers < w.plan.Failovers && !w.broken() {
		w.round()
		if w.plan.Calm {
			w.plan.Failovers--
		}
	}
	w.finish()
	if p.spoil != nil {
		p.spoil(w)
	}
	w.audit()
	w.end()
	return w
}

func newWorld(p Plan) *World {
	rng := rand.New(rand.NewPCG(p.Seed, 1))
	if p.Failovers == 0 {
		p.Failovers = defaultFailovers
	}
	if p.Nodes == 0 {
		p.Nodes = 3
		if rng.IntN(5) == 0 {
			p.Nodes = 5
		}
	}
	w := &World{
		plan: p, began: time.Now(), rng: rng, next: 1,
		network: clustertest.NewNetwork(), fakes: participanttest.Fakes{}, record: history.NewRecorder(),
		members: map[string]*member{}, contents: map[txn.TxID][]content{}, unsealed: map[txn.TxID]bool{},
		underway: map[txn.TxID]int{}, effects: map[effect]string{},
	}
	w.Tally.init()
	w.network.Delay(delays(p.Seed))
	for _, name := range participantNames {
		f := participanttest.NewFake()
		f.Mute(name == mute)
		f.OnCommit(func(b participants.Branch) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.effects[effect{name, b.TxID, b.Number}] = string(b.Payload)
		})
		w.fakes[name] = f
	}
	return w
}

// delays are those of the links: mostly short, and now and then that of a packet
// which was lost and sent again; together with the pause between two heartbeats still
// less than a leader's lease, or leaders would fall without a fault.
func delays(seed uint64) func(from, to string) time.Duration {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 2))
	return func(string, string) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(200) == 0 {
			return between(rng, 10*time.Millisecond, 25*time.Millisecond)
		}
		return between(rng, 100*time.Microsecond, 1500*time.Microsecond)
	}
}

// between draws a duration.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)+1))
}

// found starts the first members and registers the participants.
func (w *World) found() {
	var starts sync.WaitGroup
	for range w.plan.Nodes {
		m := w.newMember()
		m.founder = true
	}
	for _, m := range w.all() {
		off := w.clockOffset()
		starts.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := w.start(ctx, m, off); err != nil {
				w.wrong("%s does not start: %v", m.id, err)
			}
		})
	}
	starts.Wait()
	for _, name := range participantNames {
		w.register(name)
	}
	w.look()
	for _, l := range w.running() {
		w.cluster = max(w.cluster, l.node.Machine.ClusterID()) // a follower may not know it yet
	}
}

// register repeats until the answer is certain.
func (w *World) register(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ctx.Err() == nil {
		for _, l := range w.running() {
			_, err := l.node.PutParticipant(ctx, fsm.Operator{Who: "sim"}, participants.Registration{Name: name, Driver: driverName, Config: []byte("{}")})
			switch {
			case err == nil:
				return
			case !errors.Is(err, coordinator.ErrNotLeader) && !errors.Is(err, coordinator.ErrOutcomeUnknown):
				w.wrong("register %s: %v", name, err)
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.wrong("%s could not be registered", name)
}

// look observes terms. A new one that drives is a failover if something was done
// to the cluster since the last one.
func (w *World) look() {
	for _, l := range w.running() {
		w.watchLevel(l)
		epoch := l.node.Machine.Cluster().Epoch
		if epoch <= w.epoch || !l.node.Coordinator.Leads() {
			continue
		}
		first := w.epoch == 0
		w.epoch, w.driver = epoch, l.member.id
		w.tell("%s drives in term %d", w.driver, epoch)
		switch {
		case first:
		case w.touched:
			w.Failovers++
		default:
			w.Spontaneous++
		}
		w.touched = len(w.open) > 0 // what is still broken may cost the next term too
	}
}

// pass lets time pass, and watches.
func (w *World) pass(d time.Duration) {
	const glance = 5 * time.Millisecond
	for ; d > 0; d -= glance {
		time.Sleep(min(d, glance))
		w.look()
	}
}

// await lets time pass until something holds, false if it did not within d.
func (w *World) await(d time.Duration, holds func() bool) bool {
	const glance = 5 * time.Millisecond
	for end := time.Now().Add(d); !holds(); {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(glance)
		w.look()
	}
	return true
}

// round is one chapter: clients come, something happens to the cluster in the
// middle of what they want, and another term begins.
func (w *World) round() {
	const window = 40 * time.Millisecond
	// A source of its own: what came out otherwise in one round, because goroutines ran
	// in another order, shifts nothing in the next.
	w.chapter++
	w.rng = rand.New(rand.NewPCG(w.plan.Seed, w.chapter<<16))
	for range 1 + w.rng.IntN(4) {
		w.send(between(w.rng, 0, 2*window)) // some meet what the fault has left
	}
	w.pass(between(w.rng, 0, window))
	if w.rng.IntN(2) == 0 {
		w.aim(Step(w.rng.IntN(int(steps))), window)
	}
	if !w.plan.Calm {
		w.disturb()
	}
	w.pass(between(w.rng, 0, window))
}

// tell adds a line to the story.
func (w *World) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := fmt.Sprintf("%10.3fs  ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	w.story = append(w.story, line)
}

// wrong notes a violation.
func (w *World) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	w.wrongs = append(w.wrongs, line)
	w.story = append(w.story, fmt.Sprintf("%10.3fs  WRONG: ", time.Since(w.began).Seconds())+line)
}

// Violations are what was found wrong, in order.
func (w *World) Violations() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.wrongs)
}

// Story tells what was done to the cluster, and who led, in virtual time.
func (w *World) Story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.story, "\n") + "\n"
}

// broken ends a world early that has shown enough.
func (w *World) broken() bool { return w.stuck || len(w.Violations()) > 20 }
