package bench

import (
	"strings"
	"testing"
	"time"
)

// What is proven here: what cannot be measured is refused, all of it at once, before
// anything starts.

func TestDefaultsAreValid(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // empty: it is fine
	}{
		{"no clients", func(c *Config) { c.Steps = []Step{{}} }, "--clients 0: want 1 to"},
		{"no step", func(c *Config) { c.Steps = nil }, "--ramp has no step"},
		{"too fast", func(c *Config) { c.Steps = []Step{{Rate: 1e9}} }, "--rate 1e+09"},
		{"a rate", func(c *Config) { c.Steps = []Step{{Rate: 0.5}} }, ""},
		{"more than all", func(c *Config) { c.Abort, c.ReadOnly = 0.6, 0.6 }, "more than all transactions"},
		{"a negative share", func(c *Config) { c.Abort = -0.1 }, "--abort -0.1: want 0% to 100%"},
		{"endpoints alone", func(c *Config) { c.Endpoints = []string{"a:1"} }, "--endpoints and --participant go together"},
		{"somebody's cluster", func(c *Config) { c.Endpoints, c.Targets = []string{"a:1"}, []Target{{"a", ""}} }, ""},
		{"a mix there", func(c *Config) {
			c.Endpoints, c.Targets, c.Abort = []string{"a:1"}, []Target{{"a", ""}}, 0.1
		}, "need participants of the bench's own"},
		{"killing somebody's leader", func(c *Config) {
			c.Endpoints, c.Targets, c.KillLeaderAt = []string{"a:1"}, []Target{{"a", ""}}, time.Second
		}, "nobody's cluster is broken"},
		{"a kill", func(c *Config) { c.KillLeaderAt = time.Second }, ""},
		{"a kill after the end", func(c *Config) { c.KillLeaderAt = time.Minute }, "--kill-leader-at 1m0s: want a moment before"},
		{"a kill and a transfer", func(c *Config) { c.KillLeaderAt, c.TransferLeaderAt = 1, 1 }, "exclude one another"},
		{"a kill of the only node", func(c *Config) { c.KillLeaderAt, c.Nodes = time.Second, 1 }, "need three nodes"},
		{"a kill against raft", func(c *Config) { c.KillLeaderAt, c.AgainstRaft = time.Second, true }, "go without --against-raft"},
		{"a rate against raft", func(c *Config) { c.AgainstRaft, c.Steps = true, []Step{{Rate: 5}} }, "--against-raft needs"},
		{"groups", func(c *Config) { c.Groups = 6 }, ""},
		{"no groups", func(c *Config) { c.Groups = 0 }, "--groups 0: want 1 to 12"},
		{"groups of somebody's", func(c *Config) {
			c.Groups, c.Endpoints, c.Targets = 2, []string{"a:1"}, []Target{{"a", ""}}
		}, "--groups goes without"},
		{"groups against raft", func(c *Config) { c.Groups, c.AgainstRaft = 3, true }, "--groups goes without"},
		{"a stranger", func(c *Config) { c.Participants = "postgres" }, `--participants "postgres": want trivial or kv`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Defaults()
			tt.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q in it", err, tt.want)
			}
		})
	}
}
