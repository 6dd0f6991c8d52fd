package mysql

// The price of the marker and of the driver, beside a client that does the same
// XA without either. Compare the two of one run; the machine is not always the
// same.

import (
	"context"
	"database/sql/driver"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/decree-tx/decree/participants/participanttest/databases"
)

func BenchmarkBranch(b *testing.B) {
	bank := newBank(b, databases.Shared(b, databases.MariaDB))
	for i := range 64 {
		bank.exec(b, "INSERT INTO account VALUES (?, 1000000000)", fmt.Sprint(i))
	}
	p := bank.open(b, "")
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("plain/callers=%d", callers), func(b *testing.B) { crowd(b, callers, plainXA(b, p)) })
		b.Run(fmt.Sprintf("decree/callers=%d", callers), func(b *testing.B) { crowd(b, callers, throughDriver(b, p)) })
	}
}

// crowd shares b.N transfers among callers, each with an account of its own.
func crowd(b *testing.B, callers int, client func(caller int) func()) {
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan struct{})
	works := make([]func(), callers)
	for i := range works {
		works[i] = client(i)
	}
	for range 2 { // connected, and warm
		for _, work := range works {
			go func() { work(); done <- struct{}{} }()
		}
		for range works {
			<-done
		}
	}
	b.ResetTimer()
	for _, work := range works {
		go func() {
			for left.Add(-1) >= 0 {
				work()
			}
			done <- struct{}{}
		}()
	}
	for range callers {
		<-done
	}
}

func throughDriver(b *testing.B, p *participant) func(int) func() {
	return func(caller int) func() {
		return func() {
			branch := newBranch(fmt.Sprintf(`{"name": "debit", "args": {"account": "%d", "amount": 1}}`, caller))
			if v, err := p.Prepare(b.Context(), branch); err != nil || v.Reason != "" {
				b.Errorf("prepare: %+v, %v", v, err)
			}
			if err := p.Commit(b.Context(), branch); err != nil {
				b.Error(err)
			}
		}
	}
}

// plainXA is a client by hand: five trips, no marker.
func plainXA(b *testing.B, p *participant) func(int) func() {
	return func(caller int) func() {
		s, err := p.branches.dialer.dial(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(s.close)
		conn := s.conn.(driver.ExecerContext)
		run := func(sql string, args ...any) {
			if _, err := conn.ExecContext(b.Context(), sql, named(args)); err != nil {
				b.Errorf("%s: %v", sql, err)
			}
		}
		return func() {
			xid := xidOf(newBranch(""))
			run("XA START " + xid)
			run("UPDATE account SET balance = balance - ? WHERE id = ? AND balance >= ?", int64(1), fmt.Sprint(caller), int64(1))
			run("XA END " + xid)
			run("XA PREPARE " + xid)
			run("XA COMMIT " + xid)
		}
	}
}
