package suite

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/decree-tx/decree/cmd/internal/bench"
)

// What is proven here: the page tells what was measured, a goal that is missed is told
// as that, and a run that failed costs its own lines and no others.

// fake stands for the command: it measures what it is told to, and remembers the flags.
type fake struct {
	flags []string
	run   func(flags string) (*bench.Report, error)
}

func (f *fake) config() Config {
	return Config{
		Parse: func(args []string) (bench.Config, error) {
			f.flags = append(f.flags, strings.Join(args, " "))
			return bench.Defaults(), nil
		},
		Run: func(context.Context, bench.Config) (*bench.Report, error) { return f.run(f.flags[len(f.flags)-1]) },
		Out: io.Discard, Version: "v1.2.3",
	}
}

func exactly(n float64) bench.Figure { return bench.Figure{Median: n, Least: n, Most: n} }

// goodReport meets every goal.
func goodReport(flags string) (*bench.Report, error) {
	r := &bench.Report{Machine: bench.Machine{Cores: 2, Processor: "Fast One", RoundTripMicros: 100}, Setting: bench.Setting{Branches: 2}}
	switch {
	case strings.Contains(flags, "--kill-leader-at"):
		r.Failovers = []bench.Failover{{FirstDecision: 0.9, Recovered: 1.5, LongestGap: 0.9}}
	case strings.Contains(flags, "--transfer-leader-at"):
		r.Failovers = []bench.Failover{{Graceful: true, LongestGap: 0.02}}
	case strings.Contains(flags, "--stuck"):
		r.Stuck = []bench.Stuck{{P99Ratio: 1.04, HeapEach: 3000, ResidentEach: 4000}}
	default:
		p50 := 2000.0
		if strings.Contains(flags, "--wait delivery") {
			p50 = 2150
		}
		for range 3 {
			r.Steps = append(r.Steps, bench.StepReport{Step: bench.Step{Clients: 64}, Summary: bench.Summary{
				Throughput: exactly(21_000), Entries: exactly(0.03), Bytes: exactly(300), CPU: &bench.CPU{All: 90},
				Latency: bench.LatencyFigure{P50: exactly(p50), P99: exactly(3 * p50)},
				Bare:    &bench.BareSummary{P50Ratio: bench.Figure{Median: 2, Least: 1.9, Most: 2.1}},
			}})
		}
	}
	if strings.Contains(flags, "--branches 64") {
		r.Steps[0].Summary.Throughput = exactly(1000)
	}
	return r, nil
}

func TestPageOfAGoodRun(t *testing.T) {
	f := &fake{run: goodReport}
	results, err := Run(t.Context(), f.config())
	if err != nil || results.Err() != nil {
		t.Fatal(err, results.Err())
	}
	page := string(results.Page())
	if strings.Contains(page, "**no**") || strings.Count(page, "| yes |") != len(goals()) {
		t.Errorf("not every goal is met:\n%s", page)
	}
	for _, want := range []string{
		"- version: v1.2.3\n- machine: 2 x Fast One",
		"| 1 | p50 at one client, answered at the decision | at most 2.2 bare `raft.Apply` | 2.00 (1.90 to 2.10) | yes |",
		"150µs more: 1.5 round trips of 100µs",
		"decree bench --clients 1 --against-raft --rounds 5",
		"![latency and rate by load](ramp.svg)",
		"| 64 branches | 64 clients | 1,000 |",
		"handed over",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in:\n%s", want, page)
		}
	}
	if results.Ramp() == nil {
		t.Error("nothing to draw")
	}
}

func TestPageOfAFailure(t *testing.T) {
	f := &fake{run: func(flags string) (*bench.Report, error) {
		if strings.Contains(flags, "--stuck") {
			return nil, errors.New("waited in vain\nn1.log: a long story")
		}
		r, err := goodReport(flags)
		if strings.Contains(flags, "--transfer-leader-at") {
			r.Failovers[0].LongestGap = 0.08
		}
		return r, err
	}}
	results, err := Run(t.Context(), f.config())
	if err != nil || results.Err() == nil {
		t.Fatalf("%v, and of the results %v", err, results.Err())
	}
	page := string(results.Page())
	if n := strings.Count(page, "its run failed | - |"); n != 2 {
		t.Errorf("%d goals could not be judged, want the two of the run that failed", n)
	}
	if strings.Count(page, "**no**") != 1 || !strings.Contains(page, "| 80ms (80ms to 80ms) | **no** |") {
		t.Errorf("the missed goal is not told:\n%s", page)
	}
	if !strings.Contains(page, "stuck failed: waited in vain\n") || strings.Contains(page, "a long story") {
		t.Errorf("the failure is not told in one line:\n%s", page)
	}
}

func TestSuiteEndsWithItsContext(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	f := &fake{run: func(string) (*bench.Report, error) {
		stop()
		return nil, errors.New("stopped")
	}}
	if _, err := Run(ctx, f.config()); !errors.Is(err, context.Canceled) || len(f.flags) != 1 {
		t.Errorf("%v after %d runs", err, len(f.flags))
	}
}

// TestNames holds that every run has a name of its own, and that goals and picture are
// of runs that there are.
func TestNames(t *testing.T) {
	names := map[string]bool{}
	for _, s := range sections() {
		for _, one := range s.runs {
			if names[one.name] {
				t.Errorf("%s is there twice", one.name)
			}
			names[one.name] = true
		}
	}
	for _, g := range goals() {
		for run := range strings.SplitSeq(g.needs, ",") {
			if !names[run] {
				t.Errorf("goal %q needs %q", g.what, run)
			}
		}
	}
	if !names[pictured] {
		t.Errorf("the picture is of %q", pictured)
	}
}

// TestQuick holds that nothing of a quick suite takes long.
func TestQuick(t *testing.T) {
	f := &fake{run: goodReport}
	cfg := f.config()
	cfg.Quick = true
	results, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(results.Page()), "Its figures mean nothing") {
		t.Error("the page looks like a real one")
	}
	for _, flags := range f.flags {
		for _, long := range []string{"--duration 8s", "--warmup 1s", "--rounds 5", "10000"} {
			if strings.Contains(flags, long) {
				t.Errorf("%s is not quick", flags)
			}
		}
	}
}
