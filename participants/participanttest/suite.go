package participanttest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Subject is one participant under test, with the means to act on its resource
// and to look at it from outside. What a resource does not have is nil or false,
// and the promises about it are skipped. Two subjects may share one resource:
// the suite uses fresh cluster ids, txids and counters everywhere.
type Subject struct {
	// Participant is the one to test. The suite does not close it.
	Participant participants.Participant
	// Restart ends the participant as a stop of its process would, and opens it
	// again over the same data. Nil where nothing outlives the process.
	Restart func(t *testing.T) participants.Participant

	// Effect makes a payload that adds one to the counter of the given name, made
	// of lower-case letters and digits.
	Effect func(counter string) []byte
	// Count reads a counter as anybody else sees it; one never added to is 0.
	Count func(t *testing.T, counter string) int
	// Refused makes a payload that the resource votes no on.
	Refused func() []byte
	// ReadOnly makes a payload with nothing to do in phase two.
	ReadOnly func() []byte
	// Conflicts says that while one effect on a counter is prepared, another on
	// the same counter is voted no.
	Conflicts bool

	// What follows is for resources with a server of their own, databases and
	// services.

	// Both makes a payload that adds one to each of two counters, in this order:
	// two of them in opposite orders may deadlock.
	Both func(first, second string) []byte
	// FailsLate makes a payload that adds one to a counter and then fails, after
	// that worked: by a duplicate key, say.
	FailsLate func(counter string) []byte
	// Deferred makes a payload that adds one to a counter and breaks a constraint
	// that is checked only when the branch prepares.
	Deferred func(counter string) []byte
	// Block has somebody who is not decree hold the lock on a counter until
	// release is called.
	Block func(t *testing.T, counter string) (release func())
	// Second opens the resource once more, as another node of the cluster does.
	// Both participants are alive from then on; the subject closes it.
	Second func(t *testing.T) participants.Participant
	// Crash kills the resource itself with SIGKILL, not the participant, starts it
	// again over its data, and returns a participant on it, the same or another.
	// Calls may be under way on the old one: they end in whatever way.
	Crash func(t *testing.T) participants.Participant
	// Cut opens the resource once more by a connection that breaks at the next
	// prepare: before the request that prepares reaches the resource, or, with
	// arrives, after it has and before the answer is back. Connections made
	// afterwards stay whole.
	Cut func(t *testing.T, arrives bool) participants.Participant
	// Meddle ends a prepared branch by hand, by Commit or by Abort, as an operator
	// does with ROLLBACK PREPARED.
	Meddle func(t *testing.T, b participants.Branch, end Op)
	// Foreign leaves something prepared in the resource that is not decree's. The
	// function it returns fails the test unless that is still as it was.
	Foreign func(t *testing.T) (check func())
}

// Harness is what a driver gives to Run.
type Harness struct {
	// Start makes a subject for one subtest, which cleans up with t.Cleanup.
	Start func(t *testing.T) *Subject
	// Excused names the promises that the driver's resource cannot keep, by
	// subtest, each with what stands in for it. A name that the suite does not
	// have fails it.
	Excused map[string]string
}

// patience is how long a call may take before the suite calls it stuck. It is no
// promise of the contract: long enough for a database on a loaded machine.
const patience = 30 * time.Second

// promise is one case of the suite.
type promise struct {
	name string
	keep func(s *scene)
}

// Run puts a driver through the contract of package participants.
func Run(t *testing.T, h Harness) {
	all := slices.Concat(voting, working, deciding, meddling, surviving, crashing, fencing, crowding, cutting, sharing)
	for name := range h.Excused {
		if !slices.ContainsFunc(all, func(p promise) bool { return p.name == name }) {
			t.Errorf("the suite has no promise %q to be excused from", name)
		}
	}
	for _, p := range all {
		t.Run(p.name, func(t *testing.T) {
			if why, ok := h.Excused[p.name]; ok {
				t.Skip(why)
			}
			p.keep(newScene(t, h.Start(t)))
		})
	}
}

// scene is the stage of one subtest: a subject, and one cluster that talks to it.
type scene struct {
	*testing.T
	subject *Subject
	p       participants.Participant
	reopen  func(t *testing.T) participants.Participant // by restart
	cluster string
	epoch   uint64
	horizon txn.Time
	now     txn.Time // when new txids are made
}

func newScene(t *testing.T, s *Subject) *scene {
	return &scene{
		T:       t,
		subject: s,
		p:       s.Participant,
		reopen:  s.Restart,
		cluster: "c" + randomName(),
		epoch:   1,
		now:     txn.Time(time.Now().UnixNano()),
	}
}

// NewTxID makes a txid of the given time that no other test has.
func NewTxID(at txn.Time) txn.TxID {
	var id txn.TxID
	rand.Read(id[:]) //nolint:errcheck // it never fails
	ms := uint64(at) / uint64(time.Millisecond)
	binary.BigEndian.PutUint64(id[:8], ms<<16|uint64(id[6])<<8|uint64(id[7]))
	id[6] = 0x70 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	return id
}

func randomName() string {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	return hex.EncodeToString(b[:])
}

// branch is a new branch that adds one to a counter of its own, and the counter.
func (s *scene) branch() (participants.Branch, string) {
	counter := "n" + randomName()
	return s.branchOf(s.subject.Effect(counter)), counter
}

// branchOf is a new branch with a payload.
func (s *scene) branchOf(payload []byte) participants.Branch {
	return s.named(NewTxID(s.now), 1, payload)
}

func (s *scene) named(id txn.TxID, number int, payload []byte) participants.Branch {
	return participants.Branch{
		Cluster: s.cluster,
		TxID:    id,
		Number:  number,
		Epoch:   s.epoch,
		Horizon: s.horizon,
		Digest:  txn.NewBranch("subject", payload).Digest,
		Payload: payload,
	}
}

// phaseTwo is a branch as commit and abort carry it, with what the cluster says
// by now.
func (s *scene) phaseTwo(b participants.Branch) participants.Branch {
	return participants.Branch{Cluster: b.Cluster, TxID: b.TxID, Number: b.Number, Epoch: s.epoch, Horizon: s.horizon}
}

// again is a branch as a later leader of the cluster prepares it.
func (s *scene) again(b participants.Branch) participants.Branch {
	b.Epoch, b.Horizon = s.epoch, s.horizon
	return b
}

func (s *scene) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	s.Cleanup(cancel)
	return ctx
}

func (s *scene) restart() {
	s.Helper()
	if s.reopen == nil {
		s.Skip("nothing outlives the participant's process")
	}
	s.p = s.reopen(s.T)
}

// vote prepares a branch, which must give a certain answer.
func (s *scene) vote(b participants.Branch) participants.Vote {
	s.Helper()
	v, err := s.p.Prepare(s.ctx(), s.again(b))
	if err != nil {
		s.Fatalf("prepare %s: %v, want a vote", b.Name(), err)
	}
	return v
}

func (s *scene) prepare(b participants.Branch) {
	s.Helper()
	if v := s.vote(b); v.Kind != txn.VoteCommit {
		s.Fatalf("prepare %s: %s %q, want a yes", b.Name(), v.Kind, v.Reason)
	}
}

func (s *scene) refused(b participants.Branch, why string) {
	s.Helper()
	if v := s.vote(b); v.Kind != txn.VoteAbort {
		s.Fatalf("prepare %s %s: %s, want a no", b.Name(), why, v.Kind)
	}
}

func (s *scene) commit(b participants.Branch) {
	s.Helper()
	if err := s.p.Commit(s.ctx(), s.phaseTwo(b)); err != nil {
		s.Fatalf("commit %s: %v", b.Name(), err)
	}
}

func (s *scene) abort(b participants.Branch) {
	s.Helper()
	if err := s.p.Abort(s.ctx(), s.phaseTwo(b)); err != nil {
		s.Fatalf("abort %s: %v", b.Name(), err)
	}
}

// damage wants a heuristic of the given kind.
func (s *scene) damage(err error, want txn.Receipt, what string) {
	s.Helper()
	var h *participants.Heuristic
	if !errors.As(err, &h) || h.Receipt != want {
		s.Fatalf("%s: %v, want %s", what, err, want)
	}
}

func (s *scene) counts(counter string, want int, when string) {
	s.Helper()
	if got := s.subject.Count(s.T, counter); got != want {
		s.Fatalf("counter %s is %d %s, want %d", counter, got, when, want)
	}
}

// lists wants exactly these branches from Recover.
func (s *scene) lists(cluster string, want ...participants.Branch) {
	s.Helper()
	if !s.p.Recovers() {
		return // it promises no list
	}
	got, err := s.p.Recover(s.ctx(), cluster)
	if err != nil {
		s.Fatalf("recover: %v", err)
	}
	have := map[string]bool{}
	for _, b := range got {
		if have[b.Name()] {
			s.Errorf("recover lists %s twice", b.Name())
		}
		have[b.Name()] = true
	}
	for _, b := range want {
		if !have[b.Name()] {
			s.Errorf("recover does not list %s, which is prepared", b.Name())
		}
		delete(have, b.Name())
	}
	for name := range have {
		s.Errorf("recover lists %s, which is not prepared in this cluster", name)
	}
	if s.Failed() {
		s.FailNow()
	}
}

// status wants a status where the driver can tell.
func (s *scene) status(b participants.Branch, want participants.Status) {
	s.Helper()
	r, ok := s.p.(participants.StatusReporter)
	if !ok {
		return
	}
	got, err := r.Status(s.ctx(), s.phaseTwo(b))
	if err != nil || got != want {
		s.Fatalf("status of %s: %s, %v; want %s", b.Name(), got, err, want)
	}
}
