package fleet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end when it is told to: a leader
// hands over and finishes what clients wait for.
const stopGrace = 20 * time.Second

// Process is a child that can be killed and started again. Its methods may be
// called from many goroutines; they wait for one another.
type Process struct {
	fleet *Fleet
	name  string
	args  []string
	env   []string // beside our own

	mu  sync.Mutex
	run *run // the last one; guarded by mu
}

// run is one life of a process.
type run struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once it is reaped; err is set before
	err   error
}

func (r *run) alive() bool {
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

// Name is the process's name, and that of its log file.
func (p *Process) Name() string { return p.name }

// Workplace is where the process works, as all of its fleet do.
func (p *Process) Workplace() string { return p.fleet.workplace() }

// PID is the process's id, in its present or last life.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run.cmd.Process.Pid
}

// Alive reports whether the process runs.
func (p *Process) Alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run != nil && p.run.alive()
}

// Start starts the process, with the arguments that it had before.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil && p.run.alive() {
		return fmt.Errorf("%s is running", p.name)
	}
	log, err := os.OpenFile(filepath.Join(p.fleet.dir, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()                              //nolint:errcheck // the child has its own
	cmd := exec.Command(p.fleet.binary, p.args...) //nolint:gosec // our own binary
	cmd.Dir, cmd.Env = p.fleet.workplace(), append(environment(), p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownSession()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	r := &run{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = cmd.Wait()
	}()
	p.run = r
	return nil
}

// environment is ours without decree's settings, which are meant for commands of
// the user's.
func environment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "DECREE_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// Kill ends the process with SIGKILL, as a crash would, and returns when it is
// gone.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.signal(os.Kill); err != nil {
		return err
	}
	<-p.run.ended
	return nil
}

// Signal sends a signal to a process that runs. One that has ended is no error.
func (p *Process) Signal(s os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.signal(s)
}

// Ended is closed once the process, in its present or last life, is gone.
func (p *Process) Ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run.ended
}

// Stop ends the process gracefully, or after a while at once, and waits for its
// end. One that has ended before is no error.
func (p *Process) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.run.alive() {
		return nil
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	impatient := time.AfterFunc(stopGrace, func() { p.run.cmd.Process.Kill() }) //nolint:errcheck // it has ended then
	<-p.run.ended
	if !impatient.Stop() {
		return fmt.Errorf("%s did not end within %s and was killed", p.name, stopGrace)
	}
	if p.run.err != nil {
		return fmt.Errorf("%s ended: %w", p.name, p.run.err)
	}
	return nil
}

// signal wants mu.
func (p *Process) signal(s os.Signal) error {
	if err := p.run.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to %s: %w", s, p.name, err)
	}
	return nil
}
