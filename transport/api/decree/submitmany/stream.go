package submitmany

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

const (
	// maxFrameBytes and maxFrame bound a frame, well below the 4 MiB that a server
	// takes.
	maxFrameBytes = 1 << 20
	maxFrame      = 512
	// firstWindow bounds the submissions without an answer until the server says how
	// many it takes. Those beyond are calls.
	firstWindow = 256
)

// errClosing says that a stream takes nothing more.
var errClosing = errors.New("the stream is closing")

// stream is one SubmitMany stream, from its opening to its end. What arrives while a
// frame is sent is the next frame, so that frames grow with the load, and a single
// submission leaves at once.
type stream struct {
	// set once by open
	line  *Line
	cut   context.CancelCauseFunc // ends it at once
	ready chan struct{}           // holds a token while there is something for the sender

	heard bool // set and read by receive and what follows it

	// encoding is held while a frame is written, which reads what callers own.
	encoding sync.Mutex

	mu      sync.Mutex
	closing bool          // takes no more; guarded by mu
	window  int           // bounds slots; guarded by mu
	waiting []*submission // not yet sent; guarded by mu
	slots   []*submission // by sequence, those without an answer; guarded by mu
	free    []uint64      // the sequences without a submission; guarded by mu
}

// add queues a submission, unless reign has ended: whoever ends it cuts the stream
// next, and with it what was added before.
func (s *stream) add(one *submission, reign context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return errClosing
	case over(reign):
		return &BrokenError{Err: errOver}
	}
	if n := len(s.free); n > 0 {
		one.message.Sequence = s.free[n-1]
		s.free = s.free[:n-1]
		s.slots[one.message.GetSequence()] = one
	} else if n := len(s.slots); n < s.window {
		one.message.Sequence = uint64(n)
		s.slots = append(s.slots, one)
	} else {
		return ErrByCall
	}
	s.waiting = append(s.waiting, one)
	signal(s.ready)
	return nil
}

// signal leaves a token.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await returns when the submission is answered, or with an error if ctx ends
// first. kept says that the stream still holds it.
func (s *stream) await(ctx context.Context, one *submission) (kept bool, err error) {
	select {
	case <-one.done:
		return false, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	if !s.holds(one) {
		s.mu.Unlock()
		<-one.done // just answered
		return false, nil
	}
	if one.sent {
		s.mu.Unlock()
		s.encoding.Lock() // the caller may change its payload after this
		defer s.encoding.Unlock()
		return true, &BrokenError{Sent: true, Err: ctx.Err()}
	}
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(w *submission) bool { return w == one })
	s.release(one.message.GetSequence())
	return false, &BrokenError{Err: ctx.Err()}
}

// holds reports whether the submission is not yet answered; mu is held.
func (s *stream) holds(one *submission) bool {
	n := one.message.GetSequence()
	return n < uint64(len(s.slots)) && s.slots[n] == one
}

// release frees a sequence; mu is held.
func (s *stream) release(sequence uint64) {
	s.slots[sequence] = nil
	s.free = append(s.free, sequence)
}

// run serves the stream until it ends.
func (s *stream) run(ctx context.Context) {
	defer s.cut(nil)
	wire, err := decreev1.NewTransactionsClient(s.line.conn).SubmitMany(ctx)
	if err != nil {
		s.end(err, nil)
		return
	}
	var sender sync.WaitGroup
	sender.Go(func() { s.send(ctx, wire) })
	err = s.receive(wire)
	s.end(err, context.Cause(ctx))
	s.cut(nil)
	sender.Wait()
}

type wire = grpc.BidiStreamingClient[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse]

// send sends until ctx ends, or the stream is closing and nothing waits.
func (s *stream) send(ctx context.Context, w wire) {
	for {
		select {
		case <-s.ready:
		case <-ctx.Done():
			return
		}
		runtime.Gosched() // whoever is about to submit may join the frame
		if last, err := s.sendWaiting(w); err != nil {
			s.cut(err)
			return
		} else if last {
			w.CloseSend() //nolint:errcheck,gosec // receive hears of it
			return
		}
	}
}

// sendWaiting sends what waits, and tells whether nothing can follow. Where it
// fails, receive hears why.
func (s *stream) sendWaiting(w wire) (last bool, err error) {
	for {
		message, last, err := s.encode(w)
		if err != nil || message == nil {
			return last, err
		}
		if err := w.SendMsg(message); err != nil {
			return false, err //nolint:wrapcheck // its cause comes from receive
		}
	}
}

// encode writes the next frame; nil where nothing waits.
func (s *stream) encode(w wire) (message *grpc.PreparedMsg, last bool, err error) {
	s.encoding.Lock()
	defer s.encoding.Unlock()
	frame, last := s.next()
	if frame == nil {
		return nil, last, nil
	}
	message = &grpc.PreparedMsg{}
	return message, false, message.Encode(w, frame) //nolint:wrapcheck // as above
}

// next takes the next frame from what waits; nil where nothing does, and last
// where nothing will.
func (s *stream) next() (frame *decreev1.SubmitManyRequest, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for n < min(len(s.waiting), maxFrame) && size < maxFrameBytes {
		size += s.waiting[n].size
		n++
	}
	if n == 0 {
		return nil, s.closing
	}
	frame = &decreev1.SubmitManyRequest{Submissions: make([]*decreev1.Submission, n)}
	now := time.Now()
	for i, one := range s.waiting[:n] {
		one.sent = true
		one.message.PatienceUs = patience(now, one.until)
		frame.Submissions[i] = &one.message
	}
	s.waiting = slices.Delete(s.waiting, 0, n)
	return frame, false
}

// patience is the time left, in microseconds; 0 is for ever.
func patience(now, until time.Time) uint64 {
	if until.IsZero() {
		return 0
	}
	return uint64(max(1, until.Sub(now).Microseconds())) //nolint:gosec // positive
}

// receive hands out answers until the stream ends.
func (s *stream) receive(w wire) error {
	var told []*submission
	for {
		frame, err := w.Recv()
		if err != nil {
			return err //nolint:wrapcheck // end judges it
		}
		s.heard = true
		if n := frame.GetWindow(); n > 0 {
			s.widen(int(n))
		}
		told = s.match(told[:0], frame.GetAnswers())
		for _, one := range told {
			one.done <- struct{}{}
		}
		clear(told)
		if frame.GetDraining() {
			s.close()
		}
	}
}

// widen takes the server's word for how many it reads.
func (s *stream) widen(window int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window = window
}

// match appends the submissions that are answered. An answer to none is that of a
// server that is wrong, and is ignored.
func (s *stream) match(told []*submission, answers []*decreev1.SubmissionAnswer) []*submission {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range answers {
		if a.GetSequence() >= uint64(len(s.slots)) || s.slots[a.GetSequence()] == nil {
			continue
		}
		one := s.slots[a.GetSequence()]
		one.told = a
		s.release(a.GetSequence())
		told = append(told, one)
	}
	return told
}

// close has the stream take nothing more, and ends it once all is answered.
func (s *stream) close() {
	s.line.forget(s, whileDraining)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	signal(s.ready)
}

// end tells all who wait that the stream has ended: of a submission that was sent,
// nothing is known.
func (s *stream) end(err, cause error) {
	calls, unsent, sent := verdict(err, cause, s.heard)
	s.line.forget(s, calls)
	s.encoding.Lock() // what is being written is not the callers' again before it is
	defer s.encoding.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for _, one := range s.slots {
		if one == nil {
			continue
		}
		if one.err = unsent; one.sent {
			one.err = sent
		}
		one.done <- struct{}{}
	}
	s.slots, s.waiting = nil, nil
}

// verdict is what the end of the stream means for what was not sent and for what
// was, and for how long the node gets calls. An error that calls meet in their own
// way, with a definite answer perhaps, is theirs to find out. A node that has been
// heard has the method, whatever it says then.
func verdict(err, cause error, heard bool) (calls time.Duration, unsent, sent error) {
	if cause != nil {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	told := fmt.Errorf("the stream broke: %s", err) //nolint:errorlint // not wrapped: it is no answer
	unsent, sent = &BrokenError{Err: told}, &BrokenError{Sent: true, Err: told}
	switch code := status.Code(err); {
	case code == codes.Unavailable, code == codes.Canceled, code == codes.Unknown:
		return 0, unsent, sent
	case code == codes.Unimplemented && !heard:
		return withoutStream, ErrByCall, ErrByCall
	default:
		return withoutStream, ErrByCall, sent
	}
}
