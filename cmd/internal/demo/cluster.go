package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a participant may take to end when it is told to.
const stopGrace = 10 * time.Second

// Offsets of ports from the base; the first three are scripts/cluster.sh's.
const (
	grpcPorts        = 0
	participantPorts = 300
)

// localCluster is the cluster of scripts/cluster.sh: three processes.
type localCluster struct {
	script, binary, dir string
	port                int
	say                 func(format string, args ...any)
}

func (c *localCluster) endpoints() []string {
	var all []string
	for n := 1; n <= 3; n++ {
		all = append(all, fmt.Sprintf("127.0.0.1:%d", c.port+grpcPorts+n))
	}
	return all
}

// run runs a command of the script and gives what it printed. The script is not
// killed with ctx: it must be able to finish what it has begun, such as a stop.
func (c *localCluster) run(args ...string) (string, error) {
	cmd := exec.Command(c.script, append([]string{"-d", c.dir, "-p", strconv.Itoa(c.port)}, args...)...) //nolint:gosec // our own script
	cmd.Env = append(os.Environ(), "DECREE_BIN="+c.binary)
	cmd.SysProcAttr = ownGroup()
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s %s: %w: %s", c.script, strings.Join(args, " "), err, text)
	}
	return text, nil
}

// show is run for a command that a person could have typed, and shows it.
func (c *localCluster) show(args ...string) (string, error) {
	c.say("$ scripts/cluster.sh %s", strings.Join(args, " "))
	out, err := c.run(args...)
	if err == nil {
		c.say("  %s", strings.Split(out, "\n")[0])
	}
	return out, err
}

// killLeader kills the leader with SIGKILL and tells which node it was.
func (c *localCluster) killLeader() (node string, at time.Time, err error) {
	out, err := c.show("kill-leader")
	if err != nil {
		return "", time.Time{}, err
	}
	words := strings.Fields(out) // killed n2 (pid 17); ...
	if len(words) < 2 {
		return "", time.Time{}, fmt.Errorf("cluster.sh kill-leader said %q", out)
	}
	return words[1], time.Now(), nil
}

// service is a participant's process.
type service struct {
	name, address string
	cmd           *exec.Cmd
	ended         chan error // gets the result of Wait
}

// startService runs `decree participant ...` with a log file in dir.
func startService(binary, dir, name, address string, args ...string) (*service, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()                                                                                     //nolint:errcheck // the child has its own
	cmd := exec.Command(binary, append([]string{"participant"}, append(args, "--listen", address)...)...) //nolint:gosec // our own binary
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &service{name: name, address: address, cmd: cmd, ended: make(chan error, 1)}
	go func() { s.ended <- cmd.Wait() }()
	return s, nil
}

// stop ends the process gracefully, or else at once, and waits for its end. It
// may be called again.
func (s *service) stop() error {
	if s == nil || s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	impatient := time.AfterFunc(stopGrace, func() { s.cmd.Process.Kill() }) //nolint:errcheck // it has ended then
	defer impatient.Stop()
	err := <-s.ended
	s.cmd = nil
	if err != nil {
		return fmt.Errorf("%s ended: %w", s.name, err)
	}
	return nil
}

// freeBase finds a port from which all that the demo counts are free: the usual
// one, so that a person can look in, or else another.
func freeBase(ctx context.Context, usual int) (int, error) {
	for base := usual; base < usual+20_000 && ctx.Err() == nil; base += 1000 {
		if free(base) {
			return base, nil
		}
	}
	return 0, errors.New("no free ports on 127.0.0.1")
}

func free(base int) bool {
	for _, block := range []int{0, 100, 200, participantPorts} {
		for n := 1; n <= 3; n++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+block+n))
			if err != nil {
				return false
			}
			l.Close() //nolint:errcheck // nothing was accepted
		}
	}
	return true
}

// lines makes a function that prints lines with the time since now.
func lines(w io.Writer) func(format string, args ...any) {
	start := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(w, "[%5.1fs] %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}
