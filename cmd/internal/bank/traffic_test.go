package bank

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is proven here: the traffic asks for what its ledger says, so that an
// audit by that ledger means something.

func newTeller() *Teller {
	return &Teller{Banks: []string{"bank-a", "bank-b", "bank-c"}, Accounts: 5, Balance: 1000, Courier: "courier", Ledger: &Ledger{}}
}

func TestTransfersMoveMoneyAndMakeNone(t *testing.T) {
	teller := newTeller()
	kinds := map[Expectation]int{}
	errands := 0
	for n := range 300 {
		o := teller.Transfer(7, n)
		kinds[o.Expect]++
		if o.Errand != nil {
			errands++
		}
		sum := int64(0)
		for _, m := range o.Moves {
			sum += m.Amount
		}
		if sum != 0 {
			t.Errorf("transfer %d makes %d", n, sum)
		}
		if o.Moves[0].Account.Bank == o.Moves[1].Account.Bank {
			t.Errorf("transfer %d stays in %s: a participant has one branch", n, o.Moves[0].Account.Bank)
		}
	}
	if kinds[MustAbort] < 30 || kinds[Either] < 200 || errands < 50 {
		t.Errorf("of 300 transfers %v, %d with an errand", kinds, errands)
	}
}

func TestTransfersRepeatWithTheirSeed(t *testing.T) {
	teller := newTeller()
	same, other := 0, 0
	for n := range 50 {
		a, b, c := teller.Transfer(1, n), teller.Transfer(1, n), teller.Transfer(2, n)
		if slices.Equal(a.Moves, b.Moves) {
			same++
		}
		if !slices.Equal(a.Moves, c.Moves) {
			other++
		}
	}
	if same != 50 || other < 40 {
		t.Errorf("%d of 50 repeat with the seed, %d differ with another", same, other)
	}
}

// payloads are an order's, by participant.
func (o Order) payloads(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, name := range o.Participants() {
		payload, err := json.Marshal(o.payload(name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = payload
	}
	return all
}

// TestOrdersAsPayloads holds that only taking has a floor, and that the branches
// stand in the order in which Participants names them.
func TestOrdersAsPayloads(t *testing.T) {
	o := Order{
		Moves:  []Move{{bob, -30}, {alice, 10}, {Account{"bank-a", "carol"}, 20}},
		Errand: &Errand{Participant: "courier", Vote: "abort", Reason: "no van", Delay: 2 * time.Second},
	}
	if got := strings.Join(o.Participants(), " "); got != "bank-b bank-a courier" {
		t.Errorf("participants %s", got)
	}
	want := map[string]string{
		"bank-b":  `{"ops":[{"op":"add","key":"bob","amount":-30,"min":0}]}`,
		"bank-a":  `{"ops":[{"op":"add","key":"alice","amount":10},{"op":"add","key":"carol","amount":20}]}`,
		"courier": `{"delay":"2s","parcel":"one","reason":"no van","vote":"abort"}`,
	}
	for name, payload := range o.payloads(t) {
		if string(payload) != want[name] {
			t.Errorf("%s gets %s, want %s", name, payload, want[name])
		}
	}
	if got := len(o.Transaction().Branches); got != 3 {
		t.Errorf("%d branches", got)
	}
}

var errAny = errors.New("any")

func TestFirstAnswer(t *testing.T) {
	l := &Ledger{}
	start := time.Now()
	l.add(Entry{Answered: start})
	l.add(Entry{Answered: start.Add(2 * time.Second), Err: errAny})
	if _, ok := l.FirstAnswer(start); ok {
		t.Error("an answer before the moment, or a failure, was taken for an answer after it")
	}
	l.add(Entry{Answered: start.Add(3 * time.Second)})
	if at, ok := l.FirstAnswer(start); !ok || at.Sub(start) != 3*time.Second {
		t.Errorf("first answer after %s (%t), want 3s", at.Sub(start), ok)
	}
}
