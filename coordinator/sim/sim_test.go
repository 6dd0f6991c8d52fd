package sim

// What is proven: level 3 of the ladder (DESIGN section 7). The real coordinator,
// state machine and Raft go through tens of thousands of failovers, in virtual time,
// and no decision is lost or flipped (R1 to R8, R10, R13): every history is judged,
// every node and participant is audited. And the simulation is worth that much: a
// calm world has one term, leaders fall at every step of the protocol, and a
// violation leaves evidence.

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	failovers = flag.Int("sim.failovers", 5000, "how many failovers TestFailovers goes through")
	seed      = flag.Uint64("sim.seed", 0, "seed of the first world; 0 draws one")
	perWorld  = flag.Int("sim.world", defaultFailovers, "failovers of one world")
	tell      = flag.Bool("sim.story", false, "print every world's story")
)

func TestFailovers(t *testing.T) {
	first := *seed
	if first == 0 {
		first = rand.Uint64N(1 << 40)
	}
	var (
		mu      sync.Mutex
		total   Tally
		virtual time.Duration
		began   = time.Now()
	)
	t.Cleanup(func() {
		report(t, total, virtual, time.Since(began), first)
	})
	worlds := (*failovers + *perWorld - 1) / *perWorld
	for n := range worlds {
		p := Plan{Seed: first + uint64(n), Failovers: min(*perWorld, *failovers-n**perWorld)}
		t.Run(fmt.Sprint(p.Seed), func(t *testing.T) {
			t.Parallel()
			tally, took := play(t, p)
			mu.Lock()
			defer mu.Unlock()
			total.Add(tally)
			virtual += took
		})
	}
}

// play runs a world in a bubble of its own, and fails the test for each violation.
func play(t *testing.T, p Plan) (tally Tally, virtual time.Duration) {
	t.Helper()
	var w *World
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w = Run(p)
		virtual = time.Since(began)
	})
	if *tell {
		t.Log("\n" + w.Story())
	}
	if found := w.Violations(); len(found) > 0 {
		for _, v := range found {
			t.Error(v)
		}
		replay := fmt.Sprintf("go test ./coordinator/sim -run TestFailovers -sim.seed=%d -sim.failovers=%d -sim.world=%d", p.Seed, p.Failovers, p.Failovers)
		dir := evidence(t, p.Seed)
		if err := w.Save(dir, replay); err != nil {
			t.Error(err)
		}
		t.Errorf("the story and the history are in %s; play it again, several times if need be:\n%s", dir, replay)
	}
	return w.Tally, virtual
}

// evidence is where a violation is left: DECREE_SIM_DIR, the test's artifacts, or
// the directory for temporary files.
func evidence(t *testing.T, seed uint64) string {
	dir := os.Getenv("DECREE_SIM_DIR")
	if f := flag.Lookup("test.artifacts"); dir == "" && f != nil && f.Value.String() == "true" {
		return t.ArtifactDir()
	}
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "decree-sim")
	}
	return filepath.Join(dir, fmt.Sprint(seed))
}

func report(t *testing.T, total Tally, virtual, wall time.Duration, first uint64) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d failovers in %s of virtual time and %s of wall time, %.0f a second; seeds from %d\n",
		total.Failovers, virtual.Round(time.Second), wall.Round(time.Millisecond), float64(total.Failovers)/wall.Seconds(), first)
	fmt.Fprintf(&b, "%d histories of %d calls judged: %d committed, %d aborted, %d never known; clients were told %v\n",
		total.Histories, total.Calls, total.Committed, total.Aborted, total.Never, total.Told)
	fmt.Fprintf(&b, "%d node starts, %d terms without a fault\n", total.Lives, total.Spontaneous)
	fmt.Fprintf(&b, "failovers that struck transactions at a step (transactions there):")
	for s := range steps {
		fmt.Fprintf(&b, " %s %d (%d)", s, total.Struck[s], total.At[s])
	}
	t.Log(b.String())
}
