package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/transport/client"
)

// settle waits until nothing is under way: every node has applied every outcome,
// and no participant holds anything prepared. What does not settle is for the
// audit to tell.
func (d *demo) settle(ctx context.Context) error {
	d.say("waiting until everything is delivered everywhere")
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	entries := d.teller.Ledger.Entries()
	err := poll(bounded, "everything to be delivered", func() (bool, error) {
		views, err := d.readNodes(bounded)
		if err != nil || bank.AuditNodes(entries, views).Count > 0 {
			return false, err
		}
		for _, p := range d.probes {
			if held, err := p.prepared(bounded, d.id); err != nil || len(held) > 0 {
				return false, err
			}
		}
		return true, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	return err
}

func (d *demo) readNodes(ctx context.Context) ([]bank.NodeView, error) {
	var views []bank.NodeView
	for _, endpoint := range d.cluster.endpoints() {
		view, err := bank.ReadNode(ctx, endpoint, client.Security{})
		if err != nil {
			return nil, fmt.Errorf("read the node at %s: %w", endpoint, err)
		}
		views = append(views, view)
	}
	return views, nil
}

// audit reads everything and prints what it finds. It stops the participants,
// because a kv file is read when nobody writes it.
func (d *demo) audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	entries := d.teller.Ledger.Entries()
	views, err := d.readNodes(ctx)
	if err != nil {
		return err
	}
	books, err := d.readBooks(ctx, entries)
	if err != nil {
		return err
	}
	nodes := make([]string, len(views))
	for i, v := range views {
		nodes[i] = v.Node
	}
	slices.Sort(nodes)
	report := []struct {
		what, fine string
		found      bank.Findings
	}{
		{"answers", tally(entries) + "; none unknown", bank.AuditAnswers(entries)},
		{"nodes", strings.Join(nodes, ", ") + " tell the same outcome of every transaction", bank.AuditNodes(entries, views)},
		{"participants", "every branch ended as decided; nothing is left prepared", bank.AuditBranches(views[0], books)},
		{"money", fmt.Sprintf("%d, as at the start; every account is what the committed transfers make it", d.teller.Total()),
			bank.AuditMoney(entries, views[0], books, d.teller.Total())},
	}
	wrong := 0
	fmt.Fprintln(d.cfg.Out)
	for _, line := range report {
		wrong += line.found.Count
		d.printFindings(line.what, line.fine, line.found)
	}
	d.printFindings("failovers", d.failoverText(), bank.Findings{})
	if wrong > 0 {
		fmt.Fprintf(d.cfg.Out, "\nFAILED: %d findings\n", wrong)
		return fmt.Errorf("%w: %d findings", ErrWrong, wrong)
	}
	fmt.Fprintln(d.cfg.Out, "\nPASSED")
	return nil
}

func (d *demo) printFindings(what, fine string, found bank.Findings) {
	if found.Count == 0 {
		fmt.Fprintf(d.cfg.Out, "  ok     %-13s %s\n", what, fine)
		return
	}
	for _, text := range found.Texts {
		fmt.Fprintf(d.cfg.Out, "  WRONG  %-13s %s\n", what, text)
	}
	if more := found.Count - len(found.Texts); more > 0 {
		fmt.Fprintf(d.cfg.Out, "  WRONG  %-13s ... and %d more\n", what, more)
	}
}

func (d *demo) failoverText() string {
	var times []string
	for _, t := range d.failovers {
		times = append(times, t.Round(time.Millisecond).String())
	}
	return fmt.Sprintf("%d leaders killed; the next client was answered after %s", len(times), strings.Join(times, " and "))
}

// readBooks asks the courier, which forgets everything when it stops, and then
// reads the files of the banks.
func (d *demo) readBooks(ctx context.Context, entries []bank.Entry) ([]bank.Books, error) {
	status, err := d.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	books, err := d.probes[d.courier.name].books(ctx, d.id, status.GetEpoch(), entries)
	if err != nil {
		return nil, err
	}
	all := []bank.Books{books}
	for _, s := range d.banks {
		if err := s.stop(); err != nil {
			return nil, err
		}
		books, err := d.offices[s.name].Books(ctx, d.id)
		if err != nil {
			return nil, err
		}
		all = append(all, books)
	}
	return all, nil
}

// stop ends everything that runs, whatever has happened before.
func (d *demo) stop() error {
	var errs []error
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	for _, p := range d.probes {
		errs = append(errs, p.conn.Close())
	}
	for _, o := range d.offices {
		errs = append(errs, o.Close())
	}
	if d.cluster != nil {
		_, err := d.cluster.run("stop")
		errs = append(errs, err)
	}
	for _, s := range append([]*service{d.courier}, d.banks...) {
		errs = append(errs, s.stop())
	}
	return errors.Join(errs...)
}

// tally counts the answers, and the reasons of those that aborted.
func tally(entries []bank.Entry) string {
	committed, aborted := 0, 0
	reasons := map[string]int{}
	for _, e := range entries {
		switch {
		case e.Committed():
			committed++
		case e.Err == nil:
			aborted++
			reasons[reason(e)]++
		}
	}
	var why []string
	for _, name := range []string{"asked for too much", "no van today", "account busy", "other"} {
		if n := reasons[name]; n > 0 {
			why = append(why, fmt.Sprintf("%d %s", n, name))
		}
	}
	text := fmt.Sprintf("%d transactions: %d committed, %d aborted", len(entries), committed, aborted)
	if len(why) > 0 {
		text += " (" + strings.Join(why, ", ") + ")"
	}
	return text
}

// reason puts an abort into one of a few classes, for the tally only.
func reason(e bank.Entry) string {
	switch {
	case e.Expect == bank.MustAbort && e.Errand != nil:
		return "no van today"
	case e.Expect == bank.MustAbort:
		return "asked for too much"
	case e.Result.Reason.Code == client.AbortVote:
		return "account busy"
	default:
		return "other"
	}
}
