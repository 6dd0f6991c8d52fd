package chaos

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Result is what came of a run.
type Result struct {
	Passed       bool     `json:"passed"`
	Seed         uint64   `json:"seed"`
	Seconds      float64  `json:"seconds"`
	Failovers    int      `json:"failovers"`
	Transactions int      `json:"transactions"`
	Committed    int      `json:"committed"`
	Aborted      int      `json:"aborted"`
	Cells        int      `json:"cells"`   // different ones that were played
	Played       int      `json:"played"`  // times a cell was played
	Failed       int      `json:"failed"`  // times one failed
	Skipped      int      `json:"skipped"` // cells that this machine can't play
	TLS          bool     `json:"tls"`     // or plain text
	Expired      int      `json:"expired"` // certificates, while they were replaced
	Findings     int      `json:"findings"`
	Matrix       []Field  `json:"matrix"`
	Wrong        []Played `json:"wrong,omitempty"` // the failed ones

	required bool // what was skipped
	wanted   int  // failovers
	fields   map[Cell]*Field
}

// The words for what became of a cell.
const (
	OK        = "ok"
	Failed    = "FAILED"
	Skipped   = "skipped"
	Senseless = "n/a"
	NotPlayed = "-"
)

// Field is one cell of the matrix and what became of it.
type Field struct {
	Cell
	State  string `json:"state"`
	Times  int    `json:"times"` // that it was played
	Reason string `json:"reason,omitempty"`
}

func newResult(cfg Config) *Result {
	r := &Result{Seed: cfg.Seed, TLS: cfg.TLS, required: cfg.Require, wanted: cfg.Failovers, fields: map[Cell]*Field{}}
	if cfg.Budget > 0 {
		r.wanted = 0 // as many as there is time for
	}
	for _, s := range steps {
		for _, c := range columns() {
			f := Field{Cell: Cell{s.name, c.fault, c.victim}, State: NotPlayed}
			if why := senseless[c]; why != "" {
				f.State, f.Reason = Senseless, why
			}
			r.Matrix = append(r.Matrix, f)
		}
	}
	for i := range r.Matrix {
		r.fields[r.Matrix[i].Cell] = &r.Matrix[i]
	}
	return r
}

func (r *Result) add(p Played) {
	f := r.fields[p.Cell]
	if f.Times++; f.Times == 1 {
		r.Cells++
		f.State = OK
	}
	r.Played++
	r.Failovers += p.Failovers
	r.Transactions += p.Transactions
	r.Committed += p.Committed
	r.Aborted += p.Aborted
	if len(p.Wrong) > 0 {
		f.State = Failed
		r.Failed++
		r.Findings += p.found.Count
		r.Wrong = append(r.Wrong, p)
	}
}

func (r *Result) skip(c Cell, why error) {
	f := r.fields[c]
	if f.State == Skipped {
		return // in an earlier round
	}
	f.State, f.Reason = Skipped, why.Error()
	r.Skipped++
}

func (r *Result) end(took time.Duration) {
	r.Seconds = took.Seconds()
	r.Passed = r.Failed == 0 && r.Played+r.Skipped > 0 && r.Failovers >= r.wanted && (r.Skipped == 0 || !r.required)
}

// verdict is the whole in one line.
func (r *Result) verdict() string {
	switch {
	case r.Played+r.Skipped == 0:
		return "no cell was played"
	case r.Failed > 0:
		return fmt.Sprintf("%d findings in %d of %d plays", r.Findings, r.Failed, r.Played)
	case r.Failovers < r.wanted:
		return fmt.Sprintf("%d failovers, %d were wanted", r.Failovers, r.wanted)
	case !r.Passed:
		return fmt.Sprintf("%d cells were required and skipped", r.Skipped)
	case r.Played == 0:
		return "no cell can be played on this machine"
	default:
		return "0 lost, 0 flipped"
	}
}

// print shows the matrix to a person: a table for each victim, a row for each step,
// a column for each fault.
func (r *Result) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range victims {
		fmt.Fprintf(t, "\n%s\t%s\n", strings.ToUpper(v), strings.Join(names(allFaults(), func(f fault) string { return f.name }), "\t")) //nolint:errcheck // for a person
		for _, s := range steps {
			row := []string{s.name}
			for _, f := range allFaults() {
				row = append(row, r.fields[Cell{s.name, f.name, v}].word())
			}
			fmt.Fprintln(t, strings.Join(row, "\t")) //nolint:errcheck // for a person
		}
	}
	t.Flush() //nolint:errcheck // for a person
	r.printReasons(w)
	fmt.Fprintf(w, "\nseed %d: %d cells played %d times in %.0fs, %d skipped; %d failovers; %d transactions, %d committed, %d aborted\n", //nolint:errcheck // for a person
		r.Seed, r.Cells, r.Played, r.Seconds, r.Skipped, r.Failovers, r.Transactions, r.Committed, r.Aborted)
	fmt.Fprintf(w, "%s, %s\n", r.verdict(), r.spoken()) //nolint:errcheck // for a person
}

// spoken is what the processes spoke with each other.
func (r *Result) spoken() string {
	if r.TLS {
		return fmt.Sprintf("over mutual TLS; %d certificates expired and were replaced", r.Expired)
	}
	return "in plain text"
}

// word is a field in the table: how often a good one was played says how much it is
// worth.
func (f Field) word() string {
	if f.State == OK && f.Times > 1 {
		return fmt.Sprintf("%s %d", OK, f.Times)
	}
	return f.State
}

// printReasons says once for each fault and victim why cells were skipped or say
// nothing.
func (r *Result) printReasons(w io.Writer) {
	told := map[string]bool{}
	for _, f := range r.Matrix {
		line := fmt.Sprintf("%s: */%s/%s: %s", f.State, f.Fault, f.Victim, f.Reason)
		if f.Reason == "" || told[line] {
			continue
		}
		if len(told) == 0 {
			fmt.Fprintln(w) //nolint:errcheck // for a person
		}
		told[line] = true
		fmt.Fprintln(w, line) //nolint:errcheck // for a person
	}
}
