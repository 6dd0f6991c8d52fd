package bench

import "slices"

// Figure is a value over several rounds: the median, and how far they lie apart.
type Figure struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

// figureOf is the figure of some values, 0 of none.
func figureOf(values []float64) Figure {
	if len(values) == 0 {
		return Figure{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	f := Figure{Median: sorted[middle], Least: sorted[0], Most: sorted[len(sorted)-1]}
	if len(sorted)%2 == 0 {
		f.Median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return f
}

// FigureOver is the figure of what of returns for each of all.
func FigureOver[T any](all []T, of func(T) float64) Figure {
	values := make([]float64, len(all))
	for i, one := range all {
		values[i] = of(one)
	}
	return figureOf(values)
}

// Summary is a step over its rounds.
type Summary struct {
	Throughput Figure        `json:"tx_per_s"`
	Latency    LatencyFigure `json:"latency_us"`
	CPU        *CPU          `json:"cpu_us_per_tx,omitempty"` // medians
	Entries    Figure        `json:"entries_per_tx"`
	Bytes      Figure        `json:"bytes_per_tx"` // of the entries
	DiskBytes  Figure        `json:"disk_bytes_per_tx"`
	Committed  uint64        `json:"committed"` // in all rounds, as those below
	Aborted    uint64        `json:"aborted"`
	Failed     uint64        `json:"failed"`
	Shed       uint64        `json:"shed"`

	Bare *BareSummary `json:"bare,omitempty"`
}

// LatencyFigure is a latency over rounds.
type LatencyFigure struct {
	P50  Figure `json:"p50"`
	P90  Figure `json:"p90"`
	P99  Figure `json:"p99"`
	P999 Figure `json:"p99.9"`
	Max  Figure `json:"max"`
}

// BareSummary is bare Raft over the same rounds, and decree beside it. A ratio is of
// two measurements of one round, so that what the machine does meanwhile meets both.
type BareSummary struct {
	Throughput Figure        `json:"entries_per_s"`
	Latency    LatencyFigure `json:"latency_us"`
	EntryBytes int           `json:"entry_bytes"`
	P50Ratio   Figure        `json:"p50_ratio"`  // decree's p50 over bare Raft's
	RateRatio  Figure        `json:"rate_ratio"` // decree's tx/s over bare entries/s
}

func summarize(rounds []Round) Summary {
	of := func(get func(Measured) float64) Figure {
		return FigureOver(rounds, func(r Round) float64 { return get(r.Decree) })
	}
	var reigns []Round // rounds in which one node led: only these know what the log took
	for _, r := range rounds {
		if r.Decree.Elections == 0 {
			reigns = append(reigns, r)
		}
	}
	inReign := func(get func(Measured) float64) Figure {
		return FigureOver(reigns, func(r Round) float64 { return get(r.Decree) })
	}
	s := Summary{
		Throughput: of(func(m Measured) float64 { return m.Throughput }),
		Latency:    latencies(rounds, func(r Round) Latency { return r.Decree.Latency }),
		Entries:    inReign(func(m Measured) float64 { return m.Log.Entries }),
		Bytes:      inReign(func(m Measured) float64 { return m.Log.Bytes }),
		DiskBytes:  of(func(m Measured) float64 { return m.Log.DiskBytes }),
	}
	for _, r := range rounds {
		s.Committed += r.Decree.Committed
		s.Aborted += r.Decree.Aborted
		s.Failed += r.Decree.Failed
		s.Shed += r.Decree.Shed
	}
	if len(rounds) > 0 && rounds[0].Decree.CPU != nil {
		cpu := func(get func(*CPU) float64) float64 {
			return of(func(m Measured) float64 { return get(m.CPU) }).Median
		}
		s.CPU = &CPU{
			All:          cpu(func(c *CPU) float64 { return c.All }),
			Leader:       cpu(func(c *CPU) float64 { return c.Leader }),
			Followers:    cpu(func(c *CPU) float64 { return c.Followers }),
			Participants: cpu(func(c *CPU) float64 { return c.Participants }),
			Clients:      cpu(func(c *CPU) float64 { return c.Clients }),
		}
	}
	if len(rounds) > 0 && rounds[0].Bare != nil {
		s.Bare = summarizeBare(rounds)
	}
	return s
}

func summarizeBare(rounds []Round) *BareSummary {
	return &BareSummary{
		Throughput: FigureOver(rounds, func(r Round) float64 { return r.Bare.Throughput }),
		Latency:    latencies(rounds, func(r Round) Latency { return r.Bare.Latency }),
		EntryBytes: rounds[0].Bare.EntryBytes,
		P50Ratio: FigureOver(rounds, func(r Round) float64 {
			return ratio(float64(r.Decree.Latency.P50), float64(r.Bare.Latency.P50))
		}),
		RateRatio: FigureOver(rounds, func(r Round) float64 { return ratio(r.Decree.Throughput, r.Bare.Throughput) }),
	}
}

func latencies(rounds []Round, get func(Round) Latency) LatencyFigure {
	of := func(value func(Latency) int64) Figure {
		return FigureOver(rounds, func(r Round) float64 { return float64(value(get(r))) })
	}
	return LatencyFigure{
		P50:  of(func(l Latency) int64 { return l.P50 }),
		P90:  of(func(l Latency) int64 { return l.P90 }),
		P99:  of(func(l Latency) int64 { return l.P99 }),
		P999: of(func(l Latency) int64 { return l.P999 }),
		Max:  of(func(l Latency) int64 { return l.Max }),
	}
}

// ratio is 0 where there is nothing to compare with: JSON knows no infinity.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
