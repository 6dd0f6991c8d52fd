package node

import (
	"errors"
	"testing"
	"time"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
)

// TestTheHorizonIsBoundedByRoom holds R11 and R14 against each other: outcomes are
// kept for as long as the configuration says; past the bound on their number for as
// long as there is room, ten minutes at least; and where a quarter more is there, for
// a minute.
func TestTheHorizonIsBoundedByRoom(t *testing.T) {
	const m = 1_000_000
	c := Config{Retention: 24 * time.Hour, MaxRetained: m}
	now := txn.Time(1_700_000_000 * int64(time.Second))
	for name, x := range map[string]struct {
		kept   int
		oldest time.Duration // before now
		before time.Duration // the horizon, as it is
		want   time.Duration
	}{
		"none":                        {0, 0, 30 * time.Hour, 24 * time.Hour},
		"as many as may be":           {m, 20 * time.Hour, 30 * time.Hour, 24 * time.Hour},
		"half as many again":          {m * 3 / 2, 24 * time.Hour, 30 * time.Hour, 16 * time.Hour},
		"all of the last hour":        {m * 10 / 9, time.Hour, 30 * time.Hour, 54 * time.Minute},
		"a burst":                     {m + m/8, 5 * time.Minute, 30 * time.Hour, 5*time.Minute + 30*time.Second},
		"a burst that is just over":   {m + 1, 5 * time.Minute, 30 * time.Hour, 10 * time.Minute},
		"20,000 a second":             {m + m/4, 62 * time.Second, time.Hour, time.Minute},
		"far too many":                {3 * m, time.Minute, time.Hour, time.Minute},
		"the horizon never goes back": {m, time.Hour, 2 * time.Minute, 2 * time.Minute},
	} {
		got := now.Sub(c.horizon(now, now.Add(-x.before), x.kept, now.Add(-x.oldest)))
		if (got - x.want).Abs() > 10*time.Millisecond {
			t.Errorf("%s: the horizon lies %s back, want %s", name, got, x.want)
		}
	}
}

// TestTheDoorIsShutWhereOutcomesFindNoRoom holds R14: memory stays bounded whatever
// the pace, by refusing what is new, with a time to come back.
func TestTheDoorIsShutWhereOutcomesFindNoRoom(t *testing.T) {
	c := Config{MaxRetained: 1000}
	if c.full(1999) || !c.full(2000) {
		t.Error("full is not twice as many")
	}
	x := newTrio(t, nil)
	leader := x.leader(nil)
	for _, n := range x.nodes {
		if n == leader {
			continue // it looks by itself
		}
		n.full.Store(true)
		var busy *coordinator.BusyError
		if err := n.admit(); !errors.As(err, &busy) || busy.RetryAfter != fullDelay {
			t.Errorf("a new transaction where there is no room: %v", err)
		}
	}
	leader.full.Store(true)
	x.await("the next look, which finds room", func() bool { return !leader.full.Load() })
	x.submit(transfer(newID()))
}
