package grpcparticipant

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

const (
	// maxFrame bounds the calls of one message, in bytes. Services written against
	// transport/branch take that much whatever bound they set on payloads.
	maxFrame = 48 << 10
	// maxStreamed is the largest payload that shares a stream, where others wait for
	// its bytes. A larger one is worth an RPC.
	maxStreamed = 16 << 10
	// callSize is what a call takes in a message beside its payload, generously.
	callSize = 128
	// maxOpen bounds the calls of a stream that have no answer, for services that ask
	// for no less. The coordinator has fewer under way to one participant.
	maxOpen = 1024
	// maxWaiting bounds the bytes that wait while the service does not read: past it
	// calls are RPCs, and wait as those do.
	maxWaiting = 1 << 20
)

// stream is one open CallMany. Callers join it and wait for their answers; a sender
// takes all that waits whenever the message before has left, and a receiver wakes the
// callers. So a call that comes alone leaves at once, and calls that come while one is
// being sent share the next message: no timer has to guess. A service that does not
// read blocks the sender and nobody else.
type stream struct {
	// Set once.
	wire   grpc.BidiStreamingClient[participantv1.CallManyRequest, participantv1.CallManyResponse]
	window int
	wake   chan struct{} // of the sender: there is something for it to do

	mu sync.Mutex // guards all that follows

	retired   bool // no more calls may join
	sequence  uint64
	open      map[uint64]*call // without an answer; nil where the caller has given up
	waiting   []*call          // of open, in order: those that were not sent
	bytes     int              // of waiting
	cancelled []uint64         // sent, and given up since

	message message // the sender's
}

// call is one caller's, from when it joins until its result has come.
type call struct {
	kind     kind
	branch   participants.Branch
	txid     string
	deadline time.Time // zero: none

	sequence uint64 // given when it joins
	sent     bool   // guarded by the stream's mu

	// One of these hears the result, once; none does where the caller gives up first.
	ended    chan result           // of one
	listener participants.Listener // of a call that was started
	stream   *stream               // with it
}

// tell hands a call its result.
func (c *call) tell(r result) {
	if c.listener == nil {
		c.ended <- r
		return
	}
	c.listener.Ended(c.outcome(r))
}

// result is how a call on a stream ended: with an answer or an error.
type result struct {
	answer *participantv1.CallAnswer
	err    error // a status, or errNotSent
}

// errNotSent says that the stream ended before the call left: it may go another way.
var errNotSent = errors.New("the call has not left")

func newStream(wire grpc.BidiStreamingClient[participantv1.CallManyRequest, participantv1.CallManyResponse], window uint32) *stream {
	s := &stream{wire: wire, window: maxOpen, wake: make(chan struct{}, 1), open: map[uint64]*call{}}
	if 0 < window && window < maxOpen {
		s.window = int(window)
	}
	return s
}

// do makes one call. It returns errNotSent where the stream has no room for it, or
// ended before it left.
func (s *stream) do(ctx context.Context, c *call) (*participantv1.CallAnswer, error) {
	if !s.join(c) {
		return nil, errNotSent
	}
	var r result
	select {
	case r = <-c.ended:
	case <-ctx.Done():
		if s.giveUp(c) {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		r = <-c.ended // it is on its way
	}
	return r.answer, r.err
}

func (s *stream) join(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired || len(s.open) >= s.window || s.bytes+c.size() > maxWaiting {
		return false
	}
	s.sequence++
	c.sequence, c.sent = s.sequence, false
	s.open[c.sequence] = c
	s.waiting = append(s.waiting, c)
	s.bytes += c.size()
	s.wakeSender()
	return true
}

func (s *stream) wakeSender() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// giveUp takes a call back, unless its result is on its way. One that was not sent
// never will be. One that was keeps its place in the window, since the service may
// still be at it, until it answers.
func (s *stream) giveUp(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open[c.sequence] != c:
		return false
	case c.sent:
		s.open[c.sequence] = nil
		s.cancelled = append(s.cancelled, c.sequence)
		s.wakeSender()
	default:
		delete(s.open, c.sequence)
		i := slices.Index(s.waiting, c)
		s.waiting = slices.Delete(s.waiting, i, i+1)
		s.bytes -= c.size()
	}
	return true
}

// retire lets no more calls join; those that did are answered. Once they are, the
// sender closes its side.
func (s *stream) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	s.wakeSender()
}

// retireIdle retires a stream that has no calls, and had none since joined calls.
func (s *stream) retireIdle(joined uint64) (now uint64, retired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) == 0 && s.sequence == joined {
		s.retired = true
		s.wakeSender()
	}
	return s.sequence, s.retired
}

// send sends what waits, until the stream ends or is retired and empty.
func (s *stream) send(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		// The callers of the last answers are about to call again. To let them line up
		// makes messages of 20 calls where there would be one or two, which nearly halves
		// a call's cost, and costs a single caller nothing measurable.
		runtime.Gosched()
		for {
			m, more := s.next()
			if m == nil {
				if !more {
					_ = s.wire.CloseSend() // always nil
					return
				}
				break
			}
			if s.wire.Send(m) != nil {
				return // the receiver learns why
			}
		}
	}
}

// next takes a message's worth of what waits; nil where there is nothing, for now or
// any more.
func (s *stream) next() (m *participantv1.CallManyRequest, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting)+len(s.cancelled) == 0 {
		return nil, !s.retired || len(s.open) > 0
	}
	s.message.begin(s.cancelled)
	s.cancelled = s.cancelled[:0]
	n := 0
	for n < len(s.waiting) && s.message.add(s.waiting[n]) {
		s.waiting[n].sent = true
		s.bytes -= s.waiting[n].size()
		n++
	}
	s.waiting = slices.Delete(s.waiting, 0, n)
	if len(s.waiting) > 0 {
		s.wakeSender()
	}
	return &s.message.CallManyRequest, true
}

// receive hands out answers until the stream ends, and then tells all who still wait.
// It reports whether any answer came. The error of a stream that was closed from here,
// with nothing left to answer, is nil.
func (s *stream) receive() (answered bool, err error) {
	var ended []*call
	for {
		m, err := s.wire.Recv()
		if err != nil {
			if cut := s.fail(err); cut == 0 && errors.Is(err, io.EOF) {
				return answered, nil
			}
			return answered, err
		}
		ended = s.match(m.GetAnswers(), ended[:0])
		for i, c := range ended {
			if c != nil {
				c.tell(result{answer: m.GetAnswers()[i]})
			}
		}
		answered = answered || len(ended) > 0
	}
}

// match finds and removes the calls that answers are to, nil where nobody waits for
// one: the caller has gone, or the service has made it up.
func (s *stream) match(answers []*participantv1.CallAnswer, into []*call) []*call {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range answers {
		c := s.open[a.GetSequence()]
		if c != nil && !c.sent {
			c = nil
		} else {
			delete(s.open, a.GetSequence())
		}
		into = append(into, c)
	}
	if s.retired && len(s.open) == 0 {
		s.wakeSender()
	}
	return into
}

// fail ends every call, and returns how many of them had left. What was sent has no
// answer now and may yet be carried out, whatever the stream's status would say of a
// single call.
func (s *stream) fail(err error) (cut int) {
	broke := result{err: status.Errorf(codes.Unavailable, "the stream broke: %v", err)}
	if errors.Is(err, io.EOF) {
		broke.err = status.Error(codes.Unavailable, "the service ended the stream")
	}
	s.mu.Lock()
	open := s.open
	s.retired, s.open, s.waiting = true, nil, nil
	s.mu.Unlock()
	for _, c := range open {
		switch {
		case c == nil:
		case c.sent:
			cut++
			c.tell(broke)
		default:
			c.tell(result{err: errNotSent})
		}
	}
	return cut
}
