package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/coordinator/node"
	"github.com/decree-tx/decree/fsm"
)

// Observe shows the state of a node that has opened; it is called once.
func (m *Metrics) Observe(n *node.Node) error { return m.registry.Register(nodeCollector{n}) }

// nodeCollector reads a node when somebody asks.
type nodeCollector struct{ node *node.Node }

// A reading is one series of a node's own.
type reading struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*moment) float64
}

// moment is what a node looked like at one scrape.
type moment struct {
	stats   fsm.Stats
	status  cluster.Status
	applied uint64
	leads   bool
	now     time.Time
}

func gauge(name, help string, read func(*moment) float64) reading {
	return reading{newDesc(name, help), prometheus.GaugeValue, read}
}

func counter(name, help string, read func(*moment) float64) reading {
	return reading{newDesc(name, help), prometheus.CounterValue, read}
}

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

var readings = []reading{
	gauge("unfinished_transactions", "Transactions that are owed something, a decision or a delivery.",
		func(m *moment) float64 { return float64(m.stats.Unfinished) }),
	gauge("unfinished_oldest_age_seconds", "Age of the oldest unfinished transaction by its txid; 0 where there is none.",
		func(m *moment) float64 { return age(m.stats, m.now) }),
	gauge("retained_transactions", "All transactions that are known, finished ones too.",
		func(m *moment) float64 { return float64(m.stats.Retained) }),
	gauge("damaged_transactions", "Transactions with a branch that ended against their decision, which an operator must resolve.",
		func(m *moment) float64 { return float64(m.stats.Damaged) }),
	gauge("participants", "Registered participants.",
		func(m *moment) float64 { return float64(m.stats.Participants) }),

	gauge("leader", "1 where this node leads and drives transactions.",
		func(m *moment) float64 { return one(m.leads) }),
	gauge("leader_known", "1 where this node knows of a leader.",
		func(m *moment) float64 { return one(m.status.Leader.ID != "") }),
	gauge("members", "Nodes in the cluster, as this one knows it.",
		func(m *moment) float64 { return float64(len(m.status.Members)) }),
	gauge("voters", "Nodes in the cluster that vote.", func(m *moment) float64 { return float64(voters(m.status.Members)) }),
	gauge("term", "The newest Raft term that this node has seen.",
		func(m *moment) float64 { return float64(m.status.Term) }),
	gauge("log_last_index", "The last entry in this node's log.",
		func(m *moment) float64 { return float64(m.status.LastIndex) }),
	gauge("log_commit_index", "The last entry that this node knows to be committed.",
		func(m *moment) float64 { return float64(m.status.CommitIndex) }),
	gauge("log_applied_index", "The last entry that this node's state machine has applied; it never sees barriers.",
		func(m *moment) float64 { return float64(m.applied) }),
	gauge("log_apply_lag_entries", "Committed entries that this node has not applied yet.",
		func(m *moment) float64 { return float64(m.status.Lag) }),

	counter("log_entries_applied_total", "Log entries that this node has applied since it started.",
		func(m *moment) float64 { return float64(m.stats.Entries) }),
	counter("log_commands_applied_total", "Commands in them.",
		func(m *moment) float64 { return float64(m.stats.Commands) }),
	counter("log_bytes_applied_total", "Bytes in them.",
		func(m *moment) float64 { return float64(m.stats.Bytes) }),
	counter("log_entries_refused_total", "Log entries of leaders that had been replaced.",
		func(m *moment) float64 { return float64(m.stats.Refused) }),

	gauge("disk_free_bytes", "Free bytes on the file system of the data directory.",
		func(m *moment) float64 { return float64(m.status.Disk.Free) }),
	gauge("disk_reserve_bytes", "Bytes on it that only this node's log may write.",
		func(m *moment) float64 { return float64(m.status.Disk.Reserve) }),
	gauge("disk_low", "1 where this node as leader admits no new transactions, because its disk is nearly full.",
		func(m *moment) float64 { return one(m.status.Disk.Low) }),
}

// What is told of each participant: unfinished by every node, the rest by the leader.
var (
	unfinishedAt = newDesc("participant_unfinished_transactions", "Unfinished transactions with a branch at a participant.", "participant")
	pendingAt    = newDesc("participant_deliveries_pending", "Deliveries to a participant that are under way or wait.", "participant")
	preparingAt  = newDesc("participant_prepares_pending", "Prepares at a participant that are under way or wait.", "participant")
	downAt       = newDesc("participant_down", "1 where deliveries to a participant fail one after the other, so that it is tried with one at a time.", "participant")
)

// Describe implements prometheus.Collector.
func (c nodeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, r := range readings {
		out <- r.desc
	}
	for _, d := range []*prometheus.Desc{unfinishedAt, pendingAt, preparingAt, downAt} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c nodeCollector) Collect(out chan<- prometheus.Metric) {
	n := c.node
	m := &moment{
		stats: n.Machine.Stats(), status: n.Cluster.Status(), applied: n.Machine.AppliedIndex(),
		leads: n.Coordinator.Leads(), now: time.Now(),
	}
	for _, r := range readings {
		out <- prometheus.MustNewConstMetric(r.desc, r.kind, r.read(m))
	}
	for _, p := range n.Machine.Participants() {
		out <- prometheus.MustNewConstMetric(unfinishedAt, prometheus.GaugeValue, float64(n.Machine.OpenAt(p.Name)), p.Name)
	}
	for _, l := range n.Coordinator.Loads() {
		collectLoad(out, l)
	}
}

func collectLoad(out chan<- prometheus.Metric, l coordinator.Load) {
	for _, r := range []struct {
		desc  *prometheus.Desc
		value float64
	}{
		{pendingAt, float64(l.Delivering + l.DeliveriesWaiting)},
		{preparingAt, float64(l.Preparing + l.PreparesWaiting)},
		{downAt, one(l.Down())},
	} {
		out <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, r.value, l.Participant)
	}
}

// age is by wall time: cluster time stands still where nothing is written.
func age(s fsm.Stats, now time.Time) float64 {
	if s.Unfinished == 0 {
		return 0
	}
	return max(0, now.Sub(time.Unix(0, int64(s.OldestUnfinished))).Seconds())
}

func voters(all []cluster.Member) (n int) {
	for _, m := range all {
		if m.Voter {
			n++
		}
	}
	return n
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
