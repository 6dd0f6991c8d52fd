package bench

import (
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what a run measured: what -o json prints, as one object.
type Report struct {
	Version string    `json:"version"` // of the binary under load
	Started time.Time `json:"started"`
	Machine Machine   `json:"machine"`
	Setting Setting   `json:"setting"`
	Result  Measured  `json:"result"`
}

// Setting is what was asked for.
type Setting struct {
	Clients           int     `json:"clients"`
	Connections       int     `json:"connections"`
	Branches          int     `json:"branches"`
	PayloadBytes      int     `json:"payload_bytes"`
	Wait              string  `json:"wait"` // decision or delivery
	Participants      string  `json:"participants"`
	ParticipantsCount int     `json:"participants_count"`
	WarmupSeconds     float64 `json:"warmup_s"`
	DurationSeconds   float64 `json:"duration_s"`
}

// Measured is what was seen in one span of time.
type Measured struct {
	Seconds    float64 `json:"seconds"`
	Throughput float64 `json:"tx_per_s"` // transactions that got an outcome
	Committed  uint64  `json:"committed"`
	Aborted    uint64  `json:"aborted"`
	Failed     uint64  `json:"failed"` // no outcome in time
	Fault      string  `json:"fault,omitempty"`

	Latency Latency `json:"latency_us"`
	// CPU is in microseconds a transaction, of all processes and by their roles.
	CPU CPU `json:"cpu_us_per_tx"`
	Log Log `json:"log"`

	// Leader led at the span's end; Leaders is how many led in it.
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
// Entries are raft.Log entries with commands. DiskBytes are what the leader caused to
// be written to its disk: entries, the log store's pages around them, and snapshots.
type Log struct {
	Entries   float64 `json:"entries_per_tx"`
	DiskBytes float64 `json:"disk_bytes_per_tx"`
}

// measured makes the figures of a span out of what clients counted and of readings at
// its ends.
func (g *ground) measured(c *counted, from, to reading) Measured {
	span := to.at.Sub(from.at)
	done := c.done()
	m := Measured{
		Seconds: span.Seconds(), Throughput: float64(done) / span.Seconds(),
		Committed: c.answers[committed], Aborted: c.answers[aborted], Failed: c.answers[failed],
		Latency: latencyOf(c.latency),
		Leader:  to.leader.GetLeader(), Elections: to.leader.GetEpoch() - from.leader.GetEpoch(),
	}
	if done == 0 {
		return m
	}
	each := func(n float64) float64 { return n / float64(done) }
	for name, after := range to.process {
		before := from.process[name]
		us := each(float64((after.cpu - before.cpu).Microseconds()))
		m.CPU.All += us
		switch g.roleOf(name, m.Leader) {
		case leading:
			m.CPU.Leader += us
			m.Log.DiskBytes = each(float64(after.written - before.written))
		case following:
			m.CPU.Followers += us
		case participating:
			m.CPU.Participants += us
		case asking:
			m.CPU.Clients += us
		}
	}
	if m.Elections == 0 { // another node counts from its own start
		m.Log.Entries = each(float64(to.leader.GetEntries() - from.leader.GetEntries()))
	}
	return m
}
