package kv

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/decree-tx/decree/fsm/txn"
)

// BenchmarkPrepareCommit is one branch through both phases, each durable, from
// one caller and from 64 at once, on keys of their own. commits/op is how many
// bbolt commits (of two fsyncs each) a branch cost.
func BenchmarkPrepareCommit(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := newStore(b)
			before := lastTx(b, s)
			var caller atomic.Int64
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, callers)
			for range callers {
				go func() {
					ops := fmt.Sprintf(`{"op": "add", "key": "account-%d", "amount": 1, "min": 0}`, caller.Add(1))
					for left.Add(-1) >= 0 {
						br := branch(ops)
						if v, err := s.Prepare(b.Context(), br); err != nil || v.Kind != txn.VoteCommit {
							done <- fmt.Errorf("%v %w", v, err)
							return
						}
						if err := s.Commit(b.Context(), br); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(lastTx(b, s)-before)/float64(b.N), "commits/op")
		})
	}
}

// lastTx is the number of write transactions that the file has seen.
func lastTx(t testing.TB, s *Store) (id int) {
	t.Helper()
	if err := s.Read(t.Context(), func(at Snapshot) error {
		id = at.tx.ID()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return id
}
