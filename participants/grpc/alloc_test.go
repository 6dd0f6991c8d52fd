package grpcparticipant_test

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/decree-tx/decree/participants"
)

// What a call on a stream allocates, client and service together, is held here: 14
// were measured with 64 callers, more where messages hold fewer calls; an RPC takes
// 155.
func TestStreamAllocatesLittle(t *testing.T) {
	const callers, each, most = 64, 300, 35
	p := open(t, serve(t, &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) { return participants.Yes(), nil },
		abort:   func(context.Context, participants.Branch) error { return nil },
	}))
	awaitStream(t, p)
	branch, ctx := newBranch("debit 30"), bounded(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range each {
				if _, err := p.Prepare(ctx, branch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	runtime.ReadMemStats(&after)
	if n := (after.Mallocs - before.Mallocs) / (callers * each); n > most {
		t.Errorf("%d allocations a call, want at most %d", n, most)
	} else {
		t.Logf("%d allocations a call", n)
	}
}
