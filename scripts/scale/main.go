// Scale simulates what several Raft groups would bring decree, which has one: the
// queueing of transactions at cores, disks, locks and participants, on machines and in
// regions that are not here. Every figure that it prints is simulated, but for those of
// the calibration that stand beside as measured. Section "Past one leader" of
// coordinator/DESIGN.md draws the conclusions.
//
//	go run -C scripts/scale .              # all tables, half a minute
//	go run -C scripts/scale . -only region # those whose title contains it
//	go run -C scripts/scale . -seed 7
//
// The model is decree's path of a one-shot transaction with two branches that commit:
// submission, prepares, votes, one entry for staging and commit where votes are quick,
// two fsyncs in series, answer, deliveries, receipts. It knows the rules that make the
// batches: a goroutine takes all that waits when its turn comes; the writer has one
// entry on its way, or two while they are sparse; the term's lock, the writer and the
// state machine are serial in each group. It has no failures, no elections, no aborts,
// no locks in databases, no garbage collector that stops, no network that is full, and
// cores are given first come, first served: it is kinder than a machine, which the
// calibration shows. Time is virtual and a seed always gives the same figures.
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 1, "of what is random")
	flag.Float64Var(&o.lent, "lent", fitted().lent, "the `share` of every core that goes to what is not decree's")
	flag.StringVar(&o.only, "only", "", "run the tables whose title contains this `text`")
	flag.Parse()
	if o.lent < 0 || o.lent >= 1 {
		fmt.Fprintln(os.Stderr, "scale: -lent is a share from 0 to below 1")
		os.Exit(2)
	}
	o.calibrate(os.Stdout)
	for _, t := range tables() {
		if o.wants(t.title) {
			o.print(os.Stdout, t)
		}
	}
}

// options are the command line's.
type options struct {
	seed uint64
	lent float64
	only string
}

func (o options) wants(title string) bool {
	return strings.Contains(strings.ToLower(title), strings.ToLower(o.only))
}

// run simulates a plan as the command line has it.
func (o options) run(p plan) result {
	p.seed, p.lent = o.seed, o.lent
	_, r := simulate(p)
	return r
}

// calibrate prints one group on two cores, simulated beside measured.
func (o options) calibrate(out io.Writer) {
	const title = "Calibration: one group on one machine of two cores"
	if !o.wants(title) {
		return
	}
	p := onOneMachine(1, 0)
	p.seed, p.lent = o.seed, o.lent
	entry := bare(p, 1).p50
	fmt.Fprintf(out, "%s\nA bare entry, one caller: p50 %s simulated, about 1 ms measured.\n\n", title, milli(entry))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row(w, "clients", "", "tx/s", "p50", "CPU us/tx", "leader", "a follower", "participants + clients", "entries/tx")
	for _, m := range measurements {
		r := o.run(onOneMachine(1, m.clients))
		took := milli(r.p50)
		if m.clients == 1 {
			took = fmt.Sprintf("%.2f bare entries", float64(r.p50)/float64(entry))
		}
		row(w, m.clients, "simulated", rate(r.rate), took, us(r.all()), us(r.cpu[leading]), us(r.cpu[following]/2),
			us(r.cpu[taking])+" + "+us(r.cpu[asking]), fmt.Sprintf("%.3f", r.entries))
		row(w, "", "measured", m.rate, m.p50, m.cpu, m.leader, m.follower, m.others, m.entries)
	}
	w.Flush()
}

func (o options) print(out io.Writer, t table) {
	fmt.Fprintf(out, "\n%s\n", t.title)
	if t.notes != "" {
		fmt.Fprintln(out, t.notes)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := []any{"simulated", "tx/s", "p50", "p99"}
	for _, site := range t.sites {
		head = append(head, "p50 "+site)
	}
	row(w, append(head, "nodes' CPU us/tx", "tx an entry", "cores", "disk", "lock", "participant", "limit")...)
	for _, p := range t.plans {
		r := o.run(p)
		cells := []any{p.name, rate(r.rate), milli(r.p50), milli(r.p99)}
		for i := range t.sites {
			cells = append(cells, milli(r.site[i]))
		}
		row(w, append(cells, us(r.cpu[leading]+r.cpu[following]), fmt.Sprintf("%.0f", 1/r.entries),
			share(r.cores), share(r.disk), share(r.lock), share(r.participants), r.limit())...)
	}
	w.Flush()
}

func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}

// rate shows three digits: there is nothing behind them.
func rate(perSecond float64) string {
	unit := 1.0
	for perSecond/unit >= 1000 {
		unit *= 10
	}
	return thousands(math.Round(perSecond/unit) * unit)
}

func thousands(x float64) string {
	n := int(x)
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

func milli(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
func us(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d)/float64(time.Microsecond)) }
func share(of float64) string   { return fmt.Sprintf("%.2f", of) }
