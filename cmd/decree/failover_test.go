package main

// Cells of the matrix of faults, played as `decree chaos` plays them: a leader is
// killed (kill -9), and stopped (SIGSTOP) until another has taken over and then woken
// up, at each step of the protocol. What each holds is in package chaos (R1, R2, R5,
// R8, R10, R13). The other cells are for scripts/chaos.sh, which CI runs a part of.
//
// And whoever plays leaves nothing on the machine, also when it is interrupted or
// killed.

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/decree-tx/decree/cmd/internal/chaos"
)

func TestLeaderFailsAtEachStep(t *testing.T) {
	all := []string{"*/kill/leader", "*/stop/leader"}
	if raceEnabled { // the ones today, the others tomorrow
		all = all[time.Now().Unix()/86400%2:][:1]
	}
	for _, cells := range all {
		t.Run(cells, func(t *testing.T) {
			var told bytes.Buffer
			cfg := chaos.Config{Binary: build(t, "failpoints"), Only: cells, Require: true, Seed: uint64(time.Now().UnixNano()), Out: &told}
			result, err := chaos.Run(t.Context(), cfg)
			if err != nil {
				t.Fatalf("%v\n%s", err, told.String())
			}
			t.Logf("seed %d: %d cells, %d failovers, %d transactions", result.Seed, result.Cells, result.Failovers, result.Transactions)
			if result.Cells == 0 || result.Failovers < result.Cells {
				t.Errorf("%d cells and %d failovers: in each a leader falls", result.Cells, result.Failovers)
			}
		})
	}
}

// TestChaosLeavesNothing ends a player in the middle of its cells.
func TestChaosLeavesNothing(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(s.String(), func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(build(t, "failpoints"), "chaos", "--only", "*/kill/*")
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && !strings.Contains(lines.Text(), " ok ") {
				t.Log(lines.Text())
			}
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() {
				t.Log(lines.Text())
			}
			if err := cmd.Wait(); err == nil {
				t.Error("it ended as if it had played all cells")
			}
			await(t, "its directories to go", func() bool {
				left, err := os.ReadDir(dir)
				return err == nil && len(left) == 0
			})
			if mounts, err := os.ReadFile("/proc/mounts"); err == nil && bytes.Contains(mounts, []byte(dir)) {
				t.Error("something is still mounted")
			}
		})
	}
}

// await polls until a condition holds that no event announces.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	b := &bench{t: t}
	b.await(what, func(context.Context) bool { return holds() })
}
