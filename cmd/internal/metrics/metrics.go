// Package metrics counts what a node does, in a Prometheus registry of its own.
//
// It owns the names and labels of the series, and the figures of the last seconds that
// a page shows, which it reads from the same histograms. A label never takes a txid or
// a client's name: participants are registered by operators, and all else is one of a
// few words. It refuses to know the wire: who serves it decides who may read.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/decree-tx/decree/coordinator"
)

// namespace begins the names of all that is decree's own.
const namespace = "decree"

// Build is what is told of the binary.
type Build struct{ Version, Revision, Go string }

// Metrics are one node's. Its methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	meter    *meter
	writes   prometheus.Histogram
	damage   *prometheus.CounterVec
	pulse    *pulse
}

// New makes the metrics of a node that has not opened yet.
func New(b Build) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		writes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "log_write_seconds",
			Help:    "How long one append to this node's log took, the fsync included.",
			Buckets: coarse,
		}),
		damage: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "heuristics_total",
			Help: "Branches that this leader learnt had ended against their transaction's decision, or whose end cannot be proven.",
		}, []string{"participant", "receipt"}),
	}
	m.meter = newMeter(m.registry)
	m.pulse = newPulse(m.meter)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "What this node runs; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go},
	})
	build.Set(1)
	m.registry.MustRegister(m.writes, m.damage, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Meter counts what the node's coordinator does.
func (m *Metrics) Meter() coordinator.Meter { return m.meter }

// Damaged counts one branch that ended against the decision: a
// coordinator.Config.OnDamage.
func (m *Metrics) Damaged(d coordinator.Damage) {
	m.damage.WithLabelValues(d.Participant, d.Receipt.String()).Inc()
}

// LogWritten counts one append to the node's log: a cluster.Config.OnLogWrite.
func (m *Metrics) LogWritten(took time.Duration) { m.writes.Observe(took.Seconds()) }

// Handler serves the metrics in Prometheus' text format, or as OpenMetrics, with
// exemplars, to whoever asks for that.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// The buckets' bounds in seconds. The fine ones are what a page's percentiles come
// from; the coarse ones, which each participant has, cover the same range.
var (
	fine = []float64{
		.00025, .0005, .00075, .001, .0015, .002, .003, .004, .006, .008, .012, .016, .024, .032, .048, .064,
		.1, .15, .25, .4, .6, 1, 1.5, 2.5, 5, 10, 30, 60,
	}
	coarse = []float64{.00025, .0005, .001, .002, .004, .008, .016, .032, .064, .125, .25, .5, 1, 2.5, 5, 10}
)
