package participanttest

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// branches is a set of branches that one instance of a participant remembers for
// itself.
type branches struct{ known sync.Map }

func (s *branches) add(b participants.Branch) { s.known.Store(idOf(b), true) }

func (s *branches) has(b participants.Branch) bool {
	_, ok := s.known.Load(idOf(b))
	return ok
}

// remembering makes a mutant that knows which branches its own instance prepared.
func remembering(with func(b *broken, s *shelf, own *branches)) func(*shelf, *Fake) participants.Participant {
	return breaking(func(b *broken, s *shelf) {
		own := &branches{}
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			own.add(br)
			return b.reader.Prepare(ctx, br)
		}
		with(b, s, own)
	})
}

// saying makes a mutant that answers prepares of a payload with a word as it
// likes.
func saying(word string, answer func(b *broken, ctx context.Context, br participants.Branch) (participants.Vote, error)) func(*shelf, *Fake) participants.Participant {
	return breaking(func(b *broken, _ *shelf) {
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			if strings.HasPrefix(string(br.Payload), word) {
				return answer(b, ctx, br)
			}
			return b.reader.Prepare(ctx, br)
		}
	})
}

// regardless prepares a payload without its first word.
func regardless(b *broken, ctx context.Context, br participants.Branch) (participants.Vote, error) {
	_, rest, _ := strings.Cut(string(br.Payload), " ")
	br.Payload = []byte(rest)
	return b.reader.Prepare(ctx, br)
}

// onNo makes a mutant that does something else where a sound one votes no because
// of a lock.
func onNo(answer func(b *broken, s *shelf, br participants.Branch, v participants.Vote) (participants.Vote, error)) func(*shelf, *Fake) participants.Participant {
	return breaking(func(b *broken, s *shelf) {
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			v, err := b.reader.Prepare(ctx, br)
			if err == nil && v.Kind == txn.VoteAbort && strings.Contains(v.Reason, "lock") {
				return answer(b, s, br, v)
			}
			return v, err
		}
	})
}

// blind prepares whoever holds the locks.
var blind = breaking(func(b *broken, _ *shelf) {
	b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
		return b.Fake.Prepare(ctx, br)
	}
})

var silent = onNo(func(*broken, *shelf, participants.Branch, participants.Vote) (participants.Vote, error) {
	return participants.No(""), nil
})

// resourceMutants break what is promised of a resource with a server of its own.
var resourceMutants = []mutant{
	// Its own work.
	{name: "prepares what has failed", caught: "LateFailureKeepsNothing", spoil: saying("late", regardless)},
	{name: "keeps the half that worked", caught: "LateFailureKeepsNothing", spoil: saying("late",
		func(b *broken, ctx context.Context, br participants.Branch) (participants.Vote, error) {
			b.shelf.add(br.Payload)
			return b.reader.Prepare(ctx, br)
		})},
	{name: "leaves its locks", caught: "LateFailureKeepsNothing", spoil: saying("late",
		func(b *broken, ctx context.Context, br participants.Branch) (participants.Vote, error) {
			b.shelf.block(strings.Fields(string(br.Payload))[1], true)
			return b.reader.Prepare(ctx, br)
		})},
	{name: "checks no deferred constraint", caught: "DeferredConstraintIsRefused", spoil: saying("deferred", regardless)},
	{name: "locks nothing", caught: "ConflictIsRefused", spoil: blind},
	{name: "passes a lock", caught: "LockedCounterIsRefused", spoil: blind},
	{name: "calls a lock an error", caught: "LockedCounterIsRefused", spoil: onNo(
		func(*broken, *shelf, participants.Branch, participants.Vote) (participants.Vote, error) {
			return participants.Vote{}, errors.New("lock timeout")
		})},
	{name: "does not say what it waited for", caught: "LockedCounterIsRefused", spoil: silent},
	{name: "thinks again", caught: "ANoStaysANo", spoil: onNo(
		func(b *broken, _ *shelf, br participants.Branch, v participants.Vote) (participants.Vote, error) {
			b.Lose(br)
			return v, nil
		})},
	{name: "lets transactions cross", caught: "CrossedTransactionsEnd", spoil: blind},
	{name: "crosses without a word", caught: "CrossedTransactionsEnd", spoil: silent},
	{name: "promises both of a deadlock", caught: "DeadlockIsRefused", spoil: blind},
	{name: "has no word for a deadlock", caught: "DeadlockIsRefused", spoil: silent},
	{name: "lists what is not its own", caught: "ForeignTransactionsAreLeftAlone", spoil: breaking(func(b *broken, s *shelf) {
		b.list = func(ctx context.Context, cluster string) ([]participants.Branch, error) {
			list, err := b.reader.Recover(ctx, cluster)
			for range s.addForeign(0) {
				list = append(list, participants.Branch{Cluster: cluster, Number: 1})
			}
			return list, err
		}
	})},
	{name: "ends what is not its own", caught: "ForeignTransactionsAreLeftAlone", spoil: breaking(func(b *broken, s *shelf) {
		b.abort = func(ctx context.Context, br participants.Branch) error {
			s.addForeign(-s.addForeign(0))
			return b.reader.Abort(ctx, br)
		}
	})},

	// An operator's hand.
	{name: "trusts its memory", caught: "RolledBackByHandIsDamage", spoil: remembering(func(b *broken, _ *shelf, own *branches) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			if own.has(br) && b.State(br) == participants.StatusUnknown {
				return nil
			}
			return b.reader.Commit(ctx, br)
		}
	})},
	{name: "tells of damage once", caught: "RolledBackByHandIsDamage", spoil: breaking(func(b *broken, _ *shelf) {
		told := &branches{}
		b.commit = func(ctx context.Context, br participants.Branch) error {
			if told.has(br) {
				return nil
			}
			told.add(br)
			return b.reader.Commit(ctx, br)
		}
	})},
	{name: "cannot abort what is gone", caught: "RolledBackByHandIsAborted", spoil: remembering(func(b *broken, _ *shelf, own *branches) {
		b.abort = func(ctx context.Context, br participants.Branch) error {
			if own.has(br) && b.State(br) == participants.StatusUnknown {
				return errors.New("no such prepared transaction")
			}
			return b.reader.Abort(ctx, br)
		}
	})},
	{name: "believes in its own commits only", caught: "CommittedByHandIsCommitted", spoil: breaking(func(b *broken, _ *shelf) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			if b.State(br) == participants.StatusCommitted {
				return &participants.Heuristic{Receipt: txn.HeuristicAbort, Detail: "not prepared"}
			}
			return b.reader.Commit(ctx, br)
		}
	})},
	{name: "aborts whatever became of it", caught: "CommittedByHandThenAbortedIsDamage", spoil: breaking(func(b *broken, _ *shelf) {
		b.abort = func(ctx context.Context, br participants.Branch) error {
			err := b.reader.Abort(ctx, br)
			if errors.As(err, new(*participants.Heuristic)) {
				return nil
			}
			return err
		}
	})},

	// Cut connections.
	{name: "becomes prepared after its abort", caught: "CutPrepareThenAbort", spoil: breaking(func(b *broken, _ *shelf) {
		b.abort = func(ctx context.Context, br participants.Branch) error {
			if b.State(br) == participants.StatusUnknown {
				defer b.Stage(br)
			}
			return b.reader.Abort(ctx, br)
		}
	})},
	{name: "stumbles over itself", caught: "CutPrepareThenAgain", spoil: breaking(func(b *broken, _ *shelf) {
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			if b.State(br) == participants.StatusPrepared {
				return participants.No("timeout waiting for a lock"), nil
			}
			return b.reader.Prepare(ctx, br)
		}
	})},

	// Crashes.
	{name: "forgets in a crash", caught: "PreparedSurvivesCrash", fragile: true, spoil: sound},
	{name: "forgets tombstones in a crash", caught: "TombstoneSurvivesCrash", fragile: true, spoil: sound},
	{name: "forgets what was under way", caught: "CrashInTheMiddleLosesNothing", fragile: true, spoil: sound},
	{name: "loses commits in a crash", caught: "NextTermsCommitSurvivesCrash", spoil: remembering(func(b *broken, s *shelf, own *branches) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			if !own.has(br) {
				s.onCrash(func() { b.Stage(br) }) // it comes back as prepared
			}
			return b.reader.Commit(ctx, br)
		}
	})},

	// Two nodes.
	{name: "commits its own only", caught: "NextTermCommitsWhatTheOldHolds", spoil: remembering(func(b *broken, _ *shelf, own *branches) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			if !own.has(br) {
				return &participants.Heuristic{Receipt: txn.HeuristicAbort, Detail: "not prepared"}
			}
			return b.reader.Commit(ctx, br)
		}
	})},
	{name: "aborts its own only", caught: "NextTermAbortsWhatTheOldHolds", spoil: remembering(func(b *broken, _ *shelf, own *branches) {
		b.abort = func(ctx context.Context, br participants.Branch) error {
			if !own.has(br) {
				return nil
			}
			return b.reader.Abort(ctx, br)
		}
	})},
	{name: "keeps tombstones for itself", caught: "OldTermsLatePrepareIsRefused", spoil: tombstonesApart},
	{name: "keeps tombstones for itself in a race", caught: "TwoTermsPrepareRacesAbort", spoil: tombstonesApart},
	{name: "waits for its own branch of another node", caught: "NextTermPreparesAgain", spoil: breaking(func(b *broken, _ *shelf) {
		own := &branches{}
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			if b.State(br) == participants.StatusPrepared && !own.has(br) {
				return participants.No("timeout waiting for a lock"), nil
			}
			own.add(br)
			return b.reader.Prepare(ctx, br)
		}
	})},
	{name: "commits once for each node", caught: "TwoTermsCommitAtOnce", spoil: breaking(func(b *broken, s *shelf) {
		var done branches
		b.commit = func(ctx context.Context, br participants.Branch) error {
			if b.State(br) == participants.StatusCommitted && !done.has(br) {
				b.mu.Lock()
				payload := b.payloads[idOf(br)]
				b.mu.Unlock()
				s.add(payload)
			}
			done.add(br)
			return b.reader.Commit(ctx, br)
		}
	})},
}

// tombstonesApart remembers the aborts of unknown branches in the instance that was
// told of them.
var tombstonesApart = breaking(func(b *broken, _ *shelf) {
	stones := &branches{}
	b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
		if stones.has(br) {
			return participants.No("aborted before"), nil
		}
		return b.reader.Prepare(ctx, br)
	}
	b.abort = func(ctx context.Context, br participants.Branch) error {
		if b.State(br) == participants.StatusUnknown {
			stones.add(br)
			return nil
		}
		return b.reader.Abort(ctx, br)
	}
})
