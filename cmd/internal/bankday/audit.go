package bankday

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
)

const (
	// lookPause is how long nobody looks into the books at least, and restShare how
	// many times longer than a look took: a look reads all there is, and must not
	// become the load.
	lookPause = 2 * time.Second
	restShare = 10
)

// looks are what was seen in the books while business went on.
type looks struct {
	count int
	found bank.Findings
}

// lookIntoBooks audits the books of the databases, one after the other, until ctx
// ends.
func (d *day) lookIntoBooks(ctx context.Context) error {
	for {
		start := time.Now()
		for _, o := range d.banks {
			if live, ok := o.Office.(bank.Live); ok && ctx.Err() == nil {
				if err := d.look(ctx, live); err != nil && ctx.Err() == nil {
					return fmt.Errorf("look into the books of %s: %w", o.name, err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(lookPause, restShare*time.Since(start))):
		}
	}
}

func (d *day) look(ctx context.Context, office bank.Live) error {
	before := d.teller.Ledger.Entries()
	books, err := office.Posted(ctx, d.id)
	if err != nil {
		return err
	}
	running := d.teller.Ledger.Running() // first, so that no order is between the two
	found := bank.AuditPosted(before, d.teller.Ledger.Entries(), running, books)
	for _, text := range found.Texts {
		d.out.say("WRONG: %s", text)
	}
	d.looks.count++
	d.looks.found.Add(found)
	return nil
}

// settle waits until nothing is under way: all nodes run, every transaction is
// finished, and no resource holds anything prepared. What does not settle is for
// the audit to tell.
func (d *day) settle(ctx context.Context) {
	d.out.say("waiting until everything is delivered")
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := poll(bounded, "everything to be delivered", func() (bool, error) {
		var index uint64
		for _, n := range d.cluster {
			if !n.Alive() {
				if err := n.Start(); err != nil { // killed when the day ended
					return false, err
				}
			}
			status, err := d.client.NodeStatus(bounded, n.Endpoint)
			if err != nil || status.GetUnfinished() > 0 || status.GetAppliedIndex() == 0 {
				return false, nil
			}
			if index != 0 && status.GetAppliedIndex() != index {
				return false, nil
			}
			index = status.GetAppliedIndex()
		}
		for _, o := range d.banks {
			if held, err := o.Prepared(bounded, d.id); err != nil || len(held) > 0 {
				return false, nil // a stranger among them is the audit's to tell
			}
		}
		return true, nil
	})
	if err != nil {
		d.out.say("%v", err)
	}
}

// check is one part of the audit.
type check struct {
	what, fine string
	found      bank.Findings
}

// audit reads everything: every node, and every resource behind decree's back. It
// stops the services that keep their books in files.
func (d *day) audit(ctx context.Context) ([]check, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+d.ended.Sub(d.began)) // a long day has long books
	defer cancel()
	entries := d.teller.Ledger.Entries()
	var views []bank.NodeView
	var nodes []string
	for _, endpoint := range d.cluster.Endpoints() {
		view, err := bank.ReadNode(ctx, endpoint)
		if err != nil {
			return nil, fmt.Errorf("read the node at %s: %w", endpoint, err)
		}
		views, nodes = append(views, view), append(nodes, view.Node)
	}
	books, prepared, err := d.readBooks(ctx)
	if err != nil {
		return nil, err
	}
	d.evidence = evidence{entries, views, books}
	branches := 0
	for _, b := range books {
		branches += len(b.Fates)
	}
	slices.Sort(nodes)
	total := d.teller.Total()
	return []check{
		{"answers", fmt.Sprintf("%d orders, none without an outcome", len(entries)), bank.AuditAnswers(entries)},
		{"nodes", strings.Join(nodes, ", ") + " tell the same of every transaction, and what its client was told", bank.AuditNodes(entries, views)},
		{"branches", fmt.Sprintf("%d in the resources themselves, exactly as the log has them", branches), bank.AuditBranches(views[0], books)},
		{"prepared", "nothing is left", prepared},
		{"money", fmt.Sprintf("%d, as at the start; every account is what the committed orders make it", total), bank.AuditMoney(entries, views[0], books, total)},
		{"meanwhile", fmt.Sprintf("in %d looks at a database under way its accounts were what its marker rows said", d.looks.count), d.looks.found},
	}, nil
}

// readBooks reads what every resource shows. What is prepared is asked for first,
// while the services run.
func (d *day) readBooks(ctx context.Context) ([]bank.Books, bank.Findings, error) {
	var prepared bank.Findings
	var all []bank.Books
	for _, o := range d.banks {
		held, err := o.Prepared(ctx, d.id)
		prepared.Add(bank.AuditPrepared(o.name, held, err))
		if o.service != nil {
			if err := o.service.Stop(); err != nil {
				return nil, prepared, err
			}
		}
		books, err := o.Books(ctx, d.id)
		if err != nil {
			return nil, prepared, errors.Join(fmt.Errorf("read the books of %s: %w", o.name, err), ctx.Err())
		}
		all = append(all, books)
	}
	return all, prepared, nil
}
