// Package fleet runs decree's real processes on this machine: the nodes of a
// cluster and services that take part, each with a log file and able to be killed,
// stopped and started again.
//
// It owns the directory that they work in and their whole life: nothing of a
// fleet outlives the process that started it, however that one ends. It refuses
// to know what the processes are for, and speaks to none of them.
package fleet

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Fleet is a directory and the processes that work in it.
type Fleet struct {
	dir    string
	binary string
	guard  *guard

	mu        sync.Mutex
	processes []*Process // guarded by mu
}

// Config says what a fleet runs.
type Config struct {
	// Binary is the decree binary that plays all the parts; a path.
	Binary string
	// Dir keeps data and logs, and stays. Empty stands for a temporary directory,
	// which goes with the fleet unless Keep is called.
	Dir string
}

// New makes the directory and posts the guard over it. Close the fleet.
func New(cfg Config) (*Fleet, error) {
	binary, err := filepath.Abs(cfg.Binary)
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	f := &Fleet{dir: dir, binary: binary}
	if err := os.MkdirAll(f.workplace(), 0o755); err != nil {
		return nil, err
	}
	if f.guard, err = post(dir, f.workplace(), f.Mounts()); err != nil {
		return nil, err
	}
	if cfg.Dir != "" {
		f.Keep()
	}
	return f, nil
}

// makeDir makes the directory reachable for other accounts: a database server may
// have to run as one.
func makeDir(asked string) (string, error) {
	if asked == "" {
		dir, err := os.MkdirTemp("", "decree-")
		if err != nil {
			return "", err
		}
		return dir, os.Chmod(dir, 0o711) //nolint:gosec // it can be passed, not listed
	}
	dir, err := filepath.Abs(asked)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// workplace is the working directory of all processes, by which the guard knows
// them.
func (f *Fleet) workplace() string { return filepath.Join(f.dir, "run") }

// Dir is the fleet's directory.
func (f *Fleet) Dir() string { return f.dir }

// Mounts is the directory for file systems that the fleet's owner mounts. They are
// unmounted when the fleet goes.
func (f *Fleet) Mounts() string { return filepath.Join(f.dir, "mnt") }

// Processes are all that were started, in that order.
func (f *Fleet) Processes() []*Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.processes)
}

// Keep leaves the directory where it is when the fleet goes: somebody has to find
// out what went wrong.
func (f *Fleet) Keep() { f.guard.keep() }

// Start runs the binary under a name with arguments, and its output in a log file
// of that name.
func (f *Fleet) Start(name string, args ...string) (*Process, error) {
	return f.StartWith(nil, name, args...)
}

// StartWith is Start with further environment variables, NAME=value.
func (f *Fleet) StartWith(env []string, name string, args ...string) (*Process, error) {
	p := &Process{fleet: f, name: name, args: args, env: env}
	if err := p.Start(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.processes = append(f.processes, p)
	return p, nil
}

// Stop ends all processes gracefully, side by side, and tells which did not end
// so.
func (f *Fleet) Stop() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := make([]error, len(f.processes))
	var stopping sync.WaitGroup
	for i, p := range f.processes {
		stopping.Go(func() { errs[i] = p.Stop() })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// Close kills what still runs and removes the directory unless it is kept. A
// second Close does nothing.
func (f *Fleet) Close() error {
	err := f.guard.dismiss()
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := []error{err}
	for _, p := range f.processes {
		errs = append(errs, p.Kill()) // the guard has, unless somebody took its directory away
	}
	return errors.Join(errs...)
}

// Logs is the end of every log file, for people.
func (f *Fleet) Logs() string {
	var all strings.Builder
	names, _ := filepath.Glob(filepath.Join(f.dir, "*.log")) // the pattern is well formed
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		fmt.Fprintf(&all, "%s:\n%s\n", filepath.Base(name), content[max(0, len(content)-logTail):])
	}
	return all.String()
}

// logTail is how much of each log Logs shows, in bytes.
const logTail = 4096

//go:embed guard.sh
var guardScript string

// guard is a process that waits for the end of its input, and then ends whatever
// works in the workplace, unmounts what is mounted, and removes the directory. It is how Close works, and
// what happens when this process dies in whatever way: one path for both.
type guard struct {
	mu     sync.Mutex // guards what follows
	cmd    *exec.Cmd  // nil once dismissed
	orders io.WriteCloser
}

func post(dir, workplace, mounts string) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "guard.sh", dir, workplace, mounts)
	cmd.Dir = "/"
	cmd.SysProcAttr = ownSession()
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the fleet's guard: %w", err)
	}
	// Nothing may be started before the guard stands.
	if _, err := bufio.NewReader(answers).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("the fleet's guard: %w", err), cmd.Wait())
	}
	return &guard{cmd: cmd, orders: orders}, nil
}

func (g *guard) keep() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cmd != nil {
		fmt.Fprintln(g.orders, "keep") //nolint:errcheck // without a guard the directory stays anyway
	}
}

func (g *guard) dismiss() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cmd == nil {
		return nil
	}
	cmd := g.cmd
	g.cmd = nil
	if err := errors.Join(g.orders.Close(), cmd.Wait()); err != nil {
		return fmt.Errorf("the fleet's guard: %w", err)
	}
	return nil
}
