package metrics

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	gometrics "github.com/hashicorp/go-metrics/compat"
	"github.com/prometheus/client_golang/prometheus"
)

// ObserveRaft takes in what Raft and its log stores count, under the names that they
// give it: raft_commitTime, in milliseconds, for one. Those libraries count in one place
// of the process, whichever node they work for, so that it is called once, in a process
// that runs one node.
func (m *Metrics) ObserveRaft() error {
	s := &sink{series: make(map[string]*series)}
	conf := gometrics.DefaultConfig("")
	conf.EnableHostname = false
	conf.EnableRuntimeMetrics = false // the Go collector tells more
	if _, err := gometrics.NewGlobal(conf, s); err != nil {
		return err
	}
	return m.registry.Register(s)
}

// maxSeries bounds what the libraries may count: they have some eighty names, a few of
// them for each peer.
const maxSeries = 2048

// sink implements go-metrics' MetricSink, and prometheus.Collector.
type sink struct {
	mu     sync.RWMutex
	series map[string]*series // guarded by mu: by name and labels
}

// series is one thing that is counted.
type series struct {
	kind   prometheus.ValueType // Untyped for a sample
	name   string
	labels []gometrics.Label

	sum   atomicFloat // of a gauge, its value
	count atomic.Uint64
}

type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) set(v float64) { f.bits.Store(math.Float64bits(v)) }
func (f *atomicFloat) get() float64  { return math.Float64frombits(f.bits.Load()) }

func (f *atomicFloat) add(v float64) {
	for {
		old := f.bits.Load()
		if f.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// SetGauge implements MetricSink, as the methods after it do.
func (s *sink) SetGauge(key []string, v float32) { s.SetGaugeWithLabels(key, v, nil) }

func (s *sink) SetGaugeWithLabels(key []string, v float32, labels []gometrics.Label) {
	if x := s.find(prometheus.GaugeValue, key, labels); x != nil {
		x.sum.set(float64(v))
	}
}

func (s *sink) IncrCounter(key []string, v float32) { s.IncrCounterWithLabels(key, v, nil) }

func (s *sink) IncrCounterWithLabels(key []string, v float32, labels []gometrics.Label) {
	if x := s.find(prometheus.CounterValue, key, labels); x != nil && v > 0 {
		x.sum.add(float64(v))
	}
}

func (s *sink) AddSample(key []string, v float32) { s.AddSampleWithLabels(key, v, nil) }

func (s *sink) AddSampleWithLabels(key []string, v float32, labels []gometrics.Label) {
	if x := s.find(prometheus.UntypedValue, key, labels); x != nil {
		x.sum.add(float64(v))
		x.count.Add(1)
	}
}

func (s *sink) EmitKey([]string, float32) {}

// find returns the series of a name and labels, nil where there are too many, or where
// the name is of another kind.
func (s *sink) find(kind prometheus.ValueType, key []string, labels []gometrics.Label) *series {
	id := identity(key, labels)
	s.mu.RLock()
	x, ok := s.series[id]
	s.mu.RUnlock()
	if !ok {
		x = s.add(kind, id, key, labels)
	}
	if x == nil || x.kind != kind {
		return nil
	}
	return x
}

func identity(key []string, labels []gometrics.Label) string {
	var b strings.Builder
	for _, k := range key {
		b.WriteString(k)
		b.WriteByte('_')
	}
	for _, l := range labels {
		b.WriteByte(0)
		b.WriteString(l.Name)
		b.WriteByte(0)
		b.WriteString(l.Value)
	}
	return b.String()
}

func (s *sink) add(kind prometheus.ValueType, id string, key []string, labels []gometrics.Label) *series {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.series[id]; ok {
		return x
	}
	if len(s.series) >= maxSeries {
		return nil
	}
	x := &series{kind: kind, name: seriesName(key), labels: slices.Clone(labels)}
	s.series[id] = x
	return x
}

// seriesName joins a key as Prometheus' own sink of go-metrics does.
func seriesName(key []string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		default:
			return '_'
		}
	}, strings.Join(key, "_"))
}

// Describe implements prometheus.Collector, as one whose series come by and by.
func (s *sink) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *sink) Collect(out chan<- prometheus.Metric) {
	s.mu.RLock()
	all := slices.Collect(maps.Values(s.series))
	s.mu.RUnlock()
	for _, x := range all {
		out <- x.metric()
	}
}

func (x *series) metric() prometheus.Metric {
	var names, values []string
	for _, l := range x.labels {
		names, values = append(names, seriesName([]string{l.Name})), append(values, l.Value)
	}
	name := x.name
	if x.kind == prometheus.CounterValue {
		name += "_total"
	}
	desc := prometheus.NewDesc(name, "Counted by hashicorp/raft or its log store; a time is in milliseconds.", names, nil)
	if x.kind == prometheus.UntypedValue {
		return prometheus.MustNewConstSummary(desc, x.count.Load(), x.sum.get(), nil, values...)
	}
	return prometheus.MustNewConstMetric(desc, x.kind, x.sum.get(), values...)
}
