package branch_test

import (
	"context"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	"github.com/decree-tx/decree/transport/branch"
)

// BenchmarkPrepareCommit is one branch of a Local service through both phases,
// without the network: two commits of the file, shared among callers.
func BenchmarkPrepareCommit(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run("callers="+strconv.Itoa(callers), func(b *testing.B) {
			db, err := bbolt.Open(filepath.Join(b.TempDir(), "bench.db"), 0o600, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			s, err := branch.NewLocal(db, tally{}, branch.Config{})
			if err != nil {
				b.Fatal(err)
			}
			var n atomic.Int64
			b.SetParallelism(callers) // times GOMAXPROCS
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					name := newBranch(1)
					account := "account" + strconv.FormatInt(n.Add(1)%1000, 10)
					if _, err := s.Prepare(context.Background(), prepareRequest(name, account)); err != nil {
						b.Fatal(err)
					}
					if _, err := s.Commit(context.Background(), &participantv1.CommitRequest{Branch: name}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
