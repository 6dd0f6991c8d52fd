// Package submitmany is a client's end of the rpc SubmitMany of decree.v1: a [Line]
// carries the submissions to one node in one stream, for applications and for nodes
// that forward. It owns the stream, its goroutines and its bounds, and leaves to its
// user what to do about a submission whose answer did not come.
package submitmany

import (
	"context"
	"errors"
	"sync"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

const (
	// maxBytes bounds the content of a submission that goes by the stream; a larger
	// one is a call of its own, since it would hold up the others.
	maxBytes = 256 << 10
	// withoutStream is how long a node that could not serve the stream gets calls
	// before it is asked again: it may have been upgraded.
	withoutStream = time.Minute
	// whileDraining is the same for a node that is about to stop.
	whileDraining = time.Second
)

// ErrByCall says that a submission was not sent, and has to go as a call of its own.
var ErrByCall = errors.New("to be sent as a call")

// BrokenError says that the stream ended, or the submission's context, before the
// answer came. Its cause is told and not wrapped, but for a context's error: it says
// nothing about this submission.
type BrokenError struct {
	Sent bool // it may have been carried out; otherwise it certainly was not
	Err  error
}

func (e *BrokenError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *BrokenError) Unwrap() error { return e.Err }

// Line is the way to one node. It opens a stream when it is first used and whenever
// the last one has ended. It is safe for concurrent use.
type Line struct {
	// set once by New
	conn  *grpc.ClientConn
	ready func(context.Context) error
	life  context.Context
	end   context.CancelFunc
	work  sync.WaitGroup // the streams

	spare sync.Pool // of submissions that were answered

	mu         sync.Mutex
	closed     bool                 // guarded by mu
	stream     *stream              // takes submissions; nil where none does; guarded by mu
	running    map[*stream]struct{} // it, and those that wait for their last answers; guarded by mu
	callsUntil time.Time            // no stream is opened before; guarded by mu
}

// New makes a line over a connection. Its streams carry the outgoing metadata of ctx
// and end with it. Before one is opened, ready waits until the connection is up; its
// error is returned as it is.
func New(ctx context.Context, conn *grpc.ClientConn, ready func(context.Context) error) *Line {
	l := &Line{conn: conn, ready: ready, running: make(map[*stream]struct{})}
	l.life, l.end = context.WithCancel(ctx)
	return l
}

// Close ends the stream and waits for its goroutines.
func (l *Line) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.end()
	l.work.Wait()
}

// Cut ends every stream, and with it the waiting for its answers. The line stays
// open.
func (l *Line) Cut(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.running {
		s.cut(cause)
	}
}

// Submit sends a submission and waits for its answer, as the call Submit would. The
// time that ctx has left travels with it. An error is the node's own status, a
// [BrokenError], or ErrByCall.
//
// Once reign has ended nothing is sent to the node: it may be one that hangs. Nil
// does not end. Who ends it calls Cut next, for what was sent before.
func (l *Line) Submit(ctx, reign context.Context, req *decreev1.SubmitRequest) (*decreev1.Result, error) {
	return l.SubmitFor(ctx, reign, "", req)
}

// SubmitFor is Submit for a node that passes a submission on, on behalf of a caller,
// role/name; empty where callers are not known.
func (l *Line) SubmitFor(ctx, reign context.Context, caller string, req *decreev1.SubmitRequest) (*decreev1.Result, error) {
	size := sizeOf(req)
	if size > maxBytes {
		return nil, ErrByCall
	}
	one, _ := l.spare.Get().(*submission)
	if one == nil {
		one = &submission{done: make(chan struct{}, 1)}
	}
	one.message.Request, one.message.Caller, one.size = req, caller, size
	one.until, _ = ctx.Deadline()
	s, err := l.queue(ctx, reign, one)
	if err == nil {
		var kept bool
		if kept, err = s.await(ctx, one); kept {
			return nil, err
		}
	}
	var result *decreev1.Result
	if err == nil {
		result, err = one.outcome()
	}
	one.message.Request, one.told, one.err, one.sent = nil, nil, nil, false
	l.spare.Put(one)
	return result, err
}

// sizeOf is about what a request takes on the wire, as far as it can be large.
func sizeOf(req *decreev1.SubmitRequest) int {
	n := 64
	for _, b := range req.GetBranches() {
		n += 16 + len(b.GetParticipant()) + len(b.GetPayload())
		if b.GetJson() != nil {
			n += proto.Size(b.GetJson())
		}
	}
	return n
}

// queue gives a submission to the stream, which may have to be opened.
func (l *Line) queue(ctx, reign context.Context, one *submission) (*stream, error) {
	for {
		s, err := l.open(ctx, reign)
		if err != nil {
			return nil, err
		}
		if err := s.add(one, reign); !errors.Is(err, errClosing) {
			return s, err
		}
	}
}

// open is the stream, opened where there is none.
func (l *Line) open(ctx, reign context.Context) (*stream, error) {
	if s, err := l.current(); s != nil || err != nil {
		return s, err
	}
	if over(reign) {
		return nil, &BrokenError{Err: errOver}
	}
	if err := l.connect(ctx, reign); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, ErrByCall // which says so in its own words
	case l.stream != nil: // another was faster
		return l.stream, nil
	}
	s := &stream{line: l, ready: make(chan struct{}, 1), window: firstWindow}
	ctx, s.cut = context.WithCancelCause(l.life)
	l.stream, l.running[s] = s, struct{}{}
	l.work.Go(func() {
		defer l.ended(s)
		s.run(ctx)
	})
	return s, nil
}

// connect waits until the connection is up.
func (l *Line) connect(ctx, reign context.Context) error {
	if reign != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(reign, cancel)()
	}
	return l.ready(ctx)
}

// errOver is why nothing is sent to a node.
var errOver = errors.New("another node is asked by now")

func over(reign context.Context) bool { return reign != nil && reign.Err() != nil }

// ended lets go of a stream that has.
func (l *Line) ended(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, s)
}

// current is the stream that is open, if there is one.
func (l *Line) current() (*stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == nil && time.Now().Before(l.callsUntil) {
		return nil, ErrByCall
	}
	return l.stream, nil
}

// forget makes a stream no longer the line's. For some time submissions are calls
// then.
func (l *Line) forget(s *stream, calls time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == s {
		l.stream = nil
	}
	if calls > 0 {
		l.callsUntil = time.Now().Add(calls)
	}
}

// submission is one that waits for its answer.
type submission struct {
	message decreev1.Submission
	size    int
	until   time.Time // its context's deadline, or zero

	sent bool          // guarded by stream.mu
	done chan struct{} // gets a token when what follows is set
	told *decreev1.SubmissionAnswer
	err  error
}

// outcome is what a call would have returned.
func (one *submission) outcome() (*decreev1.Result, error) {
	if one.err != nil {
		return nil, one.err
	}
	r, why := one.told.GetResult(), one.told.GetError()
	switch {
	case codes.Code(why.GetCode()) != codes.OK: //nolint:gosec // a code
		return nil, status.ErrorProto(&spb.Status{Code: why.GetCode(), Message: why.GetMessage(), Details: why.GetDetails()}) //nolint:wrapcheck // the node's own
	case r == nil:
		return nil, &BrokenError{Sent: true, Err: errNoAnswer}
	case r.GetTxid() == "":
		r.Txid = one.message.GetRequest().GetTxid()
	}
	return r, nil
}

var errNoAnswer = errors.New("an answer that says nothing")
