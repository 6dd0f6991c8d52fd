package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decree-tx/decree/transport/certs"
)

// What is proven here: a node and a development cluster as an operator meets
// them, in this process. They start, answer, stop when told to and leave their
// ports and directories free; and each mistake that keeps a node from starting is
// told clearly.

// running is a command that goes on until it is stopped.
type running struct {
	t      *testing.T
	stop   context.CancelFunc
	ended  chan int // gets the exit code
	stdout lockedBuffer
	stderr lockedBuffer
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &running{t: t, stop: stop, ended: make(chan int, 1)}
	go func() { r.ended <- Run(ctx, args, strings.NewReader(""), &r.stdout, &r.stderr) }()
	t.Cleanup(func() { r.end() })
	return r
}

// end stops the command and gives its exit code.
func (r *running) end() int {
	r.t.Helper()
	r.stop()
	select {
	case code := <-r.ended:
		r.ended <- code // for those who ask again
		return code
	case <-time.After(patience):
		r.t.Fatalf("it does not stop; stderr:\n%s", r.stderr.String())
		return -1
	}
}

// await polls until holds is true, while the command runs.
func (r *running) await(what string, holds func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for !holds() {
		select {
		case code := <-r.ended:
			r.ended <- code
			r.t.Fatalf("it ended with %d, waiting for %s; stderr:\n%s", code, what, r.stderr.String())
		case <-deadline:
			r.t.Fatalf("waited in vain for %s; stderr:\n%s", what, r.stderr.String())
		case <-tick.C:
		}
	}
}

// lockedBuffer is written by a command while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lone is a cluster of one node.
type lone struct{ dir, raft, grpc, http string }

func newLone(t *testing.T) lone {
	t.Helper()
	ports, err := freeAddresses(3)
	if err != nil {
		t.Fatal(err)
	}
	return lone{filepath.Join(t.TempDir(), "n1"), ports[0], ports[1], ports[2]}
}

func (l lone) args(more ...string) []string {
	return append([]string{
		"server", "--node-id", "n1", "--data-dir", l.dir, "--peers", "n1=" + l.raft, "--log-level", "error",
		"--raft-addr", l.raft, "--grpc-addr", l.grpc, "--http-addr", l.http,
	}, more...)
}

func (l lone) startAndLead(t *testing.T) *running {
	t.Helper()
	r := start(t, l.args()...)
	r.await("the node to lead", func() bool {
		return run(t, nil, "", "cluster", "status", "-q", "--patience", "1s", "--endpoints", l.grpc).stdout == "n1\n"
	})
	return r
}

func TestServerStartsAnswersStopsAndStartsAgain(t *testing.T) {
	node := newLone(t)
	for round := range 2 {
		r := node.startAndLead(t)
		put := run(t, nil, "", "participant", "put", "dice", "--driver", "sim", "--endpoints", node.grpc)
		if put.exit != exitOK {
			t.Fatalf("round %d: %s", round, put.stderr)
		}
		answer := postJSON(t, "http://"+node.http+"/v1/transactions", `{"branches":[{"participant":"dice","json":{}}]}`)
		if !strings.Contains(answer, "OUTCOME_COMMITTED") {
			t.Errorf("round %d: curl is told %s", round, answer)
		}
		if code := r.end(); code != exitOK {
			t.Errorf("round %d: exit %d after a stop; stderr:\n%s", round, code, r.stderr.String())
		}
	}
	r := node.startAndLead(t)
	r.await("the transactions of both rounds", func() bool {
		return strings.Count(run(t, nil, "", "tx", "list", "-q", "--endpoints", node.grpc).stdout, "\n") == 2
	})
	r.end()
}

func postJSON(t *testing.T, url, body string) string {
	t.Helper()
	return postJSONBy(t, http.DefaultClient, url, body)
}

func postJSONBy(t *testing.T, web *http.Client, url, body string) string {
	t.Helper()
	resp, err := web.Post(url, "application/json", strings.NewReader(body)) //nolint:gosec,noctx // ours
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// TestServerMistakes starts nodes that cannot run. Each says why, in one place,
// and leaves nothing behind.
func TestServerMistakes(t *testing.T) {
	node := newLone(t)
	r := node.startAndLead(t)
	t.Run("ports in use", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "n2")
		got := run(t, nil, "", "server", "--node-id", "n2", "--data-dir", other, "--peers", "n2="+node.raft,
			"--raft-addr", node.raft, "--grpc-addr", node.grpc, "--http-addr", node.http)
		for _, want := range []string{"grpc-addr: port in use: another process listens on " + node.grpc, "http-addr: port in use"} {
			if got.exit != exitFailed || !strings.Contains(got.stderr, want) {
				t.Errorf("exit %d, %q is not in: %s", got.exit, want, got.stderr)
			}
		}
		if _, err := os.Stat(other); !os.IsNotExist(err) {
			t.Errorf("it left a data directory behind (%v)", err)
		}
	})
	t.Run("Raft's port in use", func(t *testing.T) {
		spare := newLone(t)
		got := run(t, nil, "", spare.args("--peers", "n1="+node.raft, "--raft-addr", node.raft, "--log-level", "off")...)
		if want := "raft-addr: port in use: another process listens on " + node.raft; got.exit != exitFailed || !strings.Contains(got.stderr, want) {
			t.Errorf("exit %d, %q is not in: %s", got.exit, want, got.stderr)
		}
		free(t, spare.grpc)
	})
	t.Run("data directory in use", func(t *testing.T) {
		spare := newLone(t)
		spare.dir = node.dir
		got := run(t, nil, "", spare.args("--log-level", "off")...)
		if want := "the data directory is in use by another process"; got.exit != exitFailed || !strings.Contains(got.stderr, want) {
			t.Errorf("exit %d, %q is not in: %s", got.exit, want, got.stderr)
		}
	})
	r.end()
	t.Run("another node's data", func(t *testing.T) {
		got := run(t, nil, "", node.args("--node-id", "n2", "--peers", "n2="+node.raft, "--log-level", "off")...)
		if want := `is node "n1"'s, this is "n2"`; got.exit != exitFailed || !strings.Contains(got.stderr, want) {
			t.Errorf("exit %d, %q is not in: %s", got.exit, want, got.stderr)
		}
		free(t, node.raft)
	})
	for _, name := range []string{"raft.db", "node.json"} {
		t.Run("a corrupt "+name, func(t *testing.T) {
			broken := newLone(t)
			if err := os.CopyFS(broken.dir, os.DirFS(node.dir)); err != nil {
				t.Fatal(err)
			}
			noise := make([]byte, 64<<10)
			if _, err := rand.Read(noise); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(broken.dir, name), noise, 0o600); err != nil {
				t.Fatal(err)
			}
			got := run(t, nil, "", broken.args("--log-level", "off")...)
			if want := "the data directory is corrupt"; got.exit != exitFailed || !strings.Contains(got.stderr, want) {
				t.Errorf("exit %d, %q is not in: %s", got.exit, want, got.stderr)
			}
			if after, err := os.ReadFile(filepath.Join(broken.dir, name)); err != nil || !bytes.Equal(after, noise) {
				t.Errorf("the corrupt file was changed (%v)", err)
			}
			free(t, broken.raft, broken.grpc, broken.http)
		})
	}
}

// free holds that nobody listens at the addresses any more.
func free(t *testing.T, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("%s was not given free: %v", address, err)
			continue
		}
		l.Close()
	}
}

// TestConfigMistakesAreAllTold is the config with three mistakes, one in
// each source.
func TestConfigMistakesAreAllTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decree.yaml")
	mustWrite(t, path, "node_id: n1\ndata_dir: d\npeers: {n1: \"127.0.0.1:1\"}\nmax_payload: lots\n")
	t.Setenv("DECREE_HTTP_ADDR", "nowhere")
	got := run(t, nil, "", "server", "--config", path, "--leader-lease", "soon")
	want := []string{
		"decree: 3 problems:",
		`decree.yaml:4: max_payload: "lots": want a size`,
		`DECREE_HTTP_ADDR: "nowhere": want host:port`,
		`--leader-lease: "soon": want a duration`,
	}
	for _, w := range want {
		if got.exit != exitUsage || !strings.Contains(got.stderr, w) {
			t.Errorf("exit %d, %q is not in:\n%s", got.exit, w, got.stderr)
		}
	}
}

// TestStopWhileWaitingForPeers stops a node whose peers never came.
func TestStopWhileWaitingForPeers(t *testing.T) {
	node := newLone(t)
	r := start(t, node.args("--peers", "n1="+node.raft+",n2=127.0.0.1:1", "--log-level", "info")...)
	r.await("the node to start", func() bool { return strings.Contains(r.stderr.String(), "node starts") })
	if code := r.end(); code != exitOK {
		t.Errorf("exit %d: %s", code, r.stderr.String())
	}
	free(t, node.raft, node.grpc, node.http)
}

// TestDev runs the development cluster and types what it says.
func TestDev(t *testing.T) {
	t.Run("in plain text", func(t *testing.T) { testDev(t, http.DefaultClient) })
	t.Run("over TLS", func(t *testing.T) {
		var secured http.Client // as curl is, by what was exported
		secured.Transport = &http.Transport{DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			files := certs.Files{CA: os.Getenv(caEnv), Certificate: os.Getenv(certEnv), Key: os.Getenv(keyEnv)}
			source, err := certs.Open(files, nil)
			if err != nil {
				return nil, err
			}
			d := tls.Dialer{Config: source.Client("127.0.0.1")}
			return d.DialContext(ctx, network, address)
		}}
		testDev(t, &secured, "--tls")
	})
}

func testDev(t *testing.T, web *http.Client, flags ...string) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	r := start(t, append([]string{"dev", "--port", "0"}, flags...)...)
	r.await("the introduction", func() bool { return strings.Contains(r.stdout.String(), "Stop with ctrl-C") })
	said := r.stdout.String()
	for line := range strings.Lines(said) {
		if exported, ok := strings.CutPrefix(line, "  export "); ok {
			name, value, _ := strings.Cut(strings.TrimSpace(exported), "=")
			t.Setenv(name, value)
		}
	}
	endpoints := os.Getenv(endpointsEnv)
	if endpoints == "" {
		t.Fatalf("it does not say where the nodes are:\n%s", said)
	}

	steps := []struct {
		args []string
		exit int
	}{
		{[]string{"tx", "submit", "--branch", `bank-a={"ops":[{"op":"add","key":"alice","amount":100}]}`}, exitOK},
		{[]string{"tx", "submit", "--branch", `bank-a={"ops":[{"op":"add","key":"alice","amount":-30,"min":0}]}`,
			"--branch", `bank-b={"ops":[{"op":"add","key":"bob","amount":30}]}`}, exitOK},
		{[]string{"tx", "submit", "--branch", `bank-a={"ops":[{"op":"add","key":"alice","amount":-500,"min":0}]}`,
			"--branch", `bank-b={"ops":[{"op":"add","key":"bob","amount":500}]}`}, exitAborted},
		{[]string{"cluster", "transfer-leader"}, exitOK},
		{[]string{"tx", "submit", "--branch", `bank-a={"ops":[{"op":"check","key":"alice","value":"70"}]}`}, exitOK},
		{[]string{"tx", "submit", "--branch", `nobody={}`}, exitNotFound},
		{[]string{"tx", "list"}, exitOK},
	}
	for _, step := range steps {
		args := append(step.args, "--endpoints", endpoints)
		if got := run(t, nil, "", args...); got.exit != step.exit {
			t.Errorf("%v: exit %d, want %d\n%s%s", args, got.exit, step.exit, got.stdout, got.stderr)
		}
	}
	_, url, _ := strings.Cut(said, "HTTP ")
	url, _, _ = strings.Cut(url, "\n")
	body := `{"branches":[{"participant":"bank-a","json":{"ops":[{"op":"add","key":"alice","amount":-10,"min":0}]}},` +
		`{"participant":"courier","json":{"parcel":"to bob"}}]}`
	if answer := postJSONBy(t, web, url+"/v1/transactions", body); !strings.Contains(answer, "OUTCOME_COMMITTED") {
		t.Errorf("curl is told %s", answer)
	}

	if code := r.end(); code != exitOK || r.stderr.String() != "" {
		t.Errorf("exit %d, stderr:\n%s", code, r.stderr.String())
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestDevKeepsItsData restarts a development cluster on its directory.
func TestDevKeepsItsData(t *testing.T) {
	dir := t.TempDir()
	base := freeBase(t)
	endpoint := fmt.Sprintf("127.0.0.1:%d", base+1)
	for round, op := range []string{`{"op":"put","key":"k","value":"v"}`, `{"op":"check","key":"k","value":"v"}`} {
		r := start(t, "dev", "--port", fmt.Sprint(base), "--data-dir", dir)
		r.await("the introduction", func() bool { return strings.Contains(r.stdout.String(), "Stop with ctrl-C") })
		got := run(t, nil, "", "tx", "submit", "--branch", `bank-a={"ops":[`+op+`]}`, "--endpoints", endpoint)
		if got.exit != exitOK {
			t.Errorf("round %d: exit %d\n%s%s", round, got.exit, got.stdout, got.stderr)
		}
		if code := r.end(); code != exitOK {
			t.Errorf("round %d: exit %d: %s", round, code, r.stderr.String())
		}
	}
}

// freeBase finds a port from which those that dev counts are free.
func freeBase(t *testing.T) int {
	t.Helper()
	for base := 20000; base < 60000; base += 1000 {
		taken := false
		for _, block := range []int{0, 100, 200} {
			for n := 1; n <= 3 && !taken; n++ {
				l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+block+n))
				if taken = err != nil; !taken {
					l.Close()
				}
			}
		}
		if !taken {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// TestDevMistakes tells what is wrong before anything starts.
func TestDevMistakes(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--port", "70000"}, "--port 70000: want 1 to 65000"},
		{[]string{"--port", "0", "--data-dir", "x"}, "needs ports that stay the same"},
		{[]string{"--log-level", "loud"}, `--log-level "loud"`},
	} {
		got := run(t, nil, "", append([]string{"dev"}, tt.args...)...)
		if got.exit != exitUsage || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%v: exit %d, stderr %q, want %q in it", tt.args, got.exit, got.stderr, tt.want)
		}
	}
}
