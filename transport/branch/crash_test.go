//go:build unix

package branch_test

// These tests prove that a service survives kill -9 wherever it strikes: before
// a call is looked at, before and after the service's own effect, and after the
// books are written but before the caller hears of it. The next leader asks
// again, and every branch has one fate and exactly its effect (rules R7, R8, R9,
// R13).

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	"github.com/decree-tx/decree/transport/branch"
)

// The points in a call at which a process can be killed.
const (
	arrived  = "arrived"  // the call has come, nothing was done
	begun    = "begun"    // the service's function runs, without an effect yet
	affected = "affected" // the function has had its effect
	recorded = "recorded" // the books are written, the caller does not know
)

// crash says where the child process kills itself: call and point, such as
// Commit/affected.
type crash string

func crashAt(call, point string) crash { return crash(call + "/" + point) }

func (c crash) here(call, point string) {
	if c == crashAt(call, point) {
		syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // it cannot fail, nor return
		select {}
	}
}

// intercept kills before and after the server's own work.
func (c crash) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	call := info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]
	c.here(call, arrived)
	answer, err := handle(ctx, req)
	c.here(call, recorded)
	return answer, err
}

// interceptStream does the same for calls that come by CallMany.
func (c crash) interceptStream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(server, crashingStream{stream, c})
}

type crashingStream struct {
	grpc.ServerStream
	crash crash
}

func (s crashingStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if frame, ok := m.(*participantv1.CallManyRequest); ok {
		for _, c := range frame.GetCalls() {
			s.here(arrived, c.GetPrepare() != nil, c.GetCommit() != nil, c.GetAbort() != nil)
		}
	}
	return err
}

func (s crashingStream) SendMsg(m any) error {
	if frame, ok := m.(*participantv1.CallManyResponse); ok {
		for _, a := range frame.GetAnswers() {
			s.here(recorded, a.GetPrepare() != nil, a.GetCommit() != nil, a.GetAbort() != nil)
		}
	}
	return s.ServerStream.SendMsg(m)
}

func (s crashingStream) here(point string, prepare, commit, abort bool) {
	for call, is := range map[string]bool{"Prepare": prepare, "Commit": commit, "Abort": abort} {
		if is {
			s.crash.here(call, point)
		}
	}
}

// mortal is a Local service that can be killed in its functions.
type mortal struct {
	tally
	crash crash
}

func (m mortal) Prepare(tx *branch.Tx, b branch.Branch) (branch.Vote, error) {
	m.crash.here("Prepare", begun)
	vote, err := m.tally.Prepare(tx, b)
	m.crash.here("Prepare", affected)
	return vote, err
}

func (m mortal) Commit(tx *branch.Tx, b branch.Branch) error {
	m.crash.here("Commit", begun)
	err := m.tally.Commit(tx, b)
	m.crash.here("Commit", affected)
	return err
}

func (m mortal) Abort(tx *branch.Tx, b branch.Branch) error {
	m.crash.here("Abort", begun)
	err := m.tally.Abort(tx, b)
	m.crash.here("Abort", affected)
	return err
}

// mortalAbroad is a Foreign one.
type mortalAbroad struct {
	abroad
	crash crash
}

func (m mortalAbroad) Prepare(ctx context.Context, b branch.Branch) (branch.Vote, error) {
	m.crash.here("Prepare", begun)
	vote, err := m.abroad.Prepare(ctx, b)
	m.crash.here("Prepare", affected)
	return vote, err
}

func (m mortalAbroad) Commit(ctx context.Context, b branch.Branch) error {
	m.crash.here("Commit", begun)
	err := m.abroad.Commit(ctx, b)
	m.crash.here("Commit", affected)
	return err
}

func (m mortalAbroad) Abort(ctx context.Context, b branch.Branch) error {
	m.crash.here("Abort", begun)
	err := m.abroad.Abort(ctx, b)
	m.crash.here("Abort", affected)
	return err
}

// site is where one service lives: the server's file and, for a foreign one, the
// other system's.
type site struct{ kind, dir string }

// open makes the server over the site's files; db is where its effects are seen.
func (s site) open(t *testing.T, c crash) (server *branch.Server, db *bbolt.DB, shut func()) {
	t.Helper()
	books := openFile(t, filepath.Join(s.dir, "service.db"))
	db, shut = books, func() { books.Close() }
	var err error
	if s.kind == "local" {
		server, err = branch.NewLocal(books, mortal{crash: c}, branch.Config{})
	} else {
		db = openFile(t, filepath.Join(s.dir, "world.db"))
		shut = func() { books.Close(); db.Close() }
		server, err = branch.NewForeign(books, mortalAbroad{abroad{db}, c}, branch.Config{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return server, db, shut
}

const childVariable = "BRANCH_TEST_CHILD"

// TestChild is the process that gets killed.
func TestChild(t *testing.T) {
	spec := strings.Split(os.Getenv(childVariable), "|")
	if len(spec) != 3 {
		t.Skip("run by TestKillNine")
	}
	where := crash(spec[2])
	server, _, _ := site{spec[0], spec[1]}.open(t, where)
	target, _ := serve(t, server, grpc.UnaryInterceptor(where.intercept), grpc.StreamInterceptor(where.interceptStream))
	fmt.Println("listening", target)
	io.Copy(io.Discard, os.Stdin) //nolint:errcheck // ends with the parent, so that nobody is left behind
}

// startChild runs the service in a process that will kill itself. It returns the
// service's address, and the means to wait for the death.
func startChild(t *testing.T, s site, c crash) (target string, dead func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childVariable+"="+s.kind+"|"+s.dir+"|"+string(c))
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // open until this process ends
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() }) //nolint:errcheck // it may have died as it should
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "listening "); ok {
			return addr, func() {
				err := cmd.Wait()
				if state, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || state.Signal() != syscall.SIGKILL {
					t.Errorf("the child was not killed but ended with %v", err)
				}
			}
		}
	}
	t.Fatalf("the child never listened: %v", lines.Err())
	return "", nil
}

func TestKillNine(t *testing.T) {
	for _, kind := range []string{"local", "foreign"} {
		for _, point := range []string{arrived, begun, affected, recorded} {
			for _, call := range []string{"Prepare", "Commit", "Abort"} {
				t.Run(kind+"/"+call+"/"+point, func(t *testing.T) {
					t.Parallel()
					committed, aborted := effect("committed"), effect("aborted")
					k := kill{site{kind, t.TempDir()}, call, point}
					k.strike(t, committed, aborted)
					k.finish(t, committed, aborted)
				})
			}
			t.Run(kind+"/PrepareOfWhatIsAborted/"+point, func(t *testing.T) {
				t.Parallel()
				committed, aborted := effect("committed"), effect("aborted")
				k := kill{site{kind, t.TempDir()}, "Prepare", point}
				k.strike(t, aborted, committed)
				k.finish(t, committed, aborted)
			})
		}
	}
}

// kill is one death of a service.
type kill struct {
	site
	call, point string
}

// strike prepares two branches, commits the first and aborts the second, in a
// process that dies on the way.
func (k kill) strike(t *testing.T, first, second participants.Branch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	target, dead := startChild(t, k.site, crashAt(k.call, k.point))
	driver := openDriver(t, target)
	defer driver.Close()
	steps := []struct {
		call string
		do   func() error
	}{
		{"Prepare", func() error { _, err := driver.Prepare(ctx, first); return err }},
		{"Prepare", func() error { _, err := driver.Prepare(ctx, second); return err }},
		{"Commit", func() error { return driver.Commit(ctx, first) }},
		{"Abort", func() error { return driver.Abort(ctx, second) }},
	}
	for _, step := range steps {
		err := step.do()
		if err == nil {
			continue
		}
		if step.call != k.call {
			t.Errorf("%s failed, the kill was meant for %s: %v", step.call, k.call, err)
		}
		dead()
		k.lists(t, first, second)
		return
	}
	t.Fatal("nothing failed")
}

// lists wants Recover to name every branch that may have left something, and none
// whose record says that it has ended.
func (k kill) lists(t *testing.T, first, second participants.Branch) {
	t.Helper()
	want := map[string]bool{}
	switch k.call {
	case "Prepare":
		want[first.Name()] = k.point == recorded || k.kind == "foreign" && k.point != arrived
	case "Commit":
		want[first.Name()] = k.point != recorded
		want[second.Name()] = true
	case "Abort":
		want[second.Name()] = k.point != recorded
	}
	driver, shut := k.revive(t)
	defer shut()
	open, err := driver.Recover(t.Context(), first.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []participants.Branch{first, second} {
		listed := slices.ContainsFunc(open, func(o participants.Branch) bool { return o.Name() == b.Name() })
		if listed != want[b.Name()] {
			t.Errorf("after the kill, %s listed: %v, want %v", b.Payload, listed, want[b.Name()])
		}
	}
}

// revive opens the service again, in this process.
func (k kill) revive(t *testing.T) (driver participants.Participant, shut func()) {
	t.Helper()
	server, _, shutFiles := k.open(t, "")
	target, stop := serve(t, server)
	driver = openDriver(t, target)
	return driver, func() {
		driver.Close() //nolint:errcheck // a connection
		stop()
		shutFiles()
	}
}

// finish is the next leader: it prepares and commits one branch, aborts the other,
// and finds one fate and one effect of each, and nothing left behind.
func (k kill) finish(t *testing.T, committed, aborted participants.Branch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	driver, shut := k.revive(t)
	again := func(b participants.Branch) participants.Branch { b.Epoch = 2; return b }
	if v, err := driver.Prepare(ctx, again(committed)); err != nil || v != participants.Yes() {
		t.Fatalf("prepare by the next leader: %v, %v", v, err)
	}
	if err := driver.Commit(ctx, again(committed)); err != nil {
		t.Fatalf("commit by the next leader: %v", err)
	}
	if err := driver.Abort(ctx, again(aborted)); err != nil {
		t.Fatalf("abort by the next leader: %v", err)
	}
	if v, err := driver.Prepare(ctx, again(aborted)); err != nil || v.Kind != txn.VoteAbort {
		t.Errorf("a late prepare after the abort: %v, %v", v, err)
	}
	if open, err := driver.Recover(ctx, committed.Cluster); err != nil || len(open) != 0 {
		t.Errorf("left prepared: %v, %v", open, err)
	}
	for _, counter := range []string{"committed", "aborted"} { // nothing is held any more
		if v, err := driver.Prepare(ctx, again(effect(counter))); err != nil || v != participants.Yes() {
			t.Errorf("a new branch on %s: %v, %v", counter, v, err)
		}
	}
	shut()
	_, db, shut := k.open(t, "")
	defer shut()
	if n := count(t, db, "committed"); n != 1 {
		t.Errorf("the committed effect is there %d times", n)
	}
	if n := count(t, db, "aborted"); n != 0 {
		t.Errorf("the aborted effect is there %d times", n)
	}
}

func effect(counter string) participants.Branch {
	payload := []byte(counter)
	return participants.Branch{
		Cluster: "c1",
		TxID:    participanttest.NewTxID(1_700_000_000_000_000_000),
		Number:  1,
		Epoch:   1,
		Digest:  txn.NewBranch("service", payload).Digest,
		Payload: payload,
	}
}
