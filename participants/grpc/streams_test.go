package grpcparticipant

// These tests prove when there is a stream and when there is not, in virtual time,
// with a real server and a connection that is a pipe: which paces the driver keeps,
// and that nothing is left when it is closed (a bubble does not end before its
// goroutines have).

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/transport/api/decree/participant/callmany"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// agreeable says yes to everything. It counts how it was asked.
type agreeable struct {
	participants.Participant
}

func (agreeable) Prepare(context.Context, participants.Branch) (participants.Vote, error) {
	return participants.Yes(), nil
}
func (agreeable) Commit(context.Context, participants.Branch) error { return nil }
func (agreeable) Abort(context.Context, participants.Branch) error  { return nil }
func (agreeable) Recover(context.Context, string) ([]participants.Branch, error) {
	return nil, nil
}
func (agreeable) Recovers() bool { return true }

// meter counts what a server is asked, by method.
type meter struct {
	rpcs, streams, open atomic.Int64
}

func (m *meter) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			m.rpcs.Add(1)
			return h(ctx, r)
		}),
		grpc.StreamInterceptor(func(s any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if info.FullMethod == participantv1.Participant_CallMany_FullMethodName {
				m.streams.Add(1)
				m.open.Add(1)
				defer m.open.Add(-1)
			}
			return h(s, stream)
		}),
		grpc.WaitForHandlers(true),
	}
}

// piped is a service at the end of a pipe.
type piped struct {
	meter
	listener atomic.Pointer[bufconn.Listener]
	server   *grpc.Server
	served   chan struct{}
}

func (p *piped) start(service participantv1.ParticipantServer, opts ...grpc.ServerOption) {
	l := bufconn.Listen(1 << 16)
	p.server = grpc.NewServer(append(p.options(), opts...)...)
	participantv1.RegisterParticipantServer(p.server, service)
	p.served = make(chan struct{})
	go func() {
		defer close(p.served)
		_ = p.server.Serve(l)
	}()
	p.listener.Store(l)
}

func (p *piped) stop() {
	p.server.Stop()
	<-p.served
}

// drive opens a driver of the service.
func (p *piped) drive(t *testing.T) *client {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///pipe",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return p.listener.Load().DialContext(ctx)
		}))
	if err != nil {
		t.Fatal(err)
	}
	return newClient(conn, hclog.NewNullLogger())
}

func branchOf(payload string) participants.Branch {
	return participants.Branch{Cluster: "c1", TxID: txn.TxID(uuid.Must(uuid.NewV7())), Number: 1, Epoch: 3, Payload: []byte(payload)}
}

// prepared makes one call that must succeed.
func prepared(t *testing.T, c *client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if vote, err := c.Prepare(ctx, branchOf("")); err != nil || vote != participants.Yes() {
		t.Errorf("prepare: %v, %v", vote, err)
	}
}

// onStream waits for the stream that the first call asked for.
func onStream(t *testing.T, c *client) *stream {
	t.Helper()
	prepared(t, c)
	synctest.Wait()
	s := c.streams.current.Load()
	if s == nil {
		t.Fatal("no stream after a call and all the time there is")
	}
	return s
}

// The first call is an RPC and has a stream opened; those that follow use it.
func TestCallsMoveToAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		p.start(NewServer(agreeable{}))
		defer p.stop()
		c := p.drive(t)
		defer c.Close()
		synctest.Wait()
		if n := p.streams.Load(); n != 0 {
			t.Errorf("%d streams before there was a call", n)
		}
		onStream(t, c)
		for range 100 {
			prepared(t, c)
		}
		if rpcs, streams := p.rpcs.Load(), p.streams.Load(); rpcs != 1 || streams != 1 {
			t.Errorf("%d RPCs and %d streams for 101 calls, want 1 and 1", rpcs, streams)
		}
	})
}

// unaryService is a service of the time before streams.
type unaryService struct {
	participantv1.ParticipantServer
}

func (unaryService) CallMany(callmany.Stream) error {
	return status.Error(codes.Unimplemented, "unknown method CallMany")
}

// A service without streams loses no call, and is asked for one at a slow pace only.
// The one that replaces it is found.
func TestServiceWithoutStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		p.start(unaryService{NewServer(agreeable{})})
		c := p.drive(t)
		defer c.Close()
		const minutes = 10
		for range minutes * 60 {
			prepared(t, c)
			time.Sleep(time.Second)
		}
		if rpcs, streams := p.rpcs.Load(), p.streams.Load(); rpcs != minutes*60 || streams < 2 || streams > minutes+1 {
			t.Errorf("%d RPCs for %d calls, and %d streams asked for in %d minutes", rpcs, minutes*60, streams, minutes)
		}
		p.stop()
		p.start(NewServer(agreeable{}))
		defer p.stop()
		for range 2 * 60 {
			_, _ = c.Prepare(t.Context(), branchOf(""))
			time.Sleep(time.Second)
		}
		if p.open.Load() != 1 {
			t.Error("the service that can was not found in two minutes")
		}
	})
}

// A stream without calls is closed, so that an idle connection is not pinged for its
// sake, and a new one opened when calls come again.
func TestIdleStreamIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		p.start(NewServer(agreeable{}))
		defer p.stop()
		c := p.drive(t)
		defer c.Close()
		for want := int64(1); want <= 3; want++ {
			onStream(t, c)
			time.Sleep(idlePause / 2)
			prepared(t, c) // it is not idle yet
			time.Sleep(idlePause - time.Millisecond)
			if p.open.Load() != 1 {
				t.Error("closed too soon")
			}
			time.Sleep(time.Hour)
			if open, all := p.open.Load(), p.streams.Load(); open != 0 || all != want {
				t.Errorf("after an hour without calls %d streams are open, of %d; want 0 of %d", open, all, want)
			}
		}
	})
}

// gated holds every prepare until it is let go.
type gated struct {
	agreeable
	arrived chan context.Context
	gate    chan struct{}
}

func newGated() *gated {
	return &gated{arrived: make(chan context.Context, 2*maxOpen), gate: make(chan struct{})}
}

func (g *gated) Prepare(ctx context.Context, _ participants.Branch) (participants.Vote, error) {
	g.arrived <- ctx
	select {
	case <-g.gate:
		return participants.Yes(), nil
	case <-ctx.Done():
		return participants.Vote{}, ctx.Err()
	}
}

// prepareMany makes n calls at once. Their outcomes come on the channel.
func prepareMany(ctx context.Context, c *client, n int, payload string) <-chan error {
	outcomes := make(chan error, n)
	for range n {
		go func() {
			_, err := c.Prepare(ctx, branchOf(payload))
			outcomes <- err
		}()
	}
	return outcomes
}

// A server that stops (GOAWAY) is left: calls under way are answered, new ones go to
// the server that takes its place, and the stop need not wait for anything else.
func TestServerThatStopsLosesNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var old, next piped
		g := newGated()
		old.start(NewServer(g))
		next.start(NewServer(agreeable{}))
		defer next.stop()
		c := old.drive(t)
		defer c.Close()
		_ = c.Abort(t.Context(), branchOf(""))
		synctest.Wait()
		const many = 10
		underWay := prepareMany(t.Context(), c, many, "")
		synctest.Wait()
		if len(g.arrived) != many || old.rpcs.Load() != 1 {
			t.Fatalf("%d calls arrived, %d by RPC", len(g.arrived), old.rpcs.Load())
		}
		began := time.Now()
		stopped := make(chan struct{})
		old.listener.Store(next.listener.Load()) // where the address leads from now on
		go func() {
			old.server.GracefulStop()
			close(stopped)
		}()
		synctest.Wait()
		for range 10 {
			prepared(t, c)
			synctest.Wait()
		}
		close(g.gate)
		for range many {
			if err := <-underWay; err != nil {
				t.Errorf("a call under way at the stop: %v", err)
			}
		}
		<-stopped
		<-old.served
		if waited := time.Since(began); waited >= time.Second { // a new connection is made within
			t.Errorf("the stop took %s", waited)
		}
	})
}

// R14: calls past what the service takes at once are RPCs, which wait their turn; and
// a call that was given up keeps its place until the service has answered it.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 3
		var p piped
		seen := make(chan *participantv1.CallManyRequest, 100)
		p.start(&raw{
			ParticipantServer: NewServer(agreeable{}),
			talk: func(stream callmany.Stream) error {
				if err := stream.Send(&participantv1.CallManyResponse{Window: window}); err != nil {
					return err
				}
				for {
					m, err := stream.Recv()
					if err != nil {
						return err
					}
					seen <- m
				}
			},
		})
		defer p.stop()
		c := p.drive(t)
		defer c.Close()
		onStream(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		outcomes := prepareMany(ctx, c, 10, "")
		synctest.Wait()
		if n := len(outcomes); n != 10-window {
			t.Errorf("%d calls were RPCs, want %d", n, 10-window)
		}
		cancel()
		synctest.Wait()
		for range 5 {
			prepared(t, c)
		}
		c.streams.current.Load().retire()
		synctest.Wait()
		calls, cancelled := 0, 0
		for len(seen) > 0 {
			m := <-seen
			calls += len(m.GetCalls())
			cancelled += len(m.GetCancelled())
		}
		if calls != window || cancelled != window {
			t.Errorf("%d calls on the stream and %d cancelled, want %d", calls, cancelled, window)
		}
	})
}

// raw is a service whose stream a test writes.
type raw struct {
	participantv1.ParticipantServer
	talk func(callmany.Stream) error
}

func (r *raw) CallMany(stream callmany.Stream) error { return r.talk(stream) }

func greet(stream callmany.Stream) error { return stream.Send(&participantv1.CallManyResponse{}) }

// R14: a service that does not read holds up the sender alone. What waits is bounded,
// callers leave when their time is over, and what they leave is never sent.
func TestServiceThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		gone := make(chan struct{})
		p.start(&raw{
			ParticipantServer: NewServer(agreeable{}),
			talk: func(stream callmany.Stream) error {
				if err := greet(stream); err != nil {
					return err
				}
				<-stream.Context().Done()
				close(gone)
				return nil
			},
		}, grpc.InitialWindowSize(1<<16), grpc.InitialConnWindowSize(1<<20)) // or the window grows for ever
		defer p.stop()
		c := p.drive(t)
		s := onStream(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		const many = 500
		outcomes := prepareMany(ctx, c, many, strings.Repeat("x", maxStreamed))
		synctest.Wait()
		s.mu.Lock()
		waiting, open := s.bytes, len(s.open)
		s.mu.Unlock()
		if waiting == 0 || waiting > maxWaiting || open+len(outcomes) != many {
			t.Errorf("%d bytes wait, at most %d; %d calls on the stream, %d answered as RPCs", waiting, maxWaiting, open, len(outcomes))
		}
		time.Sleep(2 * time.Minute)
		if len(outcomes) != many {
			t.Errorf("%d of %d callers are back", len(outcomes), many)
		}
		s.mu.Lock()
		if s.bytes != 0 || len(s.waiting) != 0 {
			t.Errorf("%d calls of %d bytes wait for nobody", len(s.waiting), s.bytes)
		}
		s.mu.Unlock()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-gone
	})
}

// A stream that breaks leaves every call on it without an answer, once, and no other
// call. While streams keep breaking they become rare, so that RPCs get through.
func TestStreamsThatBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 50
		patience := many // calls that the first stream bears, and after it each
		var p piped
		p.start(&raw{
			ParticipantServer: NewServer(agreeable{}),
			talk: func(stream callmany.Stream) error {
				if err := greet(stream); err != nil {
					return err
				}
				for n := 0; n < patience; {
					m, err := stream.Recv()
					if err != nil {
						return err
					}
					n += len(m.GetCalls())
				}
				patience = 1
				// That of one call would be a stale epoch; of the stream it is none.
				return statusError(participants.ErrStaleEpoch)
			},
		})
		defer p.stop()
		c := p.drive(t)
		defer c.Close()
		onStream(t, c)
		outcomes := prepareMany(t.Context(), c, many, "")
		for range many {
			if err := <-outcomes; err == nil || errors.Is(err, participants.ErrStaleEpoch) {
				t.Errorf("a call on the stream that broke: %v", err)
			}
		}
		failed := 0
		for range 60 * 60 {
			if _, err := c.Prepare(t.Context(), branchOf("")); err != nil {
				failed++
			}
			time.Sleep(time.Second)
		}
		// A doubling pause gives ten of them until it is a minute long.
		if n := p.streams.Load(); n < 60 || n > 75 || int64(failed) > n {
			t.Errorf("%d streams in an hour, %d calls failed on them", n, failed)
		}
	})
}

// The connection is lost under calls: each fails once, and as "not known".
func TestConnectionLostUnderTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		g := newGated()
		p.start(NewServer(g))
		c := p.drive(t)
		defer c.Close()
		_ = c.Abort(t.Context(), branchOf(""))
		synctest.Wait()
		const many = 200
		outcomes := prepareMany(t.Context(), c, many, "")
		synctest.Wait()
		p.stop()
		synctest.Wait()
		if len(g.arrived) != many || len(outcomes) != many {
			t.Fatalf("%d of %d calls arrived, %d came back", len(g.arrived), many, len(outcomes))
		}
		for range many {
			if err := <-outcomes; err == nil || status.Code(errors.Unwrap(err)) != codes.Unavailable {
				t.Errorf("%v, want UNAVAILABLE", err)
			}
		}
		p.start(NewServer(agreeable{}))
		defer p.stop()
		time.Sleep(time.Minute)
		onStream(t, c)
	})
}

// A caller that gives up is back at once, the service hears of it, and its answer is
// nobody's. Its patience reaches the service.
func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		g := newGated()
		p.start(NewServer(g))
		defer p.stop()
		c := p.drive(t)
		defer c.Close()
		_ = c.Abort(t.Context(), branchOf(""))
		synctest.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		outcome := prepareMany(ctx, c, 1, "")
		theirs := <-g.arrived
		if _, ok := theirs.Deadline(); ok {
			t.Error("a call without a deadline arrived with one")
		}
		cancel()
		synctest.Wait()
		if err := <-outcome; !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the context's end", err)
		}
		if !errors.Is(theirs.Err(), context.Canceled) {
			t.Errorf("the service's context: %v", theirs.Err())
		}

		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		outcome = prepareMany(ctx, c, 1, "")
		theirs = <-g.arrived
		if at, ok := theirs.Deadline(); !ok || time.Until(at) != time.Minute {
			t.Errorf("the service has %s, %v; want a minute", time.Until(at), ok)
		}
		if err := <-outcome; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the deadline in it", err)
		}
		synctest.Wait()
		s := c.streams.current.Load()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.open) != 0 || p.rpcs.Load() != 1 {
			t.Errorf("%d calls are open, %d were RPCs", len(s.open), p.rpcs.Load())
		}
	})
}

// What a service answers twice or to nobody is no answer, and what it answers to
// another kind of call is none either.
func TestAnswersToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		no := func(sequence uint64) *participantv1.CallAnswer {
			return &participantv1.CallAnswer{
				Sequence: sequence,
				Prepare:  &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_ABORT, Reason: "made up"},
			}
		}
		p.start(&raw{
			ParticipantServer: NewServer(agreeable{}),
			talk: func(stream callmany.Stream) error {
				if err := greet(stream); err != nil {
					return err
				}
				for {
					m, err := stream.Recv()
					if err != nil {
						return err
					}
					for _, call := range m.GetCalls() {
						n := call.GetSequence()
						yes := &participantv1.CallAnswer{Sequence: n, Prepare: &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_COMMIT}}
						answers := []*participantv1.CallAnswer{no(n + 1000), no(0), yes, no(n), nil}
						if err := stream.Send(&participantv1.CallManyResponse{Answers: answers}); err != nil {
							return err
						}
					}
				}
			},
		})
		defer p.stop()
		c := p.drive(t)
		defer c.Close()
		onStream(t, c)
		outcomes := prepareMany(t.Context(), c, 50, "")
		for range 50 {
			if err := <-outcomes; err != nil {
				t.Error(err)
			}
		}
		for range 50 {
			prepared(t, c)
		}
		if err := c.Commit(t.Context(), branchOf("")); err == nil {
			t.Error("a vote was taken for a receipt")
		}
		if n := p.rpcs.Load(); n != 1 {
			t.Errorf("%d calls were RPCs", n)
		}
	})
}

// What a service answers before it was asked is no answer.
func TestAnswerAheadOfItsCall(t *testing.T) {
	s := newStream(nil, 0)
	c := &call{ended: make(chan result, 1)}
	if !s.join(c) {
		t.Fatal("no room")
	}
	ahead := []*participantv1.CallAnswer{{Sequence: c.sequence}}
	if got := s.match(ahead, nil); got[0] != nil || len(s.open) != 1 {
		t.Errorf("an answer found a call that was not sent: %v", got)
	}
	s.next()
	if got := s.match(ahead, nil); got[0] != c || len(s.open) != 0 {
		t.Errorf("an answer did not find its call: %v", got)
	}
}

// A message says cluster, epoch and horizon once; calls that differ in them arrive
// with their own all the same.
func TestEachCallKeepsItsBranch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		echo := &echo{seen: map[string]participants.Branch{}}
		p.start(NewServer(echo))
		defer p.stop()
		c := p.drive(t)
		defer c.Close()
		onStream(t, c)
		var all sync.WaitGroup
		sent := map[string]participants.Branch{}
		for i := range 300 {
			b := branchOf(strings.Repeat("payload", i%3))
			b.Cluster = []string{"c1", "c2"}[i%2]
			b.Number, b.Epoch, b.Horizon = 1+i%256, uint64(1+i%5), txn.Time(i%7)
			b.Digest = sha256.Sum256(b.Payload)
			sent[b.Name()] = b
			all.Go(func() {
				if _, err := c.Prepare(t.Context(), b); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for name, b := range sent {
			if got := echo.seen[name]; fmt.Sprint(got) != fmt.Sprint(b) {
				t.Errorf("the participant saw\n%+v\nof\n%+v", got, b)
			}
		}
		if n := p.rpcs.Load(); n != 1 {
			t.Errorf("%d calls were RPCs", n)
		}
	})
}

// echo remembers what it was asked to prepare.
type echo struct {
	agreeable
	mu   sync.Mutex
	seen map[string]participants.Branch
}

func (e *echo) Prepare(_ context.Context, b participants.Branch) (participants.Vote, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[b.Name()] = b
	return participants.Yes(), nil
}

// A payload that others would have to wait for is an RPC.
func TestLargePayloadIsAnRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p piped
		p.start(NewServer(agreeable{}))
		defer p.stop()
		c := p.drive(t)
		defer c.Close()
		onStream(t, c)
		for _, size := range []int{maxStreamed, maxStreamed + 1} {
			if _, err := c.Prepare(t.Context(), branchOf(strings.Repeat("x", size))); err != nil {
				t.Error(err)
			}
		}
		if n := p.rpcs.Load(); n != 2 {
			t.Errorf("%d RPCs, want the first call and the largest", n)
		}
	})
}

// A sender's message costs nothing new once it has been as large before.
func TestMessageAllocatesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var waiting []*call
	for i := range 64 {
		c := &call{kind: kind(i % 3), branch: branchOf("payload"), txid: "t", sequence: uint64(i)}
		c.deadline, _ = ctx.Deadline()
		waiting = append(waiting, c)
	}
	var m message
	fill := func() {
		m.begin(nil)
		for _, c := range waiting {
			c.branch.Cluster, c.branch.Horizon = "c1", 7
			if !m.add(c) {
				t.Fatal("no room")
			}
		}
	}
	fill()
	if n := testing.AllocsPerRun(100, fill); n != 0 {
		t.Errorf("%v allocations a message", n)
	}
}
