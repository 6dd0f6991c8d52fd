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

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// This file is the server's end of SubmitMany. Three kinds of goroutines serve a
// stream: its handler receives, the crew carries out, and one sends. Whatever is
// ready when the last frame has left is the next one, so that frames grow with
// the load, and a single answer leaves at once.

// maxAnswersPerFrame keeps a frame of answers, of some KiB each at the most, below
// the 4 MiB that a gRPC client takes by default.
const maxAnswersPerFrame = 512

// submissions is one stream of them.
type submissions struct {
	// set once by SubmitMany
	server    *transactions
	stream    grpc.BidiStreamingServer[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse]
	hops      int
	deadlines *deadlines
	sender    sync.WaitGroup

	ready chan struct{} // holds a token while there are answers to be sent
	room  chan struct{} // holds a token once some have been
	done  chan struct{} // closed when there will be no more

	mu      sync.Mutex
	open    int                          // received, and their answers not yet sent; guarded by mu
	answers []*decreev1.SubmissionAnswer // to be sent; guarded by mu
}

// SubmitMany implements the RPC. It returns when every submission that it received
// has been answered, or the stream is broken.
func (s *transactions) SubmitMany(stream grpc.BidiStreamingServer[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse]) error {
	m := &submissions{
		server: s, stream: stream, hops: hops(stream.Context()), deadlines: newDeadlines(stream.Context()),
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

// receive hands submissions to the crew until the client closes its side.
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
			m.mu.Lock()
			m.open++
			m.mu.Unlock()
			m.server.crew.give(&streamed{m, one})
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

// streamed is a submission of the stream.
type streamed struct {
	*submissions
	*decreev1.Submission
}

// carryOut is the crew's task.
func (s *streamed) carryOut() {
	answer := &decreev1.SubmissionAnswer{Sequence: s.GetSequence()}
	named := s.GetRequest().GetTxid() != ""
	result, err := s.submit()
	switch {
	case err != nil:
		answer.Error = errorMessage(err)
	case named:
		result.Txid = ""
		answer.Result = result
	default:
		answer.Result = result
	}
	s.answer(answer)
}

// submit is Submit.
func (s *streamed) submit() (*decreev1.Result, error) {
	req := s.GetRequest()
	if req == nil {
		req = &decreev1.SubmitRequest{} // as gRPC has it of an empty message
	}
	e, err := s.server.submitErrand(req)
	if err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	return carryOut(s.within(e.budget), s.server.Server, s.hops, e)
}

// within is bound, of a submission that may have a patience of its own.
func (s *streamed) within(budget time.Duration) context.Context {
	if us := s.GetPatienceUs(); us > 0 {
		patience := time.Duration(min(us, uint64(maxPatience/time.Microsecond))) * time.Microsecond //nolint:gosec // bounded
		budget = patience - margin(patience)
	}
	return s.deadlines.in(budget)
}

// maxPatience is what any longer one counts as: no call is that long.
const maxPatience = 365 * 24 * time.Hour

// errorMessage is the status of a call as a message.
func errorMessage(err error) *decreev1.Error {
	st := status.Convert(err).Proto()
	return &decreev1.Error{Code: st.GetCode(), Message: st.GetMessage(), Details: st.GetDetails()}
}

// answer hands an answer to the sender.
func (m *submissions) answer(a *decreev1.SubmissionAnswer) {
	m.mu.Lock()
	m.answers = append(m.answers, a)
	first := len(m.answers) == 1
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

// send sends answers until done.
func (m *submissions) send() {
	stopping := m.server.ended.Done()
	var spare []*decreev1.SubmissionAnswer
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
		answers := m.answers
		m.answers = spare
		m.mu.Unlock()
		m.sendAll(answers)
		clear(answers)
		spare = answers[:0]
	}
}

// sendAll sends answers, in frames, and makes room for as many submissions. Where
// the stream is broken nobody waits for them.
func (m *submissions) sendAll(answers []*decreev1.SubmissionAnswer) {
	for len(answers) > 0 {
		n := min(len(answers), maxAnswersPerFrame)
		m.stream.Send(&decreev1.SubmitManyResponse{Answers: answers[:n]}) //nolint:errcheck,gosec // receive hears of it
		answers = answers[n:]
		m.mu.Lock()
		m.open -= n
		m.mu.Unlock()
		signal(m.room)
	}
}
