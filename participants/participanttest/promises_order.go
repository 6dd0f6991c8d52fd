package participanttest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// stale wants each call of the scene's present epoch refused.
func (s *scene) stale(b participants.Branch) {
	s.Helper()
	if v, err := s.p.Prepare(s.ctx(), s.again(b)); !errors.Is(err, participants.ErrStaleEpoch) {
		s.Fatalf("prepare of epoch %d: %s, %v; want ErrStaleEpoch", s.epoch, v.Kind, err)
	}
	if err := s.p.Commit(s.ctx(), s.phaseTwo(b)); !errors.Is(err, participants.ErrStaleEpoch) {
		s.Fatalf("commit of epoch %d: %v, want ErrStaleEpoch", s.epoch, err)
	}
	if err := s.p.Abort(s.ctx(), s.phaseTwo(b)); !errors.Is(err, participants.ErrStaleEpoch) {
		s.Fatalf("abort of epoch %d: %v, want ErrStaleEpoch", s.epoch, err)
	}
}

// pass moves the horizon just past a txid and lets the participant hear of it.
func (s *scene) pass(id txn.TxID) {
	s.Helper()
	s.horizon = id.Time().Add(time.Second)
	s.now = s.horizon.Add(time.Second)
	messenger, _ := s.branch()
	s.abort(messenger)
}

// fencing holds what epochs and the horizon promise.
var fencing = []promise{
	// R8: a deposed leader is refused, whatever it says, and changes nothing.
	{"StaleEpochIsRefused", func(s *scene) {
		b, n := s.branch()
		fresh, m := s.branch()
		s.epoch = 5
		s.prepare(b)
		s.epoch = 4
		s.stale(b)
		s.stale(fresh)
		s.epoch = 5
		s.lists(s.cluster, b)
		s.counts(n, 0, "after a stale commit")
		s.prepare(fresh) // a stale abort has left no tombstone
		s.commit(b)
		s.commit(fresh)
		s.counts(n, 1, "after commit")
		s.counts(m, 1, "after commit")
	}},
	// R8: commit and abort raise the fence as prepare does.
	{"PhaseTwoRaisesTheFence", func(s *scene) {
		b, _ := s.branch()
		c, _ := s.branch()
		s.prepare(b)
		s.epoch = 3
		s.commit(b)
		s.epoch = 2
		s.stale(c)
		s.epoch = 7
		s.abort(c)
		s.epoch = 6
		s.stale(b)
	}},
	// R13: the next leader prepares again what the last one did, and goes on.
	{"NextLeaderGoesOn", func(s *scene) {
		b, n := s.branch()
		c, m := s.branch()
		s.prepare(b)
		s.prepare(c)
		s.epoch = 2
		s.prepare(b)
		s.commit(b)
		s.abort(c)
		s.counts(n, 1, "after the next leader's commit")
		s.counts(m, 0, "after the next leader's abort")
	}},
	// R3: one cluster's epochs say nothing about another's.
	{"EpochsBelongToTheirCluster", func(s *scene) {
		b, _ := s.branch()
		s.epoch = 100
		s.prepare(b)
		mine := s.cluster
		s.cluster, s.epoch = "c"+randomName(), 1
		c, n := s.branch()
		s.prepare(c)
		s.commit(c)
		s.counts(n, 1, "after commit")
		s.lists(mine, b)
	}},
	// R11: what lies before the horizon never begins.
	{"HorizonRefusesOlder", func(s *scene) {
		old, n := s.branch()
		s.pass(old.TxID)
		s.refused(old, "from before the horizon")
		s.horizon = 0 // as a message that was long under way says
		s.refused(old, "from before the horizon")
		s.lists(s.cluster)
		s.counts(n, 0, "after a prepare from before the horizon")
		young, m := s.branch()
		s.prepare(young)
		s.commit(young)
		s.counts(m, 1, "after commit")
	}},
	// R11: forgetting needs the horizon, and the horizon then stands in for what
	// is forgotten.
	{"ForgettingNeverReopens", func(s *scene) {
		old, n := s.branch()
		s.prepare(old)
		s.commit(old)
		s.now = s.now.Add(time.Minute)
		young, _ := s.branch()
		committed, m := s.branch()
		s.abort(young)
		s.prepare(committed)
		s.commit(committed)
		s.pass(old.TxID)
		s.refused(young, "after its abort, behind which the horizon lies")
		s.status(young, participants.StatusAborted)
		s.commit(committed)
		if v, err := s.p.Prepare(s.ctx(), s.again(old)); err == nil && v.Kind == txn.VoteCommit {
			s.status(old, participants.StatusCommitted) // still remembered: allowed
		}
		s.lists(s.cluster)
		s.counts(n, 1, "after a late prepare from before the horizon")
		s.counts(m, 1, "after two commits")
	}},
	// R9: a commit of which nothing is known any more is not called done, unless
	// the proof is still there.
	{"CommitBeforeTheHorizonNeedsProof", func(s *scene) {
		never, n := s.branch()
		s.pass(never.TxID)
		err := s.p.Commit(s.ctx(), s.phaseTwo(never))
		var h *participants.Heuristic
		if !errors.As(err, &h) || h.Receipt == txn.HeuristicCommit {
			s.Fatalf("commit of an unknown branch from before the horizon: %v, want HeuristicAbort or HeuristicHazard", err)
		}
		s.abort(never)
		s.counts(n, 0, "though it was never prepared")
	}},
	// R7 and R10: the horizon forgets what is finished, never what waits.
	{"PreparedOutlivesTheHorizon", func(s *scene) {
		b, n := s.branch()
		gone, m := s.branch()
		s.prepare(b)
		s.prepare(gone)
		s.pass(b.TxID)
		s.lists(s.cluster, b, gone)
		s.commit(b)
		s.abort(gone)
		s.counts(n, 1, "after commit")
		s.counts(m, 0, "after abort")
	}},
}

// crowd is how many callers the concurrent promises have at once.
const crowd = 12

// together runs fn so many times at once and waits for all.
func together(n int, fn func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { fn(i) })
	}
	all.Wait()
}

// crowding holds what is promised to many callers at once, and to those who go
// away.
var crowding = []promise{
	// Isolation: what one branch stages is not part of another.
	{"ManyTransactionsAtOnce", func(s *scene) {
		branches := make([]participants.Branch, 2*crowd)
		counters := make([]string, len(branches))
		for i := range branches {
			branches[i], counters[i] = s.branch()
		}
		ctx := s.ctx()
		together(len(branches), func(i int) {
			b := branches[i]
			if v, err := s.p.Prepare(ctx, b); err != nil || v.Kind != txn.VoteCommit {
				s.Errorf("prepare %s: %s %q, %v", b.Name(), v.Kind, v.Reason, err)
				return
			}
			end := s.p.Commit
			if i%2 == 1 {
				end = s.p.Abort
			}
			if err := end(ctx, s.phaseTwo(b)); err != nil {
				s.Errorf("end of %s: %v", b.Name(), err)
			}
		})
		for i, n := range counters {
			s.counts(n, 1-i%2, "after all have ended")
		}
		s.lists(s.cluster)
	}},
	// R8: copies of a message are one message.
	{"CopiesAtOnceAreOneEffect", func(s *scene) {
		b, n := s.branch()
		ctx := s.ctx()
		together(crowd, func(int) {
			if v, err := s.p.Prepare(ctx, b); err != nil || v.Kind != txn.VoteCommit {
				s.Errorf("prepare: %s %q, %v", v.Kind, v.Reason, err)
			}
		})
		s.lists(s.cluster, b)
		together(crowd, func(int) {
			if err := s.p.Commit(ctx, s.phaseTwo(b)); err != nil {
				s.Errorf("commit: %v", err)
			}
		})
		s.counts(n, 1, "after many copies of each message")
		s.lists(s.cluster)
	}},
	// R8: whichever arrives first, once the abort is answered nothing is left.
	{"PrepareRacesAbort", func(s *scene) {
		for range crowd {
			b, n := s.branch()
			ctx := s.ctx()
			together(4, func(i int) {
				if i%2 == 0 {
					// Any answer is allowed here: the abort may come before or after.
					s.p.Prepare(ctx, b) //nolint:errcheck // see above
				} else if err := s.p.Abort(ctx, s.phaseTwo(b)); err != nil {
					s.Errorf("abort: %v", err)
				}
			})
			s.lists(s.cluster)
			s.refused(b, "after its abort")
			s.counts(n, 0, "after abort")
		}
	}},
	// The name of a branch is cluster, txid and number, all three.
	{"ClustersWithOneTxIDDoNotMix", func(s *scene) {
		b, n := s.branch()
		mine := s.cluster
		s.prepare(b)
		s.cluster = "c" + randomName()
		m := "m" + randomName()
		c := s.named(b.TxID, b.Number, s.subject.Effect(m))
		s.prepare(c)
		s.lists(mine, b)
		s.lists(s.cluster, c)
		s.abort(c)
		s.lists(mine, b)
		s.commit(b)
		s.counts(n, 1, "after commit")
		s.counts(m, 0, "after abort")
		s.refused(c, "after its abort")
	}},
	{"BranchesOfOneTxIDDoNotMix", func(s *scene) {
		b, n := s.branch()
		m := "m" + randomName()
		c := s.named(b.TxID, b.Number+1, s.subject.Effect(m))
		s.prepare(b)
		s.prepare(c)
		s.lists(s.cluster, b, c)
		s.commit(c)
		s.lists(s.cluster, b)
		s.counts(n, 0, "while prepared")
		s.counts(m, 1, "after commit")
		s.abort(b)
		s.counts(n, 0, "after abort")
	}},
	// A caller who has gone leaves a branch that can be asked about again.
	{"EndedContextIsHarmless", func(s *scene) {
		ended, cancel := context.WithCancel(s.Context())
		cancel()
		b, n := s.branch()
		c, m := s.branch()
		s.soon("prepare", func() { s.p.Prepare(ended, b) }) //nolint:errcheck // ambiguous by design
		s.soon("prepare", func() { s.p.Prepare(ended, c) }) //nolint:errcheck // ambiguous by design
		s.prepare(b)
		s.soon("commit", func() { s.p.Commit(ended, s.phaseTwo(b)) }) //nolint:errcheck // ambiguous by design
		s.commit(b)
		s.soon("abort", func() { s.p.Abort(ended, s.phaseTwo(c)) }) //nolint:errcheck // ambiguous by design
		s.abort(c)
		s.soon("recover", func() { s.p.Recover(ended, s.cluster) }) //nolint:errcheck // ambiguous by design
		s.counts(n, 1, "after commit")
		s.counts(m, 0, "after abort")
		s.refused(c, "after its abort")
		s.lists(s.cluster)
	}},
	// The same, for callers who leave in the middle.
	{"LeavingInTheMiddleIsHarmless", func(s *scene) {
		branches := make([]participants.Branch, crowd)
		counters := make([]string, crowd)
		for i := range branches {
			branches[i], counters[i] = s.branch()
		}
		leave := func(call func(ctx context.Context, i int)) {
			together(crowd, func(i int) {
				ctx, cancel := context.WithCancel(s.Context())
				go cancel() // some leave before, some in the middle, some after
				call(ctx, i)
			})
		}
		leave(func(ctx context.Context, i int) {
			s.p.Prepare(ctx, branches[i]) //nolint:errcheck // ambiguous by design
		})
		for i, b := range branches {
			if i%2 == 0 {
				s.prepare(b) // not prepared yet or already: a yes in either case
			}
		}
		leave(func(ctx context.Context, i int) {
			if i%2 == 0 {
				s.p.Commit(ctx, s.phaseTwo(branches[i])) //nolint:errcheck // ambiguous by design
			} else {
				s.p.Abort(ctx, s.phaseTwo(branches[i])) //nolint:errcheck // ambiguous by design
			}
		})
		for i, b := range branches {
			if i%2 == 0 {
				s.commit(b)
			} else {
				s.abort(b)
				s.refused(b, "after its abort")
			}
			s.counts(counters[i], 1-i%2, "after all have ended")
		}
		s.lists(s.cluster)
	}},
}

// soon wants a call to come back although its context is over.
func (s *scene) soon(what string, call func()) {
	s.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	select {
	case <-done:
	case <-s.ctx().Done():
		s.Fatalf("%s with an ended context has not come back in %s", what, patience)
	}
}
