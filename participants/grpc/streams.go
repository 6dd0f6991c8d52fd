package grpcparticipant

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

const (
	// streamPause is the time between a stream that ended and the next one. It grows
	// while streams end without an answer: something on the way does not bear them,
	// and every call that such a stream takes down is a branch in doubt.
	streamPause    = 50 * time.Millisecond
	streamPauseMax = time.Minute
	// A service without the method is asked again at this pace: it may be replaced by
	// a version that has it.
	unsupportedPause = time.Minute
	// greetingTimeout is how long a service may take to open a stream.
	greetingTimeout = 5 * time.Second
	// idlePause is how long a stream is without calls before it is closed, or up to
	// twice as long: less than keepaliveTime, so that an idle connection is not pinged
	// for its sake.
	idlePause = 10 * time.Second
	// drainTimeout is how long the calls of a stream that takes no more have to end.
	// It is longer than the coordinator waits for any.
	drainTimeout = 30 * time.Second
)

// streams keeps a stream to the service open while there are calls for it. When there
// is none, a call is an RPC: while a stream is being opened, after one broke, and with
// services that have no streams. The zero streams never has one.
type streams struct {
	// Set once.
	conn *grpc.ClientConn
	api  participantv1.ParticipantClient
	log  hclog.Logger

	current atomic.Pointer[stream]
	wanted  chan struct{} // there are calls, and no stream for them
	calls   sync.Pool     // of *call, to use their channels again

	// Of run, the one goroutine that streams owns.
	stop  context.CancelFunc
	ended chan struct{}
}

func (k *streams) start(conn *grpc.ClientConn, api participantv1.ParticipantClient, log hclog.Logger) {
	k.conn, k.api, k.log = conn, api, log
	k.calls.New = func() any { return &call{ended: make(chan result, 1)} }
	k.wanted, k.ended = make(chan struct{}, 1), make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	k.stop = stop
	go k.run(ctx)
}

// close ends the stream and waits for its goroutines. No call is under way.
func (k *streams) close() {
	k.stop()
	<-k.ended
}

// call makes one call on the stream. Its error is a status, or errNotSent where the
// call has to be an RPC.
func (k *streams) call(ctx context.Context, of kind, b participants.Branch) (*participantv1.CallAnswer, error) {
	s := k.forCall(b)
	if s == nil || ctx.Err() != nil {
		return nil, errNotSent
	}
	c := k.calls.Get().(*call)
	c.kind, c.branch, c.txid = of, b, b.TxID.String()
	c.deadline, _ = ctx.Deadline()
	answer, err := s.do(ctx, c)
	c.branch.Payload = nil
	k.calls.Put(c)
	if e := answer.GetError(); e != nil {
		return nil, errorFromWire(e)
	}
	return answer, err
}

// forCall is the stream for a call; nil where there is none that would take it.
func (k *streams) forCall(b participants.Branch) *stream {
	s := k.current.Load()
	if s == nil {
		k.want()
		return nil
	}
	if len(b.Payload) > maxStreamed {
		return nil
	}
	return s
}

func (k *streams) want() {
	select {
	case k.wanted <- struct{}{}:
	default:
	}
}

// run opens streams, one after the other, as long as there are calls for them.
func (k *streams) run(ctx context.Context) {
	defer close(k.ended)
	pause := streamPause
	for {
		select {
		case <-k.wanted:
		case <-ctx.Done():
			return
		}
		answered, err := k.converse(ctx)
		k.log.Debug("a stream of calls has ended", "answered", answered, "error", err)
		switch {
		case answered, err == nil:
			pause = streamPause
		case status.Code(err) == codes.Unimplemented:
			pause = unsupportedPause
		default:
			pause = min(2*pause, streamPauseMax)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// converse opens one stream and stays with it until it has ended. It reports whether
// any call was answered.
func (k *streams) converse(ctx context.Context) (answered bool, err error) {
	var company sync.WaitGroup
	defer company.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !k.awaitConnection(ctx) {
		return false, ctx.Err()
	}
	moved := make(chan struct{})
	company.Go(func() {
		k.conn.WaitForStateChange(ctx, connectivity.Ready)
		close(moved)
	})
	s, err := k.open(ctx, cancel)
	if err != nil {
		return false, err
	}
	k.current.Store(s)
	select {
	case <-k.wanted: // here it is
	default:
	}
	company.Go(func() { s.send(ctx) })
	company.Go(func() { k.tend(ctx, cancel, s, moved) })
	answered, err = s.receive()
	k.current.CompareAndSwap(s, nil)
	return answered, err
}

// awaitConnection waits for the connection to stand. A service that is down costs no
// calls.
func (k *streams) awaitConnection(ctx context.Context) bool {
	for {
		state := k.conn.GetState()
		if state == connectivity.Ready {
			return true
		}
		if state == connectivity.Idle {
			k.conn.Connect()
		}
		if !k.conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
}

// open starts a stream and waits for the service's first message. No call leaves
// before it: that a service has no streams must not cost one.
func (k *streams) open(ctx context.Context, cancel context.CancelFunc) (*stream, error) {
	late := time.AfterFunc(greetingTimeout, cancel)
	defer late.Stop()
	wire, err := k.api.CallMany(ctx)
	if err != nil {
		return nil, err
	}
	greeting, err := wire.Recv()
	if err != nil {
		return nil, err
	}
	return newStream(wire, greeting.GetWindow()), nil
}

// tend retires the stream when it is idle, and when its connection takes no new RPCs:
// a server that stops says so to the connection (GOAWAY) and waits for its streams.
func (k *streams) tend(ctx context.Context, cut context.CancelFunc, s *stream, moved <-chan struct{}) {
	idle := time.NewTicker(idlePause)
	defer idle.Stop()
	var joined uint64
	for retired := false; !retired; {
		select {
		case <-idle.C:
			joined, retired = s.retireIdle(joined)
		case <-moved:
			s.retire()
			retired = true
		case <-ctx.Done():
			return
		}
	}
	k.current.CompareAndSwap(s, nil)
	select {
	case <-time.After(drainTimeout):
		cut()
	case <-ctx.Done():
	}
}

// errorFromWire is the status that an RPC would have ended with.
func errorFromWire(e *participantv1.Error) error {
	if codes.Code(e.GetCode()) == codes.OK { //nolint:gosec // any code
		return status.Error(codes.Unknown, "the service answered with an error of no code")
	}
	return status.FromProto(&spb.Status{Code: e.GetCode(), Message: e.GetMessage(), Details: e.GetDetails()}).Err()
}
