// Mutants puts deliberate bugs into decree, one at a time, and reports which level
// of the verification ladder (DESIGN section 7) catches each. A bug that no level
// catches, and that is not argued to be harmless, fails the run.
//
// A mutant is one small diff under patches, with a header that says which rule it
// breaks, how, and who must notice:
//
//	Rules: R1
//	Breaks: A decision that comes second replaces the first.
//	Caught: 1 2 3
//	Model: BUG_SECOND_DECISION
//	--- a/fsm/txn/step.go
//	+++ b/fsm/txn/step.go
//	...
//
// Caught lists the levels that fail the run where they do not catch it; others may
// catch it as well. By, which may be missing, names the test of the broken package that
// is known to notice: it runs before all the others, which saves minutes where those
// are slow. Harmless, in the place of Caught, says why nobody can be hurt. Model names
// the switch under which the model of level 6 has the same bug.
//
// The diff is applied to a copy of its file, which the Go tool then reads in the
// file's place (go help build, -overlay): the tree is never touched. The tree as it is
// must pass whatever a mutant is put to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// options are the command line's.
type options struct {
	root     string
	only     string
	sample   int
	day      int
	jobs     int
	list     bool
	check    bool
	first    bool
	levels   string
	verbose  bool
	markdown string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.root, "root", "../..", "the `directory` of decree's go.mod")
	flag.StringVar(&o.only, "only", "", "run the mutants whose `name` contains one of these, separated by commas")
	flag.IntVar(&o.sample, "sample", 0, "run only so many `mutants`, others every day")
	flag.IntVar(&o.day, "day", int(time.Now().Unix()/86400), "which `day`'s sample")
	flag.IntVar(&o.jobs, "j", 1, "run so many `mutants` at once")
	flag.BoolVar(&o.list, "list", false, "list the mutants and run nothing")
	flag.BoolVar(&o.check, "check", false, "check that each mutant is complete, applies, compiles and has a row in the published table, and run nothing")
	flag.BoolVar(&o.first, "first", false, "stop a mutant at the first level that catches it")
	flag.StringVar(&o.levels, "levels", "123", "run only these `levels`; 1 stands for 0 and 1")
	flag.BoolVar(&o.verbose, "v", false, "print what the tests print about each mutant")
	flag.StringVar(&o.markdown, "markdown", "", "also write the rows into the table of this `file`, a path below -root, between its two markers")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	if o.markdown != "" {
		if _, err := os.Stat(filepath.Join(root, o.markdown)); err != nil { // before the hour that the rest may take
			return err
		}
	}
	all, err := readAll("patches")
	if err != nil {
		return err
	}
	chosen := choose(all, o)
	switch {
	case len(chosen) == 0:
		return fmt.Errorf("no mutant is called %q", o.only)
	case o.list:
		printList(os.Stdout, chosen)
		return nil
	}
	dir, err := os.MkdirTemp("", "decree-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tree := &tree{root: root, scratch: dir, verbose: o.verbose, normal: map[command]float64{}}
	if o.check { // all of them, for their files change every day
		return errors.Join(tree.check(ctx, all), checkTable(filepath.Join(root, published), all))
	}
	if err := tree.check(ctx, chosen); err != nil {
		return err
	}
	began := time.Now()
	results := tree.runAll(ctx, chosen, o)
	if err := ctx.Err(); err != nil {
		return err
	}
	took := time.Since(began)
	printSummary(os.Stdout, results, took)
	if o.markdown != "" {
		if err := rewrite(filepath.Join(root, o.markdown), all, results, took); err != nil {
			return err
		}
	}
	return verdict(results)
}

// choose takes what was asked for. The sample of a day and those of the next days
// go round through all mutants.
func choose(all []mutant, o options) []mutant {
	var chosen []mutant
	for _, m := range all {
		for _, part := range strings.Split(o.only, ",") {
			if strings.Contains(m.name, part) {
				chosen = append(chosen, m)
				break
			}
		}
	}
	if o.sample <= 0 || o.sample >= len(chosen) {
		return chosen
	}
	var sample []mutant
	for i := range o.sample { // far apart, because neighbours break the same file
		groups := len(chosen) / o.sample
		sample = append(sample, chosen[(i*groups+o.day)%len(chosen)])
	}
	return sample
}

// runAll runs the mutants, and returns their results in order.
func (t *tree) runAll(ctx context.Context, chosen []mutant, o options) []result {
	results := make([]result, len(chosen))
	room := make(chan struct{}, max(o.jobs, 1))
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	for i, m := range chosen {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			results[i] = t.try(ctx, m, o)
			if ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				printResult(os.Stdout, results[i])
			}
		})
	}
	wg.Wait()
	return results
}

// verdict is nil where every mutant was caught by all that must catch it, or is
// harmless.
func verdict(results []result) error {
	var problems []error
	for _, r := range results {
		if p := r.problem(); p != "" {
			problems = append(problems, fmt.Errorf("%s: %s", r.mutant.name, p))
		}
	}
	return errors.Join(problems...)
}
