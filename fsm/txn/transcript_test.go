package txn_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/decree-tx/decree/fsm/txn"
)

// TestTranscripts plays the protocol's stories under testdata: a client, a leader
// with its ballots, and the replicated log in front of the state machine. Each
// story tells what became of its transactions, and what work was made due; a
// transcript changes only with the protocol. The rules that a story holds stand
// in its first lines.
//
// The directives, with their arguments in any order:
//
//	lead epoch=N                  another leader opens its epoch; all ballots are lost
//	clock D                       the leader's clock stands at D after the beginning
//	horizon D                     an entry moves the retention horizon
//	save                          a backup of all that is known
//	restore epoch=N until=D       the cluster begins again from the backup
//	arbitrate ID commit|abort     an operator's decision
//	resolve ID branch=N as=abort  an operator's word for what became of a branch
//	submit ID branches=(A, B)     prepares leave before staging: a ballot is opened
//	stage ID branches=(A, B)      the staging entry; also of a submitted ID
//	begin ID                      the staging entry of an interactive transaction
//	enlist ID participant=A       ... external, payload=TEXT
//	seal ID votes=(2:commit)      the Prepare command ... leader-dies before its verdict
//	vote ID branch=N yes|no|read-only reason=(WHY)
//	timeout ID                    time is up
//	withdraw ID                   the client asks for an abort
//	decide ID commit|abort        a decision without regard to the ballot ... read-only=(1), branches=(A, B)
//	presume ID                    someone asks for an outcome
//	ack ID branch=(1, 2)          ... receipt=heuristic-abort
//	forget ID                     retention ends
//	show ID                       all that is known
//	pending ID                    what a leader owes
//
// Every directive takes epoch=N, to send as a leader that has been replaced.
// ID stands for an id made when it is first named, or at made=D.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "/rapid/") {
			t.Skip("what a property test that failed has left behind is no transcript")
		}
		s := newTheatre()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			s.play(t, d)
			return s.out.String()
		})
	})
}

// beginning is when every story starts.
const beginning = txn.Time(1_700_000_000 * int64(time.Second))

// theatre holds one story's world.
type theatre struct {
	out     strings.Builder
	cluster txn.Cluster
	index   uint64
	clock   txn.Time
	epoch   uint64 // of the leader that speaks
	ids     map[string]txn.TxID
	states  map[string]*txn.Transaction
	ballots map[string]*txn.Ballot

	saved struct {
		cluster txn.Cluster
		states  map[string]*txn.Transaction
	}
}

func newTheatre() *theatre {
	return &theatre{
		cluster: txn.Cluster{Epoch: 1, Now: beginning},
		clock:   beginning,
		epoch:   1,
		ids:     map[string]txn.TxID{},
		states:  map[string]*txn.Transaction{},
		ballots: map[string]*txn.Ballot{},
	}
}

func (s *theatre) say(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *theatre) play(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	defer func(epoch uint64) {
		if d.Cmd != "lead" {
			s.epoch = epoch
		}
	}(s.epoch)
	if v, ok := value(d, "epoch"); ok {
		s.epoch = uint64(atoi(t, v))
	}
	switch d.Cmd {
	case "lead":
		s.lead()
	case "clock":
		s.clock = beginning.Add(duration(t, d.CmdArgs[0].Key))
		s.say("%s after the beginning", s.clock.Sub(beginning))
	case "horizon":
		s.moveHorizon(beginning.Add(duration(t, d.CmdArgs[0].Key)))
	case "save":
		s.saved.cluster, s.saved.states = s.cluster, maps.Clone(s.states)
	case "restore":
		v, _ := value(d, "until")
		s.restore(txn.Restored{Epoch: s.epoch, Until: beginning.Add(duration(t, v))})
	default:
		s.transact(t, d)
	}
}

func (s *theatre) restore(r txn.Restored) {
	c, err := s.saved.cluster.Reopen(r)
	if err != nil {
		s.say("refused: %s", err)
		return
	}
	s.cluster, s.states = c, maps.Clone(s.saved.states)
	clear(s.ballots)
	s.say("epoch %d -> %d", s.saved.cluster.Epoch, c.Epoch)
	for _, name := range sortedKeys(s.states) {
		held := ""
		if c.Held(s.states[name]) {
			held = ", held for an operator"
		}
		s.say("%s %s%s", name, s.states[name].State, held)
	}
}

func (s *theatre) lead() {
	before := s.cluster.Epoch
	c, err := s.cluster.Lead(s.header())
	if err != nil {
		s.say("refused: %s", err)
		return
	}
	s.index++
	s.cluster = c
	clear(s.ballots)
	s.say("epoch %d -> %d", before, c.Epoch)
	for _, name := range sortedKeys(s.states) {
		if !s.states[name].State.Finished() {
			s.pending(name)
		}
	}
}

func (s *theatre) moveHorizon(h txn.Time) {
	header := s.header()
	header.Horizon = h
	c, err := s.cluster.Admit(header)
	if err != nil {
		s.say("refused: %s", err)
		return
	}
	s.index++
	s.cluster = c
	s.say("horizon %s", c.Horizon.Sub(beginning))
}

func (s *theatre) header() txn.Header { return txn.Header{Epoch: s.epoch, Time: s.clock} }

// transact plays what is about one transaction.
func (s *theatre) transact(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	name := d.CmdArgs[0].Key
	id := s.id(t, name, d)
	switch d.Cmd {
	case "submit":
		b := txn.NewBallot(branches(d))
		s.ballots[name] = &b
		for i, b := range branches(d) {
			s.say("effect: prepare branch=%d %s", i+1, b.Participant)
		}
	case "stage":
		if s.apply(t, name, txn.Stage{ID: id, Branches: branches(d), Timeout: 5 * time.Second}) {
			s.staged(t, name)
		}
	case "begin":
		s.apply(t, name, txn.Stage{ID: id, Interactive: true, Branches: branches(d), Timeout: time.Minute})
	case "enlist":
		participant, _ := value(d, "participant")
		payload, _ := value(d, "payload")
		b := txn.NewBranch(participant, []byte(payload))
		b.External = d.HasArg("external")
		s.apply(t, name, txn.Enlist{ID: id, Branch: b})
	case "seal":
		if s.apply(t, name, txn.Prepare{ID: id, Votes: votes(t, d)}) && !d.HasArg("leader-dies") {
			s.staged(t, name)
		}
	case "vote":
		s.vote(t, name, d)
	case "timeout":
		s.withdraw(t, name, txn.Reason{Code: txn.ReasonTimeout})
	case "withdraw":
		why, _ := value(d, "reason")
		s.withdraw(t, name, txn.Reason{Code: txn.ReasonClient, Detail: why})
	case "decide":
		s.apply(t, name, decision(t, id, d))
	case "arbitrate":
		c := txn.Arbitrate{ID: id, Decision: txn.Commit, Detail: "by ann"}
		if d.HasArg("abort") {
			c.Decision = txn.Abort
		}
		s.apply(t, name, c)
	case "resolve":
		number, _ := value(d, "branch")
		c := txn.Resolve{ID: id, Branch: atoi(t, number), As: txn.Commit}
		if as, _ := value(d, "as"); as == "abort" {
			c.As = txn.Abort
		}
		s.apply(t, name, c)
	case "presume":
		s.apply(t, name, txn.Presume{ID: id})
	case "ack":
		s.apply(t, name, txn.Acknowledge{ID: id, Receipts: receipts(t, d)})
	case "forget":
		delete(s.states, name)
		s.say("%s is no longer known", name)
	case "show":
		s.show(name)
	case "pending":
		s.pending(name)
	default:
		d.Fatalf(t, "no such directive")
	}
}

// apply sends one command through the log and the state machine, and checks what
// holds for every step. It reports whether the command was accepted.
func (s *theatre) apply(t *testing.T, name string, c txn.Command) bool {
	t.Helper()
	cluster, err := s.cluster.Admit(s.header())
	if err != nil {
		s.say("refused: %s", err)
		return false
	}
	s.index++
	s.cluster = cluster
	if c.Transaction() != s.ids[name] {
		t.Fatalf("%T is about %s", c, c.Transaction())
	}
	prev := s.states[name]
	next, due, err := txn.Step(txn.At{Cluster: cluster, Index: s.index}, prev, c)
	checkStep(t, prev, next, due, err)
	if err != nil {
		s.say("refused: %s", err)
		return false
	}
	s.states[name] = next
	s.say("%s %s", name, change(prev, next))
	for _, w := range due {
		s.work("effect: ", next, w)
	}
	return true
}

// change says in a line what a step changed.
func change(prev, next *txn.Transaction) string {
	var line string
	switch {
	case prev == nil:
		prev = &txn.Transaction{}
		line = fmt.Sprintf("unknown -> %s", next.State)
	case prev.State != next.State:
		line = fmt.Sprintf("%s -> %s", prev.State, next.State)
	default:
		line = fmt.Sprintf("stays %s", next.State)
	}
	if next.Reason != prev.Reason {
		line += ": " + next.Reason.String()
	}
	for i, b := range next.Branches {
		switch {
		case i >= len(prev.Branches):
			if next.State == txn.Active {
				line += fmt.Sprintf(", branch=%d %s", i+1, b.Participant)
			}
		case b.Receipt != prev.Branches[i].Receipt:
			line += fmt.Sprintf(", branch=%d %s", i+1, b.Receipt)
		case b.Resolved != prev.Branches[i].Resolved:
			line += fmt.Sprintf(", branch=%d resolved as %s", i+1, b.Resolved)
		}
	}
	return line
}

// staged tells the leader's ballot that the log has the transaction's branches.
func (s *theatre) staged(t *testing.T, name string) {
	t.Helper()
	state := s.states[name]
	if state == nil || state.State != txn.Preparing {
		return
	}
	if s.ballots[name] == nil {
		b := txn.NewBallot(state.Branches)
		s.ballots[name] = &b
	}
	s.ballots[name].Stage()
	s.conclude(t, name)
}

// conclude proposes the ballot's verdict, if there is one.
func (s *theatre) conclude(t *testing.T, name string) {
	t.Helper()
	verdict, ok := s.ballots[name].Verdict()
	if !ok {
		s.say("no verdict yet")
		return
	}
	if s.states[name] == nil {
		s.say("a %s follows the staging into the log", verdict.Decision)
		return
	}
	verdict.ID = s.ids[name]
	s.apply(t, name, verdict)
}

// ballot is the leader's, which it opens anew when it has none: a new leader.
func (s *theatre) ballot(name string) *txn.Ballot {
	if s.ballots[name] == nil {
		b := txn.NewBallot(s.states[name].Branches)
		b.Stage()
		s.ballots[name] = &b
	}
	return s.ballots[name]
}

func (s *theatre) vote(t *testing.T, name string, d *datadriven.TestData) {
	t.Helper()
	v, _ := value(d, "branch")
	branch := atoi(t, v)
	vote := txn.VoteCommit
	switch {
	case d.HasArg("no"):
		vote = txn.VoteAbort
	case d.HasArg("read-only"):
		vote = txn.VoteReadOnly
	}
	why, _ := value(d, "reason")
	s.ballot(name).Cast(branch, vote, txn.Reason{Code: txn.ReasonVote, Branch: branch, Detail: why})
	s.conclude(t, name)
}

func (s *theatre) withdraw(t *testing.T, name string, why txn.Reason) {
	t.Helper()
	s.ballot(name).Withdraw(why)
	s.conclude(t, name)
}

func (s *theatre) pending(name string) {
	t := s.states[name]
	due := txn.Pending(t)
	if len(due) == 0 {
		s.say("%s %s: owed nothing", name, t.State)
	}
	for _, w := range due {
		s.work(fmt.Sprintf("%s %s: owed ", name, t.State), t, w)
	}
}

func (s *theatre) work(prefix string, t *txn.Transaction, w txn.Work) {
	if w.Branch == 0 {
		s.say("%s%s", prefix, w)
		return
	}
	s.say("%s%s %s", prefix, w, t.Branches[w.Branch-1].Participant)
}

func (s *theatre) show(name string) {
	t := s.states[name]
	if t == nil {
		s.say("%s is unknown", name)
		return
	}
	kind := "one-shot"
	if t.Interactive {
		kind = "interactive"
	}
	if t.Tombstone() {
		kind = "tombstone"
	}
	s.say("%s %s, %s, decision %s, damage %s", name, t.State, kind, t.Decision(), t.Damage())
	for i, b := range t.Branches {
		external := ""
		if b.External {
			external = " external"
		}
		resolved := ""
		if b.Resolved != txn.Undecided {
			resolved = ", resolved as " + b.Resolved.String()
		}
		s.say("  branch %d %s%s: payload %q, vote %s, receipt %s%s", i+1, b.Participant, external, b.Payload, b.Vote, b.Receipt, resolved)
	}
	if t.Reason != (txn.Reason{}) {
		s.say("  reason: %s", t.Reason)
	}
	for _, at := range []struct {
		what string
		txn.Stamp
	}{{"staged", t.Staged}, {"decided", t.Decided}, {"finished", t.Finished}} {
		if at.Stamp != (txn.Stamp{}) {
			s.say("  %s by entry %d of epoch %d at %s", at.what, at.Index, at.Epoch, at.At.Sub(beginning))
		}
	}
	if !t.State.Decided() {
		s.say("  deadline %s", t.Deadline().Sub(beginning))
	}
}
