package bank

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/decree-tx/decree/participants"
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

// Add takes over what another audit found.
func (f *Findings) Add(other Findings) {
	f.Texts = append(f.Texts, other.Texts[:min(len(other.Texts), maxFindings-len(f.Texts))]...)
	f.Count += other.Count
}

// NodeView is what one node tells of every transaction that it knows.
type NodeView struct {
	Node         string
	Transactions map[string]*decreev1.Transaction
}

// ReadNode lists what the node behind an endpoint has applied. The node answers
// from its own state. Where nodes ask who calls, it needs to be one who sees everything.
func ReadNode(ctx context.Context, endpoint string, as client.Security) (NodeView, error) {
	c, err := client.New(client.Config{Endpoints: []string{endpoint}, Security: as})
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

// AuditMeddling finds every refusal to one who meddled with an order.
func AuditMeddling(refusals []string) Findings {
	var f Findings
	for _, text := range refusals {
		f.add("%s", text)
	}
	return f
}

// AuditNodes holds every node's view against the ledger and against the first
// node's: the same transactions, all finished, each with the outcome that the
// client was told (rule R1).
func AuditNodes(entries []Entry, views []NodeView) Findings {
	var f Findings
	ordered := map[string]bool{}
	for _, e := range entries {
		ordered[e.TxID] = true
	}
	for _, view := range views {
		for _, e := range entries {
			auditTransaction(&f, view.Node, e, view.Transactions[e.TxID])
		}
		for txid, t := range view.Transactions {
			if !ordered[txid] {
				f.add("%s knows %s, which nobody ordered", view.Node, txid)
			} else if other := views[0].Transactions[txid]; other.GetState() != t.GetState() {
				f.add("%s has %s as %s, %s has it as %s", view.Node, txid, t.GetState(), views[0].Node, other.GetState())
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
		// AuditAnswers reports it: there is no answer to compare with.
	case t == nil:
		f.add("%s does not know %s, which is %s", node, e.TxID, e.Result.Outcome)
	case t.GetState() != want:
		f.add("%s has %s as %s, the client was told %s", node, e.TxID, t.GetState(), e.Result.Outcome)
	case t.GetDamage() != decreev1.Receipt_RECEIPT_UNSPECIFIED:
		f.add("%s has %s as damaged: %s", node, e.TxID, t.GetDamage())
	}
}

// AuditDamage holds that no branch went against its decision, as each node tells
// of every transaction (rules R7 and R9).
func AuditDamage(views []NodeView) Findings {
	var f Findings
	for _, view := range views {
		for _, txid := range slices.Sorted(maps.Keys(view.Transactions)) {
			if damage := view.Transactions[txid].GetDamage(); damage != decreev1.Receipt_RECEIPT_UNSPECIFIED {
				f.add("%s has %s as damaged: %s", view.Node, txid, damage)
			}
		}
	}
	return f
}

// AuditBranches holds what the resources themselves show against the log, as one
// node tells it: each branch committed where its transaction is, and nowhere else;
// none left prepared; and nothing there that the log does not know (rules R1, R2,
// R7 and R9).
func AuditBranches(log NodeView, books []Books) Findings {
	var f Findings
	for _, b := range books {
		for _, stranger := range b.Strangers {
			f.add("%s holds %s, which is none of the cluster's", b.Participant, stranger)
		}
		for _, txid := range slices.Sorted(maps.Keys(log.Transactions)) {
			for _, branch := range log.Transactions[txid].GetBranches() {
				if branch.GetParticipant() == b.Participant {
					auditBranch(&f, b, log.Transactions[txid], branch)
				}
			}
		}
		auditUnknown(&f, b, log)
	}
	return f
}

func auditBranch(f *Findings, b Books, t *decreev1.Transaction, branch *decreev1.Branch) {
	fate := b.Fates[Branch{t.GetTxid(), int(branch.GetNumber())}]
	committed := t.GetState() == decreev1.State_STATE_COMMITTED
	switch {
	case fate == participants.StatusPrepared:
		f.add("%s still holds %s prepared", b.Participant, t.GetTxid())
	case branch.GetVote() == decreev1.Vote_VOTE_READ_ONLY:
		// It changed nothing and was told nothing.
	case committed && fate != participants.StatusCommitted:
		f.add("%s has %s as %s, which is committed", b.Participant, t.GetTxid(), fate)
	case !committed && fate == participants.StatusCommitted:
		f.add("%s has committed %s, which is aborted", b.Participant, t.GetTxid())
	}
}

// auditUnknown looks for branches that the log does not have. The tombstone of an
// aborted transaction may be one: it was fenced before its branches were known.
func auditUnknown(f *Findings, b Books, log NodeView) {
	for branch, fate := range b.Fates {
		t := log.Transactions[branch.TxID]
		known := slices.ContainsFunc(t.GetBranches(), func(o *decreev1.Branch) bool {
			return int(o.GetNumber()) == branch.Number && o.GetParticipant() == b.Participant
		})
		tombstone := fate == participants.StatusAborted && t.GetState() == decreev1.State_STATE_ABORTED
		if !known && !tombstone {
			f.add("%s holds branch %d of %s as %s, which the log does not know", b.Participant, branch.Number, branch.TxID, fate)
		}
	}
}

// AuditPrepared holds that a resource at rest holds nothing prepared, by what its
// Office.Prepared answered.
func AuditPrepared(participant string, held []Branch, err error) Findings {
	var f Findings
	if err != nil {
		f.add("%s: what it holds prepared: %v", participant, err)
	}
	for _, b := range held {
		f.add("%s still holds %s prepared", participant, b)
	}
	return f
}

// AuditMoney holds every account against what the committed orders make it, and
// the whole against what there was at first. Of an order that its client knows no
// outcome of, the log tells.
func AuditMoney(entries []Entry, log NodeView, books []Books, total int64) Findings {
	var f Findings
	want := map[Account]int64{}
	for _, e := range entries {
		committed := e.Committed()
		if e.Err != nil {
			committed = log.Transactions[e.TxID].GetState() == decreev1.State_STATE_COMMITTED
		}
		if !committed {
			continue
		}
		for _, m := range e.Moves {
			want[m.Account] += m.Amount
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
			if balance < 0 {
				f.add("%s holds %d: it has paid what it had not", account, balance)
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

// AuditPosted holds one office's books, read while business goes on, against
// themselves and against the answers: every account is what the branches posted
// there make it, what a client was told to be aborted is not posted, and what it
// was told to be delivered before the look is. The ledger has to be read after the
// books, and told from before.
func AuditPosted(before, after []Entry, running []Order, b Books) Findings {
	var f Findings
	orders := map[string]Order{}
	for _, o := range running {
		orders[o.TxID] = o
	}
	for _, e := range after {
		orders[e.TxID] = e.Order
		if e.Err == nil && !e.Committed() && b.posted(e.Order) {
			f.add("%s has committed %s, which its client was told to be aborted", b.Participant, e.TxID)
		}
	}
	for _, e := range before {
		if e.Committed() && e.Result.Delivered && slices.Contains(e.Participants(), b.Participant) && !b.posted(e.Order) {
			f.add("%s does not show %s, which was committed and delivered before", b.Participant, e.TxID)
		}
	}
	want := map[string]int64{}
	for branch, fate := range b.Fates {
		if fate != participants.StatusCommitted {
			continue
		}
		o, ok := orders[branch.TxID]
		if !ok {
			f.add("%s has committed %s, which nobody ordered", b.Participant, branch.TxID)
		}
		for _, m := range o.at(b.Participant) {
			want[m.Account.Name] += m.Amount
		}
	}
	for account := range want {
		if _, ok := b.Balances[account]; !ok {
			f.add("%s/%s is missing; what is posted makes it %d", b.Participant, account, want[account])
		}
	}
	for account, balance := range b.Balances {
		if balance != want[account] {
			f.add("%s/%s holds %d, what is posted makes it %d", b.Participant, account, balance, want[account])
		}
	}
	return f
}

// posted reports whether the order's branch shows as committed.
func (b Books) posted(o Order) bool {
	number := 1 + slices.Index(o.Participants(), b.Participant)
	return b.Fates[Branch{o.TxID, number}] == participants.StatusCommitted
}
