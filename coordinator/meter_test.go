package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// What is proven here: monitoring hears of each decision, delivery, refusal and call
// once, with the time that it took.

// tally is a Meter that keeps what it hears.
type tally struct {
	mu           sync.Mutex
	decided      []Decided
	delivered    map[txn.TxID]time.Duration
	refused      []error
	unregistered []string
	calls        map[string]int           // by participant, kind and result
	took         map[string]time.Duration // of the last of them
}

// again begins a story: run plays it several times.
func (y *tally) again() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.decided, y.refused, y.unregistered = nil, nil, nil
	y.delivered, y.calls, y.took = map[txn.TxID]time.Duration{}, map[string]int{}, map[string]time.Duration{}
}

func (y *tally) Decided(d Decided) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.decided = append(y.decided, d)
}

func (y *tally) Delivered(id txn.TxID, took time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.delivered[id] = took
}

func (y *tally) Refused(err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.refused = append(y.refused, err)
}

func (y *tally) Unregistered(name string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.unregistered = append(y.unregistered, name)
}

func (y *tally) Participant(name string) ParticipantMeter { return tallied{y, name} }

type tallied struct {
	*tally
	participant string
}

func (y tallied) Called(kind txn.WorkKind, r CallResult, took time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	what := fmt.Sprintf("%s %s %s", y.participant, kind, r)
	y.calls[what]++
	y.took[what] = took
}

func (y *tally) wantCalls(t *testing.T, want map[string]int) {
	t.Helper()
	synctest.Wait()
	y.mu.Lock()
	defer y.mu.Unlock()
	for what, n := range want {
		if y.calls[what] != n {
			t.Errorf("%q was counted %d times, want %d", what, y.calls[what], n)
		}
	}
	total, wanted := 0, 0
	for _, n := range y.calls {
		total += n
	}
	for _, n := range want {
		wanted += n
	}
	if total != wanted {
		t.Errorf("%d calls were counted, want %d: %v", total, wanted, y.calls)
	}
}

func (y *tally) wantDecided(t *testing.T, want ...Decided) {
	t.Helper()
	synctest.Wait()
	y.mu.Lock()
	defer y.mu.Unlock()
	const slack = 10 * time.Millisecond // an entry takes a millisecond or two
	got := slices.Clone(y.decided)
	for i := range got {
		got[i].Preparing, got[i].Deciding = got[i].Preparing.Round(slack), got[i].Deciding.Round(slack)
	}
	if !slices.Equal(got, want) {
		t.Errorf("decided:\n%+v\nwant:\n%+v", got, want)
	}
}

// The phases of one transaction, of which a takes 30ms to prepare and b fails to commit
// once.
func TestMeterTimesPhases(t *testing.T) {
	meter := &tally{}
	run(t, Config{Meter: meter, BackoffBase: time.Second, BackoffCap: time.Second}, func(r *rig) {
		meter.again()
		r.fakes["a"].Script(participanttest.Prepare, participanttest.AnyTx, participanttest.Answer{Delay: 30 * time.Millisecond})
		r.fakes["b"].Script(participanttest.Commit, participanttest.AnyTx, participanttest.Answer{Err: errors.New("not now")})
		id := r.id()
		result, err := r.run(context.Background(), transfer(id, "a", "b"))
		if err != nil || result.Decision() != txn.Commit {
			t.Fatalf("%+v, %v", result, err)
		}
		meter.wantDecided(t, Decided{TxID: id, Decision: txn.Commit, Preparing: 30 * time.Millisecond})
		meter.wantCalls(t, map[string]int{
			"a prepare yes": 1, "b prepare yes": 1, "a commit done": 1, "b commit failed": 1, "b commit done": 1,
		})
		if took := meter.took["a prepare yes"]; took < 30*time.Millisecond || took > 40*time.Millisecond {
			t.Errorf("a's prepare took %s, want 30ms", took)
		}
		if took := meter.delivered[id]; took <= 0 || took > time.Second {
			t.Errorf("delivery took %s, want b's backoff, of less than a second", took)
		}
	})
}

// An interactive transaction's time begins where its application is through with it; a
// refusal and a tombstone are counted, and take none; and what an earlier leader
// decided is not counted again.
func TestMeterCountsEachDecisionOnce(t *testing.T) {
	meter := &tally{}
	run(t, Config{Meter: meter}, func(r *rig) {
		meter.again()
		ctx := context.Background()
		interactive, unknown, stuck := r.id(), r.id(), r.id()
		if _, err := r.c.Begin(ctx, interactive, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Enlist(ctx, interactive, txn.NewBranch("a", []byte("x"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if _, err := r.c.Commit(ctx, interactive, nil, WaitDelivery); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.Inquire(ctx, unknown); err != nil {
			t.Fatal(err)
		}
		if _, err := r.run(ctx, transfer(r.id(), "nobody")); !errors.Is(err, ErrUnknownParticipant) {
			t.Fatalf("to nobody: %v", err)
		}
		r.fakes["b"].Script(participanttest.Prepare, stuck, participanttest.Answer{Vote: participants.No("no")})
		r.fakes["b"].Script(participanttest.Abort, stuck, participanttest.Answer{Err: errors.New("later")})
		s := transfer(stuck, "b")
		s.Wait = WaitDecision
		if _, err := r.run(ctx, s); err != nil {
			t.Fatal(err)
		}
		decided := []Decided{
			{TxID: interactive, Decision: txn.Commit},
			{TxID: unknown, Decision: txn.Abort, Reason: txn.ReasonPresumed, Tombstone: true},
			{TxID: stuck, Decision: txn.Abort, Reason: txn.ReasonVote},
		}
		meter.wantDecided(t, decided...)
		r.depose()
		r.lead()
		time.Sleep(time.Minute)
		if tx := r.stored(stuck); tx.State != txn.Aborted {
			t.Errorf("the next leader left it %s", tx.State)
		}
		meter.wantDecided(t, decided...)
		if len(meter.refused) != 1 || !errors.Is(meter.refused[0], ErrUnknownParticipant) {
			t.Errorf("refused: %v", meter.refused)
		}
		if len(meter.delivered) != 2 {
			t.Errorf("%d deliveries were completed, want 2", len(meter.delivered))
		}
	})
}

// What one participant has before it, while it answers neither prepare nor commit.
func TestLoads(t *testing.T) {
	run(t, Config{}, func(r *rig) {
		hold := make(chan struct{})
		r.fakes["a"].Script(participanttest.Prepare, participanttest.AnyTx, participanttest.Answer{Hold: hold, Stay: true})
		r.fakes["b"].Script(participanttest.Commit, participanttest.AnyTx, participanttest.Answer{Hold: hold, Stay: true})
		for _, participant := range []string{"a", "b"} {
			s := transfer(r.id(), participant)
			s.Wait = WaitDecision
			r.submit(context.Background(), s)
		}
		time.Sleep(time.Second)
		loads := map[string]Load{}
		for _, l := range r.c.Loads() {
			loads[l.Participant] = l
		}
		if got, want := loads["a"], (Load{Participant: "a", Unfinished: 1, Preparing: 1}); got != want {
			t.Errorf("a: %+v, want %+v", got, want)
		}
		if got, want := loads["b"], (Load{Participant: "b", Unfinished: 1, Delivering: 1}); got != want {
			t.Errorf("b: %+v, want %+v", got, want)
		}
		close(hold)
		synctest.Wait()
		r.depose()
		if loads := r.c.Loads(); loads != nil {
			t.Errorf("a follower tells %+v", loads)
		}
		r.lead()
	})
}

// A transaction that takes its time is told of once, with its phases and branches; a
// crowd of them is not told one by one, and neither is a crowd of failed prepares.
func TestSlowTransactionsAreTold(t *testing.T) {
	var out bytes.Buffer
	run(t, Config{SlowTransaction: time.Second, BackoffBase: 2 * time.Second, BackoffCap: 2 * time.Second}, func(r *rig) {
		out.Reset()
		r.c.logger = hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Warn})
		r.depose()
		r.lead()
		ctx := context.Background()
		if _, err := r.run(ctx, transfer(r.id(), "a", "b")); err != nil {
			t.Fatal(err)
		}
		slow := r.id()
		r.fakes["a"].Script(participanttest.Prepare, slow, participanttest.Answer{Delay: 1500 * time.Millisecond})
		r.fakes["b"].Script(participanttest.Commit, slow, participanttest.Answer{Err: errors.New("lock wait")})
		if _, err := r.run(ctx, transfer(slow, "a", "b")); err != nil {
			t.Fatal(err)
		}
		told := func() []string {
			var lines []string
			for line := range strings.Lines(out.String()) {
				if strings.Contains(line, "slow transaction") {
					lines = append(lines, line)
				}
			}
			return lines
		}
		lines := told()
		if len(lines) != 1 {
			t.Fatalf("%d lines, want one:\n%s", len(lines), out.String())
		}
		for _, want := range []string{"txid=" + slow.String(), "decision=commit", "preparing=1.5", "a: voted commit in 1.5", "deliveries: 2", "lock wait"} {
			if !strings.Contains(lines[0], want) {
				t.Errorf("%s is missing in: %s", want, lines[0])
			}
		}

		out.Reset()
		r.fakes["a"].Script(participanttest.Prepare, participanttest.AnyTx,
			participanttest.Answer{Delay: 2 * time.Second, Err: errors.New("cut"), Stay: true})
		var crowd sync.WaitGroup
		for range 50 {
			s := transfer(r.id(), "a")
			crowd.Go(func() { r.run(ctx, s) })
		}
		crowd.Wait()
		if n := len(told()); n == 0 || n > 5 {
			t.Errorf("a crowd of 50 is told in %d lines:\n%s", n, out.String())
		}
		if n := strings.Count(out.String(), "prepare failed"); n != 1 {
			t.Errorf("50 failed prepares of one moment are told in %d lines", n)
		}
	})
}
