package participanttest

// The suite is put to the test itself: the fake, which keeps the contract, passes
// it; and each of a list of participants that break one promise fails exactly
// where that promise is named. A suite that passes a broken driver is worse than
// none.

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

func sound(s *shelf, f *Fake) participants.Participant { return reader{f, s} }

func TestFakeKeepsTheContract(t *testing.T) { Run(t, harness(mutant{spoil: sound})) }

// broken overrides single calls of a sound participant.
type broken struct {
	reader
	prepare func(context.Context, participants.Branch) (participants.Vote, error)
	commit  func(context.Context, participants.Branch) error
	abort   func(context.Context, participants.Branch) error
	list    func(context.Context, string) ([]participants.Branch, error)
	status  func(participants.Status) participants.Status
}

func (b *broken) Prepare(ctx context.Context, br participants.Branch) (participants.Vote, error) {
	if b.prepare != nil {
		return b.prepare(ctx, br)
	}
	return b.reader.Prepare(ctx, br)
}

func (b *broken) Commit(ctx context.Context, br participants.Branch) error {
	if b.commit != nil {
		return b.commit(ctx, br)
	}
	return b.reader.Commit(ctx, br)
}

func (b *broken) Abort(ctx context.Context, br participants.Branch) error {
	if b.abort != nil {
		return b.abort(ctx, br)
	}
	return b.reader.Abort(ctx, br)
}

func (b *broken) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	if b.list != nil {
		return b.list(ctx, cluster)
	}
	return b.reader.Recover(ctx, cluster)
}

func (b *broken) Status(ctx context.Context, br participants.Branch) (participants.Status, error) {
	s, err := b.reader.Status(ctx, br)
	if b.status != nil {
		s = b.status(s)
	}
	return s, err
}

// renaming breaks a participant by changing what it hears in every call.
func renaming(change func(*participants.Branch)) func(*shelf, *Fake) participants.Participant {
	return func(s *shelf, f *Fake) participants.Participant {
		r := reader{f, s}
		return &broken{
			reader: r,
			prepare: func(ctx context.Context, b participants.Branch) (participants.Vote, error) {
				change(&b)
				return r.Prepare(ctx, b)
			},
			commit: func(ctx context.Context, b participants.Branch) error { change(&b); return r.Commit(ctx, b) },
			abort:  func(ctx context.Context, b participants.Branch) error { change(&b); return r.Abort(ctx, b) },
			list: func(ctx context.Context, cluster string) ([]participants.Branch, error) {
				b := participants.Branch{Cluster: cluster}
				change(&b)
				return r.Recover(ctx, b.Cluster)
			},
		}
	}
}

// breaking makes a broken participant from one function that sets what is wrong.
func breaking(with func(b *broken, s *shelf)) func(*shelf, *Fake) participants.Participant {
	return func(s *shelf, f *Fake) participants.Participant {
		b := &broken{reader: reader{f, s}}
		with(b, s)
		return b
	}
}

// mutant is a participant that breaks one promise.
type mutant struct {
	name    string
	caught  string // a subtest that must fail
	forget  bool   // nothing survives a restart
	fragile bool   // nothing survives a crash
	spoil   func(*shelf, *Fake) participants.Participant
}

var mutants = []mutant{
	{name: "applies at prepare", caught: "CommitMakesTheEffectVisible", spoil: breaking(func(b *broken, s *shelf) {
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			s.add(br.Payload)
			return b.reader.Prepare(ctx, br)
		}
	})},
	{name: "commits every copy again", caught: "CommitTwiceIsOneEffect", spoil: breaking(func(b *broken, s *shelf) {
		var payloads sync.Map
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			payloads.Store(idOf(br), br.Payload)
			return b.reader.Prepare(ctx, br)
		}
		b.commit = func(ctx context.Context, br participants.Branch) error {
			again := b.State(br) == participants.StatusCommitted
			err := b.reader.Commit(ctx, br)
			if p, ok := payloads.Load(idOf(br)); ok && again {
				s.add(p.([]byte))
			}
			return err
		}
	})},
	{name: "keeps no tombstone", caught: "PrepareAfterAbortOfUnknownIsRefused", spoil: breaking(func(b *broken, _ *shelf) {
		b.abort = func(ctx context.Context, br participants.Branch) error {
			if b.State(br) == participants.StatusUnknown {
				return nil
			}
			return b.reader.Abort(ctx, br)
		}
	})},
	{name: "forgets an abort", caught: "PrepareAfterAbortIsRefused", spoil: breaking(func(b *broken, _ *shelf) {
		b.abort = func(ctx context.Context, br participants.Branch) error {
			defer b.Lose(br)
			return b.reader.Abort(ctx, br)
		}
	})},
	{name: "calls not found a success", caught: "CommitOfNeverPreparedIsDamage", spoil: breaking(func(b *broken, _ *shelf) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			if b.State(br) == participants.StatusUnknown {
				return nil
			}
			return b.reader.Commit(ctx, br)
		}
	})},
	{name: "leaves the door open after damage", caught: "CommitOfNeverPreparedIsDamage", spoil: breaking(func(b *broken, _ *shelf) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			if b.State(br) == participants.StatusUnknown {
				defer b.Lose(br)
			}
			return b.reader.Commit(ctx, br)
		}
	})},
	{name: "hides damage", caught: "CommitAfterAbortIsDamage", spoil: breaking(func(b *broken, _ *shelf) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			err := b.reader.Commit(ctx, br)
			if errors.As(err, new(*participants.Heuristic)) {
				return nil
			}
			return err
		}
	})},
	{name: "hides a late abort", caught: "AbortAfterCommitIsDamage", spoil: breaking(func(b *broken, _ *shelf) {
		b.abort = func(ctx context.Context, br participants.Branch) error {
			if b.State(br) == participants.StatusCommitted {
				return nil
			}
			return b.reader.Abort(ctx, br)
		}
	})},
	{name: "forgets a commit", caught: "CommitTwiceIsOneEffect", spoil: breaking(func(b *broken, _ *shelf) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			defer b.Lose(br)
			return b.reader.Commit(ctx, br)
		}
	})},
	{name: "turns a no into a yes", caught: "RefusedKeepsNothing", spoil: breaking(func(b *broken, _ *shelf) {
		var asked sync.Map
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			if _, before := asked.LoadOrStore(idOf(br), true); before && string(br.Payload) == "refuse" {
				return participants.Yes(), nil
			}
			return b.reader.Prepare(ctx, br)
		}
	})},
	{name: "lists what is finished", caught: "RecoverListsOnlyPrepared", spoil: breaking(func(b *broken, _ *shelf) {
		b.list = func(_ context.Context, cluster string) (list []participants.Branch, err error) {
			for _, c := range b.Calls() {
				if c.Op == Prepare && c.Branch.Cluster == cluster {
					list = append(list, c.Branch)
				}
			}
			return list, nil
		}
	})},
	{name: "lists nothing", caught: "RecoverListsOnlyPrepared", spoil: breaking(func(b *broken, _ *shelf) {
		b.list = func(context.Context, string) ([]participants.Branch, error) { return nil, nil }
	})},
	{name: "calls everything committed", caught: "StatusTellsTheFate", spoil: breaking(func(b *broken, _ *shelf) {
		b.status = func(participants.Status) participants.Status { return participants.StatusCommitted }
	})},
	{name: "ignores who has left", caught: "EndedContextIsHarmless", spoil: breaking(func(b *broken, s *shelf) {
		b.commit = func(ctx context.Context, br participants.Branch) error {
			err := b.reader.Commit(ctx, br)
			if ctx.Err() != nil {
				b.Lose(br) // half done
			}
			return err
		}
	})},
	{name: "looks at no content", caught: "OtherContentIsRefused", spoil: renaming(func(b *participants.Branch) { b.Digest = txn.Digest{} })},
	{name: "looks at no epoch", caught: "StaleEpochIsRefused", spoil: renaming(func(b *participants.Branch) { b.Epoch = math.MaxUint64 })},
	{name: "looks at no horizon", caught: "HorizonRefusesOlder", spoil: renaming(func(b *participants.Branch) { b.Horizon = 0 })},
	{name: "looks at no cluster", caught: "ClustersWithOneTxIDDoNotMix", spoil: renaming(func(b *participants.Branch) { b.Cluster = "all" })},
	{name: "looks at no number", caught: "BranchesOfOneTxIDDoNotMix", spoil: renaming(func(b *participants.Branch) { b.Number = 1 })},
	{name: "keeps nothing prepared", caught: "PreparedSurvivesRestart", forget: true, spoil: sound},
	{name: "keeps no tombstone over a restart", caught: "TombstoneSurvivesRestart", forget: true, spoil: sound},
	{name: "keeps no proof", caught: "ProofOfCommitSurvivesRestart", forget: true, spoil: sound},
	{name: "keeps no fence", caught: "FenceSurvivesRestart", forget: true, spoil: sound},
	{name: "keeps no horizon", caught: "HorizonSurvivesRestart", forget: true, spoil: sound},
	{name: "raises no fence in phase two", caught: "PhaseTwoRaisesTheFence", spoil: breaking(func(b *broken, _ *shelf) {
		calm := func(br participants.Branch) participants.Branch {
			b.mu.Lock()
			defer b.mu.Unlock()
			br.Epoch = min(br.Epoch, max(1, b.fences[br.Cluster].Epoch))
			return br
		}
		b.commit = func(ctx context.Context, br participants.Branch) error { return b.reader.Commit(ctx, calm(br)) }
		b.abort = func(ctx context.Context, br participants.Branch) error { return b.reader.Abort(ctx, calm(br)) }
	})},
	{name: "shares epochs between clusters", caught: "EpochsBelongToTheirCluster", spoil: breaking(func(b *broken, _ *shelf) {
		var mu sync.Mutex
		var highest uint64
		b.prepare = func(ctx context.Context, br participants.Branch) (participants.Vote, error) {
			mu.Lock()
			highest = max(highest, br.Epoch)
			stale := br.Epoch < highest
			mu.Unlock()
			if stale {
				return participants.Vote{}, participants.ErrStaleEpoch
			}
			return b.reader.Prepare(ctx, br)
		}
	})},
}

const mutantVariable = "PARTICIPANTTEST_MUTANT"

// TestSuiteCatches runs the suite over each broken participant, in a process of
// its own because a failure is what is wanted there.
func TestSuiteCatches(t *testing.T) {
	for _, m := range slices.Concat(mutants, resourceMutants) {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestMutant$/^"+m.caught+"$", "-test.v")
			cmd.Env = append(os.Environ(), mutantVariable+"="+m.name)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			if !errors.As(err, new(*exec.ExitError)) || !strings.Contains(out.String(), "--- FAIL: TestMutant/"+m.caught) {
				t.Errorf("%s does not fail (%v):\n%s", m.caught, err, out.String())
			}
		})
	}
}

func TestMutant(t *testing.T) {
	name := os.Getenv(mutantVariable)
	if name == "" {
		t.Skip("run by TestSuiteCatches")
	}
	for _, m := range slices.Concat(mutants, resourceMutants) {
		if m.name == name {
			Run(t, harness(m))
			return
		}
	}
	t.Fatalf("no mutant %q", name)
}
