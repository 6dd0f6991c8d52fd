// Package bank makes traffic whose result can be checked to the last coin: it
// moves money between accounts at several participants through a decree cluster,
// keeps a ledger of what it was told, and audits nodes and participants against
// that ledger.
//
// It owns the tellers, the ledger, the branch offices and the audit. An [Office]
// is a participant that keeps accounts: it knows what to ask decree for, and how
// to read the books of the resource itself, behind decree's back. It reaches the
// cluster only through transport/client, as a user would, and refuses to start or
// stop anything.
package bank

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// Account is one that an office keeps.
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
	TxID    string
	Moves   []Move
	Opening bool    // the moves open their accounts
	Errand  *Errand // nil for none
	Expect  Expectation
	Wait    client.Wait
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

// Participants are those that have a branch, in the order of the branches'
// numbers, which begin at 1.
func (o Order) Participants() []string {
	var names []string
	for _, m := range o.Moves {
		if !slices.Contains(names, m.Account.Bank) {
			names = append(names, m.Account.Bank)
		}
	}
	if o.Errand != nil {
		names = append(names, o.Errand.Participant)
	}
	return names
}

// at are the order's moves at one office.
func (o Order) at(bank string) []Move {
	var moves []Move
	for _, m := range o.Moves {
		if m.Account.Bank == bank {
			moves = append(moves, m)
		}
	}
	return moves
}

// Transaction is the order as the SDK takes it. The offices are all that it
// touches.
func (o Order) Transaction(offices map[string]Office) client.Transaction {
	t := client.Transaction{TxID: o.TxID, Wait: o.Wait}
	for _, name := range o.Participants() {
		if office, ok := offices[name]; ok {
			t.Branches = append(t.Branches, client.JSON(name, office.Payload(o.at(name), o.Opening)))
		} else {
			t.Branches = append(t.Branches, client.JSON(name, o.Errand))
		}
	}
	return t
}

// Entry is an order and what the client was told of it.
type Entry struct {
	Order
	Result    client.Result
	Err       error // no outcome, or none that is known
	Late      bool  // there was none, and Resolve learnt it
	Submitted time.Time
	Answered  time.Time
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
