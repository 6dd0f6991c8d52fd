package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// R1, R7, R8 and R9 at once: many branches, each driven by two nodes that do not
// know of each other, with copies of every message, calls that are given up and
// sessions that are killed at random. At the end each branch has had the effect of
// its decision, once or not at all, the table says so, and nothing is prepared.
func TestManyBranchesThroughManyAccidents(t *testing.T) {
	b := sharedBench(t)
	r := b.registered(map[string]any{"max_connections": 16, "lock_timeout": "5s"})
	nodes := []*participant{fit(t, opened(t, r)), fit(t, opened(t, r))}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	const drivers, each = 12, 12
	ctx, stop := context.WithCancel(within30s(t))
	accidents := make(chan struct{})
	go func() {
		defer close(accidents)
		killSessions(ctx, b)
	}()
	decisions := make([][]participants.Branch, 2) // aborted, committed
	var mu sync.Mutex
	var all sync.WaitGroup
	for d := range drivers {
		all.Go(func() {
			luck := rand.New(rand.NewPCG(seed, uint64(d))) //nolint:gosec // a test's luck
			for i := range each {
				br := branchOf(payload(
					call{"add", []any{fmt.Sprintf("own %d %d", d, i)}},
					call{"add", []any{"shared " + strconv.Itoa(luck.IntN(8))}},
				))
				committed := drive(t, luck, nodes, br)
				mu.Lock()
				decisions[committed] = append(decisions[committed], br)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	stop()
	<-accidents
	audit(t, b, nodes[0], decisions[1], decisions[0])
}

// drive takes a branch through the protocol with copies and given up calls, and
// returns 1 where it was committed, 0 where it was aborted.
func drive(t *testing.T, luck *rand.Rand, nodes []*participant, br participants.Branch) int {
	copies := 1 + luck.IntN(3)
	patiences := make([]time.Duration, copies)
	for i := range patiences {
		patiences[i] = patience
		if luck.IntN(4) == 0 {
			patiences[i] = time.Duration(luck.IntN(8)) * time.Millisecond
		}
	}
	var mu sync.Mutex
	yes, no := 0, 0
	var all sync.WaitGroup
	for i := range copies {
		node := nodes[(i+luck.IntN(2))%2]
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patiences[i])
			defer cancel()
			v, err := node.Prepare(ctx, br)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil: // ambiguous
			case v.Kind == txn.VoteCommit:
				yes++
			default:
				no++
			}
		})
	}
	hasty := luck.IntN(5) == 0
	if !hasty {
		all.Wait()
	}
	mu.Lock()
	commit := yes > 0 && no == 0 && luck.IntN(4) != 0 && !hasty
	if yes > 0 && no > 0 && !hasty {
		t.Errorf("branch %s was voted yes %d times and no %d times", br.Name(), yes, no)
	}
	mu.Unlock()
	deliver(t, luck, nodes, br, commit)
	all.Wait()
	if commit {
		return 1
	}
	return 0
}

// deliver tells both nodes, until both have said that it is done.
func deliver(t *testing.T, luck *rand.Rand, nodes []*participant, br participants.Branch, commit bool) {
	var all sync.WaitGroup
	for _, node := range nodes {
		pause := time.Duration(luck.IntN(3)) * time.Millisecond
		all.Go(func() {
			for {
				call := node.Abort
				if commit {
					call = node.Commit
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				err := call(ctx, phaseTwo(br))
				cancel()
				var h *participants.Heuristic
				switch {
				case err == nil:
					return
				case errors.As(err, &h), t.Context().Err() != nil:
					t.Errorf("delivery of commit=%v to %s: %v", commit, br.Name(), err)
					return
				}
				<-time.After(pause)
			}
		})
	}
	all.Wait()
}

// killSessions ends sessions of the participants' at random.
func killSessions(ctx context.Context, b *bench) {
	conn := b.connect()
	for sleep(ctx, 15*time.Millisecond) {
		conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity`+ //nolint:errcheck // it ends with ctx
			` WHERE datname = current_database() AND application_name = 'decree/orders' AND state <> 'idle' ORDER BY random() LIMIT 1) one`)
	}
}

// audit holds the tables against the decisions.
func audit(t *testing.T, b *bench, p *participant, committed, aborted []participants.Branch) {
	t.Helper()
	if len(committed) == 0 || len(aborted) == 0 {
		t.Errorf("%d committed and %d aborted: the luck was one-sided", len(committed), len(aborted))
	}
	if n := b.ask("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"); n != "0" {
		t.Errorf("%s branches are still prepared", n)
	}
	want := strconv.Itoa(len(committed))
	for what, sql := range map[string]string{
		"counters of branches":        `SELECT count(*) FROM counter WHERE name LIKE 'own %'`,
		"effects on their counters":   `SELECT coalesce(sum(n), 0) FROM counter WHERE name LIKE 'own %'`,
		"effects on shared counters":  `SELECT coalesce(sum(n), 0) FROM counter WHERE name LIKE 'shared %'`,
		"rows that prove commits":     `SELECT count(*) FROM decree_branch WHERE state = 'prepared'`,
		"advisory locks (want extra)": `SELECT count(*) + ` + want + ` FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
	} {
		if got := b.ask(sql); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	for _, list := range []struct {
		branches []participants.Branch
		want     participants.Status
	}{{committed, participants.StatusCommitted}, {aborted, participants.StatusAborted}} {
		for _, br := range list.branches {
			if got, err := p.Status(within30s(t), phaseTwo(br)); err != nil || got != list.want {
				t.Errorf("status of %s: %s, %v; want %s", br.Name(), got, err, list.want)
			}
		}
	}
	t.Logf("%d committed, %d aborted", len(committed), len(aborted))
}
