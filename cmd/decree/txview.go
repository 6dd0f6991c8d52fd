package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// defaultListLimit keeps a list on some screens.
const defaultListLimit = 50

func (p *program) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show TXID",
		Short:   "show a transaction, its branches and its timeline",
		Example: "  decree tx show 01890a5d-ac96-774b-bcce-b302099a8057",
		Long: `Shows what the log holds of a transaction, each branch, and how it came to where it is:
when each prepare left, who voted when, when it was decided, and every attempt to deliver
that, as far as the leaders that can be asked remember it.`,
		Args: cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			told, err := timelineOf(ctx, c, args[0])
			if err != nil {
				return err
			}
			if p.out.format == formatJSON {
				whole, err := timelineJSON(told)
				if err != nil {
					return err
				}
				p.out.object(whole)
				return nil
			}
			p.showTransaction(told.GetTransaction())
			p.showTimeline(told)
			return nil
		}),
	}
}

func (p *program) showTransaction(t *decreev1.Transaction) {
	kind := "one-shot"
	if t.GetInteractive() {
		kind = "interactive"
	}
	p.out.fields(
		"txid", t.GetTxid(),
		"state", stateText(t.GetState()),
		"kind", kind,
		"timeout", t.GetTimeout().AsDuration().String(),
		"reason", reasonText(t.GetReason()),
		"damage", damageText(t.GetDamage()),
		"staged", stampText(t.GetStaged()),
		"decided", stampText(t.GetDecided()),
		"finished", stampText(t.GetFinished()),
	)
	if len(t.GetBranches()) == 0 {
		return
	}
	var rows [][]string
	for _, b := range t.GetBranches() {
		rows = append(rows, []string{
			strconv.Itoa(int(b.GetNumber())), b.GetParticipant(), word(b.GetVote()), endText(b),
			positive(b.GetAttempts()), nextText(b.GetNextAttempt()), b.GetLastError(),
		})
	}
	p.out.linef("")
	p.out.table([]string{"BRANCH", "PARTICIPANT", "VOTE", "RECEIPT", "ATTEMPTS", "NEXT", "LAST ERROR"}, rows)
}

func (p *program) listCommand() *cobra.Command {
	var f listFlags
	var limit int
	var quiet bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list transactions, youngest first",
		Example: "  decree tx list --unfinished --before 5m\n" +
			"  decree tx list --damaged -o json\n" +
			"  decree tx list --participant bank-a --state aborted --since 1h",
		Args: cobra.NoArgs,
		RunE: p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			if limit < 1 {
				return usagef("--limit %d: must be more than zero", limit)
			}
			if err := f.resolve(); err != nil {
				return err
			}
			return p.list(ctx, c, &f, limit, quiet)
		}),
	}
	f.register(cmd)
	cmd.Flags().IntVarP(&limit, "limit", "n", defaultListLimit, "at most this many")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the txids only")
	return cmd
}

func (p *program) list(ctx context.Context, c *client.Client, f *listFlags, limit int, quiet bool) error {
	var found []*decreev1.Transaction
	more := false
	for t, err := range c.List(ctx, f.filter) {
		if err != nil {
			return err
		}
		wanted, last := f.judge(t)
		if last {
			break
		}
		if !wanted {
			continue
		}
		if more = len(found) == limit; more {
			break
		}
		found = append(found, t)
	}
	switch {
	case p.out.format == formatJSON:
		p.out.message(&decreev1.ListResponse{Transactions: found})
	case quiet:
		for _, t := range found {
			p.out.linef("%s", t.GetTxid())
		}
	default:
		var rows [][]string
		for _, t := range found {
			rows = append(rows, transactionRow(t))
		}
		p.out.table([]string{"TXID", "STATE", "BRANCHES", "STAGED", "TOOK", "DETAIL"}, rows)
		if more {
			p.out.linef("... and more; see --limit")
		}
	}
	return nil
}

func transactionRow(t *decreev1.Transaction) []string {
	var names []string
	for _, b := range t.GetBranches() {
		names = append(names, b.GetParticipant())
	}
	took := ""
	if staged, finished := t.GetStaged().GetTime(), t.GetFinished().GetTime(); staged != nil && finished != nil {
		took = finished.AsTime().Sub(staged.AsTime()).Round(time.Millisecond).String()
	}
	return []string{
		t.GetTxid(), word(t.GetState()), strings.Join(names, ","), shortTime(asTime(t.GetStaged().GetTime())), took,
		cmp.Or(damageText(t.GetDamage()), reasonText(t.GetReason())),
	}
}

func (p *program) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch [TXID]",
		Short: "show state changes as they happen",
		Long: `Shows the state changes of one transaction until it is finished, or those of all until
it is stopped. With -o json, one object a line.

When the node that tells them fails, it goes on at another. Of all transactions the
changes in between are then missed, which is said on stderr; decree tx list tells the
present.`,
		Example: "  decree tx watch\n  decree tx watch 01890a5d-ac96-774b-bcce-b302099a8057 -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: p.attached(func(ctx context.Context, c *client.Client, args []string) error {
			return p.watch(ctx, c, strings.Join(args, ""))
		}),
	}
}

// watchPause is between one stream that broke off and the next.
const watchPause = 250 * time.Millisecond

// watch shows changes until ctx ends, or the transaction does. A watch of all that breaks
// off begins again, unless that fails for the user's patience.
func (p *program) watch(ctx context.Context, c *client.Client, txid string) error {
	told := false // that changes were missed
	for lost := time.Now(); ; {
		began := time.Now()
		err := p.watchOnce(ctx, c, txid)
		if time.Since(began) > watchPause {
			lost, told = time.Now(), false // it had stood
		}
		switch {
		case err == nil || ctx.Err() != nil || p.out.err != nil:
			return nil // it is over, it was stopped, or nobody reads any more, which Run reports
		case txid != "" || !brokeOff(err) || time.Since(lost) > p.dial.patience:
			return err
		case !told:
			p.warn("the watch broke off and goes on; changes in between were missed: " + strings.TrimPrefix(err.Error(), "decree: "))
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// brokeOff tells the end of a stream from a refusal.
func brokeOff(err error) bool {
	for _, reason := range []client.Reason{
		client.ErrUnavailable, client.ErrShuttingDown, client.ErrInternal, client.ErrCanceled, client.ErrNotLeader, client.ErrWatchLagged,
	} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

func (p *program) watchOnce(ctx context.Context, c *client.Client, txid string) error {
	for t, err := range c.Watch(ctx, txid) {
		switch {
		case err != nil:
			return err
		case p.out.format == formatJSON:
			p.out.message(t)
		default:
			state := word(t.GetState())
			p.out.write([]byte(fmt.Sprintf("%s  %s  %s  %s\n", shortTime(lastStamp(t)), safe(t.GetTxid()),
				p.out.paint(tintOf("state", state), fmt.Sprintf("%-10s", state)),
				safe(cmp.Or(damageText(t.GetDamage()), reasonText(t.GetReason()))))))
		}
		if p.out.err != nil {
			return nil
		}
	}
	return nil
}

// lastStamp is when the transaction came into its present state, as far as it is
// stamped.
func lastStamp(t *decreev1.Transaction) time.Time {
	for _, s := range []*decreev1.Stamp{t.GetFinished(), t.GetDecided(), t.GetStaged()} {
		if s.GetTime() != nil {
			return s.GetTime().AsTime()
		}
	}
	return time.Time{}
}

// endText is how phase two ended in a branch, by its participant or an operator.
func endText(b *decreev1.Branch) string {
	if r := resolvedText(b.GetResolved()); r != "" {
		return strings.TrimPrefix(word(b.GetReceipt())+", resolved "+r, ", ")
	}
	return word(b.GetReceipt())
}

// word is an enum value as people say it: STATE_COMMITTED is committed. The zero
// value is nothing.
func word(e protoreflect.Enum) string {
	value := e.Descriptor().Values().ByNumber(e.Number())
	if e.Number() == 0 {
		return ""
	}
	if value == nil {
		return strconv.Itoa(int(e.Number())) // of a newer server
	}
	// Every value begins with the enum's name: ABORT_CODE_VOTE, of AbortCode.
	zero := string(e.Descriptor().Values().ByNumber(0).Name())
	prefix := strings.TrimSuffix(zero, "UNSPECIFIED")
	name := strings.TrimPrefix(string(value.Name()), prefix)
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

func stateNames() []string {
	var names []string
	for n := decreev1.State_STATE_ACTIVE; n <= decreev1.State_STATE_ABORTED; n++ {
		names = append(names, word(n))
	}
	return names
}

func parseStates(names []string) ([]decreev1.State, error) {
	var states []decreev1.State
	for _, name := range names {
		i := slices.Index(stateNames(), strings.ToLower(name))
		if i < 0 {
			return nil, usagef("--state %q: want one of %s", name, strings.Join(stateNames(), ", "))
		}
		states = append(states, decreev1.State(i+1))
	}
	return states, nil
}

func stateText(s decreev1.State) string {
	switch s {
	case decreev1.State_STATE_COMMITTING:
		return "committing (committed, delivery pending)"
	case decreev1.State_STATE_ABORTING:
		return "aborting (aborted, delivery pending)"
	default:
		return word(s)
	}
}

func reasonText(r *decreev1.AbortReason) string {
	if r.GetCode() == decreev1.AbortCode_ABORT_CODE_UNSPECIFIED {
		return ""
	}
	s := word(r.GetCode())
	if r.GetParticipant() != "" {
		s += " by " + r.GetParticipant()
	}
	if r.GetDetail() != "" {
		s += ": " + r.GetDetail()
	}
	return s
}

func damageText(r decreev1.Receipt) string {
	if r < decreev1.Receipt_RECEIPT_HEURISTIC_COMMIT {
		return ""
	}
	return "DAMAGED: " + word(r)
}

func stampText(s *decreev1.Stamp) string {
	if s.GetIndex() == 0 {
		return ""
	}
	return fmt.Sprintf("%s (entry %d, epoch %d)", shortTime(asTime(s.GetTime())), s.GetIndex(), s.GetEpoch())
}

func nextText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return shortTime(t.AsTime())
}

func asTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func positive(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(int(n))
}
