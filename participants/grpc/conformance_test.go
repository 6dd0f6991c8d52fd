package grpcparticipant_test

// These tests prove that nothing of the contract is lost between two processes:
// the drivers that are embedded pass the whole conformance suite from behind the
// wire too. The durable one is stopped and started again under a driver that
// stays open, as a node's does.

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/kv"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/sim"
)

// openKnown opens a driver and waits until it knows that the service lists its
// branches, so that the suite looks at the lists.
func openKnown(t *testing.T, target string) participants.Participant {
	t.Helper()
	p := open(t, target)
	until(t, "Recovers", p.Recovers)
	return p
}

// bank is a kv store in a process that can be started again on its address.
type bank struct {
	path  string
	addr  string
	store *kv.Store
	stop  func()
}

func (b *bank) start(t *testing.T) {
	t.Helper()
	store, err := kv.Open(t.Context(), b.path, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- grpcparticipant.Serve(ctx, l, store) }()
	b.addr, b.store = l.Addr().String(), store
	b.stop = func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func TestStoreBehindTheWire(t *testing.T) {
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		b := &bank{path: filepath.Join(t.TempDir(), "bank.db"), addr: "127.0.0.1:0"}
		b.start(t)
		t.Cleanup(func() { b.stop() })
		p := openKnown(t, b.addr)
		return &participanttest.Subject{
			Participant: p,
			Restart: func(t *testing.T) participants.Participant {
				b.stop()
				b.start(t)
				until(t, "the driver has found the service again", func() bool {
					_, err := p.Recover(bounded(t), "nobody")
					return err == nil
				})
				return p
			},
			Effect: func(counter string) []byte {
				return fmt.Appendf(nil, `{"ops": [{"op": "add", "key": %q, "amount": 1}]}`, counter)
			},
			Count: func(t *testing.T, counter string) int {
				value, ok, err := b.store.Get(t.Context(), counter)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					return 0
				}
				n, err := strconv.Atoi(value)
				if err != nil {
					t.Fatal(err)
				}
				return n
			},
			Refused:   func() []byte { return []byte(`{"ops": [{"op": "add", "key": "broke", "amount": -1, "min": 0}]}`) },
			ReadOnly:  func() []byte { return []byte(`{"ops": [{"op": "check", "key": "nobody", "absent": true}]}`) },
			Conflicts: true,
		}
	}})
}

func TestSimulationBehindTheWire(t *testing.T) {
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		var mu sync.Mutex
		counts := map[string]int{}
		service := sim.NewService(func(payload []byte) {
			mu.Lock()
			defer mu.Unlock()
			counts[string(payload)]++
		})
		p, err := service.Participant(sim.Config{}, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		return &participanttest.Subject{
			Participant: openKnown(t, serve(t, p)),
			Effect:      func(counter string) []byte { return []byte(counter) },
			Count: func(_ *testing.T, counter string) int {
				mu.Lock()
				defer mu.Unlock()
				return counts[counter]
			},
			Refused:  func() []byte { return []byte(`{"vote": "abort", "reason": "sold out"}`) },
			ReadOnly: func() []byte { return []byte(`{"vote": "read-only"}`) },
		}
	}})
}
