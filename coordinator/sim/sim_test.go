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

	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/fsm/txn"
)

var (
	failovers = flag.Int("sim.failovers", 2000, "how many failovers TestFailovers goes through")
	seed      = flag.Uint64("sim.seed", 0, "seed of the first world; 0 draws one")
	perWorld  = flag.Int("sim.world", defaultFailovers, "failovers of one world")
	tell      = flag.Bool("sim.story", false, "print every world's story")
)

func TestFailovers(t *testing.T) {
	first := draw()
	if testing.Short() {
		*failovers = min(*failovers, 500)
	}
	var (
		mu      sync.Mutex
		total   Tally
		virtual time.Duration
		began   = time.Now()
	)
	t.Cleanup(func() {
		report(total, virtual, time.Since(began), first)
		total.check(t)
	})
	worlds := (*failovers + *perWorld - 1) / *perWorld
	fmt.Printf("level 3: %d worlds, seeds from %d\n", worlds, first) // first of all: a panic tells no seed
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

// Without faults there is one term, however many clients come and however badly
// participants behave: so every other term that is counted was a fault's doing.
func TestCalmWorldHasOneTerm(t *testing.T) {
	p := Plan{Seed: draw(), Failovers: 50, Calm: true}
	tally, _ := play(t, p)
	if tally.Failovers+tally.Spontaneous > 0 {
		t.Errorf("seed %d: %d terms began although nothing was done to the cluster", p.Seed, tally.Failovers+tally.Spontaneous)
	}
	if tally.Committed < 50 || tally.Aborted < 10 {
		t.Errorf("seed %d: %d committed, %d aborted", p.Seed, tally.Committed, tally.Aborted)
	}
}

// The audit finds what is wrong at a client, at a node and at a participant, and
// leaves the story, the history and the way to play the world again.
func TestViolationLeavesEvidence(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*World, txn.TxID, *txn.Transaction)
		want  string
	}{
		"a client was told the other thing": {func(w *World, id txn.TxID, _ *txn.Transaction) {
			w.record.Begin(9999, history.Run, id.String())(history.Aborted, "n1", "")
		}, "not all of this can be true"},
		"an effect is missing": {func(w *World, id txn.TxID, tx *txn.Transaction) {
			w.fakes[tx.Branches[0].Participant].Lose(w.branch(id, 1))
		}, "is unknown at"},
		"a branch waits for ever": {func(w *World, id txn.TxID, tx *txn.Transaction) {
			w.fakes[tx.Branches[0].Participant].Stage(w.branch(id, 1))
		}, "still holds 1 branches"},
		"another content ran": {func(w *World, id txn.TxID, _ *txn.Transaction) {
			w.contents[id] = []content{w.newContent("z")}
		}, "a content that nobody submitted"},
		"nobody asked for it": {func(w *World, id txn.TxID, _ *txn.Transaction) { w.unsealed[id] = true }, "nobody asked for that"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Plan{Seed: draw(), Failovers: 3, spoil: func(w *World) {
				if id, tx := w.someCommitted(); tx != nil {
					tt.spoil(w, id, tx)
				}
			}}
			var w *World
			synctest.Test(t, func(t *testing.T) { w = Run(p) })
			if found := strings.Join(w.Violations(), "\n"); !strings.Contains(found, tt.want) {
				t.Fatalf("seed %d: found %q, want %q in it", p.Seed, found, tt.want)
			}
			dir := filepath.Join(t.TempDir(), "found")
			if err := w.Save(dir, "go test -sim.seed=7"); err != nil {
				t.Fatal(err)
			}
			for file, want := range map[string]string{"replay.txt": "-sim.seed=7", "story.txt": "WRONG", "history.jsonl": `"answer":"committed"`} {
				if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !strings.Contains(string(text), want) {
					t.Errorf("%s: %v, and %q is not in it", file, err, want)
				}
			}
		})
	}
}

// someCommitted is a transaction that committed with a branch that had something to
// do.
func (w *World) someCommitted() (txn.TxID, *txn.Transaction) {
	for id := range w.contents {
		tx, ok := w.running()[0].node.Machine.Transaction(id)
		if ok && tx.Decision() == txn.Commit && tx.Branches[0].Vote != txn.VoteReadOnly {
			return id, tx
		}
	}
	return txn.TxID{}, nil
}

// draw is a seed, the flag's if it is given.
func draw() uint64 {
	if *seed != 0 {
		return *seed
	}
	return rand.Uint64N(1 << 40)
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

// check holds the run against what it is for.
func (t Tally) check(test *testing.T) {
	if t.Spontaneous > 1+t.Failovers/1000 { // packets that are lost one after the other
		test.Errorf("%d terms began although nothing was done to the cluster", t.Spontaneous)
	}
	for _, f := range faults {
		if t.Failovers >= 2000 && t.Faults[f.name] == 0 {
			test.Errorf("in %d failovers it never happened that %s", t.Failovers, f.name)
		}
	}
	for s := range steps {
		if t.Failovers >= 500 && t.Struck[s]*20 < t.Failovers {
			test.Errorf("only %d of %d failovers struck a transaction that was %s", t.Struck[s], t.Failovers, s)
		}
	}
}

func report(total Tally, virtual, wall time.Duration, first uint64) {
	var b strings.Builder
	fmt.Fprintf(&b, "level 3: %d failovers in %s of virtual time and %s of wall time, %.0f a second; seeds from %d\n",
		total.Failovers, virtual.Round(time.Second), wall.Round(time.Millisecond), float64(total.Failovers)/wall.Seconds(), first)
	fmt.Fprintf(&b, "%d histories of %d calls judged: %d committed, %d aborted, %d never known; clients were told %v\n",
		total.Histories, total.Calls, total.Committed, total.Aborted, total.Never, total.Told)
	fmt.Fprintf(&b, "%d node starts, %d terms without a fault\n", total.Lives, total.Spontaneous)
	fmt.Fprintf(&b, "failovers that struck transactions at a step (transactions there):")
	for s := range steps {
		fmt.Fprintf(&b, " %s %d (%d)", s, total.Struck[s], total.At[s])
	}
	fmt.Fprintf(&b, "\nfaults (terms that ended with them):")
	for _, f := range faults {
		fmt.Fprintf(&b, " %s %d (%d);", f.name, total.Faults[f.name], total.Ended[f.name])
	}
	fmt.Println(b.String()) // seen without -v too, where go test runs in this directory
}
