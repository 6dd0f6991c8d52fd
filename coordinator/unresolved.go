package coordinator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Bounds of what an operator is shown and asks for at once (rule R14).
const (
	// MaxUnresolved bounds one list. What is over it is listed once some of it is
	// decided.
	MaxUnresolved = 10_000
	// MaxArbitrated bounds the transactions of one decision, some milliseconds of the
	// log.
	MaxArbitrated = 1000
	// probedBranches is how many branch numbers of an unknown transaction participants
	// are asked about: the participants that a transaction has are seldom more.
	probedBranches = 16
)

// Unresolved is a transaction that the cluster may not decide, because its decision may
// have been made and lost (rule R15), or that is older than the horizon and still
// prepared somewhere.
type Unresolved struct {
	ID          txn.TxID
	Transaction *txn.Transaction // nil where the log does not know it
	Evidence    []Evidence       // by participant, then by branch
}

// Evidence is what a participant says of a branch.
type Evidence struct {
	Participant string
	Branch      int
	Status      participants.Status
	Err         error // why there is none; Status is StatusUnknown then
}

// Decided is what evidence says of the decision that was made: commit where some branch
// has committed, abort where one has proof of an abort, and Undecided where neither is
// known, or both are.
func (u Unresolved) Decided() txn.Decision {
	var committed, aborted bool
	for _, e := range u.Evidence {
		committed = committed || e.Status == participants.StatusCommitted
		aborted = aborted || e.Status == participants.StatusAborted
	}
	switch {
	case committed && !aborted:
		return txn.Commit
	case aborted && !committed:
		return txn.Abort
	default:
		return txn.Undecided
	}
}

// Unresolved lists what an operator has to decide: what is undecided since before a
// restore, and what participants hold prepared although nobody may presume its abort.
// Evidence is what they hold prepared. away are the participants that could not be
// asked, with why: what they hold is missing. The list ends at MaxUnresolved; more says
// so.
func (c *Coordinator) Unresolved(ctx context.Context) (list []Unresolved, away map[string]error, more bool, err error) {
	t, ctx, done, err := c.withinTerm(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	defer done()
	held, away := t.allPrepared(ctx)
	if err := t.log.Barrier(ctx); err != nil {
		return nil, nil, false, err
	}
	found := make(map[txn.TxID]*Unresolved)
	for tx := range t.view.Open {
		if t.view.Cluster().Held(tx) {
			found[tx.ID] = &Unresolved{ID: tx.ID, Transaction: tx}
		}
	}
	for name, branches := range held {
		for _, b := range branches {
			if u := t.unresolved(found, b.TxID); u != nil {
				u.Evidence = append(u.Evidence, Evidence{Participant: name, Branch: b.Number, Status: participants.StatusPrepared})
			}
		}
	}
	for _, u := range found {
		slices.SortFunc(u.Evidence, compareEvidence)
		list = append(list, *u)
	}
	slices.SortFunc(list, func(a, b Unresolved) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	if len(list) > MaxUnresolved {
		return list[:MaxUnresolved], away, true, nil
	}
	return list, away, false, nil
}

// unresolved is the entry of a prepared branch's transaction, nil where the cluster
// decides that itself. A barrier has been passed.
func (t *term) unresolved(found map[txn.TxID]*Unresolved, id txn.TxID) *Unresolved {
	if u := found[id]; u != nil {
		return u
	}
	if _, known := t.view.Transaction(id); known || !t.beyond(id) {
		return nil
	}
	found[id] = &Unresolved{ID: id}
	return found[id]
}

// beyond reports whether a txid that the log does not know is one that nobody may
// presume.
func (t *term) beyond(id txn.TxID) bool {
	cluster := t.view.Cluster()
	return cluster.CheckGroup(id) == nil && (cluster.Lost(id) || id.Time() < cluster.Horizon)
}

func compareEvidence(a, b Evidence) int {
	return cmp.Or(cmp.Compare(a.Participant, b.Participant), cmp.Compare(a.Branch, b.Branch))
}

// allPrepared asks every participant that can tell for what it holds prepared.
func (t *term) allPrepared(ctx context.Context) (held map[string][]participants.Branch, away map[string]error) {
	held, away = make(map[string][]participants.Branch), make(map[string]error)
	var mu sync.Mutex
	t.each(ctx, t.registered(), scansAtOnce, func(name string) {
		t.mu.Lock()
		l := t.lane(name)
		t.mu.Unlock()
		found, err := l.prepared(ctx)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			away[name] = err
			return
		}
		held[name] = found
	})
	return held, away
}

// each calls look for every name, so many at a time, and waits for all.
func (t *term) each(ctx context.Context, names []string, atOnce int, look func(string)) {
	room := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for _, name := range names {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			all.Wait()
			return
		}
		all.Go(func() {
			defer func() { <-room }()
			look(name)
		})
	}
	all.Wait()
}

// Evidence asks the participants what became of a transaction that is unresolved, or was
// decided with its branches unknown, and answers txn.ErrNotLost for any other. It asks
// about the branches that are known, and where none are, every participant about the first
// sixteen.
func (c *Coordinator) Evidence(ctx context.Context, id txn.TxID) (Unresolved, error) {
	t, ctx, done, err := c.withinTerm(ctx)
	if err != nil {
		return Unresolved{}, err
	}
	defer done()
	if err := t.log.Barrier(ctx); err != nil {
		return Unresolved{}, err
	}
	tx, known := t.view.Transaction(id)
	if known && !t.view.Cluster().Held(tx) && !tx.Tombstone() || !known && !t.beyond(id) {
		if err := t.view.Cluster().CheckGroup(id); err != nil {
			return Unresolved{ID: id}, err
		}
		return Unresolved{ID: id, Transaction: tx}, txn.ErrNotLost
	}
	u := Unresolved{ID: id, Transaction: tx}
	var mu sync.Mutex
	t.each(ctx, t.askedAbout(tx), scansAtOnce, func(name string) {
		found := t.evidenceAt(ctx, name, id, tx)
		mu.Lock()
		defer mu.Unlock()
		u.Evidence = append(u.Evidence, found...)
	})
	slices.SortFunc(u.Evidence, compareEvidence)
	return u, ctx.Err()
}

// askedAbout are the participants that may have a branch.
func (t *term) askedAbout(tx *txn.Transaction) []string {
	if tx == nil || tx.State != txn.Preparing {
		return t.registered()
	}
	var names []string
	for _, b := range tx.Branches {
		names = append(names, b.Participant)
	}
	return names
}

// errNoEvidence is what a participant without a record of ends has to say.
var errNoEvidence = errors.New("this participant keeps no record of how a branch ended, and does not hold it prepared")

// evidenceAt is what one participant has to say: of its branch, where that is known, and
// else of each branch of which it has a record.
func (t *term) evidenceAt(ctx context.Context, name string, id txn.TxID, tx *txn.Transaction) (found []Evidence) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.DeliveryTimeout)
	defer cancel()
	t.mu.Lock()
	l := t.lane(name)
	t.mu.Unlock()
	number := 0
	if tx != nil {
		number = tx.Branch(name)
	}
	err := l.door.through(ctx, func(p participants.Participant) (err error) {
		if reporter, ok := p.(participants.StatusReporter); ok {
			found, err = l.reported(ctx, reporter, id, number)
		}
		if found == nil && (err == nil || errors.Is(err, errors.ErrUnsupported)) {
			found, err = l.listed(ctx, p, id)
		}
		return err
	})
	if err != nil {
		found = append(found, Evidence{Participant: name, Branch: number, Err: err})
	}
	return found
}

// reported asks about one branch, or about all that there may be where it is 0.
func (l *lane) reported(ctx context.Context, p participants.StatusReporter, id txn.TxID, number int) (found []Evidence, err error) {
	first, last := number, number
	if number == 0 {
		first, last = 1, probedBranches
	}
	for n := first; n <= last; n++ {
		l.t.mu.Lock()
		b := l.branch(id, n, txn.Branch{})
		l.t.mu.Unlock()
		s, err := p.Status(ctx, b)
		if err != nil {
			return found, err
		}
		if s != participants.StatusUnknown || number != 0 {
			found = append(found, Evidence{Participant: l.name, Branch: n, Status: s})
		}
	}
	if found == nil {
		found = []Evidence{} // it has been asked
	}
	return found, nil
}

// listed looks for a transaction among what a participant holds prepared.
func (l *lane) listed(ctx context.Context, p participants.Participant, id txn.TxID) (found []Evidence, err error) {
	held, err := p.Recover(ctx, l.t.view.ClusterID())
	if err != nil {
		return nil, err
	}
	for _, b := range held {
		if b.TxID == id {
			found = append(found, Evidence{Participant: l.name, Branch: b.Number, Status: participants.StatusPrepared})
		}
	}
	if found == nil {
		err = errNoEvidence
	}
	return found, err
}

// Arbitrate writes an operator's decisions about transactions that are unresolved, each
// a txn.Arbitrate or a record of one, and ends their branches by them where it can reach
// them; the orphan scan goes on where it cannot, or the same command again where the
// participant has no list for the scan. It answers with their states by then, in
// the order of the commands: what was decided before keeps its decision (rule R1). A
// transaction that the cluster decides itself fails it with txn.ErrNotLost; those before
// it are decided.
func (c *Coordinator) Arbitrate(ctx context.Context, commands []txn.Command) ([]*txn.Transaction, error) {
	if n := len(commands); n == 0 || n > MaxArbitrated {
		return nil, fmt.Errorf("%w: %d transactions, want 1 to %d", ErrInvalid, n, MaxArbitrated)
	}
	t, ctx, done, err := c.withinTerm(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var decided []*txn.Transaction
	var unknown []txn.TxID
	for _, command := range commands {
		id := command.Transaction()
		tx, err := t.propose(ctx, command)
		if err != nil {
			return decided, fmt.Errorf("transaction %s: %w", id, err)
		}
		t.logger.Warn("an operator has decided a transaction", "txid", id, "decision", tx.Decision())
		if _, _, err := t.findFor(ctx, id); err != nil { // drives what is owed from here on
			return decided, err
		}
		if tx.Tombstone() {
			unknown = append(unknown, id)
		}
		decided = append(decided, tx)
	}
	if len(unknown) > 0 {
		t.scanNow(ctx)
		t.endUnlisted(ctx, unknown)
	}
	return decided, nil
}

// endUnlisted ends what participants hold of transactions without known branches, and
// cannot list: no scan finds it. What it does not reach waits for the operator to say the
// same again.
func (t *term) endUnlisted(ctx context.Context, ids []txn.TxID) {
	t.each(ctx, t.registered(), scansAtOnce, func(name string) {
		t.mu.Lock()
		l := t.lane(name)
		t.mu.Unlock()
		if l.recovers() {
			return
		}
		for _, id := range ids {
			if err := t.endReported(ctx, l, id); err != nil {
				t.logger.Warn("branches that an operator has decided could not be ended", "txid", id, "participant", name, "error", err)
				return
			}
		}
	})
}

// endReported ends what a participant says that it holds prepared of a transaction.
func (t *term) endReported(ctx context.Context, l *lane, id txn.TxID) error {
	for _, e := range t.evidenceAt(ctx, l.name, id, nil) {
		switch {
		case e.Err != nil:
			return e.Err
		case e.Status != participants.StatusPrepared:
			continue
		}
		if err := t.endOrphan(ctx, l, branchName{id, e.Branch}); err != nil {
			return err
		}
	}
	return nil
}

// scanNow has every participant scanned, and returns once that is done, or ctx ends.
func (t *term) scanNow(ctx context.Context) {
	scanned := make(chan struct{})
	t.work.Go(func() { // the caller's part of the work keeps the term from ending before this
		defer close(scanned)
		t.atEach(t.registered(), t.scan)
	})
	select {
	case <-scanned:
	case <-ctx.Done():
	}
}

// within makes a client's question a part of the term's work: nothing of it may outlive
// the term (rule R3). done ends it.
func (t *term) within(ctx context.Context) (bound context.Context, done func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil, nil, ErrNotLeader
	}
	t.work.Add(1)
	ctx, cut := context.WithCancelCause(ctx)
	stop := context.AfterFunc(t.ctx, func() { cut(ErrNotLeader) })
	return ctx, func() {
		stop()
		cut(nil)
		t.work.Done()
	}, nil
}

// withinTerm is within the term that is, if this node leads.
func (c *Coordinator) withinTerm(ctx context.Context) (t *term, bound context.Context, done func(), err error) {
	if t = c.current(); t == nil {
		return nil, nil, nil, ErrNotLeader
	}
	bound, done, err = t.within(ctx)
	return t, bound, done, err
}
