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
	return &Teller{Banks: []string{"bank-a", "bank-b", "bank-c", "bank-d"}, Accounts: 5, Balance: 1000, Courier: "courier", Ledger: &Ledger{}}
}

func TestTransfersMoveMoneyAndMakeNone(t *testing.T) {
	teller := newTeller()
	kinds, sides := map[Expectation]int{}, map[int]int{}
	errands, first := 0, 0
	for n := range 300 {
		o := teller.Transfer(7, n)
		kinds[o.Expect]++
		if o.Errand != nil {
			errands++
		}
		sum, payers := int64(0), 0
		for _, m := range o.Moves {
			sum += m.Amount
			if m.Amount < 0 {
				payers++
			}
		}
		if sum != 0 || payers != 1 {
			t.Errorf("transfer %d makes %d, and %d pay", n, sum, payers)
		}
		banks := len(o.Participants())
		if o.Errand != nil {
			banks--
		}
		if banks != len(o.Moves) {
			t.Errorf("transfer %d has %d moves at %d banks: a participant has one branch", n, len(o.Moves), banks)
		}
		sides[banks]++
		if o.Moves[0].Amount < 0 {
			first++
		}
	}
	if kinds[MustAbort] < 30 || kinds[Either] < 200 || errands < 50 {
		t.Errorf("of 300 transfers %v, %d with an errand", kinds, errands)
	}
	if sides[2] < 150 || sides[3] < 30 || sides[4] < 5 || first < 75 || first > 200 {
		t.Errorf("of 300 transfers so many have two, three and four sides: %v; of %d the payer is the first branch", sides, first)
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
	store, till, purse := &kvOffice{}, &sqlOffice{}, &walletOffice{}
	for _, tt := range []struct {
		payload any
		want    string
	}{
		{store.Payload(o.at("bank-b"), false), `{"ops":[{"op":"add","key":"bob","amount":-30,"min":0}]}`},
		{store.Payload(o.at("bank-a"), false), `{"ops":[{"op":"add","key":"alice","amount":10},{"op":"add","key":"carol","amount":20}]}`},
		{till.Payload(o.at("bank-b"), false), `{"statements":[{"name":"debit","args":{"account":"bob","amount":30}}]}`},
		{till.Payload(o.at("bank-a"), true), `{"statements":[{"name":"open","args":{"account":"alice","amount":10}},{"name":"open","args":{"account":"carol","amount":20}}]}`},
		{purse.Payload(o.at("bank-b"), false), `{"moves":[{"account":"bob","amount":-30}]}`},
		{o.Errand, `{"delay":"2s","parcel":"one","reason":"no van","vote":"abort"}`},
	} {
		if got, err := json.Marshal(tt.payload); err != nil || string(got) != tt.want {
			t.Errorf("payload %s (%v), want %s", got, err, tt.want)
		}
	}
	if got := len(o.Transaction(map[string]Office{"bank-a": store, "bank-b": till}).Branches); got != 3 {
		t.Errorf("%d branches", got)
	}
}

var errAny = errors.New("any")

// TestLedgerKnowsWhatIsUnderWay holds that an order stands in the ledger before it
// leaves, and in one list only.
func TestLedgerKnowsWhatIsUnderWay(t *testing.T) {
	l := &Ledger{}
	l.begin(Order{TxID: "a"})
	l.begin(Order{TxID: "b"})
	l.add(Entry{Order: Order{TxID: "a"}})
	if running, told := l.Running(), l.Entries(); len(running) != 1 || running[0].TxID != "b" || len(told) != 1 || told[0].TxID != "a" {
		t.Errorf("running %v, told %v", running, told)
	}
}

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
