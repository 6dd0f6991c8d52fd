package grpcparticipant_test

// These tests prove that nothing of the contract is lost between two processes:
// the drivers that are embedded pass the whole conformance suite from behind the
// wire too, whichever way calls take over it. The durable one is stopped and started
// again under a driver that stays open, as a node's does.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/kv"
	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/participants/sim"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// openKnown opens a driver and waits until it knows that the service lists its
// branches, so that the suite looks at the lists.
func openKnown(t *testing.T, target string) participants.Participant {
	t.Helper()
	p := open(t, target)
	until(t, "Recovers", p.Recovers)
	return p
}

// way is how calls get to a service.
type way struct {
	name  string
	ready func(*testing.T, participants.Participant)              // waits until calls take it
	wrap  func(participants.Participant) participants.Participant // what the suite calls
	// Of calls: what a stream does with the messages that pass it.
	stream func(*tally, grpc.ServerStream) grpc.ServerStream
	check  func(*testing.T, *tally)
}

// tally counts how a service was called.
type tally struct {
	rpcs, streamed, broken atomic.Int64
	die                    func() bool // by chance
}

func (c *tally) serverOptions(w way) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			c.rpcs.Add(1)
			return h(ctx, r)
		}),
		grpc.StreamInterceptor(func(s any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if info.FullMethod != participantv1.Participant_CallMany_FullMethodName {
				return h(s, stream)
			}
			if w.stream == nil {
				return status.Error(codes.Unimplemented, "a service of the time before streams")
			}
			return h(s, w.stream(c, stream))
		}),
	}
}

// counted is a stream that counts the calls on it.
type counted struct {
	grpc.ServerStream
	*tally
}

func (s counted) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if f, ok := m.(*participantv1.CallManyRequest); ok {
		s.streamed.Add(int64(len(f.GetCalls())))
	}
	return err
}

// brittle is a stream that breaks now and then, before calls are carried out and
// after.
type brittle struct{ counted }

var errBrittle = status.Error(codes.Internal, "the stream breaks")

func (s brittle) RecvMsg(m any) error {
	if err := s.counted.RecvMsg(m); err != nil || !s.die() {
		return err
	}
	s.broken.Add(1)
	return errBrittle
}

func (s brittle) SendMsg(m any) error {
	if f, ok := m.(*participantv1.CallManyResponse); !ok || len(f.GetAnswers()) == 0 || !s.die() {
		return s.counted.SendMsg(m)
	}
	s.broken.Add(1)
	return errBrittle // and nobody hears the answers
}

// persistent asks again where a stream broke, as the coordinator does.
type persistent struct {
	participants.Participant
	participants.StatusReporter
}

func (p persistent) again(err error) bool {
	return status.Code(err) == codes.Unavailable && !errors.Is(err, participants.ErrStaleEpoch)
}

func (p persistent) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	for {
		vote, err := p.Participant.Prepare(ctx, b)
		if !p.again(err) {
			return vote, err
		}
	}
}

func (p persistent) Commit(ctx context.Context, b participants.Branch) error {
	for {
		if err := p.Participant.Commit(ctx, b); !p.again(err) {
			return err
		}
	}
}

func (p persistent) Abort(ctx context.Context, b participants.Branch) error {
	for {
		if err := p.Participant.Abort(ctx, b); !p.again(err) {
			return err
		}
	}
}

// awaitStream makes calls for nobody until they go by a stream.
func awaitStream(t *testing.T, p participants.Participant) {
	t.Helper()
	nobody := newBranch("")
	nobody.Cluster = "nobody"
	until(t, "a stream", func() bool {
		_ = p.Abort(bounded(t), nobody)
		return grpcparticipant.Streams(p)
	})
}

// ways are all there are: R8 and the rest of the contract hold on each.
var ways = []way{
	{
		name:   "stream",
		ready:  awaitStream,
		wrap:   func(p participants.Participant) participants.Participant { return p },
		stream: func(c *tally, s grpc.ServerStream) grpc.ServerStream { return counted{s, c} },
		check: func(t *testing.T, c *tally) {
			if c.streamed.Load() < c.rpcs.Load() {
				t.Errorf("%d calls by streams, %d by RPCs; the suite did not see the stream", c.streamed.Load(), c.rpcs.Load())
			}
		},
	},
	{
		name:   "started",
		ready:  awaitStream,
		wrap:   begins,
		stream: func(c *tally, s grpc.ServerStream) grpc.ServerStream { return counted{s, c} },
		check: func(t *testing.T, c *tally) {
			if c.streamed.Load() < c.rpcs.Load() {
				t.Errorf("%d calls by streams, %d by RPCs; the suite did not see the stream", c.streamed.Load(), c.rpcs.Load())
			}
		},
	},
	{
		name:  "started on a stream that breaks",
		ready: awaitStream,
		wrap: func(p participants.Participant) participants.Participant {
			return persistent{begins(p), p.(participants.StatusReporter)}
		},
		stream: func(c *tally, s grpc.ServerStream) grpc.ServerStream { return brittle{counted{s, c}} },
		check: func(t *testing.T, c *tally) {
			if c.broken.Load() == 0 || c.streamed.Load() == 0 {
				t.Errorf("%d streams broke, under %d calls", c.broken.Load(), c.streamed.Load())
			}
		},
	},
	{
		name:  "unary",
		ready: func(*testing.T, participants.Participant) {},
		wrap:  func(p participants.Participant) participants.Participant { return p },
		check: func(t *testing.T, c *tally) {
			if c.rpcs.Load() == 0 {
				t.Error("no call was an RPC")
			}
		},
	},
	{
		name:  "stream that breaks",
		ready: awaitStream,
		wrap: func(p participants.Participant) participants.Participant {
			return persistent{p, p.(participants.StatusReporter)}
		},
		stream: func(c *tally, s grpc.ServerStream) grpc.ServerStream { return brittle{counted{s, c}} },
		check: func(t *testing.T, c *tally) {
			if c.broken.Load() == 0 || c.streamed.Load() == 0 {
				t.Errorf("%d streams broke, under %d calls", c.broken.Load(), c.streamed.Load())
			}
		},
	},
}

// bank is a kv store in a process that can be started again on its address.
type bank struct {
	path  string
	addr  string
	store *kv.Store
	stop  func()
	opts  []grpc.ServerOption
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
	go func() { served <- grpcparticipant.Serve(ctx, l, store, b.opts...) }()
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
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			chance := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex
			c := &tally{die: func() bool {
				mu.Lock()
				defer mu.Unlock()
				return chance.IntN(10) == 0
			}}
			t.Cleanup(func() { w.check(t, c) }) // when all parts of the suite have ended
			conform(t, w, c)
		})
	}
}

// conform runs the suite against a store that is called one way.
func conform(t *testing.T, w way, c *tally) {
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		b := &bank{path: filepath.Join(t.TempDir(), "bank.db"), addr: "127.0.0.1:0", opts: c.serverOptions(w)}
		b.start(t)
		t.Cleanup(func() { b.stop() })
		opened := openKnown(t, b.addr)
		w.ready(t, opened)
		p := w.wrap(opened)
		return &participanttest.Subject{
			Participant: p,
			Restart: func(t *testing.T) participants.Participant {
				b.stop()
				b.start(t)
				until(t, "the driver has found the service again", func() bool {
					_, err := p.Recover(bounded(t), "nobody")
					return err == nil
				})
				w.ready(t, opened)
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
