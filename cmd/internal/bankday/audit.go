package bankday

import (
	"cmp"
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
	// restLook bounds one look at whether everything is at rest: a few questions to
	// nodes and resources.
	restLook = 5 * time.Second
)

// looks are what was seen in the books while business went on.
type looks struct {
	count int
	found bank.Findings
}

// lookIntoBooks audits the books of the databases, one after the other, until ctx
// ends. A database that a fault has hit may not show its books.
func (d *day) lookIntoBooks(ctx context.Context) error {
	for {
		start := time.Now()
		for _, o := range d.banks {
			live, ok := o.Office.(bank.Live)
			if !ok || ctx.Err() != nil {
				continue
			}
			if err := d.look(ctx, live); err != nil && ctx.Err() == nil && len(d.cfg.Faults) == 0 {
				return fmt.Errorf("look into the books of %s: %w", o.name, err)
			}
		}
		if !sleep(ctx, max(lookPause, restShare*time.Since(start))) {
			return nil
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

// settling is how the day came to rest.
type settling struct {
	took time.Duration
	open string // what was still under way when patience was over; empty for nothing
}

// findings are of what did not come to rest.
func (s settling) findings() bank.Findings {
	if s.open == "" {
		return bank.Findings{}
	}
	return bank.Findings{Texts: []string{fmt.Sprintf("%s after the end %s", s.took.Round(time.Millisecond), s.open)}, Count: 1}
}

// settle waits until nothing is under way: all nodes run, every transaction is
// finished, and no resource holds anything prepared. Every fault is over. What does
// not settle in time is a finding, also if it does before it is audited.
func (d *day) settle(ctx context.Context) (rest settling) {
	start := time.Now()
	bounded, cancel := context.WithTimeout(ctx, cmp.Or(d.cfg.recovery, patience))
	defer cancel()
	told := start
	err := poll(bounded, "everything to be delivered", func() (bool, error) {
		// A look has a bound of its own: what one finds that time cuts short says
		// nothing of what is under way.
		looking, done := context.WithTimeout(ctx, restLook)
		defer done()
		open, err := d.unsettled(looking)
		if open != "" || bounded.Err() == nil { // rest that comes too late is told by what it waited for
			rest.open = open
		}
		if open != "" && time.Since(told) > progressEvery {
			told = time.Now()
			d.out.say("waiting: %s", open)
		}
		return rest.open == "", err
	})
	if err != nil && rest.open == "" {
		rest.open = err.Error()
	}
	rest.took = time.Since(start)
	return rest
}

// unsettled names one thing that is still under way; nothing where all is at rest.
func (d *day) unsettled(ctx context.Context) (string, error) {
	var index uint64
	for _, n := range d.cluster {
		if !n.Alive() { // killed when the day ended
			if err := n.Start(); err != nil {
				return "", err
			}
		}
		status, err := d.client.NodeStatus(ctx, n.Endpoint)
		switch applied := status.GetAppliedIndex(); {
		case err != nil:
			return fmt.Sprintf("%s does not answer: %v", n.Name(), err), nil
		case status.GetUnfinished() > 0:
			return fmt.Sprintf("%s has %d unfinished transactions", n.Name(), status.GetUnfinished()), nil
		case applied == 0 || index != 0 && applied != index:
			return n.Name() + " has not applied what the others have", nil
		default:
			index = applied
		}
	}
	for _, o := range d.banks {
		switch held, err := o.Prepared(ctx, d.id); {
		case err != nil:
			return fmt.Sprintf("what %s holds prepared is not known: %v", o.name, err), nil
		case len(held) > 0:
			return fmt.Sprintf("%s holds %d prepared, such as %s", o.name, len(held), held[0]), nil
		}
	}
	return "", nil
}

// check is one part of the audit.
type check struct {
	what, fine string
	found      bank.Findings
}

// audit reads everything: every node, and every resource behind decree's back. It
// stops the services that keep their books in files.
func (d *day) audit(ctx context.Context) ([]check, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+time.Since(d.out.start)) // a long day has long books
	defer cancel()
	var views []bank.NodeView
	for _, endpoint := range d.cluster.Endpoints() {
		view, err := bank.ReadNode(ctx, endpoint, d.papers.Operator())
		if err != nil {
			return nil, fmt.Errorf("read the node at %s: %w", endpoint, err)
		}
		views = append(views, view)
	}
	books, prepared, err := d.readBooks(ctx)
	if err != nil {
		return nil, err
	}
	d.judge(views, books)
	for _, s := range d.shifts {
		prepared.Add(s.rest.findings())
	}
	return d.report(prepared), nil
}

// judge closes the history with what was found in the end, and has it judged. All of
// it is evidence.
func (d *day) judge(views []bank.NodeView, books []bank.Books) {
	h := d.teller.History
	first := 2 * d.cfg.Workers // workers, and those who meddle, have the numbers below
	bank.RecordViews(h, first, views)
	bank.RecordBooks(h, first+len(views), books)
	d.evidence = evidence{entries: d.teller.Ledger.Entries(), views: views, books: books, history: h.Ops()}
	d.evidence.judged, d.evidence.violations = bank.AuditHistory(d.evidence.history)
}

// report is the audit of what was read. What is left prepared is known already.
func (d *day) report(prepared bank.Findings) []check {
	entries, views, books := d.evidence.entries, d.evidence.views, d.evidence.books
	answers := bank.AuditAnswers(entries)
	answers.Add(bank.AuditMeddling(d.teller.Ledger.Refusals()))
	branches, late := 0, 0
	for _, b := range books {
		branches += len(b.Fates)
	}
	for _, e := range entries {
		if e.Late {
			late++
		}
	}
	var nodes []string
	for _, v := range views {
		nodes = append(nodes, v.Node)
	}
	slices.Sort(nodes)
	total := d.teller.Total()
	all := []check{
		{"answers", fmt.Sprintf("%d orders, none without an outcome; %d learnt it only when they asked again", len(entries), late), answers},
		{"nodes", strings.Join(nodes, ", ") + " tell the same of every transaction, and what its client was told", bank.AuditNodes(entries, views)},
		{"history", fmt.Sprintf("of %d calls and looks, all can be true of decisions that are made once", len(d.evidence.history)), d.evidence.judged},
		{"branches", fmt.Sprintf("%d in the resources themselves, exactly as the log has them", branches), bank.AuditBranches(views[0], books)},
		{"heuristics", "none", bank.AuditDamage(views)},
		{"prepared", "nothing is left, " + d.restText(), prepared},
		{"money", fmt.Sprintf("%d, as at the start; every account is what the committed orders make it", total), bank.AuditMoney(entries, views[0], books, total)},
		{"meanwhile", fmt.Sprintf("in %d looks at a database under way its accounts were what its marker rows said", d.looks.count), d.looks.found},
	}
	if len(d.cfg.Faults) > 0 {
		all = append(all, check{"recovery", "the cluster led again after each fault", d.troubles.found})
	}
	if d.cfg.Failovers > 0 {
		all = append(all, d.auditFailovers())
	}
	return all
}

// restText is after how long each shift was at rest.
func (d *day) restText() string {
	var all []string
	for _, s := range d.shifts {
		all = append(all, s.rest.took.Round(time.Millisecond).String())
	}
	return strings.Join(all, ", ") + " after the end"
}

// auditFailovers holds that there were as many as were asked for.
func (d *day) auditFailovers() check {
	seen := d.reigns.failovers()
	c := check{what: "failovers", fine: fmt.Sprintf("%d, and %d were asked for", seen, d.cfg.Failovers)}
	if seen < d.cfg.Failovers {
		c.found = bank.Findings{Texts: []string{fmt.Sprintf("only %d, and %d were asked for", seen, d.cfg.Failovers)}, Count: 1}
	}
	return c
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
