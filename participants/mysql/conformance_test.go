package mysql

// The driver passes the conformance suite on a real server, without excuses: with
// the binary log off, as it is by default, and with it on, where XA takes another
// way through the server.

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

func TestConformance(t *testing.T) {
	conform(t, databases.ForTest(t, databases.MariaDB, databases.Options{}))
}

func TestConformanceWithBinaryLog(t *testing.T) {
	conform(t, databases.ForTest(t, databases.MariaDB, databases.Options{Settings: map[string]string{
		"log_bin": "binlog", "sync_binlog": "1", "binlog_format": "MIXED", "server_id": "1",
	}}))
}

func conform(t *testing.T, server *databases.Server) {
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		b := newBank(t, server)
		r := b.registered(t, server.DSN(b.database), "")
		current := openAs(t, r)
		reopen := func(t *testing.T) participants.Participant {
			current.Close() //nolint:errcheck // it never fails
			current = openAs(t, r)
			return current
		}
		return &participanttest.Subject{
			Participant: current,
			Restart:     reopen,
			Effect:      func(counter string) []byte { return []byte(add(counter)) },
			Count:       func(t *testing.T, counter string) int { return b.count(t, counter) },
			Refused:     func() []byte { return []byte(`{"name": "debit", "args": {"account": "nobody", "amount": 1}}`) },
			ReadOnly:    func() []byte { return []byte(`{"name": "look", "args": ["nothing"]}`) },
			Conflicts:   true,
			Both: func(first, second string) []byte {
				return fmt.Appendf(nil, `{"statements": [%s, %s]}`, add(first), add(second))
			},
			FailsLate: func(counter string) []byte {
				return fmt.Appendf(nil, `{"statements": [%s, {"name": "sit", "args": ["seat"]}]}`, add(counter))
			},
			Block: func(t *testing.T, counter string) func() { return b.block(t, counter) },
			Second: func(t *testing.T) participants.Participant {
				return openAs(t, r)
			},
			Crash: func(t *testing.T) participants.Participant {
				if err := server.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := server.Restart(bounded(t)); err != nil {
					t.Fatal(err)
				}
				return current
			},
			Cut: func(t *testing.T, arrives bool) participants.Participant {
				wire := participanttest.NewWire(t, "unix", socketOf(t, server))
				p := openAs(t, b.registered(t, "root@unix("+wire.Addr()+")/"+url.PathEscape(b.database), ""))
				wire.CutAt("XA PREPARE", arrives)
				return p
			},
			Meddle: func(t *testing.T, branch participants.Branch, end participanttest.Op) {
				verb := map[participanttest.Op]string{participanttest.Commit: "XA COMMIT", participanttest.Abort: "XA ROLLBACK"}[end]
				b.byHand(t, current, branch, verb)
			},
			Foreign: func(t *testing.T) func() { return b.foreign(t) },
		}
	}})
}

// block holds the lock on a counter for somebody who is not decree.
func (b *bank) block(t *testing.T, counter string) (release func()) {
	t.Helper()
	tx, err := b.db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO counter VALUES (?, 100) ON DUPLICATE KEY UPDATE n = n", counter); err != nil {
		t.Fatal(err)
	}
	return func() { tx.Rollback() } //nolint:errcheck // the test sees the lock
}

// foreign leaves two transactions prepared: one that is nothing like ours, and one
// of another branch's form in another database.
func (b *bank) foreign(t *testing.T) (check func()) {
	t.Helper()
	stranger := "'stranger-" + b.database + "'"
	conn, err := b.db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.ExecContext(context.Background(), "XA ROLLBACK "+stranger) //nolint:errcheck // check has looked at it
		conn.Close()                                                    //nolint:errcheck // the same
	})
	for _, sql := range []string{"XA START " + stranger, "INSERT INTO account VALUES ('stranger', 7)", "XA END " + stranger, "XA PREPARE " + stranger} {
		if _, err := conn.ExecContext(context.Background(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return func() {
		t.Helper()
		if !strings.Contains(b.prepared(t), strings.Trim(stranger, "'")) {
			t.Errorf("%s is not prepared any more", stranger)
		}
	}
}

// prepared is the text of XA RECOVER.
func (b *bank) prepared(t testing.TB) string {
	t.Helper()
	all, err := b.server.Query(bounded(t), "", "XA RECOVER")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// socketOf is the server's socket.
func socketOf(t testing.TB, server *databases.Server) string {
	t.Helper()
	_, rest, _ := strings.Cut(server.DSN(""), "@unix(")
	socket, _, ok := strings.Cut(rest, ")")
	if !ok {
		t.Fatalf("no socket in %q", server.DSN(""))
	}
	return socket
}
