package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The levels of the ladder that run here, by their numbers in DESIGN section 7. The
// first stands for levels 0 and 1. A level is left out where its tests do not run the
// broken package.
const (
	tests     = 1
	failovers = 2
	sim       = 3
)

var levels = []int{tests, failovers, sim}

// command is one run of tests.
type command struct {
	level int
	pkg   string
	args  string // separated by blanks
}

// users are the packages whose tests are closest to a package, the cheapest first.
var users = map[string][]string{
	"./fsm/txn":          {"./fsm/txn", "./fsm", "./coordinator"},
	"./fsm":              {"./fsm", "./coordinator/node"},
	"./participants":     {"./participants", "./participants/kv"},
	"./participants/kv":  {"./participants/kv"},
	"./coordinator":      {"./coordinator", "./coordinator/node"},
	"./coordinator/node": {"./coordinator/node"},
	"./cluster":          {"./cluster"},
	"./transport/branch": {"./transport/branch"},
}

// simulated are the packages of which the simulation plays the code itself.
var simulated = []string{"./fsm/txn", "./fsm", "./participants", "./coordinator", "./coordinator/node", "./cluster"}

// commands are what a level runs against a mutant, in order; the first that fails
// has caught it.
func commands(level int, m mutant) []command {
	var cs []command
	pkg := m.pkg()
	switch {
	case level == tests:
		if m.by != "" {
			cs = append(cs, command{tests, pkg, "-run ^" + m.by + "$"})
		}
		for _, p := range users[pkg] {
			cs = append(cs, command{tests, p, "-skip ^TestFailovers$"})
		}
	case level == failovers && (pkg == "./fsm/txn" || pkg == "./participants"):
		cs = append(cs, command{failovers, "./fsm/txn", "-run ^TestFailovers$ -failovers 20000"})
	case level == sim && slices.Contains(simulated, pkg):
		cs = append(cs, command{sim, "./coordinator/sim", "-run ^TestFailovers$ -sim.failovers 500"})
	}
	return cs
}

// outcome is how one command ended.
type outcome struct {
	failed  bool
	by      string // the test that failed, or what else ended it
	timeout bool
	seconds float64
	output  string
}

// patience is how long a command may take on a mutant: several times what it takes on
// the tree as it is, for the machine may have become busy. The tree must pass the
// command first, when it is needed for the first time.
func (t *tree) patience(ctx context.Context, c command) (time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.normal[c]; !known {
		o, err := t.test(ctx, c, "", 10*time.Minute)
		switch {
		case err != nil:
			return 0, err
		case o.failed:
			return 0, fmt.Errorf("the tree fails without a mutant: go test %s %s\n%s", c.pkg, c.args, o.output)
		}
		t.normal[c] = o.seconds
		fmt.Printf("\nmutants: go test %s %s passes in %.1f s without a mutant\n", c.pkg, c.args, o.seconds)
	}
	return max(time.Minute, time.Duration(5*t.normal[c])*time.Second), nil
}

// result is what the levels made of a mutant. A level that is not in it did not run.
type result struct {
	mutant mutant
	levels map[int]outcome
	all    bool // no level was left out that could catch it
	err    error
}

// try runs the levels against a mutant.
func (t *tree) try(ctx context.Context, m mutant, o options) result {
	r := result{mutant: m, levels: map[int]outcome{}, all: true}
	overlay, err := t.overlay(m)
	if err != nil {
		r.err = err
		return r
	}
	for _, level := range levels {
		if !strings.Contains(o.levels, fmt.Sprint(level)) {
			r.all = false
			continue
		}
		if r.err = t.climb(ctx, &r, level, overlay); r.err != nil || o.first && r.levels[level].failed {
			break
		}
	}
	return r
}

// climb runs one level against a mutant, until something fails.
func (t *tree) climb(ctx context.Context, r *result, level int, overlay string) error {
	for _, c := range commands(level, r.mutant) {
		o, err := t.put(ctx, c, overlay)
		if err != nil {
			return err
		}
		o.seconds += r.levels[level].seconds
		r.levels[level] = o
		if o.failed {
			break
		}
	}
	return nil
}

// put runs a command on a mutant.
func (t *tree) put(ctx context.Context, c command, overlay string) (outcome, error) {
	patience, err := t.patience(ctx, c)
	if err != nil {
		return outcome{}, err
	}
	return t.test(ctx, c, overlay, patience)
}

// test runs a command, with a mutant where overlay is not empty. An error means that
// the tests did not run.
func (t *tree) test(ctx context.Context, c command, overlay string, patience time.Duration) (outcome, error) {
	args := []string{"test", "-count=1", "-vet=off", "-failfast", "-ldflags=-s -w", "-timeout", patience.String()}
	env := os.Environ()
	if overlay != "" {
		args = append(args, "-overlay", overlay)
		// The evidence that a mutant leaves must not lie with that of real violations, nor
		// in the tree, where rapid plays it again.
		env = append(env, "TMPDIR="+filepath.Dir(overlay), "DECREE_SIM_DIR="+filepath.Dir(overlay), "RAPID_NOFAILFILE=1")
	}
	args = append(args, c.pkg)
	args = append(args, strings.Fields(c.args)...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = t.root, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // the tests, too
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return outcome{}, ctx.Err()
	}
	if err != nil && bytes.Contains(out, []byte(" failed]\n")) { // [build failed], [setup failed]
		return outcome{}, fmt.Errorf("the tests of %s do not compile:\n%s", c.pkg, out)
	}
	o := outcome{failed: err != nil, output: string(out), seconds: seconds(string(out))}
	if c.level == sim && !violated.MatchString(o.output) {
		o.failed = false
	}
	if o.failed {
		o.by, o.timeout = cause(o.output)
		if t.verbose {
			fmt.Printf("%s\n", o.output)
		}
	}
	return o, nil
}

var (
	ranFor   = regexp.MustCompile(`(?m)^(?:ok  |FAIL)\t\S+\t([0-9.]+)s`)
	failedIs = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	timedOut = regexp.MustCompile(`(?s)panic: test timed out after.*?\n\trunning tests:\n\t\t(\S+)`)
	// A world of the simulation is a test within the test. The run as a whole also fails
	// where terms began by themselves, or too few things happened, which proves nothing
	// about a mutant.
	violated  = regexp.MustCompile(`(?m)^ +--- FAIL: TestFailovers/|^panic: |^fatal error: `)
	endedWith = regexp.MustCompile(`(?m)^(?:panic|fatal error): (.*)`)
)

// seconds is how long the tests of a package ran, without their compilation.
func seconds(output string) float64 {
	found := ranFor.FindStringSubmatch(output)
	if found == nil {
		return 0
	}
	s, _ := strconv.ParseFloat(found[1], 64)
	return s
}

// cause is the first test that failed, or what ended all of them.
func cause(output string) (by string, timeout bool) {
	if found := timedOut.FindStringSubmatch(output); found != nil {
		return found[1], true
	}
	if found := failedIs.FindStringSubmatch(output); found != nil {
		return found[1], false
	}
	if found := endedWith.FindStringSubmatch(output); found != nil {
		return "panic: " + found[1][:min(len(found[1]), 60)], false
	}
	return "exit", false
}

// missed are the levels that had to catch the mutant and did not.
func (r result) missed() (levels []int) {
	for _, level := range r.mutant.caught {
		if o, ran := r.levels[level]; ran && !o.failed {
			levels = append(levels, level)
		}
	}
	return levels
}

// caught reports whether any level has caught the mutant.
func (r result) caught() bool {
	for _, o := range r.levels {
		if o.failed {
			return true
		}
	}
	return false
}

// problem says what is wrong with a result; empty where nothing is.
func (r result) problem() string {
	switch missed := r.missed(); {
	case r.err != nil:
		return r.err.Error()
	case len(missed) > 0:
		return fmt.Sprintf("level %d must catch it and does not", missed[0])
	case r.mutant.harmless == "" && !r.caught() && r.all:
		return "nothing catches it"
	case r.mutant.harmless != "" && r.caught():
		return "it is said to be harmless and was caught"
	default:
		return ""
	}
}
