package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/coordinator/node"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// content is what a transaction is asked to do.
type content struct {
	branches    []txn.Branch
	interactive bool
}

func (c content) fingerprint() txn.Fingerprint {
	return txn.ContentFingerprint(c.interactive, c.branches)
}

// client is one caller, on a goroutine of its own. It makes one call at a time.
type client struct {
	*World
	n   int        // its number in the history
	rng *rand.Rand // its own
}

// refused marks a run that certainly did nothing: see settled.
const refused = "refused"

// send has something asked for, in a while: by one client, or by two that do not
// know of each other. Everything is drawn now, in the story's order.
func (w *World) send(in time.Duration) {
	w.mu.Lock()
	crowd := w.now
	w.mu.Unlock()
	if crowd >= maxClients {
		return
	}
	id, c, kind := w.newID(), w.newContent("x"), w.rng.IntN(20)
	c.interactive = kind >= 15
	w.expect(id, c)
	switch kind {
	case 0: // the same, at two nodes
		w.client(in, id, func(c1 *client) { c1.submit(id, c) })
		w.client(in+w.moment(), id, func(c2 *client) { c2.submit(id, c) })
	case 1: // two contents under one txid
		other := w.newContent("y")
		w.expect(id, other)
		w.client(in, id, func(c1 *client) { c1.submit(id, c) })
		w.client(in+w.moment(), id, func(c2 *client) { c2.submit(id, other) })
	case 2, 3: // somebody aborts it
		w.client(in, id, func(c1 *client) { c1.submit(id, c) })
		w.client(in+w.moment(), id, func(c2 *client) { c2.abort(id) })
	case 4, 5: // somebody asks what became of it
		w.client(in, id, func(c1 *client) { c1.submit(id, c) })
		w.client(in+w.moment()-5*time.Millisecond, id, func(c2 *client) { c2.inquire(id) })
	case 15, 16, 17, 18, 19:
		w.client(in, id, func(c1 *client) { c1.interact(id, c) })
	default:
		w.client(in, id, func(c1 *client) { c1.submit(id, c) })
	}
}

// moment is about as long as a transaction takes.
func (w *World) moment() time.Duration { return between(w.rng, 0, 40*time.Millisecond) }

// client runs one in a while.
func (w *World) client(in time.Duration, id txn.TxID, ask func(*client)) {
	w.number++
	c := &client{World: w, n: w.number, rng: rand.New(rand.NewPCG(w.rng.Uint64(), 0))}
	w.mu.Lock()
	w.now++
	w.mu.Unlock()
	w.clients.Go(func() {
		time.Sleep(max(in, 0))
		c.count(id, 1)
		ask(c)
		c.count(id, -1)
		w.mu.Lock()
		w.now--
		w.mu.Unlock()
	})
}

func (c *client) count(id txn.TxID, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.underway[id] += n; c.underway[id] == 0 {
		delete(c.underway, id)
	}
}

// newID makes a UUIDv7 by a clock that is not ahead of the cluster's: a client's
// that is, by more than five minutes, would be refused (rule R11).
func (w *World) newID() txn.TxID {
	at := txn.Time(time.Now().UnixNano())
	for _, l := range w.running() {
		if now := l.node.Machine.Cluster().Now; now > 0 {
			at = min(at, now)
		}
	}
	at = at.Add(between(w.rng, -time.Minute, time.Minute)) // clients' clocks differ
	var id txn.TxID
	binary.BigEndian.PutUint64(id[:8], uint64(at)/uint64(time.Millisecond)<<16|0x7000|w.rng.Uint64N(1<<12))
	binary.BigEndian.PutUint64(id[8:], w.rng.Uint64()>>2|1<<63)
	return id
}

// newContent draws branches at different participants.
func (w *World) newContent(mark string) content {
	var c content
	for _, n := range w.rng.Perm(len(participantNames))[:1+w.rng.IntN(3)] {
		c.branches = append(c.branches, txn.NewBranch(participantNames[n], []byte(fmt.Sprintf("%s%d", mark, w.rng.Uint32()))))
	}
	return c
}

// expect notes a content for the audit, and writes the participants' answers.
func (w *World) expect(id txn.TxID, c content) {
	w.mu.Lock()
	w.contents[id] = append(w.contents[id], c)
	w.mu.Unlock()
	for _, b := range c.branches {
		f := w.fakes[b.Participant]
		f.Script(participanttest.Prepare, id, w.answerToPrepare())
		for _, op := range []participanttest.Op{participanttest.Commit, participanttest.Abort} {
			for range w.rng.IntN(3) {
				f.Script(op, id, w.answerToDecision())
			}
		}
	}
}

// errLost is the answer of a call that may have been carried out.
var errLost = errors.New("the answer was lost")

func (w *World) answerToPrepare() (a participanttest.Answer) {
	a.Delay = between(w.rng, 0, 6*time.Millisecond)
	switch w.rng.IntN(40) {
	case 0, 1:
		a.Vote = participants.No("out of stock")
	case 2, 3, 4:
		a.Vote = participants.ReadOnly()
	case 5, 6:
		a.Err = errLost
	case 7:
		a.Fate = participanttest.Dropped
	case 8, 9: // it gives up on a prepare that arrives later, perhaps after the abort
		a.Fate, a.Err, a.Delay = participanttest.Belated, errLost, between(w.rng, 0, 500*time.Millisecond)
	case 10: // the same, after it was told nothing for as long as it waits
		a.Fate, a.Delay = participanttest.Belated, between(w.rng, 0, 700*time.Millisecond)
	case 11, 12, 13:
		a.Delay = between(w.rng, 20*time.Millisecond, 300*time.Millisecond)
	}
	return a
}

func (w *World) answerToDecision() (a participanttest.Answer) {
	a.Delay = between(w.rng, 0, 6*time.Millisecond)
	switch w.rng.IntN(12) {
	case 0:
		a.Err = errLost
	case 1:
		a.Fate = participanttest.Dropped
	case 2:
		a.Fate, a.Err, a.Delay = participanttest.Belated, errLost, between(w.rng, 0, 300*time.Millisecond)
	case 3:
		a.Delay = between(w.rng, 20*time.Millisecond, 150*time.Millisecond)
	}
	return a
}

// waits is how long the client waits in all: mostly through a failover, and now and
// then not even for a decision.
func (c *client) waits() (context.Context, context.CancelFunc) {
	d := between(c.rng, time.Second, 4*time.Second)
	if c.rng.IntN(8) == 0 {
		d = between(c.rng, time.Millisecond, 30*time.Millisecond)
	}
	return context.WithTimeout(context.Background(), d)
}

func (c *client) timeout() time.Duration {
	if c.rng.IntN(5) == 0 {
		return between(c.rng, 5*time.Millisecond, 100*time.Millisecond)
	}
	return between(c.rng, 500*time.Millisecond, 3*time.Second)
}

// submit runs a one-shot transaction as the SDK does: with the same txid, until the
// outcome is known or the client has had enough. Some come back later.
func (c *client) submit(id txn.TxID, what content) {
	s := coordinator.Submission{ID: id, Branches: what.branches, Timeout: c.timeout(), Wait: coordinator.Wait(c.rng.IntN(2))}
	told := c.run(id, func(ctx context.Context, n *node.Node) (coordinator.Result, error) {
		return n.Coordinator.Submit(ctx, s)
	})
	c.outcome(told)
	if c.rng.IntN(4) == 0 {
		time.Sleep(between(c.rng, 0, 400*time.Millisecond))
		c.run(id, func(ctx context.Context, n *node.Node) (coordinator.Result, error) {
			return n.Coordinator.Submit(ctx, s)
		})
	}
}

// run repeats a call that may commit until its answer is a decision. Each call that
// may have done something is one of the history.
func (c *client) run(id txn.TxID, call func(context.Context, *node.Node) (coordinator.Result, error)) history.Answer {
	ctx, cancel := c.waits()
	defer cancel()
	for {
		end := c.record.Begin(c.n, history.Run, id.String())
		r, where, err := c.ask(ctx, call)
		switch {
		case err == nil:
			a := answer(r.Decision())
			end(a, where, "")
			c.delivered(r)
			return a
		case errors.Is(err, coordinator.ErrAborted):
			end(history.Aborted, where, err.Error())
			return history.Aborted
		case errors.Is(err, coordinator.ErrOutcomeUnknown):
			end(history.Unknown, where, err.Error())
			if ctx.Err() != nil || c.rng.IntN(10) == 0 {
				return history.Unknown
			}
		case errors.Is(err, coordinator.ErrNotLeader), errors.Is(err, txn.ErrContentMismatch), errors.Is(err, txn.ErrSealed):
			end(history.Unknown, where, refused)
			return refused
		default:
			end(history.Unknown, where, err.Error())
			c.wrong("client %d was told of %s at %s: %v", c.n, id, where, err)
			return history.Unknown
		}
		c.breathe(ctx)
	}
}

// ask calls nodes, mostly the one that leads, until one takes the call on. Nodes
// that do not lead have certainly done nothing; some clients take that for an answer
// all the same, and that transaction may then never run.
func (c *client) ask(ctx context.Context, call func(context.Context, *node.Node) (coordinator.Result, error)) (coordinator.Result, string, error) {
	for {
		n, where := c.pick()
		err := coordinator.ErrNotLeader
		var r coordinator.Result
		if n != nil {
			led := n.Coordinator.Leads()
			r, err = call(ctx, n)
			if led && errors.Is(err, coordinator.ErrNotLeader) && c.rng.IntN(2) == 0 {
				return r, where, err
			}
		}
		if !errors.Is(err, coordinator.ErrNotLeader) || ctx.Err() != nil {
			return r, where, err
		}
		c.breathe(ctx)
	}
}

func (c *client) pick() (*node.Node, string) {
	lives := c.running()
	if len(lives) == 0 {
		return nil, ""
	}
	l := lives[c.rng.IntN(len(lives))]
	if leader := c.leader(); leader != nil && c.rng.IntN(8) > 0 {
		l = leader
	}
	return l.node, l.member.id
}

func (c *client) breathe(ctx context.Context) {
	pause := time.NewTimer(between(c.rng, 5*time.Millisecond, 40*time.Millisecond))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}

func answer(d txn.Decision) history.Answer {
	switch d {
	case txn.Commit:
		return history.Committed
	case txn.Abort:
		return history.Aborted
	default:
		return history.Undecided
	}
}

// delivered checks what an answer promises: every branch has ended by the decision.
func (c *client) delivered(r coordinator.Result) {
	if !r.Delivered {
		return
	}
	for i, b := range r.Transaction.Branches {
		if b.Vote == txn.VoteReadOnly {
			continue
		}
		s := c.stateOf(b.Participant, r.Transaction.ID, i+1)
		if s == participants.StatusPrepared || r.Decision() == txn.Commit && s != participants.StatusCommitted {
			c.wrong("client %d was told that %s is delivered, %s, while %s has it %s", c.n, r.Transaction.ID, r.Decision(), b.Participant, s)
		}
	}
}

// stateOf is what a participant remembers of a branch.
func (w *World) stateOf(participant string, id txn.TxID, number int) participants.Status {
	return w.fakes[participant].State(w.branch(id, number))
}

func (w *World) branch(id txn.TxID, number int) participants.Branch {
	return participants.Branch{Cluster: w.cluster, TxID: id, Number: number}
}

// interact runs a transaction step by step, with branches that the client runs
// itself among those of decree's, and does not always come to its end.
func (c *client) interact(id txn.TxID, what content) {
	ctx, cancel := c.waits()
	defer cancel()
	external := c.rng.IntN(2) == 0
	leaves, aborts := c.rng.IntN(8) == 0, c.rng.IntN(10) == 0
	timeout := c.timeout()

	end := c.record.Begin(c.n, history.Run, id.String())
	step := func(call func(*node.Node) error) bool {
		for {
			_, where, err := c.ask(ctx, func(_ context.Context, n *node.Node) (coordinator.Result, error) {
				return coordinator.Result{}, call(n)
			})
			switch {
			case err == nil:
				return true
			case errors.Is(err, coordinator.ErrOutcomeUnknown) && ctx.Err() == nil:
				c.breathe(ctx)
			case errors.Is(err, coordinator.ErrOutcomeUnknown), errors.Is(err, coordinator.ErrNotLeader),
				errors.Is(err, coordinator.ErrAborted), errors.Is(err, txn.ErrSealed):
				return false
			default:
				c.wrong("client %d was told of %s at %s: %v", c.n, id, where, err)
				return false
			}
		}
	}
	quit := func() {
		c.mu.Lock()
		c.unsealed[id] = true
		c.mu.Unlock()
		end(history.Unknown, "", refused)
	}
	if !step(func(n *node.Node) error { _, err := n.Coordinator.Begin(ctx, id, timeout); return err }) {
		quit()
		return
	}
	var votes []txn.BranchVote
	for i, b := range what.branches {
		b.External = external && i == 0
		if !step(func(n *node.Node) error { _, err := n.Coordinator.Enlist(ctx, id, b); return err }) {
			quit()
			return
		}
		if b.External {
			votes = append(votes, txn.BranchVote{Branch: i + 1, Vote: c.workAlone(id, i+1, b)})
		}
		time.Sleep(between(c.rng, 0, 5*time.Millisecond))
	}
	switch {
	case leaves:
		quit()
		return
	case aborts:
		quit()
		c.abort(id)
		return
	}
	end(history.Unknown, "", refused) // nothing so far asked for a commit
	c.outcome(c.run(id, func(ctx context.Context, n *node.Node) (coordinator.Result, error) {
		return n.Coordinator.Commit(ctx, id, votes, coordinator.Wait(c.n%2))
	}))
}

// workAlone is a branch that the application runs: its work, prepared, and its vote.
func (c *client) workAlone(id txn.TxID, number int, b txn.Branch) txn.Vote {
	if c.rng.IntN(8) == 0 {
		return txn.VoteAbort
	}
	branch := c.branch(id, number)
	branch.Digest, branch.Payload = b.Digest, b.Payload
	if !c.fakes[b.Participant].StageNew(branch) {
		return txn.VoteAbort // its abort came first
	}
	return txn.VoteCommit
}

// abort asks for an abort until it knows what became of that.
func (c *client) abort(id txn.TxID) {
	c.settle(id, history.Abort, func(ctx context.Context, n *node.Node) (coordinator.Result, error) {
		return n.Coordinator.Abort(ctx, id, "changed my mind", coordinator.WaitDecision)
	})
}

// inquire asks for an outcome that will stand.
func (c *client) inquire(id txn.TxID) {
	c.settle(id, history.Inquire, func(ctx context.Context, n *node.Node) (coordinator.Result, error) {
		return n.Coordinator.Inquire(ctx, id)
	})
}

func (c *client) settle(id txn.TxID, kind history.Kind, call func(context.Context, *node.Node) (coordinator.Result, error)) {
	ctx, cancel := c.waits()
	defer cancel()
	for {
		end := c.record.Begin(c.n, kind, id.String())
		r, where, err := c.ask(ctx, call)
		switch {
		case err == nil:
			end(answer(r.Decision()), where, "")
			return
		case errors.Is(err, coordinator.ErrCommitted):
			end(history.Committed, where, "")
			return
		case errors.Is(err, coordinator.ErrNotLeader):
			end(history.Unknown, where, "")
			return
		case errors.Is(err, coordinator.ErrOutcomeUnknown):
			end(history.Unknown, where, err.Error())
			if ctx.Err() != nil {
				return
			}
		default:
			end(history.Unknown, where, err.Error())
			c.wrong("client %d, %s of %s at %s: %v", c.n, kind, id, where, err)
			return
		}
		c.breathe(ctx)
	}
}

// settled is the history for its judge: a run that was refused did nothing, except
// that somebody may have aborted what it left behind (rules R4 and R6).
func settled(ops []history.Op) []history.Op {
	for i := range ops {
		if ops[i].Kind == history.Run && ops[i].Note == refused {
			ops[i].Kind, ops[i].Return = history.Abort, 0
		}
	}
	return ops
}
