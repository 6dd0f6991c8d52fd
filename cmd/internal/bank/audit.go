package bank

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/kv"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// maxFindings bounds how many findings an audit reports: past that more of them
// tell nothing new.
const maxFindings = 20

// Findings are what an audit found wrong. None is what one hopes for.
type Findings struct {
	Texts []string
	Count int // may be more than there are texts
}

func (f *Findings) add(format string, args ...any) {
	if f.Count++; f.Count <= maxFindings {
		f.Texts = append(f.Texts, fmt.Sprintf(format, args...))
	}
}

// NodeView is what one node tells of every transaction that it knows.
type NodeView struct {
	Node         string
	Transactions map[string]*decreev1.Transaction
}

// ReadNode lists what the node behind an endpoint has applied. The node answers
// from its own state.
func ReadNode(ctx context.Context, endpoint string) (NodeView, error) {
	c, err := client.New(client.Config{Endpoints: []string{endpoint}})
	if err != nil {
		return NodeView{}, err
	}
	defer c.Close() //nolint:errcheck // nothing is under way
	status, err := c.NodeStatus(ctx, endpoint)
	if err != nil {
		return NodeView{}, err
	}
	view := NodeView{Node: status.GetNode(), Transactions: map[string]*decreev1.Transaction{}}
	for t, err := range c.List(ctx, client.Filter{}) {
		if err != nil {
			return NodeView{}, err
		}
		view.Transactions[t.GetTxid()] = t
	}
	return view, nil
}

// AuditNodes holds every node's view against the ledger: the same transactions,
// all finished, each with the outcome that the client was told (rule R1).
func AuditNodes(entries []Entry, views []NodeView) Findings {
	var f Findings
	for _, view := range views {
		ordered := map[string]bool{}
		for _, e := range entries {
			ordered[e.TxID] = true
			auditTransaction(&f, view.Node, e, view.Transactions[e.TxID])
		}
		for txid := range view.Transactions {
			if !ordered[txid] {
				f.add("%s knows %s, which nobody ordered", view.Node, txid)
			}
		}
	}
	return f
}

func auditTransaction(f *Findings, node string, e Entry, t *decreev1.Transaction) {
	want := decreev1.State_STATE_ABORTED
	if e.Committed() {
		want = decreev1.State_STATE_COMMITTED
	}
	switch {
	case e.Err != nil:
		// AuditAnswers reports it: there is nothing to compare with.
	case t == nil:
		f.add("%s does not know %s, which is %s", node, e.TxID, e.Result.Outcome)
	case t.GetState() != want:
		f.add("%s has %s as %s, the client was told %s", node, e.TxID, t.GetState(), e.Result.Outcome)
	case t.GetDamage() != decreev1.Receipt_RECEIPT_UNSPECIFIED:
		f.add("%s has %s as damaged: %s", node, e.TxID, t.GetDamage())
	}
}

// AuditAnswers holds the answers against what had to come.
func AuditAnswers(entries []Entry) Findings {
	var f Findings
	for _, e := range entries {
		if complaint := e.Check(); complaint != "" {
			f.add("%s", complaint)
		}
	}
	return f
}

// Branch names one branch of a transaction.
type Branch struct {
	TxID   string
	Number int // from 1
}

// Books are what one participant holds.
type Books struct {
	Participant string
	Balances    map[string]int64 // by account; nil where it is no bank
	Fates       map[Branch]participants.Status
}

// ReadBooks reads the file of a kv participant that has stopped.
func ReadBooks(ctx context.Context, participant, path string) (Books, error) {
	store, err := kv.Open(ctx, path, hclog.NewNullLogger())
	if err != nil {
		return Books{}, err
	}
	defer store.Close() //nolint:errcheck // it was only read
	books := Books{Participant: participant, Balances: map[string]int64{}, Fates: map[Branch]participants.Status{}}
	var malformed error
	err = store.Read(ctx, func(at kv.Snapshot) error {
		at.Range("", func(key, value string) bool {
			books.Balances[key], malformed = strconv.ParseInt(value, 10, 64)
			return malformed == nil
		})
		if malformed != nil {
			return malformed
		}
		return at.Outcomes(func(o kv.Outcome) bool {
			books.Fates[Branch{o.Branch.TxID.String(), o.Branch.Number}] = o.Status
			return true
		})
	})
	return books, err
}

// AuditBranches holds every branch's fate against its transaction's: committed
// where that is committed, never where it is not, and none left prepared (rules
// R1, R2 and R7).
func AuditBranches(entries []Entry, books []Books) Findings {
	var f Findings
	for _, b := range books {
		ordered := map[Branch]bool{}
		for _, e := range entries {
			number := 1 + slices.Index(e.Participants(), b.Participant)
			branch := Branch{e.TxID, number}
			if number == 0 || e.Err != nil {
				continue
			}
			ordered[branch] = true
			auditBranch(&f, b, e, branch)
		}
		for branch, fate := range b.Fates {
			if !ordered[branch] && fate != participants.StatusAborted {
				f.add("%s holds branch %d of %s as %s, which nobody ordered", b.Participant, branch.Number, branch.TxID, fate)
			}
		}
	}
	return f
}

func auditBranch(f *Findings, b Books, e Entry, branch Branch) {
	fate := b.Fates[branch]
	switch {
	case fate == participants.StatusPrepared:
		f.add("%s still holds %s prepared", b.Participant, e.TxID)
	case e.Committed() && fate != participants.StatusCommitted:
		f.add("%s has %s as %s, which is committed", b.Participant, e.TxID, fate)
	case !e.Committed() && fate == participants.StatusCommitted:
		f.add("%s has committed %s, which is aborted", b.Participant, e.TxID)
	}
}

// AuditMoney holds every account against what the committed orders make it, and
// the whole against what there was at first.
func AuditMoney(entries []Entry, books []Books, total int64) Findings {
	var f Findings
	want := map[Account]int64{}
	for _, e := range entries {
		for _, m := range e.Moves {
			if e.Committed() {
				want[m.Account] += m.Amount
			}
		}
	}
	var sum int64
	for _, b := range books {
		for name, balance := range b.Balances {
			account := Account{b.Participant, name}
			sum += balance
			if balance != want[account] {
				f.add("%s holds %d, the committed transfers make it %d", account, balance, want[account])
			}
			delete(want, account)
		}
	}
	for account, balance := range want {
		if balance != 0 {
			f.add("%s is missing; the committed transfers make it %d", account, balance)
		}
	}
	if sum != total {
		f.add("there are %d coins, %d were put in", sum, total)
	}
	return f
}
