package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/decree-tx/decree/transport"
)

const (
	// beat is how often the histograms are looked at.
	beat = time.Second
	// beats is how many looks a pulse spans.
	beats = 10
)

// pulse is the last seconds of the histograms that Prometheus scrapes, so that a page
// and a dashboard cannot disagree.
type pulse struct {
	meter *meter // set once

	mu    sync.Mutex
	looks []look // guarded by mu: the last ones, oldest first, beats+1 at most
}

// look is what the histograms held at a moment.
type look struct {
	at                 time.Time
	committed, aborted counts
}

// counts are a histogram's: how many were at most each of its bounds, and all.
type counts struct {
	upTo []uint64
	all  uint64
}

func newPulse(m *meter) *pulse {
	p := &pulse{meter: m}
	p.take(time.Now())
	return p
}

// Run keeps the figures of the last seconds, and has the histograms look for new
// examples, until ctx ends.
func (m *Metrics) Run(ctx context.Context) {
	every := time.NewTicker(beat)
	defer every.Stop()
	for {
		for _, t := range m.meter.timings() {
			t.wanting.Store(true)
		}
		select {
		case now := <-every.C:
			m.pulse.take(now)
		case <-ctx.Done():
			return
		}
	}
}

// Pulse tells the rate and latency of what this node decided as leader in the last ten
// seconds, or since it started where that is less. It does not block.
func (m *Metrics) Pulse() transport.Pulse { return m.pulse.read() }

func (p *pulse) take(now time.Time) {
	l := look{at: now, committed: read(p.meter.committed), aborted: read(p.meter.aborted)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.looks) > beats {
		p.looks = append(p.looks[:0], p.looks[1:]...)
	}
	p.looks = append(p.looks, l)
}

func read(h prometheus.Histogram) counts {
	var m dto.Metric
	if h.Write(&m) != nil {
		return counts{upTo: make([]uint64, len(fine))}
	}
	c := counts{all: m.GetHistogram().GetSampleCount()}
	for _, b := range m.GetHistogram().GetBucket() {
		c.upTo = append(c.upTo, b.GetCumulativeCount())
	}
	return c
}

func (p *pulse) read() transport.Pulse {
	p.mu.Lock()
	first, last := p.looks[0], p.looks[len(p.looks)-1]
	p.mu.Unlock()
	window := last.at.Sub(first.at)
	if window <= 0 {
		return transport.Pulse{}
	}
	aborted := last.aborted.minus(first.aborted)
	all := last.committed.minus(first.committed).plus(aborted)
	out := transport.Pulse{
		Window: window, Transactions: all.all,
		PerSecond: float64(all.all) / window.Seconds(),
		P50:       all.quantile(.5), P99: all.quantile(.99),
	}
	if all.all > 0 {
		out.AbortShare = float64(aborted.all) / float64(all.all)
	}
	return out
}

func (c counts) minus(d counts) counts {
	out := counts{upTo: make([]uint64, len(c.upTo)), all: c.all - d.all}
	for i := range c.upTo {
		out.upTo[i] = c.upTo[i] - d.upTo[i]
	}
	return out
}

func (c counts) plus(d counts) counts {
	out := counts{upTo: make([]uint64, len(c.upTo)), all: c.all + d.all}
	for i := range c.upTo {
		out.upTo[i] = c.upTo[i] + d.upTo[i]
	}
	return out
}

// quantile estimates as Prometheus' histogram_quantile does: what is in a bucket lies
// evenly between its bounds, and what is past the last one counts as that.
func (c counts) quantile(q float64) time.Duration {
	rank := q * float64(c.all)
	var below uint64
	lower := 0.0
	for i, n := range c.upTo {
		if n > 0 && float64(n) >= rank {
			share := (rank - float64(below)) / float64(n-below)
			return seconds(lower + (fine[i]-lower)*share)
		}
		below, lower = n, fine[i]
	}
	if c.all == 0 {
		return 0
	}
	return seconds(lower)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
