package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patienceOfTests bounds every wait. It only has to be longer than a busy machine
// takes.
const patienceOfTests = 60 * time.Second

// local is a cluster of the script's in a directory of the test's.
type local struct {
	t    *testing.T
	dir  string
	port int
}

func newLocal(t *testing.T) *local {
	t.Helper()
	port, err := freeBase(t.Context(), 40000)
	if err != nil {
		t.Fatal(err)
	}
	l := &local{t, t.TempDir(), port}
	t.Cleanup(func() {
		l.try("stop")
		nothingRuns(t, l.dir)
		if t.Failed() {
			t.Log(logs(l.dir))
		}
	})
	return l
}

// try runs a command of the script and gives its output and exit code.
func (l *local) try(args ...string) (string, int) {
	l.t.Helper()
	cmd := exec.Command(script, append([]string{"-d", l.dir, "-p", strconv.Itoa(l.port)}, args...)...)
	cmd.Env = append(os.Environ(), "DECREE_BIN="+binary)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		l.t.Fatalf("%v: %v", args, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is try for a command that has to succeed.
func (l *local) must(args ...string) string {
	l.t.Helper()
	out, code := l.try(args...)
	if code != 0 {
		l.t.Fatalf("cluster.sh %v: exit %d\n%s", args, code, out)
	}
	return out
}

// awaitLeader waits until a running node other than except leads.
func (l *local) awaitLeader(except string) {
	l.t.Helper()
	c := &localCluster{port: l.port}
	deadline := time.Now().Add(patienceOfTests)
	for time.Now().Before(deadline) {
		for _, endpoint := range c.endpoints() {
			cmd := exec.Command(binary, "cluster", "status", "-q", "--patience", "1s", "--endpoints", endpoint)
			if out, err := cmd.Output(); err == nil && strings.TrimSpace(string(out)) != except {
				return
			}
		}
	}
	l.t.Fatal("no other node leads")
}

func TestClusterScript(t *testing.T) {
	l := newLocal(t)
	if out := l.must("start"); !strings.Contains(out, " leads\n") {
		t.Errorf("start says:\n%s", out)
	}
	if out, code := l.try("start"); code == 0 || !strings.Contains(out, "n1 runs already") {
		t.Errorf("a second start: exit %d, %s", code, out)
	}
	if out := l.must("status"); strings.Count(out, "running, pid") != 3 {
		t.Errorf("status says:\n%s", out)
	}

	paused := strings.Fields(l.must("pause-leader"))[1]
	if out, _ := l.try("status"); !strings.Contains(out, paused+"  paused, pid") {
		t.Errorf("status of a paused node:\n%s", out)
	}
	l.awaitLeader(paused)
	if out := l.must("resume"); !strings.Contains(out, "resumed "+paused) {
		t.Errorf("resume says:\n%s", out)
	}
	if out := l.must("resume"); !strings.Contains(out, "no node is paused") {
		t.Errorf("a second resume says:\n%s", out)
	}

	killed := strings.Fields(l.must("kill-leader"))[1]
	if out, _ := l.try("status"); !strings.Contains(out, killed+"  not running") {
		t.Errorf("status of a killed node:\n%s", out)
	}
	if out := l.must("restart", killed); !strings.Contains(out, " leads\n") {
		t.Errorf("restart says:\n%s", out)
	}
	if out := l.must("status"); strings.Count(out, "running, pid") != 3 {
		t.Errorf("status after the restart:\n%s", out)
	}
	l.must("stop")
	if out, code := l.try("status"); code == 0 || strings.Count(out, "not running") != 3 {
		t.Errorf("status after the stop: exit %d\n%s", code, out)
	}
}

// TestClusterScriptSparesStrangers leaves pid files behind that name a process of
// somebody else's, as after a reboot.
func TestClusterScriptSparesStrangers(t *testing.T) {
	l := newLocal(t)
	stranger := exec.Command("sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stranger.Process.Kill()
		stranger.Wait()
	}()
	pidFile := filepath.Join(l.dir, "n1.pid")
	if err := os.WriteFile(pidFile, fmt.Appendf(nil, "%d\n", stranger.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := l.try("status"); !strings.Contains(out, "n1  not running") {
		t.Errorf("a stranger is taken for n1:\n%s", out)
	}
	l.must("stop")
	state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(stranger.Process.Pid)).Output()
	if err != nil || strings.HasPrefix(strings.TrimSpace(string(state)), "Z") {
		t.Errorf("the stranger was killed (state %q, %v)", state, err)
	}
}

// TestClusterScriptTellsWhyANodeEnds occupies the port of one node.
func TestClusterScriptTellsWhyANodeEnds(t *testing.T) {
	l := newLocal(t)
	other := newLocal(t)
	other.port = l.port
	l.must("start")
	if out, code := other.try("start"); code == 0 || !strings.Contains(out, "port in use") || !strings.Contains(out, "has ended") {
		t.Errorf("exit %d, output:\n%s", code, out)
	}
}

func TestClusterScriptUsage(t *testing.T) {
	l := newLocal(t)
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{}, 2, "Usage:"},
		{[]string{"-h"}, 0, "Usage:"},
		{[]string{"nonsense"}, 2, "Usage:"},
		{[]string{"-x", "start"}, 2, "Usage:"},
		{[]string{"-p", "0", "status"}, 1, "want a number"},
		{[]string{"-p", "7100; true", "status"}, 1, "want a number"},
		{[]string{"restart"}, 1, "restart which node?"},
		{[]string{"restart", "n9"}, 1, "there is no node n9"},
		{[]string{"logs", "n9"}, 1, "there is no node n9"},
	} {
		if out, code := l.try(tt.args...); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%v: exit %d, want %d; %q is not in:\n%s", tt.args, code, tt.code, tt.want, out)
		}
	}
}
