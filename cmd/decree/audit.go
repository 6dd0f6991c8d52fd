package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const auditHelp = `Shows who changed what and why: participants, nodes, leadership, branches that an
operator resolved, transactions of others that he ended. The trail is a part of the
replicated state, the same on every node; the last 10,000 records of the last 400 days
are kept.

An action that the log does not carry out itself, such as a change of the membership,
is recorded before it is tried, and its failure with another record.`

const (
	// auditPage is how many records are asked for at a time.
	auditPage = 1000
	// followPause is how often a followed trail is asked for what is new.
	followPause = time.Second
)

func (p *program) auditCommand() *cobra.Command {
	var (
		limit  int
		follow bool
	)
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "show what operators did, when and why",
		Long:  auditHelp,
		Args:  cobra.NoArgs,
	}
	p.dial.register(cmd)
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "show so many of the last records; 0 for all")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is new, until stopped")
	show := p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		records, err := lastRecords(ctx, c, 0, limit)
		if err == nil {
			p.showAudit(records)
		}
		return err
	})
	followed := p.attached(func(ctx context.Context, c *client.Client, _ []string) error {
		return p.followAudit(ctx, c, limit)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return usagef("--limit %d: must not be negative", limit)
		}
		if follow {
			return followed(cmd, args)
		}
		return show(cmd, args)
	}
	return cmd
}

// lastRecords are the last of those with a number above after, at most limit unless that
// is 0, the oldest first.
func lastRecords(ctx context.Context, c *client.Client, after uint64, limit int) ([]*decreev1.AuditRecord, error) {
	var records []*decreev1.AuditRecord
	before := uint64(0)
	for {
		size := auditPage
		if limit > 0 {
			size = min(size, limit-len(records))
		}
		page, err := c.Audit(ctx, after, before, uint32(size))
		if err != nil {
			return nil, err
		}
		records = append(records, page.Records...)
		if page.Next == 0 || limit > 0 && len(records) >= limit {
			slices.Reverse(records)
			return records, nil
		}
		before = page.Next
	}
}

// followAudit shows the last records and then what is new.
func (p *program) followAudit(ctx context.Context, c *client.Client, limit int) error {
	last := uint64(0)
	for {
		bounded, cancel := context.WithTimeout(ctx, p.dial.patience)
		records, err := lastRecords(bounded, c, last, limit)
		cancel()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped, as was asked for
		}
		if err != nil {
			return err
		}
		if len(records) > 0 {
			last, limit = records[len(records)-1].GetNumber(), 0
			p.showAudit(records)
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *program) showAudit(records []*decreev1.AuditRecord) {
	if p.out.format == formatJSON {
		for _, r := range records {
			p.out.message(r)
		}
		return
	}
	var rows [][]string
	for _, r := range records {
		action := r.GetAction()
		if r.GetRefused() {
			action += ": refused"
		}
		rows = append(rows, []string{
			strconv.FormatUint(r.GetNumber(), 10), shortTime(asTime(r.GetTime())), r.GetWho(), action,
			r.GetTarget(), r.GetDetail(), r.GetReason(),
		})
	}
	p.out.table([]string{"NUMBER", "TIME", "WHO", "ACTION", "TARGET", "DETAIL", "REASON"}, rows)
}

// onRecord gives a command a reason for the audit trail.
func onRecord(cmd *cobra.Command) *cobra.Command {
	var reason string
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit trail (decree audit)")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cmd.SetContext(client.Because(cmd.Context(), reason))
		return run(cmd, args)
	}
	return cmd
}
