package sim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// finish repairs everything and waits until nothing is owed any more.
func (w *World) finish() {
	w.tell("the end: everything is repaired")
	w.undo()
	w.clients.Wait()
	w.pass(settling)
	if !w.await(patience, func() bool { return w.leader() != nil }) {
		w.wrong("nobody leads")
		return
	}
	w.dismiss()
	if !w.await(patience, w.levelled) {
		w.wrong("the cluster's level stays behind that of all its nodes")
	}
	if !w.await(patience, w.quiet) {
		w.wrong("not finished after %s: %s", patience, w.unfinished())
	}
}

// dismiss ends the nodes that are no members by the word of the leader: it was not
// certain what became of their addition or removal. Those that are members although
// nobody waits for them any more are removed.
func (w *World) dismiss() {
	w.undo()
	w.pass(time.Second) // those that were removed exit
	leader := w.leader()
	if leader == nil {
		return
	}
	in := map[string]bool{}
	for _, m := range leader.node.Cluster.Status().Members {
		in[m.ID] = true
	}
	for _, m := range w.all() {
		if !in[m.id] {
			w.tell("%s never became a member", m.id)
			if l := w.lifeOf(m); l != nil {
				w.crash(l)
			}
			w.forget(m)
		}
		delete(in, m.id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), unrest)
	defer cancel()
	for id := range in {
		w.tell("%s is a member but gave up; it is removed", id)
		leader.node.Cluster.RemoveNode(ctx, id)
	}
}

// quiet is whether nothing is owed, held or behind anywhere.
func (w *World) quiet() bool {
	leader := w.leader()
	if leader == nil || leader.node.Machine.Stats().Unfinished > 0 {
		return false
	}
	for _, f := range w.fakes {
		if f.Held() > 0 {
			return false
		}
	}
	for _, l := range w.running() {
		if l.node.Machine.AppliedIndex() != leader.node.Machine.AppliedIndex() {
			return false
		}
	}
	return true
}

func (w *World) unfinished() string {
	s := ""
	for _, l := range w.running() {
		s += fmt.Sprintf("%s has applied %d, %+v; ", l.member.id, l.node.Machine.AppliedIndex(), l.node.Machine.Stats())
	}
	for name, f := range w.fakes {
		s += fmt.Sprintf("%s holds %d; ", name, f.Held())
	}
	return s
}

// clientOfAudit makes the audit's looks a client of the history.
const clientOfAudit = 0

// audit compares what every node and every participant has of every transaction
// with one decision, and what all clients were told with one history.
func (w *World) audit() {
	lives := w.running()
	if len(lives) == 0 {
		w.wrong("no node runs")
		return
	}
	for id, contents := range w.contents {
		tx := w.agreed(id, lives)
		w.auditTransaction(id, contents, tx)
	}
	for _, name := range participantNames {
		f := w.fakes[name]
		for _, v := range f.Violations() {
			w.wrong("%s was called against its contract: %s", name, v)
		}
		if n := f.Held(); n > 0 {
			w.wrong("%s still holds %d branches prepared", name, n)
		}
	}
	ops := settled(w.record.Ops())
	for _, v := range history.Judge(ops) {
		w.wrong("%v", v)
	}
	w.Histories, w.Calls = len(w.contents), len(ops)
}

// agreed is what all nodes have of a transaction, nil where none knows it.
func (w *World) agreed(id txn.TxID, lives []*life) (tx *txn.Transaction) {
	for i, l := range lives {
		mine, known := l.node.Machine.Transaction(id)
		if known && mine.State.Decided() {
			w.record.Found(clientOfAudit, id.String(), answer(mine.Decision()), l.member.id)
		}
		if i == 0 {
			tx = mine
			continue
		}
		if (mine == nil) != (tx == nil) || mine != nil && (mine.State != tx.State || mine.Decided != tx.Decided || mine.Fingerprint != tx.Fingerprint) {
			w.wrong("%s has of %s %v, and %s %v", lives[0].member.id, id, show(tx), l.member.id, show(mine))
		}
	}
	return tx
}

func show(tx *txn.Transaction) string {
	if tx == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s, decided at %+v, %s", tx.State, tx.Decided, tx.Reason)
}

func (w *World) auditTransaction(id txn.TxID, contents []content, tx *txn.Transaction) {
	switch {
	case tx == nil:
		w.Never++
	case !tx.State.Finished():
		w.wrong("%s is %s at the end", id, tx.State)
	case tx.Decision() == txn.Commit:
		w.Committed++
		if w.unsealed[id] {
			w.wrong("%s is committed, and nobody asked for that", id)
		}
	default:
		w.Aborted++
	}
	for _, c := range contents {
		ran := tx != nil && tx.Decision() == txn.Commit && tx.Fingerprint == c.fingerprint() && sameBranches(tx, c)
		for i, b := range c.branches {
			w.auditBranch(id, i+1, b, ran, tx)
		}
	}
	if tx != nil && tx.Decision() == txn.Commit && !w.someRan(contents, tx) {
		w.wrong("%s is committed with a content that nobody submitted", id)
	}
}

func (w *World) someRan(contents []content, tx *txn.Transaction) bool {
	for _, c := range contents {
		if tx.Fingerprint == c.fingerprint() && sameBranches(tx, c) {
			return true
		}
	}
	return false
}

// sameBranches is whether a transaction runs a content: of an interactive one the
// fingerprint does not say which.
func sameBranches(tx *txn.Transaction, c content) bool {
	if len(tx.Branches) != len(c.branches) {
		return false
	}
	for i, b := range tx.Branches {
		if b.Digest != c.branches[i].Digest {
			return false
		}
	}
	return true
}

// auditBranch holds a participant's state and effects against the decision: once
// where its content committed and it had something to do, and never otherwise.
func (w *World) auditBranch(id txn.TxID, number int, b txn.Branch, ran bool, tx *txn.Transaction) {
	branch := w.branch(id, number)
	f := w.fakes[b.Participant]
	state, effects := f.State(branch), f.Effects(branch)
	payload, took := w.effects[effect{b.Participant, id, number}]
	want := 0
	if ran && tx.Branches[number-1].Vote != txn.VoteReadOnly {
		want = 1
	}
	own := tx != nil && tx.Branch(b.Participant) == number && !ran // another content's branch of that name
	switch {
	case own && tx.Decision() == txn.Commit:
		return
	case effects != want:
		w.wrong("%s took effect %d times at %s, want %d: %v, state there %s", branch.Name(), effects, b.Participant, want, show(tx), state)
	case want == 1 && state != participants.StatusCommitted, want == 0 && state == participants.StatusCommitted, state == participants.StatusPrepared:
		w.wrong("%s is %s at %s: %v", branch.Name(), state, b.Participant, show(tx))
	case want == 1 && payload != string(b.Payload), want == 0 && took:
		w.wrong("%s took the effect %q at %s, its content is %q", branch.Name(), payload, b.Participant, b.Payload)
	}
	if state == participants.StatusCommitted {
		w.record.Found(clientOfAudit, id.String(), history.Committed, b.Participant)
	}
}

// end stops everything, and lets virtual time run on until nothing of it is left.
func (w *World) end() {
	for _, l := range w.running() {
		w.crash(l)
	}
	w.deaths.Wait()
	for _, f := range w.fakes {
		f.Close()
	}
	time.Sleep(afterlife)
}

// Save leaves the evidence of a world in a directory: the story, and the history
// with its violations.
func (w *World) Save(dir, replay string) error {
	ops := settled(w.record.Ops())
	if err := history.Save(dir, replay, ops, history.Judge(ops)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "story.txt"), []byte(w.Story()), 0o644)
}
