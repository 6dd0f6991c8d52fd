package participanttest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/decree-tx/decree/participants"
)

// result is what a call's work came to.
type result struct {
	vote participants.Vote
	list []participants.Branch
	err  error
}

// Prepare implements participants.Participant.
func (f *Fake) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	r := f.call(ctx, Prepare, b, func(a Answer) result {
		vote, err := f.prepare(b, a.Vote)
		return result{vote: vote, err: err}
	})
	return r.vote, r.err
}

// Commit implements participants.Participant.
func (f *Fake) Commit(ctx context.Context, b participants.Branch) error {
	return f.call(ctx, Commit, b, func(Answer) result { return result{err: f.commit(b)} }).err
}

// Abort implements participants.Participant.
func (f *Fake) Abort(ctx context.Context, b participants.Branch) error {
	return f.call(ctx, Abort, b, func(Answer) result { return result{err: f.abort(b)} }).err
}

// Recover implements participants.Participant. The list is in the order of
// txids.
func (f *Fake) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	r := f.call(ctx, Recover, participants.Branch{Cluster: cluster}, func(Answer) result {
		return result{list: f.prepared(cluster)}
	})
	return r.list, r.err
}

// Recovers implements participants.Participant.
func (f *Fake) Recovers() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.mute
}

// Status implements participants.StatusReporter. It is not recorded as a call.
func (f *Fake) Status(ctx context.Context, b participants.Branch) (participants.Status, error) {
	if err := ctx.Err(); err != nil {
		return participants.StatusUnknown, err
	}
	return f.State(b), nil
}

// Close ends the belated calls that are under way and waits for their end.
func (f *Fake) Close() error {
	f.mu.Lock()
	if !f.closed {
		f.closed = true
		close(f.done)
	}
	f.mu.Unlock()
	f.late.Wait()
	return nil
}

// arrive records a call, judges it, and takes its answer from the scripts.
func (f *Fake) arrive(op Op, b participants.Branch) (n int, a Answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, Call{Op: op, Branch: b})
	f.judge(op, b)
	close(f.news)
	f.news = make(chan struct{})

	for _, k := range []scriptKey{{op, b.TxID}, {op, AnyTx}} {
		if left := f.scripts[k]; len(left) > 0 {
			if !left[0].Stay {
				f.scripts[k] = left[1:]
			}
			return len(f.calls) - 1, left[0]
		}
	}
	return len(f.calls) - 1, Answer{}
}

// judge holds the caller to its side of the contract. The caller of f has mu.
func (f *Fake) judge(op Op, b participants.Branch) {
	wrong := func(format string, args ...any) {
		f.wrongs = append(f.wrongs, fmt.Sprintf("call %d, %s of %s: ", len(f.calls), op, b.Name())+fmt.Sprintf(format, args...))
	}
	if f.closed {
		wrong("the participant is closed")
	}
	if op == Recover {
		return
	}
	if err := b.Validate(); err != nil {
		wrong("%v", err)
	}
	// What a deposed leader still says is refused by the fence; only what could
	// be heard is judged against what was said before.
	if _, err := f.fences[b.Cluster].Admit(b); err != nil {
		return
	}
	told := f.told[idOf(b)]
	switch op {
	case Prepare:
		if told == Commit {
			wrong("the branch was told to commit before")
		}
		return
	case Commit:
		if !f.promised[idOf(b)] {
			wrong("the branch never voted yes")
		}
	}
	if told != 0 && told != op {
		wrong("the branch was told to %s before", told)
	}
	if told == 0 {
		f.told[idOf(b)] = op
	}
}

// call records a call, plays its script around the work, and records its answer.
func (f *Fake) call(ctx context.Context, op Op, b participants.Branch, work func(Answer) result) result {
	n, a := f.arrive(op, b)
	r := f.play(ctx, a, func() result { return work(a) })
	if r.err != nil {
		r = result{err: r.err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &f.calls[n]
	c.Ended, c.Vote, c.Err = true, r.vote, r.err
	if op == Prepare && r.vote == participants.Yes() {
		f.promised[idOf(b)] = true
	}
	return r
}

func (f *Fake) play(ctx context.Context, a Answer, work func() result) result {
	if a.Fate == Belated {
		return f.playBelated(ctx, a, work)
	}
	if err := f.pause(ctx, a); err != nil {
		return result{err: err}
	}
	if a.Fate == Dropped {
		return result{err: cmp.Or(a.Err, ErrCut)}
	}
	r := work()
	r.err = cmp.Or(a.Err, r.err) // carried out, though its answer may be lost
	return r
}

func (f *Fake) playBelated(ctx context.Context, a Answer, work func() result) result {
	done := make(chan result, 1)
	f.late.Go(func() {
		// The request is on its way: only the fake's end can stop it.
		if f.pause(context.Background(), a) == nil {
			done <- work()
		}
	})
	if a.Err != nil {
		return result{err: a.Err}
	}
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
		return result{err: ctx.Err()}
	case <-f.done:
		return result{err: ErrCut}
	}
}

// pause waits out an answer's hold and delay; an error means that the call's
// context or the fake ended first.
func (f *Fake) pause(ctx context.Context, a Answer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.Hold != nil {
		select {
		case <-a.Hold:
		case <-ctx.Done():
			return ctx.Err()
		case <-f.done:
			return ErrCut
		}
	}
	if a.Delay <= 0 {
		return nil
	}
	timer := time.NewTimer(a.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-f.done:
		return ErrCut
	}
}

func (f *Fake) prepare(b participants.Branch, scripted participants.Vote) (participants.Vote, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fence, err := f.admit(b)
	if err != nil {
		return participants.Vote{}, err
	}
	k := idOf(b)
	if v, known := f.records[k].Prepare(fence, b); known {
		return v, nil
	}
	switch scripted {
	case participants.Vote{}, participants.Yes():
		f.records[k] = b.Prepared()
		f.payloads[k] = bytes.Clone(b.Payload)
		return participants.Yes(), nil
	case participants.ReadOnly():
		return scripted, nil
	default:
		f.records[k] = participants.Refused(scripted)
		return scripted, nil
	}
}

func (f *Fake) commit(b participants.Branch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fence, err := f.admit(b)
	if err != nil {
		return err
	}
	k := idOf(b)
	before := f.records[k]
	after, err := before.Commit(fence, b)
	f.remember(k, after)
	if before.Status == participants.StatusPrepared {
		f.effects[k]++
		b.Payload = f.payloads[k]
		if f.onCommit != nil {
			f.onCommit(b)
		}
	}
	return err
}

func (f *Fake) abort(b participants.Branch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fence, err := f.admit(b)
	if err != nil {
		return err
	}
	after, err := f.records[idOf(b)].Abort(fence, b)
	f.remember(idOf(b), after)
	return err
}

func (f *Fake) remember(k branchID, r participants.Record) {
	if r.Status != participants.StatusUnknown {
		f.records[k] = r
	}
}

// admit raises the fence and forgets what the horizon has passed.
func (f *Fake) admit(b participants.Branch) (participants.Fence, error) {
	before := f.fences[b.Cluster]
	fence, err := before.Admit(b)
	if err != nil {
		return fence, err
	}
	f.fences[b.Cluster] = fence
	if fence.Horizon > before.Horizon {
		for k, r := range f.records {
			if k.cluster == b.Cluster && fence.Expired(k.txid) && r.Status != participants.StatusPrepared {
				delete(f.records, k)
			}
		}
	}
	return fence, nil
}

func (f *Fake) prepared(cluster string) []participants.Branch {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []participants.Branch
	for k, r := range f.records {
		if !f.mute && k.cluster == cluster && r.Status == participants.StatusPrepared {
			list = append(list, participants.Branch{Cluster: cluster, TxID: k.txid, Number: k.number})
		}
	}
	slices.SortFunc(list, func(a, b participants.Branch) int {
		return cmp.Or(slices.Compare(a.TxID[:], b.TxID[:]), cmp.Compare(a.Number, b.Number))
	})
	return list
}
