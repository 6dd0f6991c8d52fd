package main

// What is proven here: `decree bench` measures a cluster of real processes, and a
// committed transaction under load costs the log no more than its share of a few
// entries: commands of concurrent transactions travel together.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	benchmark "github.com/decree-tx/decree/cmd/internal/bench"
)

// runBench runs the command in a process of its own and reads its report.
func runBench(t *testing.T, args ...string) benchmark.Report {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), build(t, ""), append([]string{"bench", "-o", "json"}, args...)...)
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

// TestBenchAgainstRaft holds that both are measured in every round, by the same number of
// callers, and that the mix has what was asked for.
func TestBenchAgainstRaft(t *testing.T) {
	r := runBench(t, "--ramp", "1,8", "--against-raft", "--rounds", "2", "--abort", "20%", "--read-only", "20%",
		"--participants", "kv", "--wait", "delivery", "--warmup", "0s", "--duration", "400ms")
	if len(r.Steps) != 2 || len(r.Steps[1].Rounds) != 2 {
		t.Fatalf("%d steps", len(r.Steps))
	}
	for _, step := range r.Steps {
		for _, round := range step.Rounds {
			b, d := round.Bare, round.Decree
			if b.Callers != step.Clients || b.EntryBytes < 100 || b.Throughput <= 0 || b.Failed != 0 {
				t.Errorf("%s: bare Raft %+v", step.Step, *b)
			}
			if d.Committed == 0 || d.Failed != 0 {
				t.Errorf("%s: %d committed, %d failed (%s)", step.Step, d.Committed, d.Failed, d.Fault)
			}
		}
	}
	if all := r.Steps[1].Summary; all.Aborted == 0 || all.Aborted > all.Committed {
		t.Errorf("%d committed and %d aborted, want a fifth aborted", all.Committed, all.Aborted)
	}
}

// TestBenchFailover holds that the leader fell under the load, and that another's
// decisions were waited for.
func TestBenchFailover(t *testing.T) {
	r := runBench(t, "--clients", "8", "--warmup", "0s", "--kill-leader-at", "300ms", "--duration", "6s")
	f := r.Failovers[0]
	if f.Leader == f.NewLeader || f.RateBefore <= 0 || f.FirstDecision <= 0 || f.LongestGap <= 0 {
		t.Errorf("%+v", f)
	}
}

// TestBenchStuck holds that transactions do wait while the others are measured.
func TestBenchStuck(t *testing.T) {
	r := runBench(t, "--rate", "100", "--warmup", "0s", "--duration", "500ms", "--stuck", "100")
	s := r.Stuck[0]
	if s.Waiting < 90 || s.With.Committed == 0 || s.With.Failed != 0 {
		t.Errorf("%d wait; meanwhile %d committed, %d failed (%s)", s.Waiting, s.With.Committed, s.With.Failed, s.With.Fault)
	}
}

// TestBenchElsewhere measures a cluster that runs already.
func TestBenchElsewhere(t *testing.T) {
	b := startBench(t)
	leader, _ := b.leader(0, nil)
	payload := `{"ops": [{"op": "put", "key": "k{n}", "value": "v"}]}`
	r := runBench(t, "--endpoints", leader.grpc, "--participant", "bank-a="+payload, "--participant", "bank-b="+payload,
		"--clients", "4", "--warmup", "0s", "--duration", "300ms")
	if m := r.Steps[0].Rounds[0].Decree; m.Committed == 0 || m.Aborted != 0 || m.Failed != 0 || m.CPU != nil {
		t.Errorf("%d committed, %d aborted, %d failed (%s), cpu %v", m.Committed, m.Aborted, m.Failed, m.Fault, m.CPU)
	}
}

// TestBenchGroups holds that several clusters are measured as one: each has a leader, and
// what they did is summed.
func TestBenchGroups(t *testing.T) {
	r := runBench(t, "--groups", "3", "--clients", "32", "--warmup", "500ms", "--duration", "1s")
	m := r.Steps[0].Rounds[0].Decree
	if m.Committed == 0 || m.Aborted != 0 || m.Failed != 0 {
		t.Errorf("%d committed, %d aborted, %d failed (%s)", m.Committed, m.Aborted, m.Failed, m.Fault)
	}
	leaders := strings.Split(m.Leader, ",")
	for i, leader := range leaders {
		if len(leaders) != 3 || !strings.HasPrefix(leader, fmt.Sprintf("g%d-n", i+1)) {
			t.Errorf("led by %v", leaders)
		}
	}
	if r.Setting.Groups != 3 || m.Log.Entries <= 0 || m.CPU.Leader <= 0 || m.CPU.Followers <= 0 {
		t.Errorf("%+v of %+v", m, r.Setting)
	}
}
