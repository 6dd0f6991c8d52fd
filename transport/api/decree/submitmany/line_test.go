// These tests prove what a Line says of a submission whose answer does not come:
// whether it may have been carried out (rule R5). What it does with answers that do
// come is proven where it is used, in transport/client and transport.
package submitmany

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

type wireEnd = grpc.BidiStreamingServer[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse]

// server is the other end of the line.
type server struct {
	decreev1.UnimplementedTransactionsServer
	serve func(wireEnd) error
}

func (s *server) SubmitMany(stream wireEnd) error { return s.serve(stream) }

// lineTo starts a server and a line to it.
func lineTo(t *testing.T, serve func(wireEnd) error) *Line {
	t.Helper()
	l, g := bufconn.Listen(1<<10), grpc.NewServer()
	decreev1.RegisterTransactionsServer(g, &server{serve: serve})
	go g.Serve(l)
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	line := New(t.Context(), conn, func(context.Context) error { return nil })
	t.Cleanup(func() {
		line.Close()
		conn.Close()
	})
	return line
}

func request(bytes int) *decreev1.SubmitRequest {
	return &decreev1.SubmitRequest{Txid: "t", Branches: []*decreev1.NewBranch{
		{Participant: "a", Content: &decreev1.NewBranch_Payload{Payload: make([]byte, bytes)}},
	}}
}

// R5: a server that does not read leaves the first submissions unknown; those that
// were never sent are told apart.
func TestWhatWasNotSentIsTold(t *testing.T) {
	opened := make(chan struct{}, 1)
	line := lineTo(t, func(stream wireEnd) error {
		opened <- struct{}{}
		<-stream.Context().Done()
		return nil
	})
	const many = 100 // of 200 KiB: more than is sent without being read
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, many)
	submit := func() {
		_, err := line.Submit(ctx, nil, request(200<<10))
		ended <- err
	}
	go submit()
	<-opened
	for range many - 1 {
		go submit()
	}
	full := func() bool {
		line.mu.Lock()
		s := line.stream
		line.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.slots) == many && len(s.waiting) > many/2
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !full() {
		<-tick.C
	}
	cancel()
	sent := 0
	for range many {
		var broken *BrokenError
		err := <-ended
		if !errors.As(err, &broken) || !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if broken.Sent {
			sent++
		}
	}
	if sent == 0 || sent >= many/2 {
		t.Errorf("%d of %d were sent", sent, many)
	}
	line.mu.Lock()
	defer line.mu.Unlock()
	if got := len(line.stream.slots) - len(line.stream.free); got != sent {
		t.Errorf("%d sequences are taken, %d submissions are without an answer", got, sent)
	}
}

// R5: a server that answers nonsense has told nothing.
func TestNonsenseIsNoAnswer(t *testing.T) {
	line := lineTo(t, func(stream wireEnd) error {
		for {
			frame, err := stream.Recv()
			if err != nil {
				return nil
			}
			for _, one := range frame.GetSubmissions() {
				stream.Send(&decreev1.SubmitManyResponse{Answers: []*decreev1.SubmissionAnswer{
					{Sequence: 1 << 40, Result: &decreev1.Result{}}, {Sequence: one.GetSequence() + 1},
					{Sequence: one.GetSequence(), Error: &decreev1.Error{}},
				}})
			}
		}
	})
	for range 2 {
		r, err := line.Submit(t.Context(), nil, request(1))
		var broken *BrokenError
		if !errors.As(err, &broken) || !broken.Sent {
			t.Errorf("got %v, %v", r, err)
		}
	}
}

// R5: of a node that has no such method nothing was sent, and of one that had it and
// then says otherwise nothing is known.
func TestUnimplementedIsDefiniteAtFirst(t *testing.T) {
	for _, story := range []struct {
		err    error
		heard  bool
		calls  bool // to be sent as calls from now on
		unsent error
		sent   error
	}{
		{status.Error(codes.Unimplemented, ""), false, true, ErrByCall, ErrByCall},
		{status.Error(codes.Unimplemented, ""), true, true, ErrByCall, &BrokenError{Sent: true}},
		{status.Error(codes.Unavailable, ""), true, false, &BrokenError{}, &BrokenError{Sent: true}},
		{status.Error(codes.PermissionDenied, ""), false, true, ErrByCall, &BrokenError{Sent: true}},
		{status.Error(codes.ResourceExhausted, ""), true, true, ErrByCall, &BrokenError{Sent: true}},
		{io.EOF, true, false, &BrokenError{}, &BrokenError{Sent: true}},
	} {
		calls, unsent, sent := verdict(story.err, nil, story.heard)
		if calls > 0 != story.calls || !alike(unsent, story.unsent) || !alike(sent, story.sent) {
			t.Errorf("%v, heard %v: calls for %s; %#v, %#v", story.err, story.heard, calls, unsent, sent)
		}
	}
}

func alike(got, want error) bool {
	var a, b *BrokenError
	if errors.As(want, &b) {
		return errors.As(got, &a) && a.Sent == b.Sent
	}
	return errors.Is(got, want)
}

func TestClosedLineLeavesItToCalls(t *testing.T) {
	line := lineTo(t, func(wireEnd) error { return nil })
	line.Close()
	if _, err := line.Submit(t.Context(), nil, request(1)); !errors.Is(err, ErrByCall) {
		t.Error(err)
	}
}

// R5: who cuts the line waits for nothing more from the node, and that holds for a
// stream that takes nothing more because the node said that it stops, and then hangs.
func TestCutReachesDrainingStreams(t *testing.T) {
	got, drain := make(chan struct{}, 1), make(chan struct{})
	line := lineTo(t, func(stream wireEnd) error {
		if _, err := stream.Recv(); err != nil {
			return nil
		}
		got <- struct{}{}
		<-drain
		stream.Send(&decreev1.SubmitManyResponse{Draining: true})
		<-stream.Context().Done()
		return nil
	})
	ended := make(chan error, 1)
	go func() {
		_, err := line.Submit(t.Context(), nil, request(1))
		ended <- err
	}()
	<-got
	close(drain)
	forgotten := func() bool {
		line.mu.Lock()
		defer line.mu.Unlock()
		return line.stream == nil
	}
	for tick := time.NewTicker(time.Millisecond); !forgotten(); {
		<-tick.C
	}
	line.Cut(errors.New("another leads"))
	select {
	case err := <-ended:
		var broken *BrokenError
		if !errors.As(err, &broken) || !broken.Sent {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it still waits for the node")
	}
}

// R5: a submission that comes too late for the cut is not queued, neither on the
// stream that was cut nor on one that would be opened for it.
func TestNothingIsQueuedOnceCut(t *testing.T) {
	opened := make(chan struct{}, 2)
	line := lineTo(t, func(stream wireEnd) error {
		opened <- struct{}{}
		<-stream.Context().Done()
		return nil
	})
	reign, depose := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := line.Submit(t.Context(), reign, request(1))
		ended <- err
	}()
	<-opened
	depose()
	line.Cut(errors.New("another leads"))
	<-ended
	for range 2 { // while the stream ends, and after that
		_, err := line.Submit(t.Context(), reign, request(1))
		var broken *BrokenError
		if !errors.As(err, &broken) || broken.Sent {
			t.Errorf("got %v; want that it was not sent", err)
		}
	}
	if len(opened) > 0 {
		t.Error("a stream was opened for what was not to be sent")
	}
}

// The way to a node that does not answer, not even to a connection, is left as soon as
// another node leads.
func TestCutEndsTheWaitForAConnection(t *testing.T) {
	line := lineTo(t, func(wireEnd) error { return nil })
	waits := make(chan struct{})
	line.ready = func(ctx context.Context) error {
		close(waits)
		<-ctx.Done()
		return ctx.Err()
	}
	reign, depose := context.WithCancel(t.Context())
	go func() {
		<-waits
		depose()
	}()
	if _, err := line.Submit(t.Context(), reign, request(1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
