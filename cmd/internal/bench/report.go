package bench

import (
	"strings"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what a run measured: what -o json prints, as one object. Latencies are in
// microseconds, shares from 0 to 1.
type Report struct {
	Version string    `json:"version"` // of the binary under load
	Started time.Time `json:"started"`
	Machine Machine   `json:"machine"`
	Setting Setting   `json:"setting"`

	// Steps are the loads in the order of the ramp, each with all of its rounds.
	Steps []StepReport `json:"steps,omitempty"`
	// Failovers are what became of the load when the leader fell, a round each.
	Failovers []Failover `json:"failovers,omitempty"`
	// Stuck is what others feel of transactions that wait, a round each.
	Stuck []Stuck `json:"stuck,omitempty"`
}

// Setting is what was asked for.
type Setting struct {
	Own               bool    `json:"own_cluster"` // started for the run, on this machine
	Nodes             int     `json:"nodes,omitempty"`
	Groups            int     `json:"groups,omitempty"` // clusters of so many nodes; absent for one
	ServerArgs        string  `json:"server_args,omitempty"`
	Participants      string  `json:"participants"` // trivial, kv, or the names of others
	ParticipantsCount int     `json:"participants_count"`
	Branches          int     `json:"branches"`
	PayloadBytes      int     `json:"payload_bytes,omitempty"`
	Abort             float64 `json:"abort"`
	ReadOnly          float64 `json:"read_only"`
	Wait              string  `json:"wait"` // decision or delivery
	Connections       int     `json:"connections"`
	InFlight          int     `json:"in_flight"` // at most, in an open loop
	WarmupSeconds     float64 `json:"warmup_s"`
	DurationSeconds   float64 `json:"duration_s"`
	Rounds            int     `json:"rounds"`
}

// StepReport is one load.
type StepReport struct {
	Step
	Rounds  []Round `json:"rounds"`
	Summary Summary `json:"summary"`
}

// Round is one measurement of a load, and of bare Raft just before it.
type Round struct {
	Bare   *Bare    `json:"bare,omitempty"`
	Decree Measured `json:"decree"`
}

// Bare is what Raft does with nothing around it, for as many callers in the leader's
// own process.
type Bare struct {
	Callers    int     `json:"callers"`
	EntryBytes int     `json:"entry_bytes"`
	Throughput float64 `json:"entries_per_s"`
	Failed     uint64  `json:"failed"`
	Latency    Latency `json:"latency_us"`
}

// Measured is what was seen in one span of time.
type Measured struct {
	Seconds    float64 `json:"seconds"`
	Throughput float64 `json:"tx_per_s"` // transactions that got an outcome
	Committed  uint64  `json:"committed"`
	Aborted    uint64  `json:"aborted"`
	Failed     uint64  `json:"failed"` // no outcome in time
	Shed       uint64  `json:"shed"`   // due in an open loop and never begun
	Fault      string  `json:"fault,omitempty"`

	Latency Latency `json:"latency_us"`
	// CPU is in microseconds a transaction; absent where the cluster is somebody
	// else's.
	CPU *CPU `json:"cpu_us_per_tx,omitempty"`
	Log Log  `json:"log"`

	// Leader led at the span's end, after so many elections in it; of several groups, the
	// leader of each.
	Leader    string `json:"leader"`
	Elections uint64 `json:"elections"`
}

// Latency of the transactions that got an outcome, in microseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  int64   `json:"p50"`
	P90  int64   `json:"p90"`
	P99  int64   `json:"p99"`
	P999 int64   `json:"p99.9"`
	Max  int64   `json:"max"`
}

func latencyOf(h *hdr.Histogram) Latency {
	return Latency{
		Mean: h.Mean(), P50: h.ValueAtQuantile(50), P90: h.ValueAtQuantile(90),
		P99: h.ValueAtQuantile(99), P999: h.ValueAtQuantile(99.9), Max: h.Max(),
	}
}

// CPU is processor time by role, summed over the role's processes.
type CPU struct {
	All          float64 `json:"all"`
	Leader       float64 `json:"leader"`
	Followers    float64 `json:"followers"`
	Participants float64 `json:"participants"`
	Clients      float64 `json:"clients"`
}

// Log is what a transaction costs in the replicated log, as the leader counts it.
// Entries are raft.Log entries with commands, Bytes what is in them. DiskBytes are what the leader caused to
// be written to its disk: entries, the log store's pages around them, and snapshots.
type Log struct {
	Entries   float64 `json:"entries_per_tx"`
	Bytes     float64 `json:"bytes_per_tx"`
	DiskBytes float64 `json:"disk_bytes_per_tx"`
}

// measured makes the figures of a span out of what clients counted and of readings at
// its ends.
func (g *ground) measured(c *counted, from, to reading) Measured {
	span := to.at.Sub(from.at)
	done := c.done()
	m := Measured{
		Seconds: span.Seconds(), Throughput: float64(done) / span.Seconds(),
		Committed: c.answers[committed], Aborted: c.answers[aborted], Failed: c.answers[failed], Shed: c.shed,
		Latency: latencyOf(c.latency),
	}
	var leaders []string
	var entries, bytes uint64
	for i, leader := range to.leaders {
		before := from.leaders[i]
		leaders = append(leaders, leader.GetLeader())
		m.Elections += leader.GetEpoch() - before.GetEpoch()
		entries += leader.GetEntries() - before.GetEntries()
		bytes += leader.GetEntryBytes() - before.GetEntryBytes()
	}
	m.Leader = strings.Join(leaders, ",")
	if c.fault != nil {
		m.Fault = c.fault.Error()
	}
	if done == 0 {
		return m
	}
	each := func(n float64) float64 { return n / float64(done) }
	if m.Elections == 0 { // another node counts from its own start
		m.Log.Entries, m.Log.Bytes = each(float64(entries)), each(float64(bytes))
	}
	if g.fleet == nil {
		return m
	}
	m.CPU = &CPU{}
	for name, after := range to.process {
		before := from.process[name]
		part := g.roleOf(name, leaders)
		m.CPU.add(part, each(float64((after.cpu - before.cpu).Microseconds())))
		if part == leading {
			m.Log.DiskBytes += each(float64(after.written - before.written))
		}
	}
	return m
}

// add counts a process's share to its role.
func (c *CPU) add(part role, us float64) {
	switch part {
	case leading:
		c.Leader += us
	case following:
		c.Followers += us
	case participating:
		c.Participants += us
	case asking:
		c.Clients += us
	case idling:
		return
	}
	c.All += us
}
