package main

import (
	"runtime/metrics"
	"testing"
)

// TestTheCollectorsPace holds R14: a node sets a pace for its garbage collector, gives
// it back, and leaves one alone that the environment has set.
func TestTheCollectorsPace(t *testing.T) {
	pace := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	before := pace()
	for name, c := range map[string]struct {
		set  string
		want uint64
	}{
		"nothing set": {"", collectAt}, "a pace": {"GOGC", before}, "a limit": {"GOMEMLIMIT", before},
	} {
		release := paceCollector(func(n string) (string, bool) { return "", n == c.set })
		if got := pace(); got != c.want {
			t.Errorf("%s: %d percent, want %d", name, got, c.want)
		}
		release()
		if got := pace(); got != before {
			t.Errorf("%s: %d percent afterwards, before %d", name, got, before)
		}
	}
}
