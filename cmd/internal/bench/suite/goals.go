package suite

import (
	"fmt"
	"strings"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bench"
)

// goal is a line of the table: what is wanted, and what was measured.
type goal struct {
	number string
	what   string
	wanted string
	needs  string // runs, separated by commas; without them it cannot be judged
	judge  func(r *Results) verdict
}

// verdict is what a goal came to.
type verdict struct {
	measured string
	met      bool
}

// Goals are those of the issue that asked for speed. The absolute ones are for a quiet
// machine of two cores.
func goals() []goal {
	return []goal{
		{"1", "p50 at one client, answered at the decision", "at most 2.2 bare `raft.Apply`", "decision", func(r *Results) verdict {
			ratio := r.step("decision", 0).Bare.P50Ratio
			return verdict{spread(ratio, "%.2f"), ratio.Median <= 2.2}
		}},
		{"1", "the same, answered at delivery", "at most two unary round trips more", "decision,delivery", func(r *Results) verdict {
			more := r.step("delivery", 0).Latency.P50.Median - r.step("decision", 0).Latency.P50.Median
			trip := float64(r.report("delivery").Machine.RoundTripMicros)
			return verdict{fmt.Sprintf("%s more: %.1f round trips of %s", micros(more), more/trip, micros(trip)), more <= 2*trip}
		}},
		{"2", "throughput at 256 clients, trivial participants", "at least 10,000 tx/s", "trivial", rateOf("trivial", 1, 10_000)},
		{"2", "throughput at 1,024 clients", "at least 20,000 tx/s", "trivial", rateOf("trivial", 2, 20_000)},
		{"2", "p99 at 256 clients", "under 5 times p50", "trivial", tailOf("trivial", 1)},
		{"2", "p99 at 1,024 clients", "under 5 times p50", "trivial", tailOf("trivial", 2)},
		{"3", "log entries a transaction at 64 clients", "below 0.2", "trivial", func(r *Results) verdict {
			s := r.step("trivial", 0)
			return verdict{fmt.Sprintf("%s, %.0f bytes", spread(s.Entries, "%.3f"), s.Bytes.Median), s.Entries.Median > 0 && s.Entries.Most < 0.2}
		}},
		{"4", "CPU a transaction over all processes, 1,024 clients", "under 100 µs", "trivial", func(r *Results) verdict {
			us := r.step("trivial", 2).CPU.All
			return verdict{fmt.Sprintf("%.0f µs", us), us < 100}
		}},
		{"5", "p99 of others while 10,000 transactions wait", "moves less than 10 %", "stuck", func(r *Results) verdict {
			f := bench.FigureOver(r.report("stuck").Stuck, func(s bench.Stuck) float64 { return s.P99Ratio })
			return verdict{spread(f, "%.2f") + " times", f.Median < 1.10}
		}},
		{"5", "leader's memory for a waiting transaction", "under 4 KiB", "stuck", func(r *Results) verdict {
			heap := bench.FigureOver(r.report("stuck").Stuck, func(s bench.Stuck) float64 { return s.HeapEach })
			resident := bench.FigureOver(r.report("stuck").Stuck, func(s bench.Stuck) float64 { return s.ResidentEach })
			return verdict{fmt.Sprintf("%.0f bytes of live heap, %.0f resident", heap.Median, resident.Median), resident.Median < 4096}
		}},
		{"7", "first decision after kill -9 of the leader", "within 1 s", "kill", func(r *Results) verdict {
			return within(r, "kill", func(f bench.Failover) float64 { return f.FirstDecision }, time.Second)
		}},
		{"7", "90 % of the throughput after it", "within 2 s", "kill", func(r *Results) verdict {
			return within(r, "kill", func(f bench.Failover) float64 { return f.Recovered }, 2*time.Second)
		}},
		{"7", "longest time without a decision in a graceful transfer", "under 50 ms", "transfer", func(r *Results) verdict {
			return within(r, "transfer", func(f bench.Failover) float64 { return f.LongestGap }, 50*time.Millisecond)
		}},
		{"8", "branches a second at 64 branches, over those at 2", "stays flat", "64 branches,2 branches", func(r *Results) verdict {
			return flat(64*r.step("64 branches", 0).Throughput.Median, 2*r.step("2 branches", 0).Throughput.Median)
		}},
		{"8", "tx/s of 5 nodes over those of 1, 64 clients", "stays flat", "5 nodes,1 node", flatNodes(0)},
		{"8", "the same, 1,024 clients", "stays flat", "5 nodes,1 node", flatNodes(1)},
		{"8", "payload bytes a second at 64 KiB, over those at 8 KiB", "stays flat", "64 KiB,8 KiB", func(r *Results) verdict {
			return flat(8*r.step("64 KiB", 0).Throughput.Median, r.step("8 KiB", 0).Throughput.Median)
		}},
	}
}

// flatEnough is the share of a rate that is still called flat.
const flatEnough = 0.5

func flat(rate, of float64) verdict {
	return verdict{fmt.Sprintf("%.2f", rate/of), rate >= flatEnough*of}
}

func flatNodes(step int) func(*Results) verdict {
	return func(r *Results) verdict {
		return flat(r.step("5 nodes", step).Throughput.Median, r.step("1 node", step).Throughput.Median)
	}
}

func rateOf(run string, step int, least float64) func(*Results) verdict {
	return func(r *Results) verdict {
		f := r.step(run, step).Throughput
		return verdict{spread(f, "%.0f") + " tx/s", f.Median >= least}
	}
}

func tailOf(run string, step int) func(*Results) verdict {
	return func(r *Results) verdict {
		l := r.step(run, step).Latency
		times := l.P99.Median / l.P50.Median
		return verdict{fmt.Sprintf("%.1f times (%s, %s)", times, micros(l.P50.Median), micros(l.P99.Median)), times < 5}
	}
}

func within(r *Results, run string, of func(bench.Failover) float64, most time.Duration) verdict {
	f := bench.FigureOver(r.report(run).Failovers, of)
	text := fmt.Sprintf("%s (%s to %s)", micros(f.Median*1e6), micros(f.Least*1e6), micros(f.Most*1e6))
	if f.Least < 0 {
		return verdict{text + "; less than zero is never", false}
	}
	return verdict{text, f.Median < most.Seconds()}
}

// report is a run's, which must be there.
func (r *Results) report(run string) *bench.Report { return r.reports[run] }

// step is what a run's n-th load came to. The run must be there.
func (r *Results) step(run string, n int) bench.Summary { return r.reports[run].Steps[n].Summary }

// ruling judges a goal; false where a run that it needs failed.
func (r *Results) ruling(g goal) (verdict, bool) {
	for run := range strings.SplitSeq(g.needs, ",") {
		if r.reports[run] == nil {
			return verdict{}, false
		}
	}
	return g.judge(r), true
}

// spread shows a figure: the median, and the range where there is one.
func spread(f bench.Figure, format string) string {
	text := fmt.Sprintf(format, f.Median)
	if f.Least < f.Most {
		text += fmt.Sprintf(" ("+format+" to "+format+")", f.Least, f.Most)
	}
	return text
}

func micros(us float64) string { return bench.Micros(int64(us)) }
