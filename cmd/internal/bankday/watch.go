package bankday

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/transport/client"
)

// speaker writes lines for people, one at a time.
type speaker struct {
	start time.Time
	mu    sync.Mutex
	w     io.Writer // guarded by mu
}

func newSpeaker(w io.Writer) *speaker { return &speaker{start: time.Now(), w: w} }

// say writes a line with the time since the start.
func (s *speaker) say(format string, args ...any) {
	s.line("[%6.1fs] %s", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// line writes a line.
func (s *speaker) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, format+"\n", args...) //nolint:errcheck // it is for a person who watches
}

// watch counts answers as they come. The zero watch is ready; it is safe for
// concurrent use.
type watch struct {
	mu     sync.Mutex
	counts counts          // of all; guarded by mu
	recent []time.Duration // since the last line; guarded by mu
	bad    int             // answers that should not be; guarded by mu
}

// counts are answers by what they said.
type counts struct{ committed, aborted, unknown int }

func (c *counts) add(e bank.Entry) {
	switch {
	case e.Err != nil || e.Late:
		c.unknown++
	case e.Result.Outcome == client.Committed:
		c.committed++
	default:
		c.aborted++
	}
}

func (w *watch) add(e bank.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.add(e)
	w.recent = append(w.recent, e.Answered.Sub(e.Submitted))
}

// wrong counts one more wrong answer and tells how many there are.
func (w *watch) wrong() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad++
	return w.bad
}

// take gives what came since the last call.
func (w *watch) take() (counts, []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	recent := w.recent
	w.recent = nil
	return w.counts, recent
}

// progress writes a line a second until ctx ends.
func (d *day) progress(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	d.out.line("%9s  %6s  %9s  %7s  %7s  %8s  %8s  %10s  %9s", "elapsed", "tx/s", "committed", "aborted", "unknown", "p50", "p99", "unfinished", "failovers")
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		unfinished := d.unfinished(ctx)
		total, recent := d.watch.take()
		now := time.Now()
		rate := float64(len(recent)) / now.Sub(last).Seconds()
		last = now
		p := quantiles(recent)
		d.out.line("%8.1fs  %6.0f  %9d  %7d  %7d  %8s  %8s  %10s  %9d", time.Since(d.out.start).Seconds(), rate,
			total.committed, total.aborted, total.unknown, milliseconds(p.p50), milliseconds(p.p99), unfinished, d.reigns.failovers())
	}
}

// unfinished is how many transactions the leader has under way, as text.
func (d *day) unfinished(ctx context.Context) string {
	bounded, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	status, err := d.client.Status(bounded)
	if err != nil || status.GetLeader() == "" {
		return "no leader"
	}
	return fmt.Sprint(status.GetUnfinished())
}

// latencies are quantiles of answers.
type latencies struct{ p50, p99, worst time.Duration }

// quantiles sorts what it is given.
func quantiles(took []time.Duration) latencies {
	if len(took) == 0 {
		return latencies{}
	}
	slices.Sort(took)
	return latencies{took[len(took)/2], took[len(took)*99/100], took[len(took)-1]}
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
}
