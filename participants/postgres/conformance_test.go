package postgres

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// What is proven here: the driver keeps every promise of the contract, on a real
// server that is killed and started again, through connections that are cut, beside
// other nodes, other clusters and strangers.

func TestConformance(t *testing.T) {
	b := newBench(t, databases.ForTest(t, databases.Postgres, databases.Options{}))
	registered := b.registered(nil)
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		b := &bench{TB: t, server: b.server, database: b.database}
		open := func(t *testing.T) participants.Participant { return fit(t, opened(t, registered)) }
		first := open(t)
		return &participanttest.Subject{
			Participant: first,
			Restart: func(t *testing.T) participants.Participant {
				if err := first.Close(); err != nil {
					t.Fatal(err)
				}
				first = open(t)
				return first
			},
			Effect:    func(counter string) []byte { return one("add", counter) },
			Count:     func(_ *testing.T, counter string) int { return b.count(counter) },
			Refused:   func() []byte { return one("take", "nobody", 1) },
			ReadOnly:  func() []byte { return one("read", "nobody") },
			Conflicts: true,
			Both: func(x, y string) []byte {
				return payload(call{"add", []any{x}}, call{"add", []any{y}})
			},
			FailsLate: func(counter string) []byte {
				return payload(call{"add", []any{counter}}, call{"make", []any{counter}})
			},
			Deferred: func(counter string) []byte {
				return payload(call{"add", []any{counter}}, call{"owe", []any{"nobody"}})
			},
			Block:  func(_ *testing.T, counter string) func() { return b.block(counter) },
			Second: open,
			Crash: func(t *testing.T) participants.Participant {
				if err := b.server.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := b.server.Restart(context.Background()); err != nil {
					t.Fatal(err)
				}
				return open(t)
			},
			Cut: func(t *testing.T, arrives bool) participants.Participant {
				return b.cut(registered, "PREPARE TRANSACTION", arrives)
			},
			Meddle: func(_ *testing.T, br participants.Branch, end participanttest.Op) {
				how := "ROLLBACK PREPARED"
				if end == participanttest.Commit {
					how = "COMMIT PREPARED"
				}
				b.exec(how + " '" + gid(br) + "'")
			},
			Foreign: func(t *testing.T) func() { return b.foreign() },
		}
	}})
}

// fit waits until a participant knows that its database is fit.
func fit(t testing.TB, p *participant) *participant {
	t.Helper()
	eventually(t, "the database is fit", p.Recovers)
	return p
}

func gid(b participants.Branch) string {
	return marker.Branch{Cluster: b.Cluster, TxID: b.TxID, Number: b.Number}.GID()
}

// block locks a counter that does not exist yet.
func (b *bench) block(counter string) (release func()) {
	b.Helper()
	conn := b.connect()
	tx, err := conn.Begin(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := tx.Exec(b.Context(), "INSERT INTO counter VALUES ($1, 1)", counter); err != nil {
		b.Fatal(err)
	}
	return func() {
		b.Helper()
		if err := tx.Rollback(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// cut opens a registration over a wire that is cut once the driver says the words.
func (b *bench) cut(r participants.Registration, words string, arrives bool) *participant {
	b.Helper()
	wire := participanttest.NewWire(b, "unix", filepath.Join(b.server.Dir(), ".s.PGSQL.5432"))
	wired := registrationOf(b, strings.ReplaceAll(b.server.DSN(b.database), b.server.Dir(), filepath.Dir(wire.Addr())), nil)
	wired.Identity = r.Identity
	p := fit(b, opened(b, wired))
	wire.CutAt(words, arrives)
	return p
}

// foreign prepares what is not decree's, under names that look like it.
func (b *bench) foreign() (check func()) {
	b.Helper()
	names := []string{"citus_0_12_1_2", "decree_", "decree_elsewhere", "decree_c_01890a5d-ac96-774b-bcce-b302099a8057_0"}
	for _, name := range names {
		b.exec("BEGIN; INSERT INTO counter VALUES ('" + name + "', 1); PREPARE TRANSACTION '" + name + "'")
	}
	b.Cleanup(func() {
		for _, name := range names {
			// The test's own context is over by now.
			if err := b.server.Exec(context.Background(), b.database, "ROLLBACK PREPARED '"+name+"'"); err != nil {
				b.Error(err)
			}
		}
	})
	return func() {
		b.Helper()
		for _, name := range names {
			if n := b.ask("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '" + name + "'"); n != "1" {
				b.Fatalf("the stranger's %s is no longer prepared", name)
			}
		}
	}
}
