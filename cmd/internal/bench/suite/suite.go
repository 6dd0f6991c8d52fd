// Package suite is what `make bench` measures: the table of goals that decree's speed
// is held against, each with the command that measures it, on one machine in one go.
//
// It owns the list and the page that is written about it. It refuses to measure by
// itself: every figure comes from a run of package bench, by flags that anybody can
// type.
package suite

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bench"
)

// Config of a suite.
type Config struct {
	// Parse reads the flags of `decree bench`.
	Parse func(args []string) (bench.Config, error)
	// Run measures; bench.Run but in tests.
	Run func(ctx context.Context, cfg bench.Config) (*bench.Report, error)
	// Binary, Version and Out are those of every run.
	Binary, Version string
	Out             io.Writer
	// Quick measures everything for an instant: to see that it works.
	Quick bool
}

// section is a part of the page: runs that are read together.
type section struct {
	title string
	about string
	runs  []run
}

// run is one `decree bench`. Its name is that by which goals find its report, and by
// which a table tells it from others of its section.
type run struct {
	name  string
	flags string // separated by spaces
}

// The kinds of flags that runs share.
const (
	short  = " --duration 4s --warmup 1s"
	ratios = " --against-raft --rounds 5"
	kill   = " --kill-leader-at 3s --duration 8s --warmup 1s"
	stuck  = "--stuck 10000 --rate 2000 --rounds 9 --duration 8s --warmup 3s"
)

// sections are the whole suite, in a quarter of an hour.
func sections() []section {
	return []section{
		{
			"One client", "Latency without company, as a ratio beside bare Raft in the same rounds.",
			[]run{
				{"decision", "--clients 1" + ratios + short},
				{"delivery", "--clients 1 --wait delivery" + ratios + short},
			},
		},
		{
			"Throughput", "Closed loop, two branches of 100 bytes, answered at the decision.",
			[]run{
				{"trivial", "--ramp 64,256,1024 --against-raft --rounds 3" + short},
				{"kv", "--ramp 64,256,1024 --participants kv" + short},
			},
		},
		{
			"Log store", "The same load with each, and bare Raft on the same store.",
			[]run{
				{"boltdb", "--ramp 1,64,1024 --against-raft --log-store boltdb" + short},
				{"wal", "--ramp 1,64,1024 --against-raft --log-store wal" + short},
			},
		},
		{
			"Waiting transactions", "10,000 transactions wait at a participant that never answers and at one that takes 5 s; the load is at others.",
			[]run{{"stuck", stuck}},
		},
		{
			"Failover", "The leader falls under the load of 64 clients.",
			[]run{
				{"kill", "--rounds 5" + kill},
				{"kill, 200 ms heartbeat", "--rounds 3 --server-arg --heartbeat-timeout=200ms --server-arg --election-timeout=200ms --server-arg --leader-lease=150ms" + kill},
				{"transfer", "--transfer-leader-at 2s --duration 4s --warmup 1s --rounds 5"},
			},
		},
		{
			"Branches", "64 clients, 64 participants: what a branch more costs.",
			[]run{
				{"2 branches", "--branches 2 --participants-count 64" + short},
				{"4 branches", "--branches 4 --participants-count 64" + short},
				{"16 branches", "--branches 16 --participants-count 64" + short},
				{"64 branches", "--branches 64 --participants-count 64" + short},
			},
		},
		{
			"Nodes", "All of them on this machine, whose cores they share.",
			[]run{
				{"1 node", "--nodes 1 --ramp 64,1024" + short},
				{"3 nodes", "--nodes 3 --ramp 64,1024" + short},
				{"5 nodes", "--nodes 5 --ramp 64,1024" + short},
			},
		},
		{
			"Groups", "Several clusters on this machine, each transaction on the one of its txid: nothing to be won on the cores of one.",
			[]run{
				{"1 group", "--groups 1 --ramp 64,256,1024 --rounds 3" + short},
				{"3 groups", "--groups 3 --ramp 64,256,1024 --rounds 3" + short},
				{"6 groups", "--groups 6 --ramp 64,256,1024 --rounds 3" + short},
			},
		},
		{
			"Payload", "64 clients, two branches.",
			[]run{
				{"100 B", "--payload 100" + short},
				{"1 KiB", "--payload 1024" + short},
				{"8 KiB", "--payload 8192" + short},
				{"64 KiB", "--payload 65536" + short},
			},
		},
	}
}

// quickly shortens a run's flags: each is measured for an instant.
func quickly(flags string) string {
	shorter := strings.NewReplacer(
		short, " --duration 300ms --warmup 100ms", kill, " --kill-leader-at 300ms --duration 4s --warmup 100ms",
		"--transfer-leader-at 2s --duration 4s --warmup 1s", "--transfer-leader-at 300ms --duration 2s --warmup 100ms",
		stuck, "--stuck 200 --rate 200 --rounds 2 --duration 300ms --warmup 100ms",
		"--rounds 5", "--rounds 1", "--rounds 3", "--rounds 2",
	)
	return shorter.Replace(flags)
}

// Results are the reports, by the names of the runs. A run that failed has an error
// instead.
type Results struct {
	Version  string
	Started  time.Time
	Took     time.Duration
	Quick    bool // nothing was measured for long enough to mean anything
	reports  map[string]*bench.Report
	failures map[string]error
	sections []section
}

// Run runs the suite. Runs that fail are told in the results; only the end of ctx ends
// it early.
func Run(ctx context.Context, cfg Config) (*Results, error) {
	r := &Results{
		Version: cfg.Version, Started: time.Now(), Quick: cfg.Quick,
		reports: map[string]*bench.Report{}, failures: map[string]error{}, sections: sections(),
	}
	for _, s := range r.sections {
		for i := range s.runs {
			one := &s.runs[i]
			if cfg.Quick {
				one.flags = quickly(one.flags)
			}
			fmt.Fprintf(cfg.Out, "\n%s, %s: decree bench %s\n", s.title, one.name, one.flags)
			report, err := cfg.one(ctx, one.flags)
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err != nil {
				fmt.Fprintf(cfg.Out, "FAILED: %s\n", err)
				r.failures[one.name] = err
				continue
			}
			r.reports[one.name] = report
		}
	}
	r.Took = time.Since(r.Started)
	return r, nil
}

func (c Config) one(ctx context.Context, flags string) (*bench.Report, error) {
	cfg, err := c.Parse(strings.Fields(flags))
	if err != nil {
		return nil, err
	}
	cfg.Binary, cfg.Version, cfg.Out = c.Binary, c.Version, c.Out
	return c.Run(ctx, cfg)
}

// Err is nil where every run was measured.
func (r *Results) Err() error {
	if len(r.failures) > 0 {
		return fmt.Errorf("%d runs failed: the page says which", len(r.failures))
	}
	return nil
}

// pictured is the run whose steps are worth a picture.
const pictured = "trivial"

// Ramp is that run's report; nil where it failed.
func (r *Results) Ramp() *bench.Report { return r.reports[pictured] }
