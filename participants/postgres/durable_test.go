package postgres

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// What is proven here: an answer that was lost, or that the server takes back in
// part, is not taken for more than it is (rules R7 and R9).

// R7: where the server waits for synchronous standbys, a branch that only the
// server itself has is no yes: a failover would lose it. That holds for a copy,
// too, which finds the branch in the list.
func TestYesWaitsForStandbys(t *testing.T) {
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	b := newBench(t, server)
	p := b.participant()
	warm := branchOf(one("add", "y"))
	mustPrepare(t, p, warm)
	mustCommit(t, p, warm)
	standbys := func(names string) {
		b.exec("ALTER SYSTEM SET synchronous_standby_names = '" + names + "'; SELECT pg_reload_conf()")
		eventually(t, "the setting is in force", func() bool { return b.ask("SHOW synchronous_standby_names") == names })
	}

	standbys("nobody")
	stop := b.cancelWaits()
	br := branchOf(one("add", "x"))
	for range 2 {
		if v, err := p.Prepare(within30s(t), br); err == nil || !strings.Contains(err.Error(), "standbys") {
			t.Fatalf("prepare: %s, %v; no standby has it", v.Kind, err)
		}
	}
	if n := b.ask("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '" + gid(br) + "'"); n != "1" {
		t.Fatalf("%s branches are prepared, want 1: the test has not met what it is about", n)
	}
	if err := p.Commit(within30s(t), phaseTwo(br)); err == nil || !strings.Contains(err.Error(), "standbys") {
		t.Fatalf("commit: %v; no standby has it", err)
	}
	stop()
	standbys("")
	mustPrepare(t, p, br)
	mustCommit(t, p, br)
	if n := b.count("x"); n != 1 {
		t.Errorf("counter x is %d, want 1", n)
	}
}

// R7: SQL that a request carries cannot make its yes worth less, by not waiting for
// the standbys or by not hearing that nobody waited.
func TestRequestCannotWeakenAYes(t *testing.T) {
	b := newBench(t, databases.ForTest(t, databases.Postgres, databases.Options{}))
	p := opened(t, b.registered(map[string]any{"raw_sql": true, "max_connections": minConnections}))
	mustAbort(t, p, branchOf(nil)) // the fence is stored by now
	b.exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()")
	eventually(t, "the setting is in force", func() bool { return b.ask("SHOW synchronous_standby_names") == "nobody" })
	defer b.cancelWaits()()
	for _, setting := range []string{
		"'synchronous_commit', 'off', true", "'synchronous_commit', 'local', false",
		"'client_min_messages', 'error', true", "'client_min_messages', 'error', false",
	} {
		br := branchOf(sqlOf("INSERT INTO counter VALUES ($1, 1) RETURNING set_config("+setting+")", setting))
		if v, err := p.Prepare(within30s(t), br); err == nil || !strings.Contains(err.Error(), "standbys") {
			t.Errorf("%s: %s, %v; no standby has it", setting, v.Kind, err)
		}
		if n := b.ask("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '" + gid(br) + "'"); n != "1" {
			t.Errorf("%s: %s branches are prepared, want 1: the test has not met what it is about", setting, n)
		}
	}
}

// cancelWaits has an operator cancel whatever waits for a standby. The server then
// goes on, with a warning beside the answer.
func (b *bench) cancelWaits() (stop func()) {
	b.Helper()
	conn := b.connect()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(ctx, 10*time.Millisecond) {
			conn.Exec(ctx, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") //nolint:errcheck // it ends with ctx
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// R9 and R13: an answer that is lost with its connection is asked for again, and
// the call is done once, whichever message was cut and on which side of the server.
func TestLostAnswersAreAskedForAgain(t *testing.T) {
	for _, arrives := range []bool{false, true} {
		for words, call := range map[string]func(t *testing.T, p *participant, br participants.Branch){
			"COMMIT PREPARED":   func(t *testing.T, p *participant, br participants.Branch) { mustCommit(t, p, br) },
			"ROLLBACK PREPARED": func(t *testing.T, p *participant, br participants.Branch) { mustAbort(t, p, br) },
		} {
			t.Run(words, func(t *testing.T) {
				b := sharedBench(t)
				r := b.registered(nil)
				br := branchOf(one("add", "x"))
				mustPrepare(t, opened(t, r), br)
				p := b.cut(r, words, arrives)
				call(t, p, br)
				call(t, p, br)
				want := strings.Count(words, "COMMIT")
				if n := b.count("x"); n != want {
					t.Errorf("counter x is %d, want %d", n, want)
				}
			})
		}
		t.Run("PREPARE TRANSACTION in one trip", func(t *testing.T) {
			b := sharedBench(t)
			p := b.cut(b.registered(nil), "PREPARE TRANSACTION", arrives)
			br := branchOf(one("add_quietly", "x"))
			mustPrepare(t, p, br)
			mustCommit(t, p, br)
			if n := b.count("x"); n != 1 {
				t.Errorf("counter x is %d, want 1", n)
			}
		})
	}
}
