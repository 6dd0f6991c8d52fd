package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/decree-tx/decree/transport/client"
)

// What is proven here: what a person and a script see of the real program against a
// real cluster, command by command: output, errors and exit codes. The scripts are in
// testdata/script; -update writes into them what is printed now, for those who have
// looked at it.
//
// Beyond testscript's own commands they know:
//
//	cluster         three nodes with bank-a, bank-b and courier, as decree dev starts them
//	node            one node with a participant named dice; its endpoint is the default
//	txid NAME       a new transaction id, in $NAME
//	decree ARGS     the program must end with 0
//	exits N ARGS    the program must end with N
//	terminal ARGS   run the program on a terminal; stdout is what is seen there
//	fold            stdout with its columns one space apart, where their widths vary
//	until RE ARGS   run the program until its output matches
//
// What varies from run to run is shown as what it is: see steady.

var updateScripts = flag.Bool("update", false, "write what is printed now into testdata/script")

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *updateScripts,
		Setup: func(e *testscript.Env) error {
			e.Values[steadyKey{}] = &steady{names: map[string]string{}}
			e.Setenv(endpointsEnv, "127.0.0.1:1") // nobody is there
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cluster":  scriptCluster,
			"node":     scriptNode,
			"txid":     scriptTxID,
			"decree":   func(ts *testscript.TestScript, _ bool, args []string) { scriptRun(ts, 0, args) },
			"exits":    scriptExits,
			"terminal": scriptTerminal,
			"fold":     scriptFold,
			"until":    scriptUntil,
		},
	})
}

// scriptRun runs the program and leaves its output, steadied, to cmp and its like.
func scriptRun(ts *testscript.TestScript, want int, args []string) {
	err := ts.Exec(programName, args...)
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	s := steadyOf(ts)
	fmt.Fprint(ts.Stdout(), s.text(stdout))
	fmt.Fprint(ts.Stderr(), s.text(stderr))
	if got := exitOf(err); got != want {
		ts.Fatalf("decree %s: exit %d, want %d", strings.Join(args, " "), got, want)
	}
}

func exitOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: exits N ARGS")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	scriptRun(ts, want, args[1:])
}

// scriptTerminal runs the program on a terminal. A command that does not end by itself
// has its last argument, for=RE, and gets an interrupt once that was seen.
func scriptTerminal(ts *testscript.TestScript, _ bool, args []string) {
	master, tty, err := openTerminal(100, 30)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	ts.Check(err)
	defer master.Close()
	var until *regexp.Regexp
	if pattern, ok := strings.CutPrefix(args[len(args)-1], "for="); ok {
		until, args = regexp.MustCompile(pattern), args[:len(args)-1]
	}
	program, err := exec.LookPath(programName)
	ts.Check(err)
	cmd := exec.Command(program, args...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{endpointsEnv, "HOME", "PATH", "TERM", "NO_COLOR", "TZ"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	ts.Check(cmd.Start())
	tty.Close()
	var seen strings.Builder
	for buffer := make([]byte, 4096); ; {
		n, err := master.Read(buffer) // fails once the program has ended
		seen.Write(buffer[:n])
		if until != nil && until.MatchString(seen.String()) {
			until = nil
			ts.Check(cmd.Process.Signal(os.Interrupt))
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	fmt.Fprint(ts.Stdout(), steadyOf(ts).text(strings.ReplaceAll(seen.String(), "\r\n", "\n")))
	ts.Check(err)
}

var spaces = regexp.MustCompile(`  +`)

func scriptFold(ts *testscript.TestScript, _ bool, _ []string) {
	fmt.Fprint(ts.Stdout(), spaces.ReplaceAllString(ts.ReadFile("stdout"), " "))
}

func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(`(?m)` + args[0])
	for deadline := time.Now().Add(patience); ; time.Sleep(pollPause) {
		err := ts.Exec(programName, args[1:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q is not in what decree %s prints", args[0], strings.Join(args[1:], " "))
		}
	}
}

func scriptTxID(ts *testscript.TestScript, _ bool, args []string) {
	id, err := client.NewTxID()
	ts.Check(err)
	ts.Setenv(args[0], id)
	steadyOf(ts).names[id] = args[0]
}

// scriptStart runs a command of this process until the script ends.
func scriptStart(ts *testscript.TestScript, args ...string) (stdout *lockedBuffer, ended <-chan int) {
	ctx, stop := context.WithCancel(context.Background())
	var out, stderr lockedBuffer
	end := make(chan int, 1)
	go func() { end <- Run(ctx, args, strings.NewReader(""), &out, &stderr) }()
	ts.Defer(func() {
		stop()
		end <- <-end
	})
	return &out, end
}

func scriptCluster(ts *testscript.TestScript, _ bool, _ []string) {
	out, ended := scriptStart(ts, "dev", "--port", "0", "--log-level", "off", "-o", "json")
	var dev struct {
		Nodes []struct{ ID, GRPC, HTTP string }
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(pollPause) {
		if err := json.Unmarshal([]byte(out.String()), &dev); err == nil {
			break
		}
		if len(ended) > 0 || time.Now().After(deadline) {
			ts.Fatalf("no cluster:\n%s", out.String())
		}
	}
	var endpoints []string
	for _, node := range dev.Nodes {
		endpoints = append(endpoints, node.GRPC)
		steadyOf(ts).ports(node.ID[1:], "", node.GRPC, node.HTTP)
	}
	ts.Setenv(endpointsEnv, strings.Join(endpoints, ","))
}

func scriptNode(ts *testscript.TestScript, _ bool, more []string) {
	ports, err := freeAddresses(3)
	ts.Check(err)
	node := lone{ts.MkAbs("n1"), ports[0], ports[1], ports[2]}
	steadyOf(ts).ports("1", node.raft, node.grpc, node.http)
	scriptStart(ts, node.args(append([]string{"--log-level", "off"}, more...)...)...)
	ts.Setenv(endpointsEnv, node.grpc)
	ts.Setenv("DATA", node.dir)
	ts.Setenv("RAFT", node.raft)
	ts.Check(ts.Exec(programName, "participant", "put", "dice", "--driver", "sim"))
}

// steady shows what varies from run to run as what it is, in the same width where a
// column depends on it.
type steady struct {
	names map[string]string // of txids, in the script
	addrs []string          // pairs of an address and how it is shown
}

type steadyKey struct{}

func steadyOf(ts *testscript.TestScript) *steady { return ts.Value(steadyKey{}).(*steady) }

func (s *steady) ports(node, raft, grpc, http string) {
	for _, a := range [][2]string{{raft, "raft"}, {grpc, "grpc"}, {http, "http"}} {
		if a[0] != "" {
			s.addrs = append(s.addrs, a[0], "127.0.0.1:"+a[1]+node)
		}
	}
}

var (
	anyTxID  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)
	unsteady = []struct{ varies, shown string }{
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`, "YYYY-MM-DD hh:mm:ss.mmm"},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`, "YYYY-MM-DDThh:mm:ssZ"},
		{`entry \d+, epoch \d+`, "entry N, epoch N"},
		{`(epoch|revision)( +)\d+`, "$1${2}N"},
		{`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`, "CLUSTER"},
		{`"(index|epoch|applied_index|commit_index|last_index|entries|entry_bytes|disk_free|revision)":"?\d+"?`, `"$1":N`},
		{`"digest":"[^"]*"`, `"digest":"DIGEST"`},
		{`/tmp/\S*decree-dev-\d+`, "/tmp/decree-dev-N"},
		{`\b[\d.]+(ms|µs)\b`, "N$1"},
	}
	unsteadies = func() (all []*regexp.Regexp) {
		for _, u := range unsteady {
			all = append(all, regexp.MustCompile(u.varies))
		}
		return all
	}()
)

func (s *steady) text(text string) string {
	text = strings.NewReplacer(s.addrs...).Replace(text)
	text = anyTxID.ReplaceAllStringFunc(text, func(id string) string {
		name, known := s.names[id]
		if !known {
			name = strconv.Itoa(len(s.names) + 1)
			s.names[id] = name
		}
		shown := "txid-" + name + "-"
		return shown + strings.Repeat("x", max(0, len(id)-len(shown)))
	})
	for i, u := range unsteadies {
		text = u.ReplaceAllString(text, unsteady[i].shown)
	}
	return text
}

// tests are those of this package, with what they share.
type tests struct{ m *testing.M }

func (s tests) Run() int {
	dir, err := os.MkdirTemp("", "decree-build-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	builds.dir = dir
	return s.m.Run()
}

// programName is the program in the path of scripts; decree itself is their command.
const programName = "decree-program"

// TestMain makes this binary the program, where it is called by its name.
func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){programName: main})
}
