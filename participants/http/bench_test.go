package httpparticipant_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
)

// BenchmarkBranch measures what the wire costs: a prepare and a commit of a
// participant that does nothing, over loopback, one after the other and by many at
// once.
func BenchmarkBranch(b *testing.B) {
	idle := &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) { return participants.Yes(), nil },
		commit:  func(context.Context, participants.Branch) error { return nil },
	}
	url := serve(b, httpparticipant.Handler(idle, httpparticipant.Options{}))
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			p := openLogged(b, httpparticipant.Config{URL: url}, hclog.NewNullLogger())
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						runBranch(b, p)
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "branches/s")
		})
	}
}

func runBranch(b *testing.B, p participants.Participant) {
	branch := newBranch(`{"ops":[{"op":"add","key":"alice","amount":1}]}`)
	if v, err := p.Prepare(b.Context(), branch); err != nil || v != participants.Yes() {
		b.Errorf("prepare: %v, %v", v, err)
	}
	if err := p.Commit(b.Context(), branch); err != nil {
		b.Errorf("commit: %v", err)
	}
}
