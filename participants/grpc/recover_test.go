package grpcparticipant_test

// These tests prove R4's footing: Recovers is true only once the service has
// listed its branches, and a list that cannot be trusted is an error.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// R4: Open waits for nobody. Recovers is false until the service is up, has
// been asked in the background, and has listed its branches.
func TestRecoversIsLearntInTheBackground(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	p := open(t, addr)
	if p.Recovers() {
		t.Fatal("a service that never answered is taken to list its branches")
	}
	serveRaw(t, listen(t, addr), &raw{list: func(grpc.ServerStreamingServer[participantv1.RecoverResponse]) error {
		return nil
	}})
	until(t, "Recovers", p.Recovers)
}

// R4: a service without Recover is driven with staging first. Nobody asks it
// again and again, and what it says is named.
func TestServiceThatCannotList(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	serveRaw(t, l, &raw{})
	p := open(t, l.Addr().String())
	_, err := p.Recover(bounded(t), "c1")
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v; want errors.ErrUnsupported", err)
	}
	if p.Recovers() {
		t.Error("Recovers is true")
	}
	if _, err := p.(participants.StatusReporter).Status(bounded(t), newBranch("")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("status: %v; want errors.ErrUnsupported", err)
	}
}

// R4: a participant behind NewServer that may hold branches it does not list is
// not taken at its list's word.
func TestParticipantThatIsNotKnownToListAll(t *testing.T) {
	p := open(t, serve(t, &scripted{recovers: false}))
	if _, err := p.Recover(bounded(t), "c1"); !errors.Is(err, errors.ErrUnsupported) || p.Recovers() {
		t.Errorf("recover: %v, recovers %v", err, p.Recovers())
	}
}

// R4: a service that has lost the ability is not believed on its past.
func TestRecoversIsUnlearnt(t *testing.T) {
	var can atomic.Bool
	can.Store(true)
	s := &scripted{recovers: true, list: func(context.Context, string) ([]participants.Branch, error) {
		if !can.Load() {
			return nil, fmt.Errorf("%w", errors.ErrUnsupported)
		}
		return nil, nil
	}}
	p := open(t, serve(t, s))
	until(t, "Recovers", p.Recovers)
	can.Store(false)
	if _, err := p.Recover(bounded(t), "c1"); err == nil || p.Recovers() {
		t.Errorf("recover: %v, recovers %v", err, p.Recovers())
	}
}

// Every prepared branch is listed, over as many messages as they need.
func TestRecoverListsThemAll(t *testing.T) {
	const many = 2500
	want := make([]participants.Branch, many)
	for i := range want {
		want[i] = participants.Branch{Cluster: "c1", TxID: txn.TxID(uuid.Must(uuid.NewV7())), Number: 1 + i%txn.MaxBranches}
	}
	p := open(t, serve(t, &scripted{recovers: true, list: func(_ context.Context, cluster string) ([]participants.Branch, error) {
		if cluster != "c1" {
			return nil, nil
		}
		return want, nil
	}}))
	got, err := p.Recover(bounded(t), "c1")
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b participants.Branch) bool {
		return a.Cluster == b.Cluster && a.TxID == b.TxID && a.Number == b.Number
	}
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("%d branches listed, %d held", len(got), len(want))
	}
}

// A list that is not one is refused whole: another cluster's branches, ids that
// are none, more than anybody holds, or an end before the end.
func TestListsThatCannotBeTrusted(t *testing.T) {
	good := uuid.Must(uuid.NewV7()).String()
	endless := func(out grpc.ServerStreamingServer[participantv1.RecoverResponse]) error {
		page := &participantv1.RecoverResponse{}
		for i := range 1000 {
			page.Branches = append(page.Branches, &participantv1.Branch{Txid: good, Number: uint32(1 + i%256)})
		}
		for {
			if err := out.Send(page); err != nil {
				return err
			}
		}
	}
	one := func(b *participantv1.Branch) func(grpc.ServerStreamingServer[participantv1.RecoverResponse]) error {
		return func(out grpc.ServerStreamingServer[participantv1.RecoverResponse]) error {
			return out.Send(&participantv1.RecoverResponse{Branches: []*participantv1.Branch{b}})
		}
	}
	cases := map[string]func(grpc.ServerStreamingServer[participantv1.RecoverResponse]) error{
		"another cluster": one(&participantv1.Branch{Cluster: "c2", Txid: good, Number: 1}),
		"no txid":         one(&participantv1.Branch{Number: 1}),
		"no number":       one(&participantv1.Branch{Txid: good}),
		"no branch":       one(nil),
		"endless":         endless,
		"cut short": func(out grpc.ServerStreamingServer[participantv1.RecoverResponse]) error {
			if err := one(&participantv1.Branch{Txid: good, Number: 1})(out); err != nil {
				return err
			}
			return errors.New("disk")
		},
	}
	for name, list := range cases {
		t.Run(name, func(t *testing.T) {
			l := listen(t, "127.0.0.1:0")
			serveRaw(t, l, &raw{list: list})
			p := open(t, l.Addr().String())
			if got, err := p.Recover(bounded(t), "c1"); err == nil || got != nil {
				t.Errorf("%d branches, %v; want an error and none", len(got), err)
			}
			if p.Recovers() {
				t.Error("Recovers is true after a list that failed")
			}
		})
	}
}
