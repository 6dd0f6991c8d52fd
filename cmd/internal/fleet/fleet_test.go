package fleet

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is proven here: a fleet's processes can be killed and started again, its
// interrupt is ours alone, and nothing of it outlives the process that started it,
// not even one that is killed.

const patience = 30 * time.Second

// sleeper stands in for the decree binary: it says that it runs and sleeps.
func sleeper(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sleeper")
	script := "#!/bin/sh\necho \"up with $*\"\ntrap 'echo down; exit 0' TERM\nwhile :; do sleep 0.05; done\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func runs(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func gone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func TestProcessLives(t *testing.T) {
	f, err := New(Config{Binary: sleeper(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := f.Start("clock", "--tick", "1")
	if err != nil {
		t.Fatal(err)
	}
	up := func(n int) func() bool {
		return func() bool { return strings.Count(f.Logs(), "up with --tick 1") == n }
	}
	await(t, "the first life", up(1))
	if err := p.Start(); err == nil {
		t.Error("it runs and was started again")
	}
	if err := p.Kill(); err != nil || p.Alive() {
		t.Fatalf("alive %t after a kill: %v", p.Alive(), err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the second life", up(2))
	if err := f.Stop(); err != nil || p.Alive() || !strings.Contains(f.Logs(), "down") {
		t.Errorf("alive %t after a stop (%v):\n%s", p.Alive(), err, f.Logs())
	}
	if err := p.Stop(); err != nil {
		t.Errorf("the second stop: %v", err)
	}
	if err := f.Close(); err != nil || !gone(f.Dir()) {
		t.Errorf("%s stays (%v)", f.Dir(), err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("the second close: %v", err)
	}
}

func TestKeep(t *testing.T) {
	asked := t.TempDir()
	f, err := New(Config{Binary: sleeper(t), Dir: asked})
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Start("clock")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil || gone(asked) || p.Alive() {
		t.Errorf("directory gone %t, process alive %t: %v", gone(asked), p.Alive(), err)
	}
}

// TestCloseWithoutDirectory holds that processes end although the guard can no longer
// tell which they are.
func TestCloseWithoutDirectory(t *testing.T) {
	f, err := New(Config{Binary: sleeper(t)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Start("clock")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(f.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil || p.Alive() {
		t.Errorf("alive %t (%v)", p.Alive(), err)
	}
}

// TestNothingOutlivesUs kills a process that has a fleet.
func TestNothingOutlivesUs(t *testing.T) {
	if binary := os.Getenv("FLEET_TEST_BINARY"); binary != "" {
		f, err := New(Config{Binary: binary})
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.Start("clock")
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("fleet " + f.Dir() + " " + strconv.Itoa(p.PID()) + "\n")
		<-t.Context().Done() // until we are killed
		return
	}
	owner := exec.Command(os.Args[0], "-test.run", "^TestNothingOutlivesUs$")
	owner.Env = append(os.Environ(), "FLEET_TEST_BINARY="+sleeper(t))
	owner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 3 {
		t.Fatalf("the owner said %q (%v)", line, err)
	}
	pid, err := strconv.Atoi(words[2])
	if err != nil || !runs(pid) {
		t.Fatalf("process %s runs: %t (%v)", words[2], runs(pid), err)
	}
	if err := syscall.Kill(-owner.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	owner.Wait()
	await(t, "the end of its process", func() bool { return !runs(pid) })
	await(t, "the end of its directory", func() bool { return gone(words[1]) })
}

// TestFreePort holds that a port in use moves a fleet elsewhere.
func TestFreePort(t *testing.T) {
	port, err := FreePort(0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{Binary: sleeper(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cluster, err := f.StartCluster(port)
	if err != nil || len(cluster.Endpoints()) != Nodes {
		t.Fatalf("endpoints %v (%v)", cluster.Endpoints(), err)
	}
	if n, ok := cluster.Node("n2"); !ok || n.Endpoint != cluster.Endpoints()[1] {
		t.Errorf("n2 is %v", n)
	}
	l := listen(t, port.Service(2))
	defer l.Close()
	if other, err := FreePort(port); err != nil || other == port {
		t.Errorf("port %d (%v), though one of it is in use", other, err)
	}
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
