package participanttest

import (
	"slices"
	"strings"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// needs skips a promise about what the subject's resource does not have.
func (s *scene) needs(have bool, what string) {
	s.Helper()
	if !have {
		s.Skip("the subject has no " + what)
	}
}

// told wants a no that says why, in one of the words where some are given.
func (s *scene) told(v participants.Vote, err error, what string, words ...string) {
	s.Helper()
	if err != nil || v.Kind != txn.VoteAbort {
		s.Fatalf("prepare %s: %s, %v; want a no", what, v.Kind, err)
	}
	reason := strings.ToLower(v.Reason)
	if reason == "" {
		s.Fatalf("prepare %s: a no without a reason", what)
	}
	if len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(reason, w) }) {
		s.Fatalf("prepare %s: the no says %q, want one of %q in it", what, v.Reason, words)
	}
}

// lockWords are those that a reason uses for a branch that waited in vain.
var lockWords = []string{"lock", "timeout", "time-out", "timed out"} // of them "lock" is in deadlock too

// working holds what a branch's own work may run into: the answer is a no that
// keeps nothing, and neither an error nor a hang.
var working = []promise{
	// A transaction that a statement left broken, or half done, is not prepared.
	{"LateFailureKeepsNothing", func(s *scene) {
		s.needs(s.subject.FailsLate != nil, "payload that fails late")
		s.keepsNothing(s.subject.FailsLate, "of a payload that fails after its first statement")
	}},
	{"DeferredConstraintIsRefused", func(s *scene) {
		s.needs(s.subject.Deferred != nil, "constraint that is checked at prepare")
		s.keepsNothing(s.subject.Deferred, "of a payload that breaks a deferred constraint")
	}},
	// Whoever waits for somebody else's lock gives up in time to tell.
	{"LockedCounterIsRefused", func(s *scene) {
		s.needs(s.subject.Block != nil, "locks of others")
		b, n := s.branch()
		release := s.subject.Block(s.T, n)
		v, err := s.p.Prepare(s.ctx(), b)
		s.told(v, err, "while the counter is locked", lockWords...)
		s.lists(s.cluster)
		release()
		after := s.branchOf(s.subject.Effect(n))
		s.prepare(after)
		s.commit(after)
		s.counts(n, 1, "after one commit")
	}},
	// R8: the same branch prepared again gives the same vote, though by now it
	// could be done.
	{"ANoStaysANo", func(s *scene) {
		s.needs(s.subject.Block != nil, "locks of others")
		b, n := s.branch()
		release := s.subject.Block(s.T, n)
		s.refused(b, "while the counter is locked")
		release()
		s.refused(b, "a second time")
		s.lists(s.cluster)
		s.abort(b)
		s.counts(n, 0, "after two noes")
	}},
	// Two transactions may each hold what the other one waits for, in two databases
	// of which neither sees it, or in one.
	{"CrossedTransactionsEnd", func(s *scene) {
		s.needs(s.subject.Conflicts, "conflicts")
		x, y := "x"+randomName(), "y"+randomName()
		one := s.branchOf(s.subject.Effect(x))
		two := s.branchOf(s.subject.Effect(y))
		s.prepare(one)
		s.prepare(two)
		crossed := []participants.Branch{
			s.named(one.TxID, 2, s.subject.Effect(y)),
			s.named(two.TxID, 2, s.subject.Effect(x)),
		}
		for i, a := range s.prepareAll(crossed) {
			s.told(a.vote, a.err, crossed[i].Name()+", crossed")
		}
		for _, b := range append(crossed, one, two) {
			s.abort(b)
		}
		s.lists(s.cluster)
		s.counts(x, 0, "after two aborts")
		s.counts(y, 0, "after two aborts")
	}},
	{"DeadlockIsRefused", func(s *scene) {
		s.needs(s.subject.Both != nil && s.subject.Conflicts, "payload that locks two counters")
		const rounds = 4 // a few: not each round's branches meet in the middle
		for range rounds {
			x, y := "x"+randomName(), "y"+randomName()
			pair := []participants.Branch{s.branchOf(s.subject.Both(x, y)), s.branchOf(s.subject.Both(y, x))}
			yes := 0
			for i, a := range s.prepareAll(pair) {
				if a.err == nil && a.vote.Kind == txn.VoteCommit {
					yes++
					s.commit(pair[i])
					continue
				}
				s.told(a.vote, a.err, pair[i].Name()+" in a deadlock", lockWords...)
				s.abort(pair[i])
			}
			if yes > 1 {
				s.Fatalf("%d branches that lock the same counters are prepared at once", yes)
			}
			s.lists(s.cluster)
			s.counts(x, yes, "after the deadlock")
			s.counts(y, yes, "after the deadlock")
		}
	}},
	// What others have prepared for themselves is nobody's orphan.
	{"ForeignTransactionsAreLeftAlone", func(s *scene) {
		s.needs(s.subject.Foreign != nil, "prepared transactions of others")
		check := s.subject.Foreign(s.T)
		b, n := s.branch()
		gone, _ := s.branch()
		unknown, _ := s.branch()
		s.prepare(b)
		s.prepare(gone)
		s.lists(s.cluster, b, gone)
		s.commit(b)
		s.abort(gone)
		s.abort(unknown)
		s.lists(s.cluster)
		s.counts(n, 1, "after commit")
		check()
		if s.subject.Restart != nil {
			s.restart()
			s.lists(s.cluster)
			check()
		}
	}},
}

// keepsNothing wants a no to a payload that has worked in part.
func (s *scene) keepsNothing(payload func(counter string) []byte, what string) {
	s.Helper()
	n := "n" + randomName()
	b := s.branchOf(payload(n))
	s.refused(b, what)
	s.lists(s.cluster)
	s.counts(n, 0, "after a no")
	s.refused(b, "a second time")
	s.abort(b)
	// Neither a lock nor a broken connection is left to the next one.
	after := s.branchOf(s.subject.Effect(n))
	s.prepare(after)
	s.commit(after)
	s.counts(n, 1, "after one commit")
}

// answer is what a prepare came to.
type answer struct {
	vote participants.Vote
	err  error
}

// prepareAll prepares branches at once.
func (s *scene) prepareAll(branches []participants.Branch) []answer {
	s.Helper()
	ctx := s.ctx()
	answers := make([]answer, len(branches))
	together(len(branches), func(i int) {
		answers[i].vote, answers[i].err = s.p.Prepare(ctx, branches[i])
	})
	return answers
}

// meddling holds what a driver makes of a branch that an operator ended by hand:
// the truth, for ever (rule R9).
var meddling = []promise{
	{"RolledBackByHandIsDamage", func(s *scene) {
		b, n := s.meddledWith(Abort)
		s.damage(s.p.Commit(s.ctx(), s.phaseTwo(b)), txn.HeuristicAbort, "commit of what was rolled back by hand")
		s.damage(s.p.Commit(s.ctx(), s.phaseTwo(b)), txn.HeuristicAbort, "a second commit of it")
		s.refused(b, "after it was reported as a heuristic abort")
		s.lists(s.cluster)
		s.counts(n, 0, "after a heuristic abort")
	}},
	{"RolledBackByHandIsAborted", func(s *scene) {
		b, n := s.meddledWith(Abort)
		s.abort(b)
		s.refused(b, "after its abort")
		s.lists(s.cluster)
		s.counts(n, 0, "after the abort")
	}},
	{"CommittedByHandIsCommitted", func(s *scene) {
		b, n := s.meddledWith(Commit)
		s.counts(n, 1, "after the commit by hand")
		s.commit(b)
		s.commit(b)
		s.lists(s.cluster)
		s.counts(n, 1, "after the cluster's own commit")
	}},
	{"CommittedByHandThenAbortedIsDamage", func(s *scene) {
		b, n := s.meddledWith(Commit)
		s.damage(s.p.Abort(s.ctx(), s.phaseTwo(b)), txn.HeuristicCommit, "abort of what was committed by hand")
		s.damage(s.p.Abort(s.ctx(), s.phaseTwo(b)), txn.HeuristicCommit, "a second abort of it")
		s.counts(n, 1, "after an abort that came too late")
	}},
}

// meddledWith is a prepared branch that an operator has ended by hand.
func (s *scene) meddledWith(end Op) (b participants.Branch, counter string) {
	s.Helper()
	s.needs(s.subject.Meddle != nil, "operator")
	b, counter = s.branch()
	s.prepare(b)
	s.subject.Meddle(s.T, b, end)
	s.lists(s.cluster)
	return b, counter
}

// cutting holds what is promised when the connection breaks while a prepare is on
// its way. The answer may be ambiguous, or a vote; what follows may not.
var cutting = []promise{
	// R8: the branch may be prepared, or may yet become so, until its abort is
	// answered.
	{"CutPrepareThenAbort", func(s *scene) {
		s.cutEachWay(func(b participants.Branch, n string, _ answer) {
			s.abort(b)
			s.lists(s.cluster)
			s.refused(b, "after its abort")
			s.lists(s.cluster)
			s.counts(n, 0, "after the abort")
		})
	}},
	// R13: prepared again, it is one branch with one vote.
	{"CutPrepareThenAgain", func(s *scene) {
		s.cutEachWay(func(b participants.Branch, n string, first answer) {
			v := s.vote(b)
			if first.err == nil && v.Kind != first.vote.Kind {
				s.Fatalf("prepare again: %s %q, after %s", v.Kind, v.Reason, first.vote.Kind)
			}
			if v.Kind != txn.VoteCommit {
				s.lists(s.cluster) // a no keeps nothing
				s.abort(b)
				s.counts(n, 0, "after the abort")
				return
			}
			s.lists(s.cluster, b)
			s.commit(b)
			s.counts(n, 1, "after commit")
			s.lists(s.cluster)
		})
	}},
}

// cutEachWay prepares branches by connections that break, and tells what came of
// each. What follows is said by connections that are whole.
func (s *scene) cutEachWay(then func(b participants.Branch, counter string, first answer)) {
	s.Helper()
	s.needs(s.subject.Cut != nil, "connection to cut")
	for i := range crowd {
		cut := s.subject.Cut(s.T, i%2 == 0)
		b, n := s.branch()
		var first answer
		first.vote, first.err = cut.Prepare(s.ctx(), b)
		then(b, n, first)
	}
}
