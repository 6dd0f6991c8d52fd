package httpparticipant_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
	"github.com/decree-tx/decree/participants/participanttest"
)

// need finds a program that these tests run. Without it they fail, so that nobody
// takes what was not tested for tested.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if testing.Short() {
		t.Skipf("%s is not here, and -short goes on without it", program)
	}
	t.Fatalf("%s is needed and not here: install it (apt-get install nodejs curl), or skip this with -short", program)
	return ""
}

// counter is the example service in a process of its own.
type counter struct {
	url     string
	process *exec.Cmd
}

// startCounter runs the service over a journal, at a port of its choice.
func startCounter(t *testing.T, journal string) *counter {
	t.Helper()
	program, err := filepath.Abs(filepath.Join("example", "counter.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	return runCounter(t, "", need(t, "node"), program, "0", journal)
}

// runCounter runs the service as typed into a terminal, and waits until it
// listens. It is killed when the test ends, if it was not before.
func runCounter(t *testing.T, dir string, command ...string) *counter {
	t.Helper()
	c := &counter{process: exec.Command(command[0], command[1:]...)}
	c.process.Dir = dir
	c.process.Stderr = os.Stderr
	out, err := c.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kill(t) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the service did not say where it listens: %v", err)
	}
	c.url = strings.TrimSpace(line)
	return c
}

// kill ends the process as kill -9 does.
func (c *counter) kill(t *testing.T) {
	t.Helper()
	if c.process.ProcessState != nil {
		return // it has ended already
	}
	if err := c.process.Process.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	c.process.Wait() //nolint:errcheck // it was killed
}

func (c *counter) value(t *testing.T, name string) int {
	t.Helper()
	response, err := http.Get(c.url + "/counters/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	var found struct{ Value *int }
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil || found.Value == nil {
		t.Fatalf("value of %s: %v", name, err)
	}
	return *found.Value
}

// The whole contract holds for a service in another language, and survives what
// kill -9 leaves of it.
func TestExampleInAnotherLanguage(t *testing.T) {
	need(t, "node")
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		journal := filepath.Join(t.TempDir(), "journal")
		c := startCounter(t, journal)
		again := func(t *testing.T) participants.Participant {
			c.kill(t)
			c = startCounter(t, journal)
			return openKnown(t, httpparticipant.Config{URL: c.url})
		}
		return &participanttest.Subject{
			Participant: openKnown(t, httpparticipant.Config{URL: c.url}),
			Restart:     again,
			Crash:       again,
			Block: func(t *testing.T, name string) func() {
				return block(t, openKnown(t, httpparticipant.Config{URL: c.url}), fmt.Appendf(nil, `{"counter": %q, "add": 1}`, name))
			},
			Second: func(t *testing.T) participants.Participant {
				return openKnown(t, httpparticipant.Config{URL: c.url})
			},
			Cut: func(t *testing.T, arrives bool) participants.Participant {
				return openKnown(t, httpparticipant.Config{URL: cutOnce(t, c.url, arrives)})
			},
			Effect:    func(name string) []byte { return fmt.Appendf(nil, `{"counter": %q, "add": 1}`, name) },
			Count:     func(t *testing.T, name string) int { return c.value(t, name) },
			Refused:   func() []byte { return []byte(`{"counter": "broke", "add": -1}`) },
			ReadOnly:  func() []byte { return []byte(`{"counter": "nobody", "add": 0}`) },
			Conflicts: true,
		}
	}})
}

// block has another cluster hold what a payload needs, until release is called.
func block(t *testing.T, p participants.Participant, payload []byte) (release func()) {
	t.Helper()
	b := newBranch(string(payload))
	if v, err := p.Prepare(bounded(t), b); err != nil || v != participants.Yes() {
		t.Fatalf("prepare: %v, %v", v, err)
	}
	return func() {
		if err := p.Abort(bounded(t), b); err != nil {
			t.Errorf("abort: %v", err)
		}
	}
}

// cutOnce is a way to a service that breaks under the first prepare: before it
// has arrived there, or before its answer is back.
func cutOnce(t *testing.T, service string, arrives bool) (url string) {
	t.Helper()
	target, err := neturl.Parse(service)
	if err != nil {
		t.Fatal(err)
	}
	relay := httputil.NewSingleHostReverseProxy(target)
	var cut atomic.Bool
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prepare" || cut.Swap(true) {
			relay.ServeHTTP(w, r)
			return
		}
		if arrives {
			relay.ServeHTTP(httptest.NewRecorder(), r)
		}
		panic(http.ErrAbortHandler) // which closes the connection
	}))
}

// A crash in the middle of a write leaves half a line, of which nobody was told.
// It is not taken for a message, nor does it spoil the next one.
func TestExampleAfterATornWrite(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	c := startCounter(t, journal)
	first, second := newBranch(`{"counter": "a", "add": 1}`), newBranch(`{"counter": "b", "add": 1}`)
	vote := func(b participants.Branch) {
		t.Helper()
		if v, err := open(t, httpparticipant.Config{URL: c.url}).Prepare(bounded(t), b); err != nil || v != participants.Yes() {
			t.Fatalf("prepare: %v, %v", v, err)
		}
	}
	vote(first)
	c.kill(t)
	whole, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, append(whole, whole[:len(whole)/2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	c = startCounter(t, journal)
	vote(second)
	c.kill(t)
	c = startCounter(t, journal)
	p := openKnown(t, httpparticipant.Config{URL: c.url})
	if held, err := p.Recover(bounded(t), "c1"); err != nil || len(held) != 2 {
		t.Errorf("%d branches are prepared, %v; want both", len(held), err)
	}
	if err := p.Commit(bounded(t), first); err != nil || c.value(t, "a") != 1 {
		t.Errorf("commit: %v, and a is %d", err, c.value(t, "a"))
	}
}

// What does not fit on one page is on the next.
func TestExamplePages(t *testing.T) {
	c := startCounter(t, filepath.Join(t.TempDir(), "journal"))
	p := open(t, httpparticipant.Config{URL: c.url})
	listed := map[string]bool{}
	for i := range 5 {
		block(t, p, fmt.Appendf(nil, `{"counter": "n%d", "add": 1}`, i))
	}
	for pages, cursor := 1, ""; ; pages++ {
		code, text := post(t, c.url+"/recover", fmt.Sprintf(`{"cluster": "c1", "limit": 2, "cursor": %q}`, cursor))
		var page struct {
			Branches   []struct{ TxID string }
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(text), &page); err != nil || code != 200 {
			t.Fatalf("recover: %d %s", code, text)
		}
		for _, b := range page.Branches {
			listed[b.TxID] = true
		}
		if cursor = page.NextCursor; cursor == "" {
			if pages != 3 || len(listed) != 5 {
				t.Errorf("%d branches on %d pages, want 5 on 3", len(listed), pages)
			}
			return
		}
		if pages == 5 {
			t.Fatal("the list does not end")
		}
	}
}

// What is no message is refused and forgotten: it could not be carried out again.
func TestExampleRefusesWhatIsNoMessage(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	c := startCounter(t, journal)
	for _, body := range []string{
		"", "null", "7", "[]", "{}", `{"cluster": "c1"}`,
		`{"cluster": "c1", "txid": "x", "branch": 1, "epoch": 1, "horizon_ms": 0}`,
		`{"cluster": "c1", "txid": "01960f2e-8a00-7c3d-9e5f-1b2a3c4d5e6f", "branch": 1, "horizon_ms": 0}`,
		`{"cluster": "c1", "txid": "01960f2e-8a00-7c3d-9e5f-1b2a3c4d5e6f", "branch": 1, "epoch": "2", "horizon_ms": 0}`,
	} {
		for _, path := range []string{"/prepare", "/commit", "/abort", "/status"} {
			if code, text := post(t, c.url+path, body); code != 400 {
				t.Errorf("%s %q: %d %s; want 400", path, body, code, text)
			}
		}
	}
	for _, payload := range []string{"null", `"text"`, "[1]", `{}`, `{"counter": 7, "add": 1}`, `{"counter": "a", "add": 1.5}`, `{"counter": "a", "add": 9007199254740992}`} {
		v, err := open(t, httpparticipant.Config{URL: c.url}).Prepare(bounded(t), newBranch(payload))
		if err != nil || v.Kind != txn.VoteAbort {
			t.Errorf("%s: %v, %v; want a no", payload, v, err)
		}
	}
	c.kill(t)
	startCounter(t, journal)
}
