package main

// Real processes on loopback, for the tests that kill and stop them: three
// `decree server` and two `decree participant kv`, each with a data directory of
// its own. The server binary is built with failpoints, so that a test can hold it
// at a step of the protocol.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// patience bounds every wait for an event in these tests. It only has to be longer
// than a machine that is busy with other things takes; nothing is measured by it.
const patience = 60 * time.Second

// pollPause is how often a test looks at what it cannot subscribe to: a file that
// another process makes, a view that another process serves.
const pollPause = 10 * time.Millisecond

// build compiles cmd/decree with the tags, once for each set of them.
func build(t testing.TB, tags string) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	if path, ok := builds.done[tags]; ok {
		return path
	}
	path := filepath.Join(builds.dir, "decree-"+strings.ReplaceAll("x"+tags, ",", "-"))
	args := []string{"build", "-o", path, "-tags", tags}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build -tags %q: %v\n%s", tags, err, out)
	}
	builds.done[tags] = path
	return path
}

var builds = struct {
	sync.Mutex
	dir  string
	done map[string]string
}{done: map[string]string{}}

// process is a child that the test started and may kill, stop and restart.
type process struct {
	t    testing.TB
	name string
	path string
	args []string
	env  []string
	log  string // file of its output

	cmd  *exec.Cmd
	done chan struct{} // closed when it has been reaped
}

func (p *process) start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		_ = cmd.Wait() // killed on purpose; what matters is that it is gone
	}(p.cmd, p.done)
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("signal %s to %s: %v", s, p.name, err)
	}
}

// kill is kill -9, and returns when the process is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// server is one coordinator node.
type server struct {
	*process
	id, grpc, http, failpoints string // http is empty where it is off
}

// arm makes the node stop at the next passing of a protocol step.
func (s *server) arm(step string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.failpoints, step), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// disarm takes back what was armed and not hit.
func (s *server) disarm(step string) { os.Remove(filepath.Join(s.failpoints, step)) }

func (s *server) hit(step string) bool {
	_, err := os.Stat(filepath.Join(s.failpoints, step+".hit"))
	return err == nil
}

// release lets a node that was held go on.
func (s *server) release(step string) { os.Remove(filepath.Join(s.failpoints, step+".hit")) }

// kvBank is one kv participant.
type kvBank struct {
	*process
	address string
}

// bench is a cluster of three servers and two kv participants.
type bench struct {
	t       testing.TB
	dir     string
	servers []*server
	banks   map[string]*kvBank
	client  *client.Client
}

func startBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), banks: map[string]*kvBank{}}
	path := build(t, "failpoints")
	ports := freePorts(t, 8)
	var peers, endpoints []string
	for i := range 3 {
		peers = append(peers, fmt.Sprintf("n%d=%s", i+1, ports[i]))
		endpoints = append(endpoints, ports[3+i])
	}
	for i := range 3 {
		id := fmt.Sprintf("n%d", i+1)
		s := &server{id: id, grpc: ports[3+i], failpoints: filepath.Join(b.dir, id+"-failpoints")}
		if err := os.MkdirAll(s.failpoints, 0o755); err != nil {
			t.Fatal(err)
		}
		s.process = &process{
			t: t, name: id, path: path, log: filepath.Join(b.dir, id+".log"),
			args: []string{"server", "--node-id", id, "--data-dir", filepath.Join(b.dir, id), "--raft-addr", ports[i],
				"--grpc-addr", s.grpc, "--http-addr", "", "--peers", strings.Join(peers, ",")},
			env: []string{"DECREE_FAILPOINT_DIR=" + s.failpoints},
		}
		b.servers = append(b.servers, s)
		s.start()
	}
	b.join(endpoints, ports[6:])
	return b
}

// join starts the two banks at their ports, connects a client to the servers, and
// registers the banks. Everything is closed when the test ends.
func (b *bench) join(endpoints, ports []string) {
	t, path := b.t, build(b.t, "failpoints")
	t.Helper()
	for i, name := range []string{"bank-a", "bank-b"} {
		b.banks[name] = &kvBank{address: ports[i], process: &process{
			t: t, name: name, path: path, log: filepath.Join(b.dir, name+".log"),
			args: []string{"participant", "kv", "--listen", ports[i], "--path", b.bankFile(name)},
		}}
		b.banks[name].start()
	}
	t.Cleanup(b.close)
	var err error
	if b.client, err = client.New(client.Config{Endpoints: endpoints}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, name := range []string{"bank-a", "bank-b"} {
		config := mustStruct(t, map[string]any{"target": ports[i]})
		if _, err := b.client.PutParticipant(ctx, &decreev1.Participant{Name: name, Driver: "grpc", Config: config}); err != nil {
			t.Fatalf("register %s: %v", name, err)
		}
	}
}

func (b *bench) bankFile(name string) string { return filepath.Join(b.dir, name+".db") }

// close ends everything that was started, and shows the logs of a failed test.
func (b *bench) close() {
	if b.client != nil {
		if err := b.client.Close(); err != nil {
			b.t.Errorf("close client: %v", err)
		}
	}
	for _, s := range b.servers {
		s.kill()
	}
	for _, p := range b.banks {
		p.kill()
	}
	if !b.t.Failed() {
		return
	}
	logs, _ := filepath.Glob(filepath.Join(b.dir, "*.log"))
	for _, f := range logs {
		if content, err := os.ReadFile(f); err == nil {
			b.t.Logf("%s:\n%s", filepath.Base(f), tail(content, 6000))
		}
	}
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// leader waits until a node other than except says that it leads, and that it has
// opened an epoch past after.
func (b *bench) leader(after uint64, except *server) (*server, uint64) {
	b.t.Helper()
	var found *server
	var epoch uint64
	b.await("a leader", func(ctx context.Context) bool {
		for _, s := range b.servers {
			if s == except || !s.alive() {
				continue
			}
			st, err := b.client.NodeStatus(ctx, s.grpc)
			if err == nil && st.GetLeader() == s.id && st.GetEpoch() > after {
				found, epoch = s, st.GetEpoch()
				return true
			}
		}
		return false
	})
	return found, epoch
}

// await polls until a condition holds that no event announces.
func (b *bench) await(what string, holds func(context.Context) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		call, done := context.WithTimeout(ctx, time.Second)
		ok := holds(call)
		done()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// freePorts finds loopback addresses that nobody listens at. They are held until
// all are known, so that none comes twice.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var found []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		found = append(found, l.Addr().String())
	}
	return found
}
