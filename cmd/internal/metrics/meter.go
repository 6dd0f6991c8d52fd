package metrics

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
)

// meter implements coordinator.Meter. All label values of its hot paths are resolved
// beforehand, so that counting is some atomic additions.
type meter struct {
	committed timing
	aborted   timing
	phases    struct{ prepare, decision, delivery timing }
	outcomes  [txn.ReasonRefused + 1]prometheus.Counter // by reason; none is a commit
	refused   *prometheus.CounterVec

	calls   *prometheus.CounterVec
	latency *prometheus.HistogramVec

	mu           sync.Mutex
	participants map[string]*participantMeter // guarded by mu
}

// timing is a histogram that keeps an example now and then.
type timing struct {
	prometheus.Histogram
	wanting *atomic.Bool // for an example
}

func newTiming(h prometheus.Observer) timing {
	return timing{h.(prometheus.Histogram), new(atomic.Bool)} //nolint:forcetypeassert // a HistogramVec's
}

func (t timing) observe(id txn.TxID, took time.Duration) {
	if t.wanting.Load() && t.wanting.CompareAndSwap(true, false) {
		t.example(id, took)
		return
	}
	t.Observe(took.Seconds())
}

func (t timing) example(id txn.TxID, took time.Duration) {
	t.Histogram.(prometheus.ExemplarObserver).ObserveWithExemplar( //nolint:forcetypeassert // every histogram is one
		took.Seconds(), prometheus.Labels{"txid": id.String()})
}

func newMeter(r prometheus.Registerer) *meter {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "transaction_seconds",
		Help:    "How long transactions took on this leader from admission, or from the end of their enlisting, to their applied decision.",
		Buckets: fine,
	}, []string{"outcome"})
	phase := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "transaction_phase_seconds",
		Help:    "How long transactions took in each phase: prepare, until the decision is proposed; decision, until it is applied; delivery, until every branch has acknowledged it.",
		Buckets: fine,
	}, []string{"phase"})
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "transactions_total",
		Help: "Transactions that were decided under this leader, by outcome and the reason of an abort.",
	}, []string{"outcome", "reason"})
	m := &meter{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "submissions_refused_total",
			Help: "New transactions that this leader did not admit, by reason.",
		}, []string{"reason"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "participant_calls_total",
			Help: "Calls to participants that have ended, by result.",
		}, []string{"participant", "operation", "result"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "participant_call_seconds",
			Help:    "How long calls to participants took, failed ones too.",
			Buckets: coarse,
		}, []string{"participant", "operation"}),
		participants: make(map[string]*participantMeter),
	}
	m.committed = newTiming(seconds.WithLabelValues("committed"))
	m.aborted = newTiming(seconds.WithLabelValues("aborted"))
	m.phases.prepare = newTiming(phase.WithLabelValues("prepare"))
	m.phases.decision = newTiming(phase.WithLabelValues("decision"))
	m.phases.delivery = newTiming(phase.WithLabelValues("delivery"))
	for reason := range m.outcomes {
		outcome := "aborted"
		if txn.ReasonCode(reason) == txn.ReasonNone { //nolint:gosec // a few
			outcome = "committed"
		}
		m.outcomes[reason] = outcomes.WithLabelValues(outcome, txn.ReasonCode(reason).String()) //nolint:gosec // a few
	}
	for _, reason := range refusals {
		m.refused.WithLabelValues(reason.label)
	}
	m.refused.WithLabelValues(otherRefusal)
	r.MustRegister(seconds, phase, outcomes, m.refused, m.calls, m.latency)
	return m
}

// timings are all that keep examples.
func (m *meter) timings() []timing {
	return []timing{m.committed, m.aborted, m.phases.prepare, m.phases.decision, m.phases.delivery}
}

// Decided implements coordinator.Meter.
func (m *meter) Decided(d coordinator.Decided) {
	reason, whole := txn.ReasonNone, m.committed
	if d.Decision == txn.Abort {
		reason, whole = d.Reason, m.aborted
	}
	if int(reason) < len(m.outcomes) {
		m.outcomes[reason].Inc()
	}
	if d.Tombstone {
		return // there was nothing to take time
	}
	whole.observe(d.TxID, d.Preparing+d.Deciding)
	m.phases.prepare.observe(d.TxID, d.Preparing)
	m.phases.decision.observe(d.TxID, d.Deciding)
}

// Delivered implements coordinator.Meter.
func (m *meter) Delivered(id txn.TxID, took time.Duration) { m.phases.delivery.observe(id, took) }

// refusals name the errors of an admission, the first that matches.
var refusals = []struct {
	err   error
	label string
}{
	{txn.ErrExpired, "expired"},
	{txn.ErrFuture, "future"},
	{txn.ErrOtherGroup, "other-group"},
	{coordinator.ErrUnknownParticipant, "unknown-participant"},
}

const (
	busyRefusal  = "busy"
	otherRefusal = "invalid"
)

// Refused implements coordinator.Meter.
func (m *meter) Refused(err error) {
	label := otherRefusal
	var busy *coordinator.BusyError
	if errors.As(err, &busy) {
		label = busyRefusal
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			label = r.label
			break
		}
	}
	m.refused.WithLabelValues(label).Inc()
}

// Participant implements coordinator.Meter.
func (m *meter) Participant(name string) coordinator.ParticipantMeter {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.participants[name]
	if !ok {
		p = m.newParticipant(name)
		m.participants[name] = p
	}
	return p
}

// Unregistered implements coordinator.Meter.
func (m *meter) Unregistered(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.participants, name)
	m.calls.DeletePartialMatch(prometheus.Labels{"participant": name})
	m.latency.DeletePartialMatch(prometheus.Labels{"participant": name})
}

// operations are the calls that are counted, by txn.WorkKind.
var operations = map[txn.WorkKind]string{txn.PrepareBranch: "prepare", txn.CommitBranch: "commit", txn.AbortBranch: "abort"}

// participantMeter implements coordinator.ParticipantMeter.
type participantMeter struct {
	kinds [txn.AbortBranch + 1]operationMeter
}

type operationMeter struct {
	latency prometheus.Observer
	results [coordinator.CallResults]prometheus.Counter
}

func (m *meter) newParticipant(name string) *participantMeter {
	p := &participantMeter{}
	for kind, operation := range operations {
		o := &p.kinds[kind]
		o.latency = m.latency.WithLabelValues(name, operation)
		for r := range o.results {
			if result := coordinator.CallResult(r); result.Answers(kind) { //nolint:gosec // a few
				o.results[r] = m.calls.WithLabelValues(name, operation, result.String())
			}
		}
	}
	return p
}

// Called implements coordinator.ParticipantMeter.
func (p *participantMeter) Called(kind txn.WorkKind, result coordinator.CallResult, took time.Duration) {
	o := &p.kinds[kind]
	o.latency.Observe(took.Seconds())
	o.results[result].Inc()
}
