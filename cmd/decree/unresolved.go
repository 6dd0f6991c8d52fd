package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const unresolvedHelp = `Lists the transactions that the cluster may not decide: after a restore or a recovery
their decision may have been made and lost, or they are older than what the cluster
remembers, and still prepared somewhere. Every participant is asked for what it holds
prepared.

With a TXID, shows what the participants can prove of that one. What each of them is
owed follows from it: where one has committed, the decision was commit; where one has
aborted, it was abort; where all are prepared, nobody but the client knows what it was
told, and either decision is the same at all of them.`

func (p *program) unresolvedCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "unresolved [TXID]",
		Short: "list what only an operator may decide, with the evidence",
		Long:  unresolvedHelp,
		Args:  cobra.MaximumNArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			done := p.progress("asking the participants")
			defer done()
			if len(args) == 1 {
				u, err := c.Evidence(ctx, args[0])
				if err != nil {
					return err
				}
				p.showEvidence(u)
				return nil
			}
			list, err := c.Unresolved(ctx)
			if err != nil {
				return err
			}
			p.showUnresolved(list, quiet)
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the txids only")
	return cmd
}

func (p *program) showUnresolved(list *decreev1.ListUnresolvedResponse, quiet bool) {
	switch {
	case p.out.format == formatJSON:
		p.out.message(list)
		return
	case quiet:
		for _, u := range list.GetTransactions() {
			p.out.linef("%s", u.GetTxid())
		}
		return
	}
	var rows [][]string
	for _, u := range list.GetTransactions() {
		var at []string
		for _, e := range u.GetEvidence() {
			at = append(at, e.GetParticipant()+"/"+strconv.Itoa(int(e.GetBranch())))
		}
		rows = append(rows, []string{u.GetTxid(), knownAs(u), strings.Join(at, " ")})
	}
	p.out.table([]string{"TXID", "KNOWN AS", "PREPARED AT"}, rows)
	for _, name := range slices.Sorted(maps.Keys(list.GetAway())) {
		p.out.linef("%s could not be asked: %s", name, list.GetAway()[name])
	}
	if list.GetMore() {
		p.out.linef("... and more, once some of these are decided")
	}
}

// knownAs is what the cluster knows of a transaction.
func knownAs(u *decreev1.UnresolvedTransaction) string {
	if u.GetTransaction() == nil {
		return "nothing"
	}
	return strings.ToLower(strings.TrimPrefix(u.GetTransaction().GetState().String(), "STATE_"))
}

func (p *program) showEvidence(u *decreev1.UnresolvedTransaction) {
	if p.out.format == formatJSON {
		p.out.message(u)
		return
	}
	p.out.fields("txid", u.GetTxid(), "known as", knownAs(u), "evident", evident(u))
	p.out.linef("")
	var rows [][]string
	for _, e := range u.GetEvidence() {
		status := strings.ToLower(strings.TrimPrefix(e.GetStatus().String(), "BRANCH_STATUS_"))
		branch := strconv.Itoa(int(e.GetBranch()))
		if e.GetStatus() == decreev1.BranchStatus_BRANCH_STATUS_UNSPECIFIED {
			status = "no record"
		}
		if e.GetBranch() == 0 {
			branch = ""
		}
		rows = append(rows, []string{e.GetParticipant(), branch, status, e.GetError()})
	}
	p.out.table([]string{"PARTICIPANT", "BRANCH", "STATUS", "ERROR"}, rows)
}

func evident(u *decreev1.UnresolvedTransaction) string {
	switch u.GetEvident() {
	case decreev1.Outcome_OUTCOME_COMMITTED:
		return "it was committed"
	case decreev1.Outcome_OUTCOME_ABORTED:
		return "it was aborted"
	default:
		return "nothing: no participant has proof of the decision, or they contradict each other"
	}
}

const decideHelp = `Decides transactions of "decree tx unresolved", for good, and ends their branches by it,
now or whenever their participant can be reached. What is decided already keeps its
decision.

With --as evident each is decided as its participants prove, and left alone where they
do not.`

func (p *program) decideCommand() *cobra.Command {
	var as, reason string
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "decide TXID...",
		Short: "decide transactions that only an operator may decide",
		Long:  decideHelp,
		Example: "  decree tx unresolved 0190...\n" +
			"  decree tx decide 0190... --as committed --reason 'booked at bank-a'\n" +
			"  decree tx decide --all --as evident --reason 'restore of 2 May'",
		RunE: p.attached(func(ctx context.Context, c *client.Client, args []string) error {
			if err := checkDecide(as, reason, all, args); err != nil {
				return err
			}
			if all {
				list, err := c.Unresolved(ctx)
				if err != nil {
					return err
				}
				for _, u := range list.GetTransactions() {
					args = append(args, u.GetTxid())
				}
			}
			if !yes && len(args) > 0 {
				if err := p.confirmDecide(ctx, c, as, args); err != nil {
					return err
				}
			}
			return p.decide(ctx, c, as, reason, args)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&as, "as", "", "committed, aborted, or evident")
	flags.StringVar(&reason, "reason", "", "why, for those who look at it later")
	flags.BoolVar(&all, "all", false, "all that are unresolved")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func checkDecide(as, reason string, all bool, args []string) error {
	switch {
	case as != "committed" && as != "aborted" && as != "evident":
		return usagef("--as %q: want committed, aborted or evident", as)
	case reason == "":
		return usagef("--reason is missing: somebody will want to know")
	case all == (len(args) > 0):
		return usagef("name the transactions, or --all of them")
	}
	return nil
}

// confirmDecide shows the evidence of one transaction, or the number of many, and asks.
func (p *program) confirmDecide(ctx context.Context, c *client.Client, as string, txids []string) error {
	word := as
	if len(txids) == 1 {
		u, err := c.Evidence(ctx, txids[0])
		if err != nil {
			return err
		}
		p.showEvidence(u)
	} else {
		word = strconv.Itoa(len(txids)) + " " + as
	}
	return p.confirm(rebirth{}, word)
}

// decided is one transaction's end, for programs.
type decided struct {
	TxID    string `json:"txid"`
	Outcome string `json:"outcome"` // empty where it was left alone
}

func (p *program) decide(ctx context.Context, c *client.Client, as, reason string, txids []string) error {
	defer p.progress("deciding")()
	results := []decided{}
	for _, id := range txids {
		outcome, err := outcomeFor(ctx, c, as, id)
		if err != nil {
			return err
		}
		if outcome == client.Undecided {
			results = append(results, decided{TxID: id})
			continue
		}
		made, err := c.Decide(ctx, outcome, reason, id)
		if err != nil {
			return err
		}
		for _, t := range made {
			results = append(results, decided{id, strings.ToLower(strings.TrimPrefix(t.GetState().String(), "STATE_"))})
		}
	}
	if p.out.format == formatJSON {
		p.out.object(results)
		return nil
	}
	for _, r := range results {
		if r.Outcome == "" {
			p.out.linef("%s is left alone: there is no proof either way", r.TxID)
			continue
		}
		p.out.linef("%s is %s", r.TxID, r.Outcome)
	}
	return nil
}

// outcomeFor is what a transaction is to be decided as; Undecided leaves it alone.
func outcomeFor(ctx context.Context, c *client.Client, as, txid string) (client.Outcome, error) {
	switch as {
	case "committed":
		return client.Committed, nil
	case "aborted":
		return client.Aborted, nil
	}
	u, err := c.Evidence(ctx, txid)
	return client.Outcome(u.GetEvident()), err
}
