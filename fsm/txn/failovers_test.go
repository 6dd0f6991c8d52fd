package txn_test

// A million failovers (level 2 of the ladder in the design). What is proven, of the
// very Step, Pending, Drive and Orphan that the server runs, and of the records that
// its participants keep: whatever the moment at which leaders fall, whatever becomes
// of the entries that were on their way, and whatever the network does to messages,
//
//   - a decision is made once and stands (R1); nothing is told to a participant or
//     client that is not applied (R2), and what was told is what stands in the end
//     (R5);
//   - a leader that was deposed and goes on changes nothing (R3);
//   - no prepare leaves before staging to a participant that cannot list (R4);
//   - nothing that nobody tampered with ends in damage (R8, R9), every transaction is
//     delivered to every branch (R10), takes effect once at most (R11), and nothing
//     stays prepared (R6, R13).
//
// Each world plays some failovers from one seed on one goroutine, so that a seed that
// fails plays again exactly:
//
//	go test ./fsm/txn -run TestFailovers -failovers.seed=N -v
//
// tells its story, which reads like the transcripts under testdata. Raft itself is
// assumed here; levels 3 and 4 run the real one.

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	failovers = flag.Int("failovers", defaultFailovers(), "how many failovers TestFailovers plays")
	aSeed     = flag.Uint64("failovers.seed", 0, "play this world alone, and tell its story with -v")
)

// defaultFailovers are fewer under the race detector: a world is one goroutine, and two of
// them share nothing.
func defaultFailovers() int {
	if raceDetector {
		return 1_000
	}
	return 10_000
}

// failoversPerWorld keeps a story short enough to be read, and a world long enough
// for what one failover leaves behind to meet the next ones.
const failoversPerWorld = 50

// play plays one world. What it was stopped by is empty where all is well.
func play(seed uint64, story io.Writer) (s stats, wrong string) {
	w := newWorld(seed, story)
	defer func() {
		if p := recover(); p != nil {
			v, ok := p.(violation)
			if !ok {
				panic(p)
			}
			w.say("!!! %s", v.text)
			wrong = v.text
		}
		s = w.stats
	}()
	w.run(failoversPerWorld)
	return w.stats, ""
}

func TestFailovers(t *testing.T) {
	if *aSeed != 0 {
		var story bytes.Buffer
		_, wrong := play(*aSeed, &story)
		t.Logf("\n%s", &story)
		if wrong != "" {
			t.Error(wrong)
		}
		return
	}
	first := rand.Uint64()
	t.Logf("worlds %d and on", first)
	began := time.Now()
	total := stats{falls: map[string]int{}}
	var (
		mu   sync.Mutex
		next atomic.Uint64
		done sync.WaitGroup
	)
	worlds := uint64((*failovers + failoversPerWorld - 1) / failoversPerWorld)
	for range runtime.GOMAXPROCS(0) {
		done.Go(func() {
			for n := next.Add(1) - 1; n < worlds && !t.Failed(); n = next.Add(1) - 1 {
				s, wrong := play(first+n, nil)
				mu.Lock()
				total.add(s)
				if wrong != "" {
					t.Errorf("world %d: %s\n%s", first+n, wrong, retell(first+n))
				}
				mu.Unlock()
			}
		})
	}
	done.Wait()
	total.report(t, time.Since(began))
}

// retell plays a world that failed again, leaves its story in a file, and returns how
// it ends.
func retell(seed uint64) string {
	var story bytes.Buffer
	play(seed, &story)
	path := filepath.Join(os.TempDir(), fmt.Sprintf("decree-world-%d.txt", seed))
	if err := os.WriteFile(path, story.Bytes(), 0o644); err != nil {
		path = err.Error()
	}
	lines := strings.Split(strings.TrimSpace(story.String()), "\n")
	return fmt.Sprintf("...\n%s\nthe whole story: %s\nagain: go test ./fsm/txn -run TestFailovers -failovers.seed=%d -v",
		strings.Join(lines[max(0, len(lines)-40):], "\n"), path, seed)
}

func (s *stats) report(t *testing.T, took time.Duration) {
	t.Helper()
	t.Logf("%d failovers in %s (%.0f a second); %d transactions begun, %d committed and %d aborted; %d answers checked, %d unknown; "+
		"%d messages came late, %d entries of deposed leaders reached the log, %d of leaders were not taken; %d stagings refused, %d transactions forgotten, "+
		"%d damaged, %d branches left to an operator; %d restores lost %d decisions, operators made %d",
		s.failovers, took.Round(time.Millisecond), float64(s.failovers)/took.Seconds(), s.transactions, s.committed, s.aborted,
		s.answers, s.unknown, s.late, s.misplaced, s.bounced, s.refused, s.forgotten, s.damaged, s.left,
		s.restores, s.lost, s.words)
	for _, step := range append([]string{"any moment"}, steps...) {
		t.Logf("%8d leaders fell when %s", s.falls[step], step)
		if s.failovers >= 1000 && s.falls[step] < s.failovers/200 {
			t.Errorf("only %d of %d leaders fell when %s", s.falls[step], s.failovers, step)
		}
	}
	if s.committed < s.transactions/10 || s.aborted < s.transactions/10 || s.misplaced == 0 || s.late == 0 {
		t.Error("too little of one kind has happened to prove anything")
	}
	if s.failovers >= 10_000 && (s.lost == 0 || s.words == 0) {
		t.Error("no restore has lost anything, or no operator decided what was lost")
	}
}

// The same seed plays the same world, to the letter.
func TestWorldsPlayAgain(t *testing.T) {
	for seed := range uint64(5) {
		var a, b bytes.Buffer
		play(seed+1, &a)
		play(seed+1, &b)
		if a.Len() == 0 || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("world %d tells two stories, of %d and %d bytes", seed+1, a.Len(), b.Len())
		}
	}
}
