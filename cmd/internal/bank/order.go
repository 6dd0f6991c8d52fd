// Package bank makes traffic whose result can be checked to the last coin: it
// moves money between accounts at several participants through a decree cluster,
// keeps a ledger of what it was told, and audits nodes and participants against
// that ledger.
//
// It reaches the cluster only through transport/client, as a user would.
package bank

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// Account is a key at a kv participant.
type Account struct{ Bank, Name string }

func (a Account) String() string { return a.Bank + "/" + a.Name }

// Move changes one account.
type Move struct {
	Account Account
	Amount  int64 // negative takes, and is refused where there is less
}

// Expectation is what must become of an order.
type Expectation uint8

// The expectations.
const (
	Either     Expectation = iota // it may meet an account that another holds
	MustCommit                    // nothing stands against it
	MustAbort                     // a participant has to say no
)

// Order is one transaction: some moves, and a message to a service that is no
// bank.
type Order struct {
	TxID   string
	Moves  []Move
	Errand *Errand // nil for none
	Expect Expectation
	Wait   client.Wait
}

// Errand is a branch at a simulated service, with what it is to do.
type Errand struct {
	Participant string
	Vote        string // "abort" makes it vote no
	Reason      string
	Delay       time.Duration // of its prepare
	CommitDelay time.Duration
}

// MarshalJSON writes the payload that package sim reads.
func (e Errand) MarshalJSON() ([]byte, error) {
	wishes := map[string]string{"parcel": "one"}
	for name, text := range map[string]string{
		"vote": e.Vote, "reason": e.Reason, "delay": durationText(e.Delay), "commit_delay": durationText(e.CommitDelay),
	} {
		if text != "" {
			wishes[name] = text
		}
	}
	return json.Marshal(wishes)
}

func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// operation is one of package kv's.
type operation struct {
	Op     string `json:"op"`
	Key    string `json:"key"`
	Amount int64  `json:"amount"`
	Min    *int64 `json:"min,omitempty"`
}

// Participants are those that have a branch, in the order of the branches'
// numbers, which begin at 1.
func (o Order) Participants() []string {
	var names []string
	seen := map[string]bool{}
	for _, m := range o.Moves {
		if !seen[m.Account.Bank] {
			seen[m.Account.Bank] = true
			names = append(names, m.Account.Bank)
		}
	}
	if o.Errand != nil {
		names = append(names, o.Errand.Participant)
	}
	return names
}

// payload is what the order asks of a participant.
func (o Order) payload(participant string) any {
	if o.Errand != nil && o.Errand.Participant == participant {
		return o.Errand
	}
	var operations []operation
	for _, m := range o.Moves {
		if m.Account.Bank != participant {
			continue
		}
		op := operation{Op: "add", Key: m.Account.Name, Amount: m.Amount}
		if m.Amount < 0 {
			op.Min = new(int64) // never below zero
		}
		operations = append(operations, op)
	}
	return map[string]any{"ops": operations}
}

// Transaction is the order as the SDK takes it.
func (o Order) Transaction() client.Transaction {
	t := client.Transaction{TxID: o.TxID, Wait: o.Wait}
	for _, name := range o.Participants() {
		t.Branches = append(t.Branches, client.JSON(name, o.payload(name)))
	}
	return t
}

// Entry is an order and what the client was told of it.
type Entry struct {
	Order
	Result   client.Result
	Err      error // no outcome, or none that is known
	Answered time.Time
}

// Committed reports that the client was told so.
func (e Entry) Committed() bool { return e.Err == nil && e.Result.Outcome == client.Committed }

// Check says what is wrong with the answer; empty when nothing is.
func (e Entry) Check() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("%s got no outcome: %v", e.TxID, e.Err)
	case e.Result.Damage != client.NoDamage:
		return fmt.Sprintf("%s is damaged: %s", e.TxID, e.Result.Damage)
	case e.Expect == MustCommit && e.Result.Outcome != client.Committed:
		return fmt.Sprintf("%s had to commit and is %s (%s)", e.TxID, e.Result.Outcome, e.Result.Reason)
	case e.Expect == MustAbort && e.Result.Outcome != client.Aborted:
		return fmt.Sprintf("%s had to abort and is %s", e.TxID, e.Result.Outcome)
	default:
		return ""
	}
}
