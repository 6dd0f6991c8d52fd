package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func (p *program) txCommand() *cobra.Command {
	tx := &cobra.Command{
		Use:   "tx",
		Short: "run transactions, and look at them",
	}
	p.dial.register(tx)
	tx.AddCommand(
		p.submitCommand(),
		p.beginCommand(),
		p.enlistCommand(),
		p.commitCommand(),
		p.abortCommand(),
		p.inquireCommand(),
		p.resolveCommand(),
		p.showCommand(),
		p.listCommand(),
		p.unresolvedCommand(),
		p.decideCommand(),
		p.watchCommand(),
	)
	return asGroup(tx)
}

const submitHelp = `Runs a transaction: every branch is prepared, and all commit or none does.

A branch is a participant and what it is asked to do, as JSON, or as JSON in a
@file, or @- for stdin. A whole transaction may be given as a file, in the form of
the HTTP API:

  {"branches": [{"participant": "bank-a", "json": {"ops": [...]}}], "timeout": "5s"}

Without --txid the transaction gets a new id. With one, submitting again joins or
answers the first run, and never runs it twice. The exit code tells the outcome:

` + exitCodeHelp

func (p *program) submitCommand() *cobra.Command {
	var (
		input branchFlags
		file  string
		t     client.Transaction
		wait  waitFlag
	)
	cmd := &cobra.Command{
		Use:   "submit",
		Short: "run a transaction and tell its outcome",
		Long:  submitHelp,
		Example: `  decree tx submit --branch bank-a='{"ops":[{"op":"add","key":"alice","amount":-30,"min":0}]}' \
                   --branch bank-b='{"ops":[{"op":"add","key":"bob","amount":30}]}' --timeout 5s
  decree tx submit -f transfer.json --wait decision`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&input.json, "branch", "b", nil, "`participant=JSON`, or participant=@file; repeat for each branch")
	flags.StringArrayVar(&input.bytes, "branch-bytes", nil, "`participant=text`, or participant=@file: passed on as it is")
	flags.StringVarP(&file, "file", "f", "", "read the transaction from this JSON `file`; - for stdin")
	flags.StringVar(&t.TxID, "txid", "", "the transaction's `id`, a UUIDv7")
	flags.DurationVar(&t.Timeout, "timeout", 0, "abort unless decided by then (default the server's, 15s)")
	flags.Var(&wait, "wait", "return after the decision, or after delivery to every branch")
	cmd.MarkFlagsMutuallyExclusive("file", "branch")
	cmd.MarkFlagsMutuallyExclusive("file", "branch-bytes")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		branches, err := p.branches(input)
		if err != nil {
			return err
		}
		t.Branches = branches
		t.Wait = client.Wait(wait)
		if file != "" {
			read, err := p.transactionFrom(file)
			if err != nil {
				return err
			}
			t = overlay(read, t, flags.Changed)
		}
		r, err := c.Submit(ctx, t)
		if err != nil {
			return err
		}
		return p.outcome(r)
	})
	return cmd
}

// overlay takes from the flags what was set there, and the rest from the file.
func overlay(file, flags client.Transaction, set func(string) bool) client.Transaction {
	if set("txid") {
		file.TxID = flags.TxID
	}
	if set("timeout") {
		file.Timeout = flags.Timeout
	}
	if set("wait") {
		file.Wait = flags.Wait
	}
	return file
}

func (p *program) beginCommand() *cobra.Command {
	var txid string
	var timeout time.Duration
	var quiet bool
	cmd := &cobra.Command{
		Use:     "begin",
		Short:   "open an interactive transaction",
		Long:    "Opens a transaction to which branches are enlisted one by one, until it is committed\nor aborted, or its time is over.",
		Example: "  txid=$(decree tx begin -q)\n  decree tx enlist $txid --branch bank-a=@debit.json\n  decree tx commit $txid",
		Args:    cobra.NoArgs,
		RunE: p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			tx, err := begin(ctx, c, txid, timeout)
			if err != nil {
				return err
			}
			switch {
			case p.out.format == formatJSON:
				p.out.message(&decreev1.BeginResponse{Txid: tx.ID, Deadline: timestamppb.New(tx.Deadline)})
			case quiet:
				p.out.linef("%s", tx.ID)
			default:
				p.out.fields("txid", tx.ID, "deadline", shortTime(tx.Deadline))
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&txid, "txid", "", "the transaction's `id`, a UUIDv7")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "abort unless decided by then (default the server's, 1m)")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the txid only")
	return cmd
}

// begin has the client make the txid where there is none.
func begin(ctx context.Context, c *client.Client, txid string, timeout time.Duration) (*client.Tx, error) {
	if txid == "" {
		return c.Begin(ctx, timeout)
	}
	return c.BeginAs(ctx, txid, timeout)
}

func (p *program) enlistCommand() *cobra.Command {
	var input branchFlags
	var external []string
	cmd := &cobra.Command{
		Use:     "enlist TXID",
		Short:   "add branches to an interactive transaction",
		Example: "  decree tx enlist $txid --branch bank-a=@debit.json\n  decree tx enlist $txid --external orders-db",
		Args:    cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			branches, err := p.branches(input)
			if err != nil {
				return err
			}
			for _, participant := range external {
				branches = append(branches, client.External(participant))
			}
			if len(branches) == 0 {
				return usagef("nothing to enlist: give --branch, --branch-bytes or --external")
			}
			tx := c.Resume(args[0])
			for _, b := range branches {
				e, err := tx.Enlist(ctx, b)
				if err != nil {
					return err
				}
				p.enlisted(e)
			}
			return nil
		}),
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&input.json, "branch", "b", nil, "`participant=JSON`, or participant=@file; may be repeated")
	flags.StringArrayVar(&input.bytes, "branch-bytes", nil, "`participant=text`, or participant=@file: passed on as it is")
	flags.StringArrayVar(&external, "external", nil, "a branch at this `participant` that the application prepares itself")
	return cmd
}

func (p *program) enlisted(e client.Enlistment) {
	if p.out.format == formatJSON {
		p.out.message(&decreev1.EnlistResponse{Branch: uint32(e.Branch), Cluster: e.Cluster, Epoch: e.Epoch})
		return
	}
	p.out.linef("branch %d enlisted (cluster %s, epoch %d)", e.Branch, e.Cluster, e.Epoch)
}

func (p *program) commitCommand() *cobra.Command {
	var votes []string
	var wait waitFlag
	cmd := &cobra.Command{
		Use:   "commit TXID",
		Short: "prepare and decide an interactive transaction",
		Long:  "Seals the transaction, has its branches prepared, and decides. The exit code tells\nthe outcome:\n\n" + exitCodeHelp,
		Args:  cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			parsed, err := parseVotes(votes)
			if err != nil {
				return err
			}
			tx := c.Resume(args[0])
			tx.Wait = client.Wait(wait)
			r, err := tx.Commit(ctx, parsed...)
			if err != nil {
				return err
			}
			return p.outcome(r)
		}),
	}
	cmd.Flags().StringArrayVar(&votes, "vote", nil, "`branch=vote` of an external branch, such as 2=commit; may be repeated")
	cmd.Flags().Var(&wait, "wait", "return after the decision, or after delivery to every branch")
	return cmd
}

func (p *program) abortCommand() *cobra.Command {
	var reason string
	var wait waitFlag
	cmd := &cobra.Command{
		Use:   "abort TXID",
		Short: "abort a transaction, so that it can never commit",
		Long:  "Decides abort. It fails if the transaction is committed. A txid that is not known can\nnever run afterwards.",
		Args:  cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			tx := c.Resume(args[0])
			tx.Wait = client.Wait(wait)
			r, err := tx.Abort(ctx, reason)
			if err != nil {
				return err
			}
			p.showResult(r)
			if r.Damage != client.NoDamage {
				return &toldError{r.Err()}
			}
			return nil // aborted is what was asked for
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at it later")
	cmd.Flags().Var(&wait, "wait", "return after the decision, or after delivery to every branch")
	return cmd
}

func (p *program) inquireCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inquire TXID",
		Short: "learn an outcome that will stand",
		Long:  "Tells the outcome of a transaction, to resolve one that is unknown. A txid that the\ncluster does not know is aborted first and can then never run. The exit code tells the\noutcome:\n\n" + exitCodeHelp,
		Args:  cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			r, err := c.Inquire(ctx, args[0])
			if err != nil {
				return err
			}
			return p.outcome(r)
		}),
	}
}

// outcome shows a result and turns it into the exit code.
func (p *program) outcome(r client.Result) error {
	p.showResult(r)
	if err := r.Err(); err != nil {
		return &toldError{err}
	}
	return nil
}

func (p *program) showResult(r client.Result) {
	if p.out.format == formatJSON {
		p.out.message(resultMessage(r))
		return
	}
	reason, damage := "", ""
	if r.Outcome == client.Aborted {
		reason = r.Reason.String()
	}
	if r.Damage != client.NoDamage {
		damage = r.Damage.String()
	}
	delivered := yesNo(r.Delivered)
	if !r.Delivered && r.Outcome != client.Undecided {
		delivered = "not to every branch yet; the cluster goes on"
	}
	p.out.fields("txid", r.TxID, "outcome", r.Outcome.String(), "delivered", delivered,
		"reason", reason, "damage", damage)
}

// resultMessage puts a result back into the form of the API. The enums of the SDK
// stand in the order of the API's.
func resultMessage(r client.Result) *decreev1.Result {
	m := &decreev1.Result{Txid: r.TxID, Outcome: decreev1.Outcome(r.Outcome), Delivered: r.Delivered}
	if r.Outcome == client.Aborted {
		m.Reason = &decreev1.AbortReason{
			Code:        decreev1.AbortCode(r.Reason.Code),
			Branch:      uint32(r.Reason.Branch),
			Participant: r.Reason.Participant,
			Detail:      r.Reason.Detail,
		}
	}
	if r.Damage != client.NoDamage {
		m.Damage = decreev1.Receipt(r.Damage) + decreev1.Receipt_RECEIPT_DONE
	}
	return m
}
