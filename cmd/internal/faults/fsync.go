package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/decree-tx/decree/cmd/internal/fleet"
)

// FailSync makes every fsync and fdatasync of a process fail with EIO. Undone, they
// work, for whoever still dares; it starts nothing that has ended.
func FailSync(p *fleet.Process) (Undo, error) { return inject(p, "error=EIO") }

// HangSync makes every fsync and fdatasync of a process hang. Undone, they go on;
// it starts nothing that has ended. A process that exits meanwhile is not gone until
// then, for its hanging thread is not, and keeps connections and ports: so it is with
// a thread that hangs in the kernel. See [Exited].
func HangSync(p *fleet.Process) (Undo, error) {
	return inject(p, fmt.Sprintf("delay_enter=%ds", int(hangs.Seconds())))
}

const (
	// hangs is for ever, for those who wait.
	hangs = time.Hour
	// detachPatience is how long a tracer may take to let go before it is killed,
	// which lets go too: one whose process exits in a hang does not heed signals.
	detachPatience = time.Second
	// attachPatience is how long it may take to get hold of every thread.
	attachPatience = 15 * time.Second
)

// mostHung bounds the threads that can hang in syncs at one moment, and is below what
// a Go process has while it lives.
const mostHung = 2

// Exited reports whether a Go process has exited, though threads that a tracer holds
// may keep it from being gone.
func Exited(p *fleet.Process) bool {
	if !p.Alive() {
		return true
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID())) // the pattern is well formed
	if len(threads) > mostHung {
		return false
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// After the name, which is in brackets: t is held by a tracer, Z and X are dead.
		_, state, _ := strings.Cut(string(stat), ") ")
		if !strings.ContainsAny(state[:min(1, len(state))], "tZX") {
			return false
		}
	}
	return true
}

// inject has strace tamper with the process's syncs. Preloaded libraries would not
// do: Go calls the kernel directly.
func inject(p *fleet.Process, what string) (Undo, error) {
	cmd := exec.Command("strace", "-f", "-p", fmt.Sprint(p.PID()), "-o", "/dev/null",
		"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:"+what) //nolint:gosec // a number of ours
	cmd.Dir = p.Workplace() // the guard's, if we die
	cmd.SysProcAttr = ownSession()
	said, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("trace %s: %w", p.Name(), err)
	}
	if err := attached(said); err != nil {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		return nil, errors.Join(fmt.Errorf("trace %s: %w", p.Name(), err), cmd.Wait())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.Copy(io.Discard, said) //nolint:errcheck // until it ends
		cmd.Wait()                //nolint:errcheck // it ends with the process, or by our signal
	}()
	return undoOnce(func() error {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended with the process
		impatient := time.AfterFunc(detachPatience, func() { cmd.Process.Kill() })
		defer impatient.Stop()
		<-ended
		return nil
	}), nil
}

// attached reads what a tracer says until it has got hold of the process.
func attached(said io.ReadCloser) error {
	impatient := time.AfterFunc(attachPatience, func() { said.Close() }) //nolint:errcheck // ends the read
	defer impatient.Stop()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.Contains(line, " attached") {
		return fmt.Errorf("strace said %q (%w)", strings.TrimSpace(line), errors.Join(errNotAttached, err))
	}
	return nil
}

var errNotAttached = errors.New("not attached")
