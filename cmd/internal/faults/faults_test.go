package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/decree-tx/decree/cmd/internal/fleet"
)

// What is proven here: each fault does to a small process what it says, ends when
// it is undone, may be undone twice, and leaves nothing on the machine, not even
// when the process that made it is killed.
//
// The small process is this test binary again: see part.

const patience = 30 * time.Second

// TestMain plays a part where it is told to, and runs the tests else.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "part" {
		if err := part(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// part is what the small processes do:
//
//	part echo ADDRESS        answers every line with itself
//	part ask ADDRESS LISTEN  serves lines at LISTEN with what ADDRESS answers to them
//	part write FILE          appends a line to FILE, syncs and says so, again and again
//	part own                 owns faults, and tells of them: see TestNothingOutlivesUs
func part(args []string) error {
	switch args[0] {
	case "echo":
		return serve(args[1], func(line string) (string, error) { return line, nil })
	case "ask":
		c, err := net.Dial("tcp", args[1])
		if err != nil {
			return err
		}
		answers := bufio.NewReader(c)
		return serve(args[2], func(line string) (string, error) {
			if _, err := io.WriteString(c, line); err != nil {
				return "", err
			}
			return answers.ReadString('\n')
		})
	case "write":
		return write(args[1])
	default:
		return own()
	}
}

func serve(address string, answer func(string) (string, error)) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			lines := bufio.NewReader(c)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					c.Close()
					return
				}
				said, err := answer(line)
				if err != nil {
					c.Close()
					return
				}
				io.WriteString(c, said)
			}
		}()
	}
}

// writePause keeps a writer from filling its disk by itself.
const writePause = 5 * time.Millisecond

func write(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		_, err := fmt.Fprintf(file, "%01000d\n", n) // long, so that the last block of a full disk is soon used up
		if err := errors.Join(err, file.Sync()); err != nil {
			return err
		}
		fmt.Println("synced", n)
		time.Sleep(writePause)
	}
}

// troupe is a fleet of small processes.
func troupe(t *testing.T) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(fleet.Config{Binary: os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.Logs())
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if mounts := mountsBelow(t, f.Dir()); mounts != "" {
			t.Errorf("still mounted: %s", mounts)
		}
	})
	return f
}

func start(t *testing.T, f *fleet.Fleet, name string, args ...string) *fleet.Process {
	t.Helper()
	p, err := f.Start(name, append([]string{"part"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
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

func must(t *testing.T) func(Undo, error) Undo {
	return func(undo Undo, err error) Undo {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return undo
	}
}

func undoTwice(t *testing.T, undo Undo) {
	t.Helper()
	if err := undo(); err != nil {
		t.Fatalf("undo: %v", err)
	}
	if err := undo(); err != nil {
		t.Fatalf("undo again: %v", err)
	}
}

// synced is how many lines a writer says that it has synced in all of its lives.
func synced(f *fleet.Fleet, name string) int {
	log, err := os.ReadFile(filepath.Join(f.Dir(), name+".log"))
	if err != nil {
		return 0
	}
	return strings.Count(string(log), "synced")
}

func mountsBelow(t *testing.T, dir string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "" // no such table, and no mounts
	}
	var found []string
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " "+dir+"/") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// state is the letter that the kernel has for a process: T when it is stopped, t
// when its tracer holds it.
func state(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "gone"
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return after[:1]
}

// needs skips where the machine does not allow a fault, saying why.
func needs(t *testing.T, what string, why error) {
	t.Helper()
	if why != nil {
		t.Skipf("%s: %v", what, why)
	}
}

var probed = sync.OnceValues(Probe)

func means(t *testing.T) Means {
	t.Helper()
	m, err := probed()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestKill(t *testing.T) {
	f := troupe(t)
	p := start(t, f, "writer", "write", filepath.Join(f.Dir(), "lines"))
	await(t, "a first write", func() bool { return synced(f, "writer") > 0 })
	undo := must(t)(Kill(p))
	if p.Alive() {
		t.Fatal("it lives")
	}
	before := synced(f, "writer")
	undoTwice(t, undo)
	await(t, "a write in the second life", func() bool { return synced(f, "writer") > before })
}

func TestPause(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads the process's state from /proc")
	}
	f := troupe(t)
	p := start(t, f, "writer", "write", filepath.Join(f.Dir(), "lines"))
	undo := must(t)(Pause(p))
	await(t, "the stop", func() bool { return state(p.PID()) == "T" })
	before := synced(f, "writer")
	undoTwice(t, undo)
	await(t, "a write after it", func() bool { return synced(f, "writer") > before })
}

// pair is two processes with a front between them, and a connection to the one that
// asks the other. What is said to it comes back only through the front.
type pair struct {
	links *Links
	c     net.Conn
	heard chan string
}

func startPair(t *testing.T) *pair {
	t.Helper()
	f := troupe(t)
	port, err := fleet.FreePort(0)
	if err != nil {
		t.Fatal(err)
	}
	start(t, f, "echo", "echo", port.Service(1))
	await(t, "the echo", func() bool { return listens(port.Service(1)) })
	p := &pair{links: NewLinks(f), heard: make(chan string, 16)}
	t.Cleanup(p.links.Close)
	front, err := p.links.Front("echo", port.Service(1))
	if err != nil {
		t.Fatal(err)
	}
	start(t, f, "ask", "ask", front, port.Service(2))
	await(t, "the asker", func() bool { return listens(port.Service(2)) })
	if p.c, err = net.Dial("tcp", port.Service(2)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.c.Close() })
	go func() {
		lines := bufio.NewScanner(p.c)
		for lines.Scan() {
			p.heard <- lines.Text()
		}
		close(p.heard)
	}()
	return p
}

func listens(address string) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func (p *pair) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(p.c, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) hear(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-p.heard:
		if got != want {
			t.Fatalf("heard %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("waited in vain for %q", want)
	}
}

// quiet is how long nothing is heard over a link that is cut. Where the cut did not
// work, an answer takes far less.
const quiet = 300 * time.Millisecond

func (p *pair) hearNothing(t *testing.T) {
	t.Helper()
	select {
	case got, open := <-p.heard:
		t.Fatalf("heard %q (open: %t) over a link that is cut", got, open)
	case <-time.After(quiet):
	}
}

// TestLinks holds that each kind of cut keeps bytes and delivers them late, on the
// connection that was there before.
func TestLinks(t *testing.T) {
	needs(t, "links", means(t).Links)
	for name, cut := range map[string]func(l *Links) Undo{
		"requests": func(l *Links) Undo { return l.Cut("ask", "echo") },
		"answers":  func(l *Links) Undo { return l.Cut("echo", "ask") },
		"pair":     func(l *Links) Undo { return l.CutPair("ask", "echo") },
		"isolated": func(l *Links) Undo { return l.Isolate("echo") },
		"mute":     func(l *Links) Undo { return l.Mute("ask") },
		"deaf":     func(l *Links) Undo { return l.Deafen("ask", "echo") },
		"twice":    func(l *Links) Undo { return All(l.Isolate("echo"), l.Isolate("ask")) },
	} {
		t.Run(name, func(t *testing.T) {
			p := startPair(t)
			p.say(t, "one")
			p.hear(t, "one")
			undo := cut(p.links)
			p.say(t, "two")
			p.hearNothing(t)
			undoTwice(t, undo)
			p.hear(t, "two")
			p.say(t, "three")
			p.hear(t, "three")
		})
	}
}

// TestOverlappingCuts holds that a link heals with the last of its cuts, and that a
// cut elsewhere is none here.
func TestOverlappingCuts(t *testing.T) {
	needs(t, "links", means(t).Links)
	p := startPair(t)
	elsewhere := p.links.Isolate("echo", "somebody else")
	p.say(t, "one")
	p.hear(t, "one")
	first, second := p.links.Isolate("echo"), p.links.CutPair("ask", "echo")
	undoTwice(t, first)
	p.say(t, "two")
	p.hearNothing(t)
	undoTwice(t, second)
	p.hear(t, "two")
	undoTwice(t, elsewhere)
}

// TestNewConnectionHangs holds that one which is opened over a cut link is neither
// refused nor lost: it is served when the link heals. One from outside the fleet is
// served at once.
func TestNewConnectionHangs(t *testing.T) {
	needs(t, "links", means(t).Links)
	f := troupe(t)
	port, err := fleet.FreePort(0)
	if err != nil {
		t.Fatal(err)
	}
	start(t, f, "echo", "echo", port.Service(1))
	await(t, "the echo", func() bool { return listens(port.Service(1)) })
	links := NewLinks(f)
	t.Cleanup(links.Close)
	front, err := links.Front("echo", port.Service(1))
	if err != nil {
		t.Fatal(err)
	}
	ask := start(t, f, "ask", "ask", front, port.Service(2))
	undo := links.Isolate("ask")
	if err := Restart(ask); err != nil { // it dials only now
		t.Fatal(err)
	}
	await(t, "the asker", func() bool { return listens(port.Service(2)) })
	talk := func(address string) (heard chan string) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, "hello\n")
		heard = make(chan string, 1)
		go func() {
			line, _ := bufio.NewReader(c).ReadString('\n')
			heard <- line
		}()
		return heard
	}
	p := &pair{heard: talk(port.Service(2))}
	(&pair{heard: talk(front)}).hear(t, "hello\n")
	p.hearNothing(t)
	undoTwice(t, undo)
	p.hear(t, "hello\n")
}

func TestFill(t *testing.T) {
	m := means(t)
	needs(t, "a disk to fill", m.Fill)
	for name, make := range map[string]func(*fleet.Fleet, string, int64) (*Disk, error){"memory": MemoryDisk, "image": ImageDisk} {
		t.Run(name, func(t *testing.T) {
			if name == "image" {
				needs(t, "an image", m.Power)
			}
			f := troupe(t)
			d, err := make(f, "writer", probeDisk)
			if err != nil {
				t.Fatal(err)
			}
			p := start(t, f, "writer", "write", filepath.Join(d.Dir(), "lines"))
			await(t, "a first write", func() bool { return synced(f, "writer") > 0 })
			undo := must(t)(d.Fill())
			select {
			case <-p.Ended():
			case <-time.After(patience):
				t.Fatal("it goes on writing to a full disk")
			}
			if !strings.Contains(f.Logs(), "no space left") {
				t.Error("it ended for another reason")
			}
			undoTwice(t, undo)
			before := synced(f, "writer")
			if err := Revive(p); err != nil {
				t.Fatal(err)
			}
			await(t, "a write after that", func() bool { return synced(f, "writer") > before })
		})
	}
}

// TestKeepFull holds that what somebody gives up does not help either.
func TestKeepFull(t *testing.T) {
	m := means(t)
	needs(t, "a disk to fill", m.Fill)
	f := troupe(t)
	d, err := MemoryDisk(f, "memory", probeDisk)
	if err != nil {
		t.Fatal(err)
	}
	reserve := filepath.Join(d.Dir(), "reserve")
	if err := os.WriteFile(reserve, make([]byte, probeDisk/4), 0o600); err != nil {
		t.Fatal(err)
	}
	undo := must(t)(d.KeepFull())
	if err := os.Remove(reserve); err != nil {
		t.Fatal(err)
	}
	await(t, "the ballast to take the reserve's place", func() bool {
		info, err := os.Stat(filepath.Join(d.Dir(), ballast))
		return err == nil && info.Size() == probeDisk
	})
	undoTwice(t, undo)
	if err := os.WriteFile(reserve, make([]byte, probeDisk/2), 0o600); err != nil {
		t.Errorf("full after the undo: %v", err)
	}
}

// TestLosePower holds that what was synced is there afterwards, and that writers go
// on. That what was not synced is gone is what Probe looks for.
func TestLosePower(t *testing.T) {
	needs(t, "power", means(t).Power)
	f := troupe(t)
	d, err := ImageDisk(f, "writer", probeDisk)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Dir(), "lines")
	p := start(t, f, "writer", "write", path)
	await(t, "some writes", func() bool { return synced(f, "writer") > 3 })
	undo := must(t)(d.LosePower(p))
	if p.Alive() {
		t.Fatal("it lives without power")
	}
	before := synced(f, "writer")
	undoTwice(t, undo)
	await(t, "a write after it", func() bool { return synced(f, "writer") > before })
	lines, err := os.ReadFile(path)
	if err != nil || strings.Count(string(lines), "\n") <= before {
		t.Errorf("%d lines (%v), %d were synced before the power went", strings.Count(string(lines), "\n"), err, before)
	}
	m, err := MemoryDisk(f, "memory", probeDisk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.LosePower(p); !errors.Is(err, errNoPower) || !p.Alive() {
		t.Errorf("a disk in memory lost its power: %v", err)
	}
}

func TestFailSync(t *testing.T) {
	needs(t, "fsync", means(t).Sync)
	f := troupe(t)
	p := start(t, f, "writer", "write", filepath.Join(f.Dir(), "lines"))
	await(t, "a first write", func() bool { return synced(f, "writer") > 0 })
	undo := must(t)(FailSync(p))
	select {
	case <-p.Ended():
	case <-time.After(patience):
		t.Fatal("its syncs go on")
	}
	if !strings.Contains(f.Logs(), "input/output error") {
		t.Error("it ended for another reason")
	}
	undoTwice(t, undo)
	before := synced(f, "writer")
	if err := Revive(p); err != nil {
		t.Fatal(err)
	}
	await(t, "a write after that", func() bool { return synced(f, "writer") > before })
}

func TestHangSync(t *testing.T) {
	needs(t, "fsync", means(t).Sync)
	f := troupe(t)
	p := start(t, f, "writer", "write", filepath.Join(f.Dir(), "lines"))
	await(t, "a first write", func() bool { return synced(f, "writer") > 0 })
	undo := must(t)(HangSync(p))
	last := -1
	await(t, "a sync that hangs", func() bool {
		before := last
		last = synced(f, "writer")
		return last == before && heldByTracer(p.PID())
	})
	if Exited(p) {
		t.Error("exited, though it only hangs")
	}
	undoTwice(t, undo)
	await(t, "a write after it", func() bool { return synced(f, "writer") > last })
}

// TestExitInAHang holds that a process which exits in a hanging sync is seen to have
// exited, and is gone when the sync goes on.
func TestExitInAHang(t *testing.T) {
	needs(t, "fsync", means(t).Sync)
	f := troupe(t)
	p := start(t, f, "writer", "write", filepath.Join(f.Dir(), "lines"))
	await(t, "a first write", func() bool { return synced(f, "writer") > 0 })
	undo := must(t)(HangSync(p))
	await(t, "a sync that hangs", func() bool { return heldByTracer(p.PID()) })
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, "its exit", func() bool { return Exited(p) })
	undoTwice(t, undo)
	select {
	case <-p.Ended():
	case <-time.After(patience):
		t.Fatal("it is not gone")
	}
}

// heldByTracer reports whether a thread of the process waits for its tracer.
func heldByTracer(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(stat), ") t ") {
			return true
		}
	}
	return false
}

// own makes every fault that leaves something on the machine, tells of it, and
// waits to be killed.
func own() error {
	f, err := fleet.New(fleet.Config{Binary: os.Args[0]})
	if err != nil {
		return err
	}
	d, err := ImageDisk(f, "disk", probeDisk)
	if err != nil {
		return err
	}
	m, err := MemoryDisk(f, "memory", probeDisk)
	if err != nil {
		return err
	}
	p, err := f.Start("writer", "part", "write", filepath.Join(d.Dir(), "lines"))
	if err != nil {
		return err
	}
	if _, err := m.Fill(); err != nil {
		return err
	}
	if _, err := HangSync(p); err != nil {
		return err
	}
	if _, err := Pause(p); err != nil {
		return err
	}
	fmt.Println("owns", f.Dir(), p.PID())
	select {}
}

// TestNothingOutlivesUs kills an owner of faults.
func TestNothingOutlivesUs(t *testing.T) {
	m := means(t)
	needs(t, "power", m.Power)
	needs(t, "fsync", m.Sync)
	owner := exec.Command(os.Args[0], "part", "own")
	owner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	owner.Stderr = os.Stderr
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
	dir := words[1]
	pid, err := strconv.Atoi(words[2])
	if err != nil || state(pid) == "gone" || mountsBelow(t, dir) == "" {
		t.Fatalf("process %d is %s (%v), mounted: %s", pid, state(pid), err, mountsBelow(t, dir))
	}
	if err := syscall.Kill(-owner.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	owner.Wait()
	await(t, "the end of its process", func() bool { s := state(pid); return s == "gone" || s == "Z" })
	await(t, "the end of its mounts", func() bool { return mountsBelow(t, dir) == "" })
	await(t, "the end of its directory", func() bool { _, err := os.Stat(dir); return errors.Is(err, os.ErrNotExist) })
	await(t, "the end of its tracer", func() bool { return !tracing(pid) })
	await(t, "the end of its loop device", func() bool { return !looped(dir) })
}

// tracing reports whether a strace is at a process.
func tracing(pid int) bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && strings.HasPrefix(string(line), "strace\x00") && strings.Contains(string(line), "\x00"+strconv.Itoa(pid)+"\x00") {
			return true
		}
	}
	return false
}

// looped reports whether a loop device has a file below a directory.
func looped(dir string) bool {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is well formed
	for _, path := range files {
		backing, err := os.ReadFile(path)
		if err == nil && strings.HasPrefix(string(backing), dir+"/") {
			return true
		}
	}
	return false
}
