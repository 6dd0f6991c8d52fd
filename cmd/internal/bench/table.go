package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// liveLine tells what happened in the last second or so.
func liveLine(at, span time.Duration, c *counted, inFlight int64, note string) string {
	l := latencyOf(c.latency)
	line := fmt.Sprintf("%6s  %9s tx/s  p50 %s  p99 %s  max %s  in flight %d", at.Round(100*time.Millisecond),
		Thousands(float64(c.done())/span.Seconds()), Micros(l.P50), Micros(l.P99), Micros(l.Max), inFlight)
	for _, n := range []struct {
		count uint64
		what  string
	}{{c.answers[aborted], "aborted"}, {c.answers[failed], "failed"}, {c.shed, "shed"}} {
		if n.count > 0 {
			line += fmt.Sprintf("  %s %d", n.what, n.count)
		}
	}
	if note != "" {
		line += "  (" + note + ")"
	}
	return line
}

// Micros shows a latency to three digits.
func Micros(us int64) string {
	d := time.Duration(us) * time.Microsecond
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 100*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.String()
	}
}

// Thousands shows a whole number with separators.
func Thousands(n float64) string {
	digits := fmt.Sprintf("%.0f", n)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 && digits[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// Write shows a report to people.
func (r *Report) Write(w io.Writer) error {
	t := &sheet{table: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row("machine", "%s", r.Machine)
	t.row("load", "%s", r.Setting.describe())
	switch {
	case len(r.Failovers) > 0:
		t.failovers(r.Failovers)
	case len(r.Stuck) > 0:
		t.stuck(r.Stuck)
	case len(r.Steps) == 1:
		t.step(r.Steps[0])
	default:
		t.ramp(r.Steps)
	}
	return t.table.Flush()
}

// String is the machine on one line.
func (m Machine) String() string {
	s := fmt.Sprintf("%d x %s, Linux %s, %s, fsync %s", m.Cores, m.Processor, m.Kernel, m.FileSystem, Micros(m.SyncMicros))
	if m.RoundTripMicros > 0 {
		s += ", unary call " + Micros(m.RoundTripMicros)
	}
	return s + ", " + m.Go
}

func (s Setting) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d branches", s.Branches)
	if s.PayloadBytes > 0 {
		fmt.Fprintf(&b, " of %d bytes", s.PayloadBytes)
	}
	if s.Own {
		fmt.Fprintf(&b, " at %d %s participants, ", s.ParticipantsCount, s.Participants)
		if s.Groups > 1 {
			fmt.Fprintf(&b, "%d groups of ", s.Groups)
		}
		fmt.Fprintf(&b, "%d nodes", s.Nodes)
	} else {
		fmt.Fprintf(&b, " at %s", s.Participants)
	}
	if s.ServerArgs != "" {
		fmt.Fprintf(&b, " with %s", s.ServerArgs)
	}
	fmt.Fprintf(&b, ", answered at the %s", s.Wait)
	if s.Abort > 0 || s.ReadOnly > 0 {
		fmt.Fprintf(&b, ", %.3g%% to abort, %.3g%% read-only", 100*s.Abort, 100*s.ReadOnly)
	}
	fmt.Fprintf(&b, "; %.3gs after %.3gs", s.DurationSeconds, s.WarmupSeconds)
	if s.Rounds > 1 {
		fmt.Fprintf(&b, ", medians of %d rounds (least to most)", s.Rounds)
	}
	return b.String()
}

// sheet is a table of names and what there is to say under them.
type sheet struct{ table *tabwriter.Writer }

func (t *sheet) row(name, format string, args ...any) {
	fmt.Fprintf(t.table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
}

// step shows one load in full.
func (t *sheet) step(s StepReport) {
	m := s.Summary
	t.row("rate", "%s: %s tx/s; %d committed, %d aborted, %d failed, %d shed", s.Step, m.Throughput.show(Thousands),
		m.Committed, m.Aborted, m.Failed, m.Shed)
	for _, r := range s.Rounds {
		if r.Decree.Fault != "" {
			t.row("", "a failure: %s", r.Decree.Fault)
		}
		if r.Decree.Elections > 0 {
			t.row("", "%d elections meanwhile: the log's cost is not known", r.Decree.Elections)
		}
	}
	t.row("latency", "%s", m.Latency.describe())
	if m.CPU != nil {
		t.row("cpu", "%.0f us a transaction: leader %.0f, followers %.0f, participants %.0f, clients %.0f",
			m.CPU.All, m.CPU.Leader, m.CPU.Followers, m.CPU.Participants, m.CPU.Clients)
	}
	digits := func(n float64) string { return fmt.Sprintf("%.3f", n) }
	if m.Entries.Median > 0 {
		t.row("log", "%s entries and %s bytes a transaction; %s bytes to the leader's disk", m.Entries.show(digits), m.Bytes.show(Thousands), m.DiskBytes.show(Thousands))
	}
	if b := m.Bare; b != nil {
		t.row("bare raft", "%s entries/s of %d bytes from as many callers", b.Throughput.show(Thousands), b.EntryBytes)
		t.row("", "%s", b.Latency.describe())
		t.row("ratio", "p50 %s bare p50s, rate %s of the bare rate", b.P50Ratio.show(twoDigits), b.RateRatio.show(twoDigits))
	}
}

func (l LatencyFigure) describe() string {
	return fmt.Sprintf("p50 %s  p90 %s  p99 %s  p99.9 %s  max %s", l.P50.show(microsOf), l.P90.show(microsOf),
		l.P99.show(microsOf), l.P999.show(microsOf), l.Max.show(microsOf))
}

// show is the median, and the range where the rounds differ.
func (f Figure) show(one func(float64) string) string {
	if f.Least == f.Most {
		return one(f.Median)
	}
	return fmt.Sprintf("%s (%s to %s)", one(f.Median), one(f.Least), one(f.Most))
}

// known is the median, or a dash where nothing could be counted.
func (f Figure) known(format string) string {
	if f.Median == 0 {
		return "-"
	}
	return fmt.Sprintf(format, f.Median)
}

func microsOf(us float64) string { return Micros(int64(us)) }
func twoDigits(n float64) string { return fmt.Sprintf("%.2f", n) }

// ramp shows a line for each load.
func (t *sheet) ramp(steps []StepReport) {
	header := []string{"\nSTEP", "TX/S", "P50", "P90", "P99", "P99.9", "MAX", "CPU US", "ENTRIES", "ABORTED", "FAILED", "SHED"}
	against := len(steps) > 0 && steps[0].Summary.Bare != nil
	if against {
		header = append(header, "BARE/S", "BARE P50", "P50 RATIO")
	}
	fmt.Fprintln(t.table, strings.Join(header, "\t"))
	for _, s := range steps {
		m := s.Summary
		cpu := "-"
		if m.CPU != nil {
			cpu = fmt.Sprintf("%.0f", m.CPU.All)
		}
		cells := []string{
			s.Step.String(), Thousands(m.Throughput.Median), microsOf(m.Latency.P50.Median), microsOf(m.Latency.P90.Median),
			microsOf(m.Latency.P99.Median), microsOf(m.Latency.P999.Median), microsOf(m.Latency.Max.Median),
			cpu, m.Entries.known("%.3f"), fmt.Sprint(m.Aborted), fmt.Sprint(m.Failed), fmt.Sprint(m.Shed),
		}
		if against {
			cells = append(cells, Thousands(m.Bare.Throughput.Median), microsOf(m.Bare.Latency.P50.Median), twoDigits(m.Bare.P50Ratio.Median))
		}
		fmt.Fprintln(t.table, strings.Join(cells, "\t"))
	}
}

func (t *sheet) failovers(rounds []Failover) {
	for _, f := range rounds {
		t.row("failover", "%s", f.describe())
	}
	if len(rounds) > 1 {
		first := FigureOver(rounds, func(f Failover) float64 { return f.FirstDecision })
		gap := FigureOver(rounds, func(f Failover) float64 { return f.LongestGap })
		back := FigureOver(rounds, func(f Failover) float64 { return f.Recovered })
		t.row("medians", "first decision %s, longest time without one %s, 90 %% of the rate %s",
			first.show(seconds), gap.show(seconds), back.show(seconds))
	}
}

func seconds(s float64) string { return Micros(int64(s * 1e6)) }

func (f Failover) describe() string {
	back := "90 % of the rate never came back"
	if f.Recovered >= 0 {
		back = "90 % of the rate after " + seconds(f.Recovered)
	}
	how := fmt.Sprintf("killed at %s tx/s; first decision of %s after %s", Thousands(f.RateBefore), f.NewLeader, seconds(f.FirstDecision))
	if f.Graceful {
		how = fmt.Sprintf("handed over to %s at %s tx/s", f.NewLeader, Thousands(f.RateBefore))
	}
	return fmt.Sprintf("%s %s, longest time without one %s, %s; %d failed", f.Leader, how, seconds(f.LongestGap), back, f.Failed)
}

func (t *sheet) stuck(rounds []Stuck) {
	for _, s := range rounds {
		t.row("without", "%s tx/s  p50 %s  p99 %s", Thousands(s.Without.Throughput), Micros(s.Without.Latency.P50), Micros(s.Without.Latency.P99))
		t.row("with", "%s tx/s  p50 %s  p99 %s  while %s wait", Thousands(s.With.Throughput), Micros(s.With.Latency.P50),
			Micros(s.With.Latency.P99), Thousands(float64(s.Waiting)))
		t.row("memory", "%s bytes of the leader's live heap and %s resident for each that waits", Thousands(s.HeapEach), Thousands(s.ResidentEach))
	}
	if len(rounds) > 1 {
		t.row("medians", "p99 with over without %s", FigureOver(rounds, func(s Stuck) float64 { return s.P99Ratio }).show(twoDigits))
	}
}
