package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/faults"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/coordinator/history"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// play is one playing of a cell.
type play struct {
	ground *ground
	cell   Cell
	round  int

	leader *fleet.Node // that was held
	epoch  uint64      // its epoch
	victim actor
	txid   string          // the probe's
	probe  chan bank.Entry // its answer
}

// play plays a cell: it holds the leader at the step, with the probe transaction,
// lets the fault befall the victim among the traffic of other clients, takes it
// back, and audits. The error says what did not come to pass in time; what is wrong
// is in the findings.
func (g *ground) play(ctx context.Context, c Cell, round int, seed uint64) (played Played, err error) {
	p := &play{ground: g, cell: c, round: round}
	first := len(g.teller.Ledger.Entries())
	g.teller.History = history.NewRecorder()
	played = Played{Cell: c, Round: round}
	began := time.Now()
	defer func() { played.Seconds = time.Since(began).Seconds() }()

	if err := p.hold(ctx); err != nil {
		return played, err
	}
	before := p.epoch
	if !c.step().told {
		played.found.Add(p.auditUndecided(ctx))
	}
	business := g.doBusiness(ctx, seed)
	err = errors.Join(p.suffer(ctx), g.revive(), business.end())
	if err == nil {
		err = p.settle(ctx)
	}
	if g.epoch > before {
		played.Failovers = 1
	}
	played.count(g.teller.Ledger.Entries()[first:])
	if err != nil {
		return played, err
	}
	return played, g.audit(ctx, first, &played)
}

// holdTries is how often the leader is tried to be held: between being found and
// being held it may cease to lead.
const holdTries = 5

// hold submits the probe and waits until the leader is held at the step.
func (p *play) hold(ctx context.Context) error {
	for range holdTries {
		held, err := p.tryHold(ctx)
		if held || err != nil {
			return err
		}
	}
	return fmt.Errorf("no leader came to %s in %d transactions", p.cell.Step, holdTries)
}

func (p *play) tryHold(ctx context.Context) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if p.leader, p.epoch, err = p.ground.leading(ctx, 0, ""); err != nil {
		return false, err
	}
	if err := errors.Join(p.ground.reachable(ctx), p.ground.quiet(ctx, p.leader)); err != nil {
		return false, err
	}
	if err := os.WriteFile(p.failpoint(""), nil, 0o644); err != nil {
		return false, err
	}
	if err := p.submit(ctx); err != nil {
		return false, err
	}
	var answered time.Time
	err = poll(ctx, p.leader.Name()+" to be held at "+p.cell.Step, func(context.Context) bool {
		if len(p.probe) > 0 && answered.IsZero() {
			answered = time.Now()
		}
		_, err := os.Stat(p.failpoint(".hit"))
		held = err == nil
		return held || !answered.IsZero() && time.Since(answered) > afterAnswer
	})
	p.victim = p.chooseVictim()
	return held, errors.Join(err, remove(p.failpoint("")))
}

// afterAnswer is how long after its answer the probe's last steps may take.
const afterAnswer = 2 * time.Second

// failpoint is the file that arms the step at the leader, and with the suffix .hit
// the one that holds it there: see package coordinator.
func (p *play) failpoint(suffix string) string {
	return filepath.Join(p.ground.failpoints(p.leader.Name()), p.cell.Step+suffix)
}

// release lets the leader go on at its step, if it lives.
func (p *play) release() error { return remove(p.failpoint(".hit")) }

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// submit sends the probe. Nothing but the fault stands against it, so that it
// commits, unless the fault keeps a participant from voting.
func (p *play) submit(ctx context.Context) (err error) {
	if p.txid, err = client.NewTxID(); err != nil {
		return err
	}
	o := bank.Order{TxID: p.txid, Expect: bank.MustCommit}
	if p.cell.Victim == Participant && !p.cell.step().voted {
		o.Expect = bank.Either
	}
	for i, name := range bankNames {
		o.Moves = append(o.Moves, bank.Move{Account: bank.Account{Bank: name, Name: probeAccount}, Amount: int64(2*i - 1)})
	}
	probe := make(chan bank.Entry, 1)
	p.probe = probe
	teller := p.ground.teller
	go func() {
		e, err := teller.Submit(context.WithoutCancel(ctx), o)
		if err != nil {
			e.Err = err
		}
		probe <- e
	}()
	return nil
}

// chooseVictim takes one follower or participant, and in the next round, or the
// neighbouring cell, the other.
func (p *play) chooseVictim() actor {
	n := p.cell.number() + p.round
	switch p.cell.Victim {
	case Leader:
		return actor{p.leader.Process, p.ground.disks[p.leader.Name()]}
	case Follower:
		f := p.followers()[n%2]
		return actor{f.Process, p.ground.disks[f.Name()]}
	default:
		return p.ground.desks[n%len(p.ground.desks)].actor
	}
}

func (p *play) followers() []*fleet.Node {
	return slices.DeleteFunc(slices.Clone(p.ground.nodes), func(n *fleet.Node) bool { return n == p.leader })
}

// peer is whom the leader is cut off from when it loses one link: the victim, or
// where it is the victim itself, a follower.
func (p *play) peer() string {
	if p.cell.Victim == Leader {
		return p.followers()[(p.cell.number()+p.round)%2].Name()
	}
	return p.victim.Name()
}

// failSync has a participant started anew when it is over: after a failed fsync it
// answers nothing any more, as it should. A node ends by itself.
func (p *play) failSync() (faults.Undo, error) {
	undo, err := faults.FailSync(p.victim.Process)
	if err != nil || p.cell.Victim != Participant {
		return undo, err
	}
	restart := func() error { return faults.Restart(p.victim.Process) }
	return faults.All(restart, undo), nil
}

// suffer lets the fault befall the victim, waits until the transaction has survived
// it, and takes it back.
func (p *play) suffer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	undo, err := p.cell.fault().strike(p)
	if err != nil {
		return errors.Join(err, p.release())
	}
	if !p.late() {
		err = p.release()
	}
	return errors.Join(err, p.survive(ctx), p.release(), undo(), p.awaitGone(ctx))
}

// late reports whether the leader stays at its step until another leads. One that
// goes on at once has not noticed anything yet; one that wakes up late acts on what
// was true long ago. Of a leader that can do both, every other round does either.
func (p *play) late() bool {
	if p.cell.Victim != Leader {
		return false
	}
	f := p.cell.fault()
	return f.deposes && !f.ends && (!f.slips || p.round%2 == 0)
}

// survive waits until all has happened that has to in spite of the fault: another
// node leads, a broken node has ended, and the probe's client and others have their
// answers. Where a participant can't hear it, the probe's decision is made at least.
func (p *play) survive(ctx context.Context) error {
	if p.cell.deposes() {
		if err := p.awaitSuccessor(ctx); err != nil {
			return err
		}
	}
	if p.ends() {
		if err := p.awaitEnd(ctx); err != nil {
			return err
		}
	}
	if p.cell.Victim == Participant {
		return p.awaitDecision(ctx)
	}
	err := errors.Join(p.awaitAnswer(ctx), p.awaitOthers(ctx))
	if p.cell.fault().spares && !p.victim.Alive() {
		err = errors.Join(err, fmt.Errorf("%s has ended, though it kept room for what was under way", p.victim.Name()))
	}
	return err
}

func (p *play) awaitSuccessor(ctx context.Context) error {
	_, epoch, err := p.ground.leading(ctx, p.epoch, p.leader.Name())
	p.ground.epoch = max(p.ground.epoch, epoch)
	return err
}

// awaitEnd waits for the guard of a node whose disk is broken.
func (p *play) awaitEnd(ctx context.Context) error {
	return poll(ctx, p.victim.Name()+" to end, whose disk is broken", func(context.Context) bool {
		return faults.Exited(p.victim.Process)
	})
}

// awaitGone waits until a node that has ended is gone, and can be started again.
func (p *play) awaitGone(ctx context.Context) error {
	if !p.ends() {
		return nil
	}
	select {
	case <-p.victim.Ended():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waited in vain for %s to be gone: %w", p.victim.Name(), ctx.Err())
	}
}

// ends reports whether the victim has to end by itself.
func (p *play) ends() bool { return p.cell.fault().ends && p.cell.Victim != Participant }

func (p *play) awaitDecision(ctx context.Context) error {
	return poll(ctx, "the probe's decision", func(ctx context.Context) bool {
		t, err := p.ground.client.Get(ctx, p.txid)
		return err == nil && t.GetDecided() != nil
	})
}

func (p *play) awaitAnswer(ctx context.Context) error {
	select {
	case e := <-p.probe:
		p.probe <- e // for whoever else waits
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waited in vain for the probe's answer: %w", ctx.Err())
	}
}

// awaitOthers waits until some clients more are answered: a cluster of which less
// than half is broken serves.
func (p *play) awaitOthers(ctx context.Context) error {
	want := p.cell.fault().answers
	if want == 0 {
		want = usualAnswers
	}
	ledger := p.ground.teller.Ledger
	already := len(ledger.Entries())
	return poll(ctx, fmt.Sprintf("%d answers to other clients", want), func(context.Context) bool {
		return len(ledger.Entries()) >= already+want
	})
}

// settle waits for the probe's answer and until nothing is under way.
func (p *play) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := errors.Join(p.awaitAnswer(ctx), p.ground.settle(ctx)); err != nil {
		return err
	}
	_, epoch, err := p.ground.leading(ctx, 0, "")
	p.ground.epoch = max(p.ground.epoch, epoch)
	return err
}

// auditUndecided asks the participants themselves, while the leader is held: none
// may have committed what is not decided, or was told to nobody (rule R2).
func (p *play) auditUndecided(ctx context.Context) (found bank.Findings) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for i, d := range p.ground.desks {
		got, err := d.api.Status(ctx, &participantv1.StatusRequest{Branch: &participantv1.Branch{
			Cluster: p.ground.cluster, Txid: p.txid, Number: uint32(i + 1), Epoch: p.epoch,
		}})
		switch {
		case err != nil:
			note(&found, "%s does not tell what it has of %s: %v", d.Name(), p.txid, err)
		case got.GetStatus() == participantv1.BranchStatus_BRANCH_STATUS_COMMITTED:
			note(&found, "%s has committed %s while the leader was at %s", d.Name(), p.txid, p.cell.Step)
		}
	}
	return found
}

func note(f *bank.Findings, format string, args ...any) {
	f.Add(bank.Findings{Texts: []string{fmt.Sprintf(format, args...)}, Count: 1})
}

// audit holds everything against everything else. Of the ledger, all entries count
// for the money, and those from the first of this cell for the history.
func (g *ground) audit(ctx context.Context, first int, played *Played) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	entries := g.teller.Ledger.Entries()
	var views []bank.NodeView
	for _, endpoint := range g.nodes.Endpoints() {
		view, err := bank.ReadNode(ctx, endpoint, g.papers.Operator())
		if err != nil {
			return fmt.Errorf("read the node at %s: %w", endpoint, err)
		}
		views = append(views, view)
	}
	var books []bank.Books
	for _, d := range g.desks {
		held, err := d.office.Prepared(ctx, g.cluster)
		played.found.Add(bank.AuditPrepared(d.Name(), held, err))
		b, err := d.books(ctx, g.cluster)
		if err != nil {
			return fmt.Errorf("read the books of %s: %w", d.Name(), err)
		}
		books = append(books, b)
	}
	for _, found := range []bank.Findings{
		bank.AuditAnswers(entries[first:]),
		bank.AuditMeddling(g.teller.Ledger.Refusals()),
		bank.AuditNodes(entries, views),
		bank.AuditDamage(views),
		bank.AuditBranches(views[0], books),
		bank.AuditMoney(entries, views[0], books, g.teller.Total()),
	} {
		played.found.Add(found)
	}
	g.judge(entries[first:], views, books, played)
	return nil
}

// judge has the history of the cell judged, together with what nodes and
// participants show of its transactions in the end (rule R1).
func (g *ground) judge(entries []bank.Entry, views []bank.NodeView, books []bank.Books, played *Played) {
	fresh := map[string]bool{}
	for _, e := range entries {
		fresh[e.TxID] = true
	}
	for i, view := range views {
		views[i].Transactions = maps.Clone(view.Transactions)
		maps.DeleteFunc(views[i].Transactions, func(txid string, _ *decreev1.Transaction) bool { return !fresh[txid] })
	}
	for _, b := range books {
		for branch := range b.Fates {
			if !fresh[branch.TxID] {
				delete(b.Fates, branch)
			}
		}
	}
	bank.RecordViews(g.teller.History, watchers, views)
	bank.RecordBooks(g.teller.History, watchers+len(views), books)
	found, violations := bank.AuditHistory(g.teller.History.Ops())
	played.found.Add(found)
	played.violations = violations
}
