package bench

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// What is proven here: medians are medians, a ratio is of one round, and what people
// read is what was measured.

func TestFigure(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   Figure
	}{
		{nil, Figure{}},
		{[]float64{3}, Figure{3, 3, 3}},
		{[]float64{9, 1, 2}, Figure{2, 1, 9}},
		{[]float64{4, 1, 2, 9}, Figure{3, 1, 9}},
	} {
		if got := figureOf(tt.values); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.values, got, tt.want)
		}
	}
}

// exampleRounds are two rounds on a machine that was half as fast in the second.
func exampleRounds() []Round {
	round := func(slow float64) Round {
		us := func(n float64) int64 { return int64(n * slow) }
		return Round{
			Bare: &Bare{Callers: 64, EntryBytes: 400, Throughput: 9000 / slow, Latency: Latency{P50: us(5000), P99: us(9000)}},
			Decree: Measured{
				Throughput: 4500 / slow, Committed: 9000, Aborted: 10, Failed: 2, Fault: "cut",
				Latency: Latency{P50: us(10_000), P90: us(12_000), P99: us(20_000), P999: us(30_000), Max: us(40_000)},
				CPU:     &CPU{All: 400, Leader: 200, Followers: 80, Participants: 80, Clients: 40},
				Log:     Log{Entries: 0.05, Bytes: 500, DiskBytes: 4000},
			},
		}
	}
	return []Round{round(1), round(2)}
}

func TestSummarize(t *testing.T) {
	s := summarize(exampleRounds())
	if s.Throughput != (Figure{3375, 2250, 4500}) || s.Latency.P50 != (Figure{15_000, 10_000, 20_000}) {
		t.Errorf("rate %+v, p50 %+v", s.Throughput, s.Latency.P50)
	}
	if s.Committed != 18_000 || s.Aborted != 20 || s.Failed != 4 {
		t.Errorf("%d committed, %d aborted, %d failed", s.Committed, s.Aborted, s.Failed)
	}
	// The machine slowed both down: within a round the ratio is the same.
	if s.Bare.P50Ratio != (Figure{2, 2, 2}) || s.Bare.RateRatio != (Figure{0.5, 0.5, 0.5}) {
		t.Errorf("ratios %+v and %+v", s.Bare.P50Ratio, s.Bare.RateRatio)
	}
	if s.CPU == nil || *s.CPU != (CPU{400, 200, 80, 80, 40}) {
		t.Errorf("cpu %+v", s.CPU)
	}
}

// TestAnElectionHidesTheLog holds that a round in which the leader changed says nothing
// about the log: another node counts from its own start.
func TestAnElectionHidesTheLog(t *testing.T) {
	rounds := exampleRounds()
	rounds[0].Decree.Elections, rounds[0].Decree.Log.Entries = 1, 0
	if got := summarize(rounds).Entries; got != (Figure{0.05, 0.05, 0.05}) {
		t.Errorf("entries %+v, want those of the other round", got)
	}
	rounds[1].Decree.Elections = 1
	if got := summarize(rounds).Entries; got != (Figure{}) {
		t.Errorf("entries %+v of no round", got)
	}
}

func exampleReport(steps ...Step) *Report {
	r := &Report{
		Machine: Machine{Cores: 2, Processor: "Fast One", Kernel: "6.1", FileSystem: "ext4", Go: "go1.26", SyncMicros: 200},
		Setting: setting(Defaults()),
	}
	for _, s := range steps {
		r.Steps = append(r.Steps, StepReport{Step: s, Rounds: exampleRounds(), Summary: summarize(exampleRounds())})
	}
	return r
}

func TestWrite(t *testing.T) {
	for _, tt := range []struct {
		name   string
		report *Report
		want   []string
	}{
		{"one step", exampleReport(Step{Clients: 64}), []string{
			"2 x Fast One, Linux 6.1, ext4, fsync 200µs",
			"2 branches of 100 bytes at 2 trivial participants, 3 nodes, answered at the decision",
			"64 clients: 3,375 (2,250 to 4,500) tx/s; 18000 committed, 20 aborted, 4 failed, 0 shed",
			"a failure: cut",
			"p50 15ms (10ms to 20ms)",
			"400 us a transaction: leader 200, followers 80, participants 80, clients 40",
			"0.050 entries and 500 bytes a transaction; 4,000 bytes",
			"p50 2.00 bare p50s, rate 0.50 of the bare rate",
		}},
		{"a ramp", exampleReport(Step{Clients: 1}, Step{Rate: 1500}), []string{"1 client ", "1,500/s ", "P50 RATIO", "2.00"}},
		{"failovers", &Report{Failovers: []Failover{
			{Leader: "n1", NewLeader: "n2", RateBefore: 4000, FirstDecision: 0.9, LongestGap: 0.91, Recovered: 1.2},
			{Leader: "n2", NewLeader: "n3", RateBefore: 4000, FirstDecision: 0.8, LongestGap: 0.8, Recovered: -1},
		}}, []string{"n1 killed at 4,000 tx/s; first decision of n2 after 900ms", "never came back", "first decision 850ms (800ms to 900ms)"}},
		{"a transfer", &Report{Failovers: []Failover{{Graceful: true, Leader: "n1", NewLeader: "n2", LongestGap: 0.02}}},
			[]string{"n1 handed over to n2", "longest time without one 20ms"}},
		{"stuck ones", &Report{Stuck: []Stuck{{Waiting: 10_000, HeapEach: 3000, ResidentEach: 3900}}},
			[]string{"while 10,000 wait", "3,000 bytes of the leader's live heap and 3,900 resident"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := tt.report.Write(&b); err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(b.String(), want) {
					t.Errorf("%q is not in:\n%s", want, b.String())
				}
			}
		})
	}
}

// TestReportIsJSON holds that the whole report goes through JSON: programs read it.
func TestReportIsJSON(t *testing.T) {
	r := exampleReport(Step{Clients: 64})
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&back, r) {
		t.Errorf("read back as %+v", back)
	}
}
