package bank

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/participants"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// calls writes a call that is about to leave into the history, if one is kept; the
// function takes what came of it.
func (t *Teller) calls(number int, kind history.Kind, txid string) (told func(client.Result, error)) {
	if t.History == nil {
		return func(client.Result, error) {}
	}
	end := t.History.Begin(number, kind, txid)
	return func(r client.Result, err error) {
		if err != nil {
			end(history.Unknown, "", err.Error())
			return
		}
		end(answer(r.Outcome), "", r.Reason.Detail)
	}
}

func answer(o client.Outcome) history.Answer {
	switch o {
	case client.Committed:
		return history.Committed
	case client.Aborted:
		return history.Aborted
	default:
		return history.Undecided
	}
}

// meddling is what another client does about an order while the first one waits.
type meddling uint8

const (
	repeat  meddling = iota // submits the same: it joins or learns the answer, and runs nothing twice (rule R11)
	inquire                 // asks for an outcome that will stand, and so may end what is not known yet (rule R6)
	look                    // looks at it
	meddlings
)

// latestMeddling bounds the moment at which it does: most orders are answered
// within that time, so that it comes before, between and after all that happens.
const latestMeddling = 40 * time.Millisecond

// meddling is that of the n-th transfer, by the seed.
func (r Traffic) meddling(n int) (what meddling, after time.Duration) {
	chance := rand.New(rand.NewPCG(^r.Seed, uint64(n))) //nolint:gosec // traffic, not secrets
	return meddling(chance.IntN(int(meddlings))), time.Duration(chance.Int64N(int64(latestMeddling)))
}

// meddle plays the other client.
func (t *Teller) meddle(ctx context.Context, number int, what meddling, after time.Duration, o Order) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	switch what {
	case repeat:
		told := t.calls(number, history.Run, o.TxID)
		r, err := t.Client.Submit(ctx, o.Transaction(t.Offices))
		told(r, err)
		t.Ledger.heard("submitted again", o.TxID, err)
	case inquire:
		told := t.calls(number, history.Inquire, o.TxID)
		r, err := t.Client.Inquire(ctx, o.TxID)
		told(r, err)
		t.Ledger.heard("inquired about", o.TxID, err)
	default:
		told := t.calls(number, history.Observe, o.TxID)
		seen, err := t.Client.Get(ctx, o.TxID)
		if errors.Is(err, client.ErrNotFound) {
			err = nil // which promises nothing, and neither does Undecided here
		}
		told(client.Result{Outcome: outcome(seen.GetState())}, err)
	}
}

// outcome is the decision that a state shows.
func outcome(s decreev1.State) client.Outcome {
	switch s {
	case decreev1.State_STATE_COMMITTING, decreev1.State_STATE_COMMITTED:
		return client.Committed
	case decreev1.State_STATE_ABORTING, decreev1.State_STATE_ABORTED:
		return client.Aborted
	default:
		return client.Undecided
	}
}

// noAnswer tells the error of a call whose time was over from a refusal.
func noAnswer(err error) bool {
	return slices.ContainsFunc([]error{
		client.ErrOutcomeUnknown, client.ErrUnavailable, client.ErrNotLeader, client.ErrBusy, client.ErrShuttingDown,
		client.ErrInternal, client.ErrCanceled, context.DeadlineExceeded,
	}, func(reason error) bool { return errors.Is(err, reason) })
}

// Resolve asks for the outcome of every order that got none in time, and writes it
// down: unknown is an outcome, but no lasting one (rule R5). An order that was
// refused, or has no outcome even now, keeps its error.
func (t *Teller) Resolve(ctx context.Context) {
	for n, e := range t.Ledger.Entries() {
		if e.Err == nil || !noAnswer(e.Err) {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, t.Patience)
		told := t.calls(0, history.Inquire, e.TxID)
		r, err := t.Client.Inquire(bounded, e.TxID)
		cancel()
		told(r, err)
		if err == nil && r.Outcome != client.Undecided {
			t.Ledger.learn(n, r)
		}
	}
}

// RecordViews writes into a history what every node shows in the end, as told by
// clients from a number on.
func RecordViews(h *history.Recorder, number int, views []NodeView) {
	for i, view := range views {
		for _, txid := range slices.Sorted(maps.Keys(view.Transactions)) {
			h.Found(number+i, txid, answer(outcome(view.Transactions[txid].GetState())), view.Node)
		}
	}
}

// RecordBooks is RecordViews of what every resource shows.
func RecordBooks(h *history.Recorder, number int, books []Books) {
	for i, b := range books {
		for branch, fate := range b.Fates {
			h.Found(number+i, branch.TxID, fateAnswer(fate), fmt.Sprintf("%s, branch %d", b.Participant, branch.Number))
		}
	}
}

func fateAnswer(s participants.Status) history.Answer {
	switch s {
	case participants.StatusCommitted:
		return history.Committed
	case participants.StatusAborted:
		return history.Aborted
	default:
		return history.Undecided
	}
}

// AuditHistory has the history judged: whether all that was told and found of each
// transaction can be true of one decision, made once (rule R1).
func AuditHistory(ops []history.Op) (Findings, []history.Violation) {
	var f Findings
	violations := history.Judge(ops)
	for _, v := range violations {
		f.add("%v", v)
	}
	return f, violations
}
