package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// What is proven here: the registry of participants on three nodes refuses what
// would strand a branch (rule R10), and knows its resources.

// What the registry refuses, and that it leaves nothing behind.
func TestRegistry(t *testing.T) {
	x := newTrio(t, nil)
	id := newID()
	x.fakes["a"].Script(participanttest.Commit, id, participanttest.Answer{Hold: make(chan struct{}), Stay: true})
	s := transfer(id)
	s.Wait = coordinator.WaitDecision
	x.submit(s)
	remove := func(name string) error {
		return x.atLeader(func(n *Node) error { return n.DeleteParticipant(x.ctx(), fsm.Operator{}, name) })
	}
	if err := remove("a"); !errors.Is(err, fsm.ErrParticipantInUse) {
		t.Errorf("delete with a branch pending: %v", err)
	}
	if err := remove("nobody"); !errors.Is(err, coordinator.ErrUnknownParticipant) {
		t.Errorf("delete of nobody: %v", err)
	}
	x.fakes["a"].Unscript(participanttest.Commit, id)
	x.sameOutcome(id)
	if err := remove("a"); err != nil && !errors.Is(err, coordinator.ErrUnknownParticipant) { // it may have been answered twice
		t.Errorf("delete of an idle one: %v", err)
	}
	err := x.atLeader(func(n *Node) error {
		_, err := n.Coordinator.Submit(x.ctx(), transfer(newID()))
		return err
	})
	if !errors.Is(err, coordinator.ErrUnknownParticipant) {
		t.Errorf("submit to a deleted one: %v", err)
	}
}

// prober is a driver that can look at its resource.
type prober struct {
	participanttest.Fakes
	found  atomic.Value // a finding
	opened chan string  // the identity that each participant is opened with
}

type finding struct {
	identity string
	err      error
}

func (p *prober) Probe(context.Context, participants.Registration, hclog.Logger) (string, error) {
	f := p.found.Load().(finding)
	return f.identity, f.err
}

func (p *prober) Open(ctx context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	select {
	case p.opened <- r.Identity:
	default:
	}
	return p.Fakes.Open(ctx, r, log)
}

// A resource that cannot take part is not registered, and one that can is opened
// with the identity that was found, on whichever node.
func TestRegistrationProbesTheResource(t *testing.T) {
	driver := &prober{Fakes: participanttest.Fakes{"db": participanttest.NewFake()}, opened: make(chan string, 100)}
	driver.found.Store(finding{err: fmt.Errorf("%w: set max_prepared_transactions", participants.ErrUnfit)})
	x := newTrio(t, func(x *trio) { x.probed = driver })
	put := func() error {
		return x.atLeader(func(n *Node) error {
			_, err := n.PutParticipant(x.ctx(), fsm.Operator{}, participants.Registration{Name: "db", Driver: "probed", Config: []byte("{}")})
			return err
		})
	}
	if err := put(); !errors.Is(err, participants.ErrUnfit) {
		t.Fatalf("an unfit resource: %v", err)
	}
	if _, ok := x.leader(nil).Machine.Participant("db"); ok {
		t.Fatal("an unfit resource is registered")
	}
	driver.found.Store(finding{identity: "db 1"})
	if err := put(); err != nil {
		t.Fatal(err)
	}
	x.submit(coordinator.Submission{ID: newID(), Branches: []txn.Branch{txn.NewBranch("db", nil)}})
	if got := <-driver.opened; got != "db 1" {
		t.Errorf("opened with the identity %q", got)
	}
}
