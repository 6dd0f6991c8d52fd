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
		thousands(float64(c.done())/span.Seconds()), micros(l.P50), micros(l.P99), micros(l.Max), inFlight)
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

// micros shows a latency to three digits.
func micros(us int64) string {
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

// thousands shows a whole number with separators.
func thousands(n float64) string {
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
	s, m := r.Setting, r.Result
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("machine", "%d x %s, Linux %s, %s, fsync %s, %s", r.Machine.Cores, r.Machine.Processor, r.Machine.Kernel,
		r.Machine.FileSystem, micros(r.Machine.SyncMicros), r.Machine.Go)
	row("load", "%d clients, %d branches of %d bytes at %d %s participants, answered at the %s, %.0fs",
		s.Clients, s.Branches, s.PayloadBytes, s.ParticipantsCount, s.Participants, s.Wait, m.Seconds)
	row("rate", "%s tx/s: %d committed, %d aborted, %d failed", thousands(m.Throughput), m.Committed, m.Aborted, m.Failed)
	if m.Fault != "" {
		row("", "the last to fail: %s", m.Fault)
	}
	row("latency", "p50 %s  p90 %s  p99 %s  p99.9 %s  max %s", micros(m.Latency.P50), micros(m.Latency.P90),
		micros(m.Latency.P99), micros(m.Latency.P999), micros(m.Latency.Max))
	row("cpu", "%.0f us a transaction: leader (%s) %.0f, followers %.0f, participants %.0f, clients %.0f",
		m.CPU.All, m.Leader, m.CPU.Leader, m.CPU.Followers, m.CPU.Participants, m.CPU.Clients)
	row("log", "%.3f entries a transaction; %.0f bytes to the leader's disk", m.Log.Entries, m.Log.DiskBytes)
	if m.Elections > 0 {
		row("", "%d elections: the leader's share is not one node's", m.Elections)
	}
	return table.Flush()
}
