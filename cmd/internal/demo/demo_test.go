package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// What is proven here: `make demo` ends well, leaves nothing running whatever
// happens to it, and scripts/cluster.sh does what it says to the processes that it
// started and to no others.

const script = "../../../scripts/cluster.sh"

// binary is the released one: without cgo, race detector and failpoints.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "decree-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "decree")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "github.com/decree-tx/decree/cmd/decree")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s\n", err, out)
		return 1
	}
	return m.Run()
}

// story collects what the demo prints, and announces lines as they come.
type story struct {
	t  *testing.T
	mu sync.Mutex
	b  bytes.Buffer
	// told is called with each write, if it is set.
	told func(text string)
}

func (s *story) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.b.Write(p)
	s.mu.Unlock()
	if s.told != nil {
		s.told(string(p))
	}
	return len(p), nil
}

func (s *story) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestDemo(t *testing.T) {
	dir := t.TempDir()
	out := &story{t: t}
	err := Run(t.Context(), Config{Script: script, Binary: binary, Dir: dir, Seed: 1, Out: out})
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, logs(dir))
	}
	for _, want := range []string{
		"both banks hold it prepared and wait for the decision",
		"it is decided; the courier has not delivered",
		"ok     nodes         n1, n2, n3 tell the same outcome of every transaction",
		"ok     participants  every branch ended as decided; nothing is left prepared",
		"ok     money         82000, as at the start",
		"2 leaders killed",
		"PASSED",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	nothingRuns(t, dir)
}

// TestDemoStopped stops the demo at several moments, as ctrl-C does.
func TestDemoStopped(t *testing.T) {
	for _, moment := range []string{"cluster.sh start", "the accounts are open", "both banks hold it prepared", "another node leads"} {
		t.Run(moment, func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &story{t: t, told: func(text string) {
				if strings.Contains(text, moment) {
					cancel()
				}
			}}
			err := Run(ctx, Config{Script: script, Binary: binary, Dir: dir, Seed: 1, Out: out})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want that it was stopped\n%s", err, out)
			}
			nothingRuns(t, dir)
		})
	}
}

// nothingRuns holds that no process works on a directory of the demo's, and that
// its ports are free.
func nothingRuns(t *testing.T, dir string) {
	t.Helper()
	if pids, err := filepath.Glob(filepath.Join(dir, "*.pid")); err != nil || len(pids) > 0 {
		t.Errorf("pid files are left: %v (%v)", pids, err)
	}
	processes, err := exec.Command("ps", "-e", "-o", "args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(processes), "\n") {
		if strings.Contains(line, dir) {
			t.Errorf("still runs: %s", line)
		}
	}
}

func logs(dir string) string {
	var all strings.Builder
	names, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err == nil {
			fmt.Fprintf(&all, "\n%s:\n%s", filepath.Base(name), content[max(0, len(content)-4000):])
		}
	}
	return all.String()
}

// TestFreeBase holds that a port in use moves the demo elsewhere.
func TestFreeBase(t *testing.T) {
	base, err := freeBase(t.Context(), 30000)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+participantPorts+2))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if other, err := freeBase(t.Context(), base); err != nil || other == base {
		t.Errorf("base %d (%v), though a port of it is in use", other, err)
	}
}

// TestPollTellsWhatItWaitedFor holds that a wait which fails says for what.
func TestPollTellsWhatItWaitedFor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := poll(ctx, "the moon", func() (bool, error) { return false, nil })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the moon") {
		t.Errorf("error %v", err)
	}
	broken := errors.New("broken")
	if err := poll(t.Context(), "x", func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want the one of the question", err)
	}
}
