package main

// What is proven here: `decree bench` measures a cluster of real processes, and a
// committed transaction under load costs the log no more than its share of a few
// entries: commands of concurrent transactions travel together.

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"testing"

	benchmark "github.com/decree-tx/decree/cmd/internal/bench"
)

// runBench runs the command in a process of its own and reads its report.
func runBench(t *testing.T, args ...string) benchmark.Report {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), build(t, ""), append([]string{"bench", "--json"}, args...)...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+t.TempDir())
	var out, progress bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &progress
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	var r benchmark.Report
	decoder := json.NewDecoder(&out)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	return r
}

// mostEntries is how many log entries a committed transaction may cost when 64 clients
// run at once. A writer that packs what waits needs a tenth; one entry for each
// command would be two and more.
const mostEntries = 0.2

func TestBench(t *testing.T) {
	r := runBench(t, "--clients", "64", "--warmup", "500ms", "--duration", "2s")
	m := r.Steps[0].Rounds[0].Decree
	if m.Committed == 0 || m.Aborted != 0 || m.Failed != 0 {
		t.Errorf("%d committed, %d aborted, %d failed (%s)", m.Committed, m.Aborted, m.Failed, m.Fault)
	}
	if m.Log.Entries <= 0 || m.Log.Entries >= mostEntries {
		t.Errorf("%.3f log entries a transaction, want less than %.1f", m.Log.Entries, mostEntries)
	}
	if m.CPU.Leader <= 0 || m.CPU.Followers <= 0 || m.CPU.Participants <= 0 || m.CPU.Clients <= 0 {
		t.Errorf("somebody works for nothing: %+v", m.CPU)
	}
}
