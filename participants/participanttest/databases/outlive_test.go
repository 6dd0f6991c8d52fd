package databases

// What is proven: nothing outlives the one who started a server, neither a process
// nor a file nor a segment of shared memory, however that one ends: also killed
// with SIGKILL, in the middle of an installation, with the server suspended. And
// templates appear whole, whoever makes them at once.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// members are the processes that work in a directory.
func members(dir string) (pids []int) {
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		panic(err) // the pattern is right
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(target, " (deleted)") != dir {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			panic(err) // the pattern is right
		}
		pids = append(pids, pid)
	}
	return pids
}

// stateOf is a process's state in one letter.
func stateOf(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err.Error()
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

// segment is the id of a PostgreSQL server's System V shared memory.
func segment(t *testing.T, s *Server) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	must(t, err)
	return strings.Fields(strings.Split(string(text), "\n")[6])[1]
}

func segments(t *testing.T) (ids []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/sysvipc/shm")
	must(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		ids = append(ids, strings.Fields(line)[1])
	}
	return ids
}

// nothingOf wants no process and no file of a server's directory.
func nothingOf(t *testing.T, dir string) {
	t.Helper()
	eventually(t, func() error {
		if left := members(filepath.Join(dir, "data")); len(left) > 0 {
			return fmt.Errorf("processes %v still work in %s", left, dir)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is still there: %v", dir, err)
		}
		return nil
	})
}

func TestCloseLeavesNothing(t *testing.T) {
	forEach(t, func(t *testing.T, e Engine) {
		s, err := Start(t.Context(), e, Options{})
		must(t, err)
		var id string
		if e == Postgres {
			id = segment(t, s)
			if !slices.Contains(segments(t), id) {
				t.Fatalf("no segment %s: the test is blind", id)
			}
		}
		must(t, s.Close())
		nothingOf(t, s.Dir())
		if slices.Contains(segments(t), id) {
			t.Errorf("segment %s of shared memory is left", id)
		}
	})
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // the installation is part of the start
	forEach(t, func(t *testing.T, e Engine) {
		dir := reachable(t, filepath.Join(t.TempDir(), "s"))
		ctx, cancel := context.WithCancel(t.Context())
		var starting sync.WaitGroup
		starting.Go(func() {
			if s, err := Start(ctx, e, Options{Dir: dir}); !errors.Is(err, context.Canceled) {
				t.Errorf("the start ended with %v, want a cancelled one", err)
				if err == nil {
					s.Close() //nolint:errcheck // the test has failed
				}
			}
		})
		eventually(t, func() error {
			if len(members(filepath.Join(dir, "data"))) == 0 {
				return errors.New("the installation has not begun")
			}
			return nil
		})
		cancel()
		starting.Wait()
		nothingOf(t, dir)
	})
}

// Two that find no template make it both, and both are served.
func TestTemplateIsMadeOnceAndWhole(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	forEach(t, func(t *testing.T, e Engine) {
		var starting sync.WaitGroup
		for range 3 {
			starting.Go(func() {
				s, err := Start(t.Context(), e, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(s.Exec(t.Context(), "", "SELECT 1"), s.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		starting.Wait()
	})
	templates, err := filepath.Glob(filepath.Join(cache, "*", "*"))
	must(t, err)
	drafts, err := filepath.Glob(filepath.Join(cache, "*", ".*"))
	must(t, err)
	if len(templates) != 2 || len(drafts) != 0 {
		t.Errorf("templates %v and drafts %v, want one template for each engine and no draft", templates, drafts)
	}
}

// TestNothingOutlivesAKilledProcess starts a process that starts servers, and kills
// it with SIGKILL at a bad moment.
func TestNothingOutlivesAKilledProcess(t *testing.T) {
	forEach(t, func(t *testing.T, e Engine) {
		for _, moment := range []string{"running", "suspended", "installing", "killed"} {
			t.Run(moment, func(t *testing.T) { outlive(t, e, moment) })
		}
	})
}

const momentVariable = "DATABASES_TEST_MOMENT"

func outlive(t *testing.T, e Engine, moment string) {
	dir := reachable(t, filepath.Join(t.TempDir(), "s"))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStarter$")
	cmd.Env = append(os.Environ(), momentVariable+"="+moment, "DATABASES_TEST_DIR="+dir, fmt.Sprintf("DATABASES_TEST_ENGINE=%d", e))
	if moment == "installing" {
		cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+t.TempDir())
	}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	waiting := bufio.NewScanner(out)
	if moment == "installing" {
		eventually(t, func() error {
			if len(members(filepath.Join(dir, "data"))) == 0 {
				return errors.New("the installation has not begun")
			}
			return nil
		})
	} else if !waiting.Scan() || waiting.Text() != "ready" {
		t.Errorf("the process says %q, want ready", waiting.Text())
	}
	must(t, cmd.Process.Kill())
	cmd.Wait() //nolint:errcheck // it was killed
	nothingOf(t, dir)
}

// TestStarter is the process that is killed.
func TestStarter(t *testing.T) {
	moment := os.Getenv(momentVariable)
	if moment == "" {
		t.Skip("run by TestNothingOutlivesAKilledProcess")
	}
	number, err := strconv.Atoi(os.Getenv("DATABASES_TEST_ENGINE"))
	must(t, err)
	s, err := Start(t.Context(), Engine(number), Options{Dir: os.Getenv("DATABASES_TEST_DIR")})
	must(t, err)
	switch moment {
	case "suspended":
		must(t, s.Suspend())
	case "killed":
		must(t, s.Kill())
	}
	fmt.Println("ready")
	<-t.Context().Done() // never: it is killed
}
