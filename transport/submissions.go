package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/transport/access"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/certs"
)

// This file is the server's end of SubmitMany. Three kinds of goroutines serve a
// stream: its handler receives and starts what this node can carry out, the crew does
// the rest, and one sends. Whatever is ready when the last frame has left is the next
// one, so that frames grow with the load, and a single answer leaves at once.

const (
	// maxAnswersPerFrame keeps a frame of answers, of some KiB each at the most,
	// below the 4 MiB that a gRPC client takes by default.
	maxAnswersPerFrame = 512
	// maxSpare bounds what a stream keeps for submissions to come, of half a KiB
	// each.
	maxSpare = 1024
)

// submissions is one stream of them.
type submissions struct {
	// set once by SubmitMany
	server    *transactions
	stream    grpc.BidiStreamingServer[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse]
	hops      int
	from      *admission // who opened it; nil where callers are not asked who they are
	deadlines *deadlines
	sender    sync.WaitGroup

	ready chan struct{} // holds a token while there are answers to be sent
	room  chan struct{} // holds a token once some have been
	done  chan struct{} // closed when there will be no more

	mu       sync.Mutex
	open     int         // received, and their answers not yet sent; guarded by mu
	answered []*streamed // and not yet sent; guarded by mu
	spare    []*streamed // to be used again; guarded by mu
}

// SubmitMany implements the RPC. It returns when every submission that it received
// has been answered, or the stream is broken.
func (s *transactions) SubmitMany(stream grpc.BidiStreamingServer[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse]) error {
	m := &submissions{
		server: s, stream: stream, hops: hops(stream.Context()), from: admissionOf(stream.Context()), deadlines: newDeadlines(stream.Context(), func(f *following, cause error) { s.cfg.Coordinator.Leave(&f.Following, cause) }),
		ready: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
	window := uint32(min(s.cfg.MaxPerStream, math.MaxUint32)) //nolint:gosec // bounded
	if err := stream.Send(&decreev1.SubmitManyResponse{Window: window}); err != nil {
		return fmt.Errorf("open a stream of submissions: %w", err)
	}
	m.sender.Go(m.send)
	err := m.receive()
	m.await(1) // a stream that is broken has ended their contexts
	close(m.done)
	m.sender.Wait()
	m.deadlines.close()
	return err
}

// receive starts submissions, or hands them to the crew, until the client closes its
// side.
func (m *submissions) receive() error {
	for {
		frame, err := m.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("receive submissions: %w", err)
		}
		for _, one := range frame.GetSubmissions() {
			m.await(m.server.cfg.MaxPerStream)
			if s := m.take(one); !s.start() {
				m.server.crew.give(s)
			}
		}
	}
}

// await returns when fewer than limit submissions are open.
func (m *submissions) await(limit int) {
	for {
		m.mu.Lock()
		open := m.open
		m.mu.Unlock()
		if open < limit {
			return
		}
		<-m.room
	}
}

// take opens a submission.
func (m *submissions) take(one *decreev1.Submission) *streamed {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
	if n := len(m.spare); n > 0 {
		s := m.spare[n-1]
		m.spare = m.spare[:n-1]
		s.asked = one
		return s
	}
	return &streamed{stream: m, asked: one, work: newSubmitting(m.server)}
}

// streamed is a submission of the stream.
type streamed struct {
	stream *submissions         // set once
	work   *submitting          // set once
	asked  *decreev1.Submission // nil once it is begun
	named  bool                 // by the client, with a txid
	begun  bool                 // the request was checked, and is right
	within *deadline
	answer decreev1.SubmissionAnswer
	who    certs.Identity // nobody where callers are not asked who they are
	pass   access.Pass
}

// forget lets go of what the submission asked for, which may be large.
func (s *streamed) forget() {
	s.asked, s.work.req, s.work.sub = nil, nil, coordinator.Submission{}
	s.begun, s.within, s.who = false, nil, certs.Identity{}
	s.answer.Reset()
}

// begin checks the request.
func (s *streamed) begin() error {
	s.answer.Sequence = s.asked.GetSequence()
	req := s.asked.GetRequest()
	if req == nil {
		req = &decreev1.SubmitRequest{} // as gRPC has it of an empty message
	}
	s.named = req.GetTxid() != ""
	if err := s.admit(); err != nil {
		return refuse(err, req.GetTxid())
	}
	if err := s.work.begin(req, callerAs(s.who)); err != nil {
		return refuse(err, req.GetTxid())
	}
	s.begun, s.within = true, s.deadline(s.work.errand.budget)
	s.asked = nil
	return nil
}

// admit lets the submission in, where callers are asked who they are.
func (s *streamed) admit() (err error) {
	from, g := s.stream.from, s.stream.server.guard
	if from == nil {
		return nil
	}
	if s.who, err = g.submitter(from, s.asked.GetCaller()); err == nil && !from.node {
		s.pass, err = g.enter(s.who)
	}
	return err
}

// start has the submission carried out by this node, if it leads, and by no goroutine:
// where participants do not answer, thousands of clients may wait. It is false where
// the crew must carry it out.
func (s *streamed) start() bool {
	server := s.stream.server.Server
	if s.stream.hops > maxHops || !server.cfg.Coordinator.Leads() {
		return false
	}
	if err := s.begin(); err != nil {
		s.told(nil, err)
		return true
	}
	if server.recordable(s.work.sub.Owner) != nil {
		return false // the crew tells why
	}
	if server.enter() != nil {
		return false // the crew tells why
	}
	s.work.req = nil // a submission may wait for long
	f := &following{streamed: s}
	s.within.add(f)
	if err := server.cfg.Coordinator.Start(s.work.sub, &f.Following, f); err != nil {
		s.within.remove(f)
		server.leave()
		return false
	}
	if cause := context.Cause(f.within); cause != nil { // it may have ended before the start
		server.cfg.Coordinator.Leave(&f.Following, cause)
	}
	return true
}

// following waits for a submission that was started. It serves once, so that a
// deadline which comes late finds nobody else in its place.
type following struct {
	coordinator.Following
	*streamed
	within *deadline
}

// Answered implements coordinator.Listener. What is no answer yet is pursued by the
// crew, and keeps its place among the node's calls: it may have run, so that it must not
// be told that the node is busy.
func (f *following) Answered(r coordinator.Result, err error) {
	s := f.streamed
	server := s.stream.server.Server
	f.within.remove(f)
	if err != nil {
		s.work.errand.failed = err
		server.crew.give(s)
		return
	}
	server.leave()
	s.told(s.work.answer(r), nil)
}

// carryOut is the crew's task.
func (s *streamed) carryOut() {
	if !s.begun {
		if err := s.begin(); err != nil {
			s.told(nil, err)
			return
		}
	}
	ctx := context.Context(s.within)
	if s.stream.from != nil {
		ctx = asCaller(ctx, s.who)
	}
	s.told(carryOut(ctx, s.stream.server.Server, s.stream.hops, &s.work.errand))
}

// told hands the answer to the sender.
func (s *streamed) told(result *decreev1.Result, err error) {
	s.pass.Leave()
	if err != nil {
		s.answer.Error = errorMessage(err)
	} else {
		result.Txid = s.work.errand.txid
		if s.named {
			result.Txid = "" // the client knows
		}
		s.answer.Result = result
	}
	s.stream.hand(s)
}

// deadline is bound, of a submission that may have a patience of its own.
func (s *streamed) deadline(budget time.Duration) *deadline {
	if us := s.asked.GetPatienceUs(); us > 0 {
		patience := time.Duration(min(us, uint64(maxPatience/time.Microsecond))) * time.Microsecond //nolint:gosec // bounded
		budget = patience - margin(patience)
	}
	return s.stream.deadlines.in(budget)
}

// maxPatience is what any longer one counts as: no call is that long.
const maxPatience = 365 * 24 * time.Hour

// errorMessage is the status of a call as a message.
func errorMessage(err error) *decreev1.Error {
	st := status.Convert(err).Proto()
	return &decreev1.Error{Code: st.GetCode(), Message: st.GetMessage(), Details: st.GetDetails()}
}

// hand gives what is answered to the sender.
func (m *submissions) hand(s *streamed) {
	m.mu.Lock()
	m.answered = append(m.answered, s)
	first := len(m.answered) == 1
	m.mu.Unlock()
	if first {
		signal(m.ready)
	}
}

// signal leaves a token.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// send sends answers until there will be no more.
func (m *submissions) send() {
	stopping := m.server.ended.Done()
	var frame decreev1.SubmitManyResponse
	var answered []*streamed
	for {
		select {
		case <-m.ready:
		case <-stopping:
			stopping = nil
			m.stream.Send(&decreev1.SubmitManyResponse{Draining: true}) //nolint:errcheck,gosec // receive hears of it
			continue
		case <-m.done:
			return
		}
		runtime.Gosched() // whoever is about to answer may join the frame
		m.mu.Lock()
		answered, m.answered = m.answered, answered[:0]
		m.mu.Unlock()
		for rest := answered; len(rest) > 0; {
			n := min(len(rest), maxAnswersPerFrame)
			m.sendFrame(&frame, rest[:n])
			rest = rest[n:]
		}
		clear(answered)
	}
}

// sendFrame sends some answers and makes room for as many submissions. Where the
// stream is broken nobody waits for them.
func (m *submissions) sendFrame(frame *decreev1.SubmitManyResponse, answered []*streamed) {
	frame.Answers = frame.GetAnswers()[:0]
	for _, s := range answered {
		frame.Answers = append(frame.Answers, &s.answer)
	}
	m.stream.Send(frame) //nolint:errcheck,gosec // receive hears of it
	for _, s := range answered {
		s.forget()
	}
	m.mu.Lock()
	m.open -= len(answered)
	m.spare = append(m.spare, answered[:min(len(answered), maxSpare-len(m.spare))]...)
	m.mu.Unlock()
	signal(m.room)
}
