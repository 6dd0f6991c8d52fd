package bankday

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/transport/client"
)

// Result is what a day came to, for programs.
type Result struct {
	Passed       bool           `json:"passed"`
	Findings     int            `json:"findings"`
	Seed         uint64         `json:"seed"`
	Workers      int            `json:"workers"`
	Seconds      float64        `json:"seconds"` // that money was moved
	Orders       int            `json:"orders"`  // the opening of the accounts not counted
	Committed    int            `json:"committed"`
	Aborted      int            `json:"aborted"`
	Unknown      int            `json:"unknown"`
	PerSecond    float64        `json:"per_second"`
	P50          float64        `json:"p50_ms"`
	P99          float64        `json:"p99_ms"`
	Worst        float64        `json:"worst_ms"`
	AbortReasons map[string]int `json:"abort_reasons"`
	FailoversMS  []float64      `json:"failovers_ms"` // from each kill to the next answer
	Failovers    int            `json:"failovers"`    // changes of epoch that were seen
	Faults       map[Kind]int   `json:"faults"`       // that struck
	WorstOutage  float64        `json:"outage_ms"`    // the longest time without an answer
	RestMS       []float64      `json:"rest_ms"`      // from the end of each shift until nothing was under way
	TLS          bool           `json:"tls"`          // or plain text
	Expired      int            `json:"expired"`      // certificates, while they were replaced
	Replay       string         `json:"replay"`       // the command of a day like this one
	Wall         float64        `json:"wall_seconds"` // from the start of everything to the end of the audit
	Checks       []Check        `json:"checks"`
}

// Check is one part of the audit.
type Check struct {
	Name     string   `json:"name"`
	Passed   bool     `json:"passed"`
	Text     string   `json:"text"` // what holds where it passed
	Findings int      `json:"findings"`
	Examples []string `json:"examples,omitempty"`
}

func (d *day) result(report []check) Result {
	r := Result{
		Passed: true, Seed: d.cfg.Seed, Workers: d.cfg.Workers,
		AbortReasons: map[string]int{}, FailoversMS: []float64{}, Failovers: d.reigns.failovers(), Faults: d.troubles.count(),
		TLS: d.cfg.TLS, Expired: d.papers.Expired(), Replay: d.cfg.command(), Wall: time.Since(d.out.start).Seconds(),
	}
	for _, s := range d.shifts {
		r.Seconds += s.ended.Sub(s.began).Seconds()
	}
	var all counts
	var took []time.Duration
	for _, e := range d.teller.Ledger.Entries() {
		if e.Opening {
			continue
		}
		r.Orders++
		all.add(e)
		took = append(took, e.Answered.Sub(e.Submitted))
		if e.Err == nil && !e.Late && e.Result.Outcome == client.Aborted {
			r.AbortReasons[reason(e)]++
		}
	}
	r.Committed, r.Aborted, r.Unknown = all.committed, all.aborted, all.unknown
	r.PerSecond = float64(r.Orders) / r.Seconds
	q := quantiles(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r.P50, r.P99, r.Worst = ms(q.p50), ms(q.p99), ms(q.worst)
	entries := d.teller.Ledger.Entries()
	for _, s := range d.shifts {
		r.WorstOutage = max(r.WorstOutage, ms(outage(s, entries)))
		r.RestMS = append(r.RestMS, ms(s.rest.took))
	}
	for _, f := range d.failovers {
		r.FailoversMS = append(r.FailoversMS, ms(f))
	}
	for _, c := range report {
		r.Findings += c.found.Count
		r.Passed = r.Passed && c.found.Count == 0
		r.Checks = append(r.Checks, Check{c.what, c.found.Count == 0, c.fine, c.found.Count, c.found.Texts})
	}
	return r
}

// outage is the longest time without an answer in a shift. Entries are in the order
// of their answers.
func outage(s shift, entries []bank.Entry) (worst time.Duration) {
	last := s.began
	for _, e := range entries {
		if e.Err == nil && !e.Late && e.Answered.After(last) && !e.Answered.After(s.ended) {
			worst, last = max(worst, e.Answered.Sub(last)), e.Answered
		}
	}
	return max(worst, s.ended.Sub(last))
}

// The reasons for an abort that are told apart, in the order in which they are
// told.
const (
	askedTooMuch = "asked for too much"
	refused      = "refused by a participant" // too little in the account, or a lock
	notReached   = "a participant did not answer"
	outOfTime    = "out of time"
	presumed     = "presumed, before it was known"
	otherReason  = "other"
)

var reasons = [...]string{askedTooMuch, refused, notReached, outOfTime, presumed, otherReason}

func reason(e bank.Entry) string {
	switch code := e.Result.Reason.Code; {
	case e.Expect == bank.MustAbort && code == client.AbortVote:
		return askedTooMuch
	case code == client.AbortVote:
		return refused
	case code == client.AbortUnavailable:
		return notReached
	case code == client.AbortTimeout:
		return outOfTime
	case code == client.AbortPresumed:
		return presumed
	default:
		return otherReason
	}
}

// print tells it to a person.
func (r Result) print(out *speaker) {
	out.line("\n%d orders in %.1fs, %.0f a second: %d committed, %d aborted (%s), %d unknown",
		r.Orders, r.Seconds, r.PerSecond, r.Committed, r.Aborted, r.reasonsText(), r.Unknown)
	out.line("answered after %.1fms (p50), %.1fms (p99), %.1fms (worst)", r.P50, r.P99, r.Worst)
	if len(r.FailoversMS) > 0 {
		out.line("leaders killed: %d; the next client was answered after %s ms", len(r.FailoversMS), strings.Trim(fmt.Sprintf("%.0f", r.FailoversMS), "[]"))
	}
	r.printFaults(out)
	out.line("")
	for _, c := range r.Checks {
		c.print(out)
	}
	if r.Passed {
		out.line("\nPASSED, %s", r.spoken())
	} else {
		out.line("\nFAILED: %d findings, %s", r.Findings, r.spoken())
	}
}

// spoken is what nodes, services and clients spoke with each other.
func (r Result) spoken() string {
	if r.TLS {
		return fmt.Sprintf("over mutual TLS; %d certificates expired and were replaced", r.Expired)
	}
	return "in plain text"
}

// printFaults tells what struck, and how to have it strike again.
func (r Result) printFaults(out *speaker) {
	if len(r.Faults) == 0 {
		return
	}
	total := 0
	var each []string
	for _, k := range AllKinds() {
		if n := r.Faults[k]; n > 0 {
			total += n
			each = append(each, fmt.Sprintf("%d %s", n, k))
		}
	}
	out.line("%d failovers; %d faults: %s", r.Failovers, total, strings.Join(each, ", "))
	out.line("longest time without an answer %.1fms; at rest %.1fms after the end at the latest, of %d times; %.0fs in all",
		r.WorstOutage, slices.Max(r.RestMS), len(r.RestMS), r.Wall)
	out.line("again: %s", r.Replay)
}

func (r Result) reasonsText() string {
	var all []string
	for _, name := range reasons {
		if n := r.AbortReasons[name]; n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, name))
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func (c Check) print(out *speaker) {
	if c.Passed {
		out.line("  ok     %-10s %s", c.Name, c.Text)
		return
	}
	for _, text := range c.Examples {
		out.line("  WRONG  %-10s %s", c.Name, text)
	}
	if more := c.Findings - len(c.Examples); more > 0 {
		out.line("  WRONG  %-10s ... and %d more", c.Name, more)
	}
}
