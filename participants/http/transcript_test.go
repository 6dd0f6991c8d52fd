package httpparticipant_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A step is a fenced block of the example's README: a start of the service, or
// what is typed into a terminal and what is shown there.
type step struct {
	start    string
	commands []string
	shown    []string // by command
}

// readTranscript reads the README's steps.
func readTranscript(t *testing.T, text string) []step {
	t.Helper()
	var steps []step
	fence := ""
	for _, line := range strings.Split(text, "\n") {
		if kind, ok := strings.CutPrefix(line, "```"); ok {
			if fence = kind; kind != "" {
				steps = append(steps, step{})
			}
			continue
		}
		if fence == "" {
			continue
		}
		s := &steps[len(steps)-1]
		last := len(s.commands) - 1
		if fence == "sh" {
			s.start = line
		} else if command, ok := strings.CutPrefix(line, "$ "); ok {
			s.commands, s.shown = append(s.commands, command), append(s.shown, "")
		} else if more, ok := strings.CutPrefix(line, "> "); ok {
			s.commands[last] += "\n" + more
		} else {
			s.shown[last] += line + "\n"
		}
	}
	return steps
}

// The README is true: what it shows is what happens, word for word. Only the port
// is another one, so that the test can run beside others.
func TestTranscript(t *testing.T) {
	need(t, "node")
	bash, _ := need(t, "bash"), need(t, "curl")
	text, err := os.ReadFile(filepath.Join("example", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := os.ReadFile(filepath.Join("example", "counter.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "counter.mjs"), program, 0o600); err != nil {
		t.Fatal(err)
	}
	steps := readTranscript(t, strings.ReplaceAll(string(text), "7311", freePort(t)))
	var service *counter
	var before strings.Builder // what was typed so far defines what is typed next
	checked := 0
	for _, s := range steps {
		if s.start != "" {
			if service != nil {
				service.kill(t)
			}
			service = runCounter(t, dir, strings.Fields(s.start)...)
			continue
		}
		for i, command := range s.commands {
			if s.shown[i] == "" {
				fmt.Fprintln(&before, command)
				continue
			}
			terminal := exec.Command(bash, "-c", before.String()+command)
			shown, err := terminal.Output()
			if err != nil {
				t.Fatalf("$ %s\n%v", command, err)
			}
			if strings.TrimSpace(string(shown)) != strings.TrimSpace(s.shown[i]) {
				t.Errorf("$ %s\n%s\nThe README shows\n%s", command, shown, s.shown[i])
			}
			checked++
		}
	}
	if checked < 10 {
		t.Errorf("%d commands found, the README has more", checked)
	}
}

// freePort is a port that nobody listened on a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only its number was wanted
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
