package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// What is proven here: an operator is told where each value comes from and where each
// mistake stands, and never a secret.

func explained(t *testing.T, args, environ []string, file string) (map[string]Setting, []*Problem) {
	t.Helper()
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	Register(flags)
	if file != "" {
		path := filepath.Join(t.TempDir(), "decree.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	_, all, problems := Explain(flags, environ, nil)
	byName := map[string]Setting{}
	for _, s := range all {
		byName[s.Name] = s
	}
	return byName, problems
}

func TestWhereValuesComeFrom(t *testing.T) {
	got, problems := explained(t, append(enough, "--stop-timeout", "3s"),
		[]string{"DECREE_STOP_TIMEOUT=2s", "DECREE_LOG_LEVEL=debug"}, "# mine\nlog_level: warn\nretention: 48h\n")
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	for name, want := range map[string][3]string{
		"stop-timeout":   {"3s", "flag", "--stop-timeout"},
		"log-level":      {"debug", "env", "DECREE_LOG_LEVEL"},
		"retention":      {"48h", "file", "decree.yaml:3"},
		"max-payload":    {"1MiB", "default", ""},
		"raft-advertise": {"127.0.0.1:7301", "default", ""}, // what peers says
	} {
		s := got[name]
		if s.Value != want[0] || string(s.Source) != want[1] || !strings.HasSuffix(s.Place, want[2]) {
			t.Errorf("%s: %+v, want %v", name, s, want)
		}
	}
	if len(got) != len(new(Server).settings()) {
		t.Errorf("%d settings are told of, want all", len(got))
	}
}

func TestMistakesArePlaced(t *testing.T) {
	_, problems := explained(t, enough, []string{"DECREE_PREPARE_TIMEOUT=-1s"},
		"log_level: info\nmax_payload: -1\nleader_lease: 2s\nretension: 1h\n")
	var got []string
	for _, p := range problems {
		place := p.Place
		if i := strings.LastIndex(place, "/"); i >= 0 {
			place = place[i+1:]
		}
		got = append(got, place+" "+p.Setting)
	}
	want := []string{"decree.yaml:4 retension", "DECREE_PREPARE_TIMEOUT prepare-timeout", "decree.yaml:2 max_payload", "decree.yaml:3 leader_lease"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("placed %q\nwant %q", got, want)
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	password, endpoint := "hunter2", "https://bob:hunter2@collector:4317"
	r := &reading{origins: map[string]origin{}, settings: []setting{
		{"join-token", secret(text(&password)), ""}, {"otlp-endpoint", text(&endpoint), ""},
	}}
	for _, s := range r.explain() {
		if strings.Contains(s.Value, "hunter2") || s.Value == "" {
			t.Errorf("%s is shown as %q", s.Name, s.Value)
		}
	}
}
