package httpparticipant_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
	node, journal string
	url           string
	process       *exec.Cmd
}

func startCounter(t *testing.T) *counter {
	t.Helper()
	c := &counter{node: need(t, "node"), journal: filepath.Join(t.TempDir(), "counter.journal")}
	c.start(t)
	t.Cleanup(func() { c.kill(t) })
	return c
}

func (c *counter) start(t *testing.T) {
	t.Helper()
	c.process = exec.Command(c.node, filepath.Join("example", "counter.mjs"), "0", c.journal)
	c.process.Stderr = os.Stderr
	out, err := c.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.process.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the service did not say where it listens: %v", err)
	}
	c.url = strings.TrimSpace(line)
}

// kill ends the process as kill -9 does.
func (c *counter) kill(t *testing.T) {
	t.Helper()
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
		c := startCounter(t)
		return &participanttest.Subject{
			Participant: openKnown(t, httpparticipant.Config{URL: c.url}),
			Restart: func(t *testing.T) participants.Participant {
				c.kill(t)
				c.start(t)
				return openKnown(t, httpparticipant.Config{URL: c.url})
			},
			Effect:    func(name string) []byte { return fmt.Appendf(nil, `{"counter": %q, "add": 1}`, name) },
			Count:     func(t *testing.T, name string) int { return c.value(t, name) },
			Refused:   func() []byte { return []byte(`{"counter": "broke", "add": -1}`) },
			ReadOnly:  func() []byte { return []byte(`{"counter": "nobody", "add": 0}`) },
			Conflicts: true,
		}
	}})
}
