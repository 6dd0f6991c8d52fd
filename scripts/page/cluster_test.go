package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds waits for what must happen; nothing is measured by it.
const patience = 2 * time.Minute

// decreeBinary is the decree that is tested: that of the build, or DECREE_BIN.
func decreeBinary(t testing.TB) string {
	path := os.Getenv("DECREE_BIN")
	if path == "" {
		path = "../../bin/decree"
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: build it with make build", err)
	}
	return path
}

// node is one server process.
type node struct {
	id, raft, grpc, http, dir string
	process                   *exec.Cmd
}

// trio is three of them, and a service that takes part as it is told to.
type trio struct {
	t       testing.TB
	bin     string
	nodes   []*node
	service *service
}

func newTrio(t testing.TB) *trio {
	x := &trio{t: t, bin: decreeBinary(t), service: newService(t)}
	var peers []string
	for _, id := range []string{"n1", "n2", "n3"} {
		n := &node{id: id, raft: free(t), grpc: free(t), http: free(t), dir: filepath.Join(t.TempDir(), id)}
		x.nodes = append(x.nodes, n)
		peers = append(peers, id+"="+n.raft)
	}
	t.Cleanup(x.stop)
	for _, n := range x.nodes {
		n.process = exec.Command(x.bin, "server", "--node-id", n.id, "--data-dir", n.dir, "--peers", strings.Join(peers, ","),
			"--raft-addr", n.raft, "--grpc-addr", n.grpc, "--http-addr", n.http)
		x.launch(n)
	}
	x.leader()
	for _, name := range []string{"orders", "payments", "shipping"} {
		x.decree("participant", "put", name, "--url", x.service.url+"/"+name)
	}
	for _, name := range []string{"ledger", "archive"} {
		x.decree("participant", "put", name, "--driver", "sim", "--config", `{"success_rate": 1}`)
	}
	return x
}

func (x *trio) launch(n *node) {
	x.t.Helper()
	log, err := os.OpenFile(n.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		x.t.Fatal(err)
	}
	n.process.Stdout, n.process.Stderr, n.process.Env = log, log, environment()
	if err := n.process.Start(); err != nil {
		x.t.Fatal(err)
	}
	log.Close()
}

// environment is this process's without settings of decree's.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "DECREE_") })
}

func (x *trio) stop() {
	for _, n := range x.nodes {
		if n.process != nil && n.process.Process != nil {
			n.process.Process.Signal(syscall.SIGKILL)
			n.process.Wait()
		}
		if x.t.Failed() {
			log, _ := os.ReadFile(n.dir + ".log")
			x.t.Logf("the end of %s's log:\n%s", n.id, log[max(0, len(log)-1500):])
		}
	}
}

// kill ends a node as a crash does, and restart begins it again on its data.
func (x *trio) kill(n *node) {
	n.process.Process.Kill()
	n.process.Wait()
}

func (x *trio) restart(n *node) {
	n.process = exec.Command(n.process.Path, n.process.Args[1:]...)
	x.launch(n)
}

// decree runs the command line and returns what it prints.
func (x *trio) decree(args ...string) string {
	x.t.Helper()
	out, err := x.try(args...)
	if err != nil {
		x.t.Fatalf("decree %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (x *trio) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, x.bin, args...)
	cmd.Env = append(environment(), "DECREE_ENDPOINTS="+x.endpoints())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// api reads the JSON API of any node that answers.
func (x *trio) api(path string, into any) error {
	err := errors.New("no node answers")
	for _, n := range x.nodes {
		var res *http.Response
		if res, err = http.Get("http://" + n.http + path); err != nil {
			continue
		}
		defer res.Body.Close()
		return json.NewDecoder(res.Body).Decode(into)
	}
	return err
}

type status struct {
	Leader   string
	Retained json.Number
}

// leader waits until one leads, and takes requests.
func (x *trio) leader() *node {
	x.t.Helper()
	var found *node
	await(x.t, "a leader", func() bool {
		var st status
		if x.api("/v1/cluster", &st) != nil {
			return false
		}
		for _, n := range x.nodes {
			if n.id == st.Leader && n.process.ProcessState == nil {
				found = n
			}
		}
		return found != nil
	})
	return found
}

func (x *trio) follower() *node {
	leader := x.leader()
	for _, n := range x.nodes {
		if n != leader {
			return n
		}
	}
	panic("unreachable")
}

// submit runs a transaction and returns its txid. A behaviour is JSON; see service.
func (x *trio) submit(wait string, branches ...string) string {
	x.t.Helper()
	id := newTxID()
	args := []string{"tx", "submit", "--txid", id, "--wait", wait}
	for _, b := range branches {
		args = append(args, "--branch", b)
	}
	x.try(args...) //nolint:errcheck // that it aborts is told as an exit code
	var got struct{ Transaction struct{ Txid string } }
	await(x.t, "the transaction "+id, func() bool {
		return x.api("/v1/transactions/"+id, &got) == nil && got.Transaction.Txid == id
	})
	return id
}

func (x *trio) state(id string) string {
	var got struct{ Transaction struct{ State string } }
	x.api("/v1/transactions/"+id, &got) //nolint:errcheck // no state then
	return strings.ToLower(strings.TrimPrefix(got.Transaction.State, "STATE_"))
}

func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond) // nothing announces it
	}
}

func free(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// service is a participant over HTTP that does what a branch's payload says.
type service struct {
	url string

	mu      sync.Mutex
	wants   map[string]behaviour // by participant and txid
	stopped map[string]chan struct{}
}

// behaviour is the payload of a branch.
type behaviour struct {
	PrepareMS   int    `json:"prepare_ms"`
	Vote        string `json:"vote"` // commit where empty
	Reason      string `json:"reason"`
	CommitMS    int    `json:"commit_ms"`
	FailCommits int    `json:"fail_commits"` // how many, before one succeeds; -1 is all
	Error       string `json:"error"`
	Heuristic   string `json:"heuristic"`
	Detail      string `json:"detail"`
}

func newService(t testing.TB) *service {
	s := &service{wants: map[string]behaviour{}}
	server := httptest.NewServer(s)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	s.url = server.URL
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Txid    string
		Payload behaviour
	}
	json.NewDecoder(r.Body).Decode(&req) //nolint:errcheck // an empty one then
	name, call, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	key := name + " " + req.Txid
	s.mu.Lock()
	if call == "prepare" {
		s.wants[key] = req.Payload
	}
	b := s.wants[key]
	if call == "commit" && b.FailCommits > 0 {
		left := b
		left.FailCommits--
		s.wants[key] = left
	}
	s.mu.Unlock()

	answer := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(v) //nolint:errcheck // the caller may be gone
	}
	switch call {
	case "prepare":
		pause(r.Context(), b.PrepareMS)
		switch b.Vote {
		case "", "commit":
			answer(200, map[string]string{"vote": "commit"})
		case "abort":
			answer(409, map[string]string{"vote": "abort", "reason": b.Reason})
		default:
			answer(200, map[string]string{"vote": b.Vote})
		}
	case "commit":
		pause(r.Context(), b.CommitMS)
		switch {
		case b.FailCommits != 0:
			http.Error(w, b.Error, http.StatusServiceUnavailable)
		case b.Heuristic != "":
			answer(409, map[string]string{"heuristic": b.Heuristic, "detail": b.Detail})
		default:
			answer(200, map[string]string{"status": "committed"})
		}
	case "abort":
		answer(200, map[string]string{"status": "aborted"})
	default:
		http.NotFound(w, r)
	}
}

// heal lets every commit succeed from now on.
func (s *service) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, b := range s.wants {
		b.FailCommits = 0
		s.wants[k] = b
	}
}

func pause(ctx context.Context, ms int) {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
	case <-ctx.Done():
	}
}

func branch(name string, b behaviour) string {
	text, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%s=%s", name, text)
}

func body(t testing.TB, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (x *trio) endpoints() string {
	var all []string
	for _, n := range x.nodes {
		all = append(all, n.grpc)
	}
	return strings.Join(all, ",")
}
