package branch

import "context"

// foreign runs a Foreign service between two writes of the ledger: before its
// Prepare the intent, after each function the outcome. A crash in between leaves
// what was written first, and the next call for the branch runs the function
// again.
type foreign struct {
	*ledger
	service Foreign
	turns   turns
}

func (f *foreign) prepare(ctx context.Context, m message) (Vote, error) {
	leave, err := f.turns.take(ctx, m.branch.Name())
	if err != nil {
		return Vote{}, err
	}
	defer leave()
	var vote Vote
	var known bool
	var failed error
	err = f.ledger.change(ctx, m, func(e *entry) error {
		vote, known, failed = e.record.prepare(e.fence, m)
		if known || e.record.State == stateIntent {
			return nil
		}
		if failed = e.room(); failed != nil {
			return nil
		}
		return e.put(Record{State: stateIntent, Digest: m.digest, Payload: m.branch.Payload})
	})
	switch {
	case err != nil:
		return Vote{}, err // the function above may still be running: touch nothing of it
	case known || failed != nil:
		return vote, failed
	}
	// A crash from here on leaves the intent: Recover lists the branch, and a
	// prepare or an abort finds that Prepare may have run.
	vote, failed = f.service.Prepare(ctx, m.branch)
	next, err := vote.record("Prepare", m, failed)
	if err != nil {
		return Vote{}, err
	}
	if err := f.ledger.settle(m, writing(next)); err != nil {
		return Vote{}, err
	}
	return vote, nil
}

func (f *foreign) commit(ctx context.Context, m message) error {
	return f.end(ctx, m, commitEnding(), f.service.Commit)
}

func (f *foreign) abort(ctx context.Context, m message) error {
	return f.end(ctx, m, abortEnding(), f.service.Abort)
}

func (f *foreign) end(ctx context.Context, m message, how ending, run func(context.Context, Branch) error) error {
	leave, err := f.turns.take(ctx, m.branch.Name())
	if err != nil {
		return err
	}
	defer leave()
	var was Record
	var known bool
	var answer error
	err = f.ledger.change(ctx, m, func(e *entry) (err error) {
		was = e.record
		answer, known, err = e.answer(how, m)
		return err
	})
	switch {
	case err != nil:
		return err // as in prepare
	case known:
		return answer
	}
	// A crash from here on leaves the branch open: the decision is delivered again,
	// and the function runs again.
	answer = run(ctx, m.remembered(was))
	next, err := how.record(was, answer)
	if err != nil {
		return err
	}
	if err := f.ledger.settle(m, writing(next)); err != nil {
		return err
	}
	return answer
}
