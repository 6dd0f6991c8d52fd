package participanttest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// crashing holds what a crash of the resource itself must not change: all that a
// restart of the participant must not, and what is under way.
var crashing = append(afterCrash(surviving), promise{
	// R7, R8 and R9, for calls in the middle: a yes is kept, a done is done, and
	// what is neither can still be aborted.
	"CrashInTheMiddleLosesNothing", func(s *scene) {
		s.needs(s.subject.Crash != nil, "crash")
		branches := make([]participants.Branch, 4*crowd)
		counters := make([]string, len(branches))
		for i := range branches {
			branches[i], counters[i] = s.branch()
		}
		voted, done := make([]bool, len(branches)), make([]bool, len(branches))
		before, ctx := s.p, s.ctx()
		var traffic sync.WaitGroup
		underway := make(chan struct{}, len(branches))
		for i, b := range branches {
			traffic.Go(func() {
				v, err := before.Prepare(ctx, b)
				voted[i] = err == nil && v.Kind == txn.VoteCommit
				underway <- struct{}{}
				done[i] = voted[i] && before.Commit(ctx, s.phaseTwo(b)) == nil
			})
		}
		for range crowd {
			<-underway // some are prepared, some on the way, some committed
		}
		s.p = s.subject.Crash(s.T)
		traffic.Wait()
		for i, b := range branches {
			if done[i] {
				s.counts(counters[i], 1, "after a commit that was answered before the crash")
			}
			if voted[i] {
				s.commit(b)
				s.counts(counters[i], 1, "after the commit of a branch that had voted yes")
				continue
			}
			s.abort(b)
			s.counts(counters[i], 0, "after the abort of a branch that had not voted")
			s.refused(b, "after its abort")
		}
		s.lists(s.cluster)
	},
})

// afterCrash makes promises about a restart into promises about a crash.
func afterCrash(restarts []promise) []promise {
	var crashes []promise
	for _, p := range restarts {
		crashes = append(crashes, promise{
			strings.Replace(p.name, "Restart", "Crash", 1),
			func(s *scene) {
				s.needs(s.subject.Crash != nil, "crash")
				s.reopen = s.subject.Crash
				p.keep(s)
			},
		})
	}
	return crashes
}

// sharing holds what is promised to two nodes of a cluster that have the resource
// open at once: one led, and does not know yet that the other leads now. Its
// sessions still hold what they prepared.
var sharing = []promise{
	{"NextTermCommitsWhatTheOldHolds", func(s *scene) {
		old, next := s.twoNodes()
		b, n := s.branch()
		s.prepare(b)
		s.leads(next)
		s.lists(s.cluster, b)
		s.committedAtLast(s.ctx(), b)
		s.counts(n, 1, "after the next leader's commit")
		// A copy of the old leader's prepare is harmless, whatever it answers.
		old.Prepare(s.ctx(), b) //nolint:errcheck // see above
		s.lists(s.cluster)
		s.counts(n, 1, "after a late copy of the prepare")
		s.leads(old) // and it leads again
		s.commit(b)
		s.roundTrip()
	}},
	{"NextTermAbortsWhatTheOldHolds", func(s *scene) {
		old, next := s.twoNodes()
		b, n := s.branch()
		s.prepare(b)
		s.leads(next)
		s.abortedAtLast(s.ctx(), b)
		s.late(old, b)
		s.counts(n, 0, "after the next leader's abort")
		s.leads(old)
		s.refused(b, "after its abort")
		s.roundTrip()
	}},
	// R8: the old leader's prepare comes after the next one's abort.
	{"OldTermsLatePrepareIsRefused", func(s *scene) {
		old, next := s.twoNodes()
		b, n := s.branch()
		s.leads(next)
		s.abortedAtLast(s.ctx(), b)
		s.late(old, b)
		s.counts(n, 0, "after a late prepare")
	}},
	// R13: the next leader prepares again what the old one's session holds.
	{"NextTermPreparesAgain", func(s *scene) {
		_, next := s.twoNodes()
		b, n := s.branch()
		s.prepare(b)
		s.leads(next)
		s.prepare(b)
		s.lists(s.cluster, b)
		s.committedAtLast(s.ctx(), b)
		s.counts(n, 1, "after the next leader's commit")
		s.lists(s.cluster)
	}},
	// Both deliver the decision: it is the same, and carried out once. The old
	// one's answers may be errors, but tell of no damage.
	{"TwoTermsCommitAtOnce", func(s *scene) {
		old, next := s.twoNodes()
		for range crowd {
			s.leads(old)
			b, n := s.branch()
			s.prepare(b)
			before := s.phaseTwo(b)
			s.leads(next)
			ctx := s.ctx()
			together(2, func(i int) {
				if i == 1 {
					s.committedAtLast(ctx, b)
				} else if err := old.Commit(ctx, before); errors.As(err, new(*participants.Heuristic)) {
					s.Errorf("commit of the old term: %v", err)
				}
			})
			s.lists(s.cluster)
			s.counts(n, 1, "after two leaders' commits")
		}
	}},
	// R8: whichever comes first, once the abort is answered nothing is left.
	{"TwoTermsPrepareRacesAbort", func(s *scene) {
		old, next := s.twoNodes()
		for range crowd {
			s.leads(old)
			b, n := s.branch()
			s.leads(next)
			ctx := s.ctx()
			together(2, func(i int) {
				if i == 0 {
					old.Prepare(ctx, b) //nolint:errcheck // any answer is allowed here
				} else {
					s.abortedAtLast(ctx, b)
				}
			})
			s.late(old, b)
			s.counts(n, 0, "after the abort")
		}
	}},
	// A commit that was answered is not undone by a crash, although another node's
	// session held the branch when it came.
	{"NextTermsCommitSurvivesCrash", func(s *scene) {
		s.needs(s.subject.Crash != nil, "crash")
		_, next := s.twoNodes()
		branches := make([]participants.Branch, crowd)
		counters := make([]string, crowd)
		for i := range branches {
			branches[i], counters[i] = s.branch()
			s.prepare(branches[i])
		}
		s.leads(next)
		ctx := s.ctx()
		together(crowd, func(i int) { s.committedAtLast(ctx, branches[i]) })
		s.p = s.subject.Crash(s.T)
		s.lists(s.cluster)
		for i, b := range branches {
			s.counts(counters[i], 1, "after the commit and a crash")
			s.commit(b)
		}
	}},
}

// twoNodes are the subject's participant, which leads, and another on the same
// resource.
func (s *scene) twoNodes() (old, next participants.Participant) {
	s.Helper()
	s.needs(s.subject.Second != nil, "second instance")
	return s.p, s.subject.Second(s.T)
}

// leads begins a term of another node.
func (s *scene) leads(p participants.Participant) {
	s.p = p
	s.epoch++
}

// committedAtLast delivers a commit as the coordinator does: again and again, while
// the answer is neither done nor damage. Here another node's session may be in the
// way. It may be called from many goroutines.
func (s *scene) committedAtLast(ctx context.Context, b participants.Branch) {
	s.Helper()
	if err := atLast(ctx, s.p.Commit, s.phaseTwo(b)); err != nil {
		s.Errorf("commit %s: %v", b.Name(), err)
	}
}

// abortedAtLast does the same for an abort.
func (s *scene) abortedAtLast(ctx context.Context, b participants.Branch) {
	s.Helper()
	if err := atLast(ctx, s.p.Abort, s.phaseTwo(b)); err != nil {
		s.Errorf("abort %s: %v", b.Name(), err)
	}
}

// retryPause is between two deliveries of one decision.
const retryPause = 20 * time.Millisecond

// atLast repeats a call of phase two until it is done, or damage, or the context
// ends.
func atLast(ctx context.Context, call func(context.Context, participants.Branch) error, b participants.Branch) error {
	for {
		err := call(ctx, b)
		if err == nil || errors.As(err, new(*participants.Heuristic)) {
			return err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return err
		}
	}
}

// late wants an old leader's prepare to promise nothing and to keep nothing.
func (s *scene) late(old participants.Participant, b participants.Branch) {
	s.Helper()
	s.lists(s.cluster)
	if v, err := old.Prepare(s.ctx(), b); err == nil && v.Kind != txn.VoteAbort {
		s.Fatalf("late prepare by the old leader: %s, want a refusal", v.Kind)
	}
	s.lists(s.cluster)
}

// roundTrip wants the participant that leads to do its work as ever.
func (s *scene) roundTrip() {
	s.Helper()
	b, n := s.branch()
	s.prepare(b)
	s.commit(b)
	s.counts(n, 1, "after commit")
}
