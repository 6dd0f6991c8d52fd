package participanttest

import (
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// voting holds what prepare promises.
var voting = []promise{
	// Isolation: nobody sees what is only staged.
	{"CommitMakesTheEffectVisible", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.counts(n, 0, "while prepared")
		s.commit(b)
		s.counts(n, 1, "after commit")
		s.lists(s.cluster)
	}},
	{"AbortLeavesNoEffect", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.abort(b)
		s.counts(n, 0, "after abort")
		s.lists(s.cluster)
	}},
	// R8: the same vote and one effect.
	{"PrepareTwiceIsOneEffect", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.prepare(b)
		s.lists(s.cluster, b)
		s.commit(b)
		s.counts(n, 1, "after two prepares and a commit")
	}},
	// R8: a late copy of the prepare changes nothing after the commit.
	{"PrepareAfterCommitIsOneEffect", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.commit(b)
		s.prepare(b)
		s.lists(s.cluster)
		s.commit(b)
		s.counts(n, 1, "after a late copy of the prepare")
	}},
	// R8: a second content under the same branch is never promised, and the first
	// stays as it was until it is decided.
	{"OtherContentIsRefused", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		m := "m" + randomName()
		other := s.named(b.TxID, b.Number, s.subject.Effect(m))
		if v, err := s.p.Prepare(s.ctx(), other); err == nil && v.Kind != txn.VoteAbort {
			s.Fatalf("prepare with other content: %s, want a refusal", v.Kind)
		}
		s.lists(s.cluster, b)
		s.commit(b)
		s.counts(n, 1, "after the commit of the first content")
		s.counts(m, 0, "though its content was refused")
	}},
	// R8: told to abort, it says no for ever.
	{"PrepareAfterAbortIsRefused", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.abort(b)
		s.refused(b, "after its abort")
		s.lists(s.cluster)
		s.counts(n, 0, "after a late prepare")
	}},
	// R8: the abort may overtake the prepare.
	{"PrepareAfterAbortOfUnknownIsRefused", func(s *scene) {
		b, n := s.branch()
		s.abort(b)
		s.refused(b, "after the abort of the unknown branch")
		s.lists(s.cluster)
		s.counts(n, 0, "after a late prepare")
	}},
	// A no keeps nothing, and may be aborted like any other branch.
	{"RefusedKeepsNothing", func(s *scene) {
		if s.subject.Refused == nil {
			s.Skip("the resource refuses nothing by payload")
		}
		b := s.branchOf(s.subject.Refused())
		s.refused(b, "of a payload that the resource refuses")
		s.lists(s.cluster)
		s.refused(b, "a second time")
		s.abort(b)
		s.refused(b, "after its abort")
	}},
	{"ReadOnlyKeepsNothing", func(s *scene) {
		if s.subject.ReadOnly == nil {
			s.Skip("the driver has no read-only vote")
		}
		b := s.branchOf(s.subject.ReadOnly())
		if v := s.vote(b); v.Kind != txn.VoteReadOnly {
			s.Fatalf("prepare: %s %q, want read-only", v.Kind, v.Reason)
		}
		s.lists(s.cluster)
		s.abort(b)
		s.refused(b, "after its abort")
	}},
	// Conflicts end at once and not in a deadlock across participants; both a
	// commit and an abort clear the way.
	{"ConflictIsRefused", func(s *scene) {
		if !s.subject.Conflicts {
			s.Skip("effects do not conflict")
		}
		first, n := s.branch()
		s.prepare(first)
		s.refused(s.branchOf(s.subject.Effect(n)), "against a prepared branch")
		s.commit(first)
		second := s.branchOf(s.subject.Effect(n))
		s.prepare(second)
		s.refused(s.branchOf(s.subject.Effect(n)), "against a prepared branch")
		s.abort(second)
		third := s.branchOf(s.subject.Effect(n))
		s.prepare(third)
		s.commit(third)
		s.counts(n, 2, "after two commits")
	}},
}

// deciding holds what commit and abort promise.
var deciding = []promise{
	{"CommitTwiceIsOneEffect", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.commit(b)
		s.commit(b)
		s.counts(n, 1, "after two commits")
	}},
	{"AbortTwice", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.abort(b)
		s.abort(b)
		unknown, m := s.branch()
		s.abort(unknown)
		s.abort(unknown)
		s.counts(n, 0, "after aborts")
		s.counts(m, 0, "after aborts")
	}},
	// R9: not found is not success. And what was reported as rolled back stays so.
	{"CommitOfNeverPreparedIsDamage", func(s *scene) {
		b, n := s.branch()
		s.damage(s.p.Commit(s.ctx(), s.phaseTwo(b)), txn.HeuristicAbort, "commit of a branch never prepared")
		s.refused(b, "after it was reported as a heuristic abort")
		s.damage(s.p.Commit(s.ctx(), s.phaseTwo(b)), txn.HeuristicAbort, "a second commit of it")
		s.lists(s.cluster)
		s.counts(n, 0, "after a heuristic abort")
	}},
	{"CommitAfterAbortIsDamage", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.abort(b)
		s.damage(s.p.Commit(s.ctx(), s.phaseTwo(b)), txn.HeuristicAbort, "commit after abort")
		s.counts(n, 0, "after a commit that came too late")
	}},
	{"CommitAfterAbortOfUnknownIsDamage", func(s *scene) {
		b, _ := s.branch()
		s.abort(b)
		s.damage(s.p.Commit(s.ctx(), s.phaseTwo(b)), txn.HeuristicAbort, "commit after the abort of an unknown branch")
	}},
	{"AbortAfterCommitIsDamage", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.commit(b)
		s.damage(s.p.Abort(s.ctx(), s.phaseTwo(b)), txn.HeuristicCommit, "abort after commit")
		s.counts(n, 1, "after an abort that came too late")
		s.commit(b)
	}},
	{"StatusTellsTheFate", func(s *scene) {
		if _, ok := s.p.(participants.StatusReporter); !ok {
			s.Skip("the driver proves nothing afterwards")
		}
		b, _ := s.branch()
		s.status(b, participants.StatusUnknown)
		s.prepare(b)
		s.status(b, participants.StatusPrepared)
		s.commit(b)
		s.status(b, participants.StatusCommitted)
		gone, _ := s.branch()
		s.prepare(gone)
		s.abort(gone)
		s.status(gone, participants.StatusAborted)
		unknown, _ := s.branch()
		s.abort(unknown)
		s.status(unknown, participants.StatusAborted)
	}},
	{"RecoverListsOnlyPrepared", func(s *scene) {
		if !s.p.Recovers() {
			s.Skip("the driver promises no list")
		}
		var waiting []participants.Branch
		for range 20 {
			b, _ := s.branch()
			s.prepare(b)
			waiting = append(waiting, b)
		}
		s.commit(waiting[0])
		s.abort(waiting[1])
		tombstone, _ := s.branch()
		s.abort(tombstone)
		s.lists(s.cluster, waiting[2:]...)
		s.lists("c" + randomName())
	}},
}

// surviving holds what a restart must not change. In a participant that keeps
// nothing, these are skipped.
var surviving = []promise{
	// R7: a prepared branch waits.
	{"PreparedSurvivesRestart", func(s *scene) {
		b, n := s.branch()
		gone, m := s.branch()
		s.prepare(b)
		s.prepare(gone)
		s.restart()
		s.lists(s.cluster, b, gone)
		s.counts(n, 0, "while prepared, after a restart")
		s.prepare(b)
		s.commit(b)
		s.abort(gone)
		s.counts(n, 1, "after commit")
		s.counts(m, 0, "after abort")
		s.lists(s.cluster)
	}},
	{"ConflictSurvivesRestart", func(s *scene) {
		if !s.subject.Conflicts {
			s.Skip("effects do not conflict")
		}
		b, n := s.branch()
		s.prepare(b)
		s.restart()
		s.refused(s.branchOf(s.subject.Effect(n)), "against a branch prepared before the restart")
		s.commit(b)
		after := s.branchOf(s.subject.Effect(n))
		s.prepare(after)
		s.commit(after)
		s.counts(n, 2, "after two commits")
	}},
	// R8: told to abort, it says no for ever.
	{"TombstoneSurvivesRestart", func(s *scene) {
		b, _ := s.branch()
		unknown, _ := s.branch()
		s.prepare(b)
		s.abort(b)
		s.abort(unknown)
		s.restart()
		s.refused(b, "after its abort and a restart")
		s.refused(unknown, "after the abort of the unknown branch and a restart")
		s.status(unknown, participants.StatusAborted)
	}},
	// R9: the proof of a commit outlives the process.
	{"ProofOfCommitSurvivesRestart", func(s *scene) {
		b, n := s.branch()
		s.prepare(b)
		s.commit(b)
		s.restart()
		s.commit(b)
		s.counts(n, 1, "after a second commit")
		s.status(b, participants.StatusCommitted)
		s.damage(s.p.Abort(s.ctx(), s.phaseTwo(b)), txn.HeuristicCommit, "abort after commit and a restart")
	}},
	// R8: a leader deposed before the restart is still deposed after it.
	{"FenceSurvivesRestart", func(s *scene) {
		b, _ := s.branch()
		s.epoch = 9
		s.prepare(b)
		s.restart()
		s.epoch = 8
		s.stale(b)
		s.epoch = 9
		s.lists(s.cluster, b)
		s.commit(b)
	}},
	// R11: the horizon is stored.
	{"HorizonSurvivesRestart", func(s *scene) {
		old, _ := s.branch()
		s.pass(old.TxID)
		s.restart()
		s.horizon = 0
		s.refused(old, "from before the horizon, after a restart")
	}},
}
