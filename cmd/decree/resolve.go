package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const resolveHelp = `Takes your word for what became of one branch of a decided transaction, where its
participant will not say: it is gone for ever, or it reported damage. Without --as it
only shows the evidence.

The decision stays as it is. What is owed to the branch ends, so that a participant
whose branches are all resolved can be deleted; where your word is against the
decision, the transaction stays marked as damaged, and is no longer listed as one that
needs somebody. Your word can't be taken back, and is kept with its reason in the audit
trail (decree audit).

decree tx list --damaged and --stuck show which transactions may need this. A
transaction that is not decided is aborted instead (decree tx abort).`

// testimony is what an operator says.
type testimony struct {
	branch uint32
	as     string
	reason string
	yes    bool
}

// confirmBy is how many of a txid's last characters are to be typed.
const confirmBy = 6

var errNotConfirmed = errors.New("not confirmed: nothing was changed")

func (p *program) resolveCommand() *cobra.Command {
	var w testimony
	cmd := &cobra.Command{
		Use:   "resolve TXID",
		Short: "say what became of a branch whose participant will not",
		Long:  resolveHelp,
		Example: `  decree tx resolve 0197c0de-... --branch 2
  decree tx resolve 0197c0de-... --branch 2 --as committed --reason "seen in the restored backup, ticket 4711"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			as, err := w.outcome()
			if err != nil {
				return err
			}
			return p.attached(func(ctx context.Context, c *client.Client, args []string) error {
				return p.resolve(ctx, c, args[0], w, as)
			})(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.Uint32VarP(&w.branch, "branch", "b", 0, "the branch's `number`, from 1 (decree tx show)")
	flags.StringVar(&w.as, "as", "", "what became of it: committed or aborted")
	flags.StringVar(&w.reason, "reason", "", "how you know, for the audit trail")
	flags.BoolVar(&w.yes, "yes", false, "do not ask for confirmation")
	_ = cmd.MarkFlagRequired("branch")
	_ = cmd.RegisterFlagCompletionFunc("as", cobra.FixedCompletions([]string{"committed", "aborted"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// outcome is what was said, Undecided where nothing was.
func (w testimony) outcome() (client.Outcome, error) {
	switch {
	case w.as == "" && w.reason == "":
		return client.Undecided, nil
	case w.as != "committed" && w.as != "aborted":
		return 0, usagef("--as %q: want committed or aborted", w.as)
	case strings.TrimSpace(w.reason) == "":
		return 0, usagef("--reason is missing: say how you know, it stays in the audit trail")
	case w.as == "committed":
		return client.Committed, nil
	default:
		return client.Aborted, nil
	}
}

// resolve shows the evidence, asks, and resolves. The cluster gets the user's patience for
// each of its answers, and a person has all the time.
func (p *program) resolve(ctx context.Context, c *client.Client, txid string, w testimony, as client.Outcome) error {
	bounded, cancel := context.WithTimeout(ctx, p.dial.patience)
	found, err := c.ExamineBranch(bounded, txid, w.branch)
	cancel()
	if err != nil {
		return err
	}
	branch, err := branchOf(found.GetTransaction(), w.branch)
	if err != nil {
		return err
	}
	asks := as != client.Undecided && !w.yes
	if p.out.format != formatJSON {
		p.showBranch(found, branch)
		if as != client.Undecided {
			p.showConsequence(found, branch, as)
		}
	} else if as == client.Undecided {
		p.out.message(found)
	}
	if as == client.Undecided {
		return nil
	}
	if asks {
		if err := p.confirmTxID(found.GetTransaction().GetTxid()); err != nil {
			return err
		}
	}
	bounded, cancel = context.WithTimeout(ctx, p.dial.patience)
	defer cancel()
	tx, err := c.ResolveBranch(bounded, txid, w.branch, as, w.reason)
	if err != nil {
		return err
	}
	return p.done(&decreev1.ResolveBranchResponse{Transaction: tx},
		"branch %s at %s is resolved as %s; the transaction is %s", strconv.Itoa(int(w.branch)), branch.GetParticipant(), w.as, stateText(tx.GetState()))
}

// branchOf finds a branch that may be resolved at all.
func branchOf(t *decreev1.Transaction, number uint32) (*decreev1.Branch, error) {
	for _, b := range t.GetBranches() {
		if b.GetNumber() == number {
			return b, nil
		}
	}
	return nil, usagef("there is no branch %d of %s", number, t.GetTxid())
}

func (p *program) showBranch(found *decreev1.ExamineBranchResponse, b *decreev1.Branch) {
	t := found.GetTransaction()
	says := map[decreev1.BranchFate]string{
		decreev1.BranchFate_BRANCH_FATE_UNSPECIFIED: "nothing: it has no proof",
		decreev1.BranchFate_BRANCH_FATE_PREPARED:    "it holds the branch prepared, and waits",
		decreev1.BranchFate_BRANCH_FATE_COMMITTED:   "committed",
		decreev1.BranchFate_BRANCH_FATE_ABORTED:     "aborted",
	}[found.GetFate()]
	if found.GetError() != "" {
		says = "no answer: " + found.GetError()
	}
	p.out.fields(
		"txid", t.GetTxid(),
		"state", stateText(t.GetState()),
		"decision", decisionText(t),
		"branch", fmt.Sprintf("%d at %s", b.GetNumber(), b.GetParticipant()),
		"receipt", word(b.GetReceipt()),
		"resolved", resolvedText(b.GetResolved()),
		"attempts", strconv.FormatUint(uint64(b.GetAttempts()), 10),
		"last error", b.GetLastError(),
		"says now", says,
	)
}

// decisionText is the decision that a state holds.
func decisionText(t *decreev1.Transaction) string {
	switch t.GetState() {
	case decreev1.State_STATE_COMMITTING, decreev1.State_STATE_COMMITTED:
		return "commit"
	case decreev1.State_STATE_ABORTING, decreev1.State_STATE_ABORTED:
		return "abort"
	default:
		return "none yet"
	}
}

func resolvedText(o decreev1.Outcome) string {
	switch o {
	case decreev1.Outcome_OUTCOME_COMMITTED:
		return "as committed"
	case decreev1.Outcome_OUTCOME_ABORTED:
		return "as aborted"
	default:
		return ""
	}
}

// showConsequence says what the word will mean, and what speaks against it.
func (p *program) showConsequence(found *decreev1.ExamineBranchResponse, b *decreev1.Branch, as client.Outcome) {
	fate, opposite := "committed", decreev1.BranchFate_BRANCH_FATE_ABORTED
	if as == client.Aborted {
		fate, opposite = "aborted", decreev1.BranchFate_BRANCH_FATE_COMMITTED
	}
	p.out.linef("")
	switch decision := decisionText(found.GetTransaction()); {
	case strings.HasPrefix(fate, decision):
		p.out.linef("You say that %s has %s its branch, as was decided.", b.GetParticipant(), fate)
	case decision == "none yet":
		p.out.linef("The transaction is not decided: this will be refused. decree tx abort ends it.")
	default:
		p.out.linef("You say that %s has %s its branch AGAINST the decision, which is %s: the transaction stays marked as damaged.",
			b.GetParticipant(), fate, decision)
	}
	switch found.GetFate() {
	case opposite:
		p.out.linef("The participant says the OPPOSITE.")
	case decreev1.BranchFate_BRANCH_FATE_PREPARED:
		p.out.linef("The participant is there and WAITS for the decision, which the cluster goes on delivering: there is no need to resolve this.")
	}
}

// confirmTxID has the end of the txid typed.
func (p *program) confirmTxID(txid string) error {
	want := txid[max(0, len(txid)-confirmBy):]
	fmt.Fprintf(p.stderr, "\nThis can't be taken back. Type the last %d characters of the txid to confirm: ", confirmBy)
	line, err := bufio.NewReader(p.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the confirmation: %w", err)
	}
	if strings.TrimSpace(line) != want {
		return &usageError{fmt.Errorf("%w (--yes confirms in a script)", errNotConfirmed)}
	}
	return nil
}
