package postgres

import (
	"bufio"
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/decree-tx/decree/fsm/txn"
)

// What is proven here: how often a call goes to the server and waits for it. On a
// network that, and not the server's work, is most of a branch's time.
func TestTrips(t *testing.T) {
	b := sharedBench(t)
	p := opened(t, b.registered(map[string]any{"max_connections": 2}))
	for range 3 { // every connection has parsed what it will need
		warm := branchOf(payload(call{"add", []any{"x"}}, call{"add_quietly", []any{"x"}}))
		mustPrepare(t, p, warm)
		mustCommit(t, p, warm)
		mustAbort(t, p, branchOf(one("add", "x")))
		voteOf(t, p, branchOf(one("read", "x")))
		mustRefuse(t, p, branchOf(one("take", "x", 1000)))
	}
	trips := traced(t, p)

	strict, quiet, gone := branchOf(one("add", "x")), branchOf(one("add_quietly", "y")), branchOf(one("add", "z"))
	for _, step := range []struct {
		name string
		want int
		call func()
	}{
		{"prepare with an expectation", 2, func() { mustPrepare(t, p, strict) }},
		{"prepare without", 1, func() { mustPrepare(t, p, quiet) }},
		{"commit", 1, func() { mustCommit(t, p, strict) }},
		{"a second commit", 4, func() { mustCommit(t, p, strict) }},
		{"abort", 1, func() { mustAbort(t, p, quiet) }},
		{"a second abort", 1, func() { mustAbort(t, p, quiet) }},
		{"abort of an unknown branch", 1, func() { mustAbort(t, p, gone) }},
		{"a no", 2, func() { mustRefuse(t, p, branchOf(one("take", "x", 1000))) }},
		{"a branch that reads", 1, func() {
			if v := voteOf(t, p, branchOf(one("read", "x"))); v.Kind != txn.VoteReadOnly {
				t.Errorf("reading: %s", v.Kind)
			}
		}},
	} {
		trips() // forget what was before
		step.call()
		if n := trips(); n != step.want {
			t.Errorf("%s takes %d trips, want %d", step.name, n, step.want)
		}
	}
}

// traced counts the trips of a participant that has two connections: each time,
// those since the last.
func traced(t *testing.T, p *participant) (trips func() int) {
	t.Helper()
	var logs [2]*bytes.Buffer
	next := 0
	trace := func(s *session) error {
		if logs[next] == nil {
			logs[next] = &bytes.Buffer{}
			s.conn.Frontend().Trace(logs[next], pgproto3.TracerOptions{SuppressTimestamps: true})
		}
		return nil
	}
	err := p.with(t.Context(), func(first *session) error {
		if err := trace(first); err != nil {
			return err
		}
		next++
		return p.with(t.Context(), trace)
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() int {
		n := 0
		for _, log := range logs {
			asking := false
			for lines := bufio.NewScanner(log); lines.Scan(); {
				fromUs := strings.HasPrefix(lines.Text(), "F")
				if fromUs && !asking {
					n++
				}
				asking = fromUs
			}
			log.Reset()
		}
		return n
	}
}
