package main

// What is proven here: the bench's flags mean what they say, and all that is wrong
// with them is told at once, before anything starts.

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	benchmark "github.com/decree-tx/decree/cmd/internal/bench"
)

// readBench reads the flags of a bench.
func readBench(t *testing.T, args ...string) (benchmark.Config, error) {
	t.Helper()
	return parseBench(args)
}

func TestBenchSteps(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want []benchmark.Step
	}{
		{nil, []benchmark.Step{{Clients: 64}}},
		{[]string{"--clients", "7"}, []benchmark.Step{{Clients: 7}}},
		{[]string{"--rate", "250"}, []benchmark.Step{{Rate: 250}}},
		{[]string{"--ramp", "1, 64,500/s"}, []benchmark.Step{{Clients: 1}, {Clients: 64}, {Rate: 500}}},
	} {
		cfg, err := readBench(t, tt.args...)
		if err != nil || !slices.Equal(cfg.Steps, tt.want) {
			t.Errorf("%v: %v, %v; want %v", tt.args, cfg.Steps, err, tt.want)
		}
	}
}

func TestBenchMix(t *testing.T) {
	cfg, err := readBench(t, "--abort", "5%", "--read-only", "0.25")
	if err != nil || cfg.Abort != 0.05 || cfg.ReadOnly != 0.25 {
		t.Errorf("abort %g, read-only %g, %v", cfg.Abort, cfg.ReadOnly, err)
	}
}

func TestBenchTargets(t *testing.T) {
	cfg, err := readBench(t, "--endpoints", "a:1,b:1", "--participant", "x=k=v{n}", "--participant", "y=", "--participant", "z=1")
	want := []benchmark.Target{{Participant: "x", Payload: "k=v{n}"}, {Participant: "y"}, {Participant: "z", Payload: "1"}}
	if err != nil || !slices.Equal(cfg.Targets, want) || cfg.Branches != 3 {
		t.Errorf("targets %v, %d branches, %v", cfg.Targets, cfg.Branches, err)
	}
}

func TestBenchMistakes(t *testing.T) {
	var out, problems bytes.Buffer
	code := Run(t.Context(), []string{
		"bench", "--ramp", "64,fast", "--abort", "some", "--branches", "65", "--participants", "postgres", "--participant", "x",
	}, nil, &out, &problems)
	if code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		`--ramp "fast": want clients, such as 64, or a rate`, `--abort "some": want a share`, "--branches 65: want 1 to 64",
		`--participants "postgres": want trivial or kv`, `--participant "x": want name=payload`, "--endpoints and --participant go together",
	} {
		if !strings.Contains(problems.String(), want) {
			t.Errorf("%q is not in:\n%s", want, problems.String())
		}
	}
	problems.Reset()
	if code := Run(t.Context(), []string{"bench", "--ramp", "0/s", "--rate", "5"}, nil, &out, &problems); code != exitUsage ||
		!strings.Contains(problems.String(), "--ramp excludes") {
		t.Errorf("exit code %d:\n%s", code, problems.String())
	}
}
