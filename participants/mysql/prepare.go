package mysql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/statements"
)

// Prepare implements participants.Participant.
func (p *participant) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	m, err := name(b)
	if err != nil {
		return participants.No("%v", err), nil
	}
	e, err := p.books.enter(ctx, m.GID())
	if err != nil {
		return participants.Vote{}, err
	}
	defer p.books.leave(m.GID(), e)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.books.interruptible(e, cancel)

	fence, err := p.fences.admit(ctx, b)
	if err != nil {
		return participants.Vote{}, err
	}
	if p.stillHolds(ctx, e) {
		r := participants.Record{Status: participants.StatusPrepared, Digest: e.held.digest}
		vote, _ := r.Prepare(fence, b)
		return vote, nil
	}
	if fence.Expired(b.TxID) {
		return p.answer(ctx, m, fence, b)
	}
	parsed, err := p.cfg.Parse(b.Payload)
	if err != nil {
		return participants.No("%v", err), nil
	}
	w, err := newWork(m, b, parsed)
	if err != nil {
		return participants.No("%v", err), nil
	}
	if w.reads {
		if vote, err := p.readOnly(ctx, w); !errors.Is(err, errWrites) {
			return vote, err
		}
	}
	return p.stage(ctx, e, w)
}

// stillHolds reports whether this instance holds the branch prepared. While the
// session lives that the branch is attached to, nobody else can end it; once it
// does not, only the database knows.
func (p *participant) stillHolds(ctx context.Context, e *entry) bool {
	if e.held == nil {
		return false
	}
	s := e.held.session
	if s.ping(ctx) == nil {
		return true
	}
	s.close()
	e.held = nil
	p.branches.put(s)
	return false
}

// work is what one branch is to do.
type work struct {
	marker.Branch
	b          participants.Branch
	gid        string
	xid        string
	statements []statement
	reads      bool // all of it
}

// statement is one of a branch's statements, ready to be sent.
type statement struct {
	statements.Statement
	compiled
	text string
	args []any // that the library is to quote
}

// expect checks the rows that the statement has touched.
func (s statement) expect(rows int64) error {
	if wrong := s.Unexpected(rows); wrong != "" {
		return errors.New(wrong)
	}
	return nil
}

func newWork(m marker.Branch, b participants.Branch, parsed []statements.Statement) (*work, error) {
	w := &work{Branch: m, b: b, gid: m.GID(), xid: m.XID().String(), reads: true}
	for _, s := range parsed {
		c, err := compile(s.SQL)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		text, args, err := c.text(s.Args)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		w.statements = append(w.statements, statement{Statement: s, compiled: c, text: text, args: args})
		w.reads = w.reads && c.reads
	}
	return w, nil
}

// takenPause is between two looks at a branch that somebody else is preparing.
const takenPause = 20 * time.Millisecond

// stage prepares a branch that this instance does not hold. It is the branch's
// turn.
func (p *participant) stage(ctx context.Context, e *entry, w *work) (participants.Vote, error) {
	for {
		vote, err := p.attempt(ctx, e, w)
		if !errors.Is(err, errTaken) {
			return vote, err
		}
		// The server knows the branch's id. Where nobody has prepared it, somebody is
		// about to, or about to give up.
		vote, known, err := p.reconsider(ctx, w)
		if err != nil || known {
			return vote, err
		}
		if err := sleep(ctx, takenPause); err != nil {
			return participants.Vote{}, fmt.Errorf("another session is at work on the branch: %w", err)
		}
	}
}

// errTaken says that the server knows the branch's id already.
var errTaken = errors.New("the branch's id is taken")

// attempt prepares a branch on a session of its own.
func (p *participant) attempt(ctx context.Context, e *entry, w *work) (participants.Vote, error) {
	if p.branches.full() {
		p.letGo(ctx)
	}
	s, err := p.branches.take(ctx)
	if err != nil {
		return participants.Vote{}, err
	}
	refusal, err := p.run(ctx, s, w)
	switch {
	case err != nil:
		// What the server does with it now is not known, so neither is the vote.
		s.close()
		p.branches.put(s)
		return participants.Vote{}, err
	case refusal != nil:
		defer p.branches.put(s)
		return p.refuse(ctx, s, w, refusal)
	}
	return p.seal(ctx, s, e, w)
}

// letGo makes room in the pool that branches hold whose sessions have ended.
func (p *participant) letGo(ctx context.Context) {
	for _, s := range p.books.dead(ctx) {
		s.close()
		p.branches.put(s)
	}
}

// run does a branch's work up to XA END. A refusal is the server's, or a row count
// that was not as expected: nothing is prepared. The error is of the connection.
func (p *participant) run(ctx context.Context, s *session, w *work) (refusal, err error) {
	t := trip{session: s}
	t.add(nil, "XA START "+w.xid)
	t.add(open, p.sql.InsertOpen, w.gid, w.b.Digest[:], s.owner.String(), w.Cluster, w.b.Epoch, int64(w.TxID.Time()))
	for _, st := range w.statements {
		if refusal, err := t.statement(ctx, st); refusal != nil || err != nil {
			return refusal, err
		}
	}
	t.add(nil, "XA END "+w.xid)
	return t.flush(ctx)
}

// errFenced says that the database has heard of a later epoch or horizon.
var errFenced = errors.New("the fence is closed to the branch")

func open(rows int64) error {
	if rows == 0 {
		return errFenced
	}
	return nil
}

// seal makes the yes of a branch durable.
//
// The server's answer to XA PREPARE is the promise. A crash just before it leaves
// a branch that the abort, or the orphan scan, rolls back; one just after it
// leaves a branch that waits for its decision on the disk.
func (p *participant) seal(ctx context.Context, s *session, e *entry, w *work) (participants.Vote, error) {
	_, err := s.exec(ctx, "XA PREPARE "+w.xid)
	switch {
	case err == nil:
		e.held = &held{session: s, digest: w.b.Digest} // and its room in the pool
		return participants.Yes(), nil
	case numberOf(err) == errRolledBack:
		defer p.branches.put(s)
		return p.refuse(ctx, s, w, err)
	default:
		s.close()
		p.branches.put(s)
		return participants.Vote{}, fmt.Errorf("XA PREPARE: %w", err)
	}
}

// refuse undoes a branch that the server, or an expectation, has refused, and
// says why. After most errors the transaction lives on and could even be prepared
// (1062, 1205); after a deadlock it is over, and XA END fails.
func (p *participant) refuse(ctx context.Context, s *session, w *work, refusal error) (participants.Vote, error) {
	number := numberOf(refusal)
	if number == errDuplicateXID && !begun(ctx, s, w) {
		return participants.Vote{}, errTaken
	}
	p.undo(ctx, s, w.xid)
	if errors.Is(refusal, errFenced) || number == errDuplicateKey || number == errLockWait {
		// It may be the fence, or another row of the branch, that stood in the way.
		vote, known, err := p.reconsider(ctx, w)
		if err != nil || known {
			return vote, err
		}
	}
	if errors.Is(refusal, errFenced) {
		return participants.Vote{}, errors.New("the fence was closed to the branch, and is not any more")
	}
	return p.remember(ctx, s, w, participants.No("%s%s", w.culprit(refusal), reasonOf(refusal)))
}

// begun reports whether the branch's transaction is open on the session: then it
// is not XA START that has failed with 1440, but a procedure that signals what it
// likes. A session is never given back in the middle of a branch.
func begun(ctx context.Context, s *session, w *work) bool {
	_, err := s.exec(ctx, "XA END "+w.xid)
	return err == nil
}

// culprit names the statement that the server has refused, where it can only be
// one.
func (w *work) culprit(refusal error) string {
	if numberOf(refusal) == 0 || len(w.statements) != 1 {
		return ""
	}
	return w.statements[0].String() + ": "
}

// undo rolls a transaction back that was not prepared. Where that fails, the
// session's end does it.
func (p *participant) undo(ctx context.Context, s *session, xid string) {
	if _, err := s.exec(ctx, "XA END "+xid); err != nil && s.dead {
		return
	}
	if _, err := s.exec(ctx, "XA ROLLBACK "+xid); err != nil && numberOf(err) != errRolledBack {
		s.close()
	}
}

// remember makes a no the answer for ever: prepared again, the branch might be
// done by now, and has been promised not to be (rule R8).
func (p *participant) remember(ctx context.Context, s *session, w *work, no participants.Vote) (participants.Vote, error) {
	if s.dead {
		return participants.Vote{}, fmt.Errorf("the branch was refused, and then the connection broke: %s", no.Reason)
	}
	_, err := s.exec(ctx, p.sql.Tombstone, w.gid, participants.Refused(no).Reason)
	switch numberOf(err) {
	case errDuplicateKey, errLockWait:
		return participants.Vote{}, fmt.Errorf("the branch was refused (%s), and somebody else has written its row", no.Reason)
	}
	if err != nil {
		return participants.Vote{}, fmt.Errorf("the branch was refused (%s), which could not be noted: %w", no.Reason, err)
	}
	return no, nil
}

// reconsider answers a branch by what the database says of it and of its cluster.
// Not known means that it says nothing.
func (p *participant) reconsider(ctx context.Context, w *work) (vote participants.Vote, known bool, err error) {
	fence, err := p.fences.refresh(ctx, w.b)
	if err != nil {
		return participants.Vote{}, false, err
	}
	r, err := p.recall(ctx, w.Branch)
	if err != nil {
		return participants.Vote{}, false, err
	}
	vote, known = r.Prepare(fence, w.b)
	return vote, known, nil
}

// answer is the vote of a branch from before the horizon: it never begins, but it
// may have begun.
func (p *participant) answer(ctx context.Context, m marker.Branch, fence participants.Fence, b participants.Branch) (participants.Vote, error) {
	r, err := p.recall(ctx, m)
	if err != nil {
		return participants.Vote{}, err
	}
	vote, _ := r.Prepare(fence, b)
	return vote, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
