// These tests prove that a submission that comes in a stream is one that came as a
// call: the same checks, the same errors, the same ways to the leader (rules R5 and
// R11), and bounds of its own (rule R14). What one of them waits for, no other does.
package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// script is a client's end of a stream, step by step.
type script struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[decreev1.SubmitManyRequest, decreev1.SubmitManyResponse]
	window uint32
	told   map[uint64]*decreev1.SubmissionAnswer // heard, and not yet asked for
}

func (n *testNode) submitMany(ctx context.Context, t *testing.T) *script {
	t.Helper()
	stream, err := n.client(t).SubmitMany(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, stream: stream, told: make(map[uint64]*decreev1.SubmissionAnswer)}
	first, err := stream.Recv()
	if err != nil || first.GetWindow() == 0 {
		t.Fatal(first, err)
	}
	s.window = first.GetWindow()
	return s
}

// send sends requests in one frame, as sequence and those after it.
func (s *script) send(sequence uint64, requests ...*decreev1.SubmitRequest) {
	s.t.Helper()
	frame := &decreev1.SubmitManyRequest{}
	for i, r := range requests {
		frame.Submissions = append(frame.Submissions, &decreev1.Submission{Sequence: sequence + uint64(i), Request: r})
	}
	if err := s.stream.Send(frame); err != nil {
		s.t.Fatal(err)
	}
}

// answer waits for the answer to one of them.
func (s *script) answer(sequence uint64) (*decreev1.Result, error) {
	s.t.Helper()
	for s.told[sequence] == nil {
		frame, err := s.stream.Recv()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, a := range frame.GetAnswers() {
			s.told[a.GetSequence()] = a
		}
	}
	a := s.told[sequence]
	delete(s.told, sequence)
	e := a.GetError()
	if (e == nil) == (a.GetResult() == nil) {
		s.t.Fatalf("a result, or else an error: %v", a)
	}
	return a.GetResult(), status.ErrorProto(&spb.Status{Code: e.GetCode(), Message: e.GetMessage(), Details: e.GetDetails()})
}

// submissionOf is a valid request under a txid.
func submissionOf(id txn.TxID) *decreev1.SubmitRequest {
	req := submission()
	req.Txid = id.String()
	return req
}

func TestStreamedSubmissionsAreCalls(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	s := n.submitMany(t.Context(), t)
	id := txid(t)
	s.send(1, submissionOf(id), submission(), &decreev1.SubmitRequest{Txid: "nonsense"}, nil)
	if r, err := s.answer(1); err != nil || r.GetTxid() != "" || r.GetOutcome() != decreev1.Outcome_OUTCOME_COMMITTED || !r.GetDelivered() {
		t.Error(r, err)
	}
	if r, err := s.answer(2); err != nil || r.GetTxid() == "" {
		t.Errorf("the server made a txid and did not tell it: %v, %v", r, err)
	}
	_, err := s.answer(3)
	st := wantReason(t, err, codes.InvalidArgument, reasonMalformedTxID)
	if len(st.Details()) != 2 { // ErrorInfo and BadRequest
		t.Errorf("details %v", st.Details())
	}
	_, err = s.answer(4)
	wantReason(t, err, codes.InvalidArgument, reasonEmpty)

	n.coordinator.submit = func(context.Context, coordinator.Submission) (coordinator.Result, error) {
		return coordinator.Result{}, &coordinator.BusyError{What: "full", RetryAfter: time.Minute}
	}
	s.send(1, submissionOf(id))
	_, err = s.answer(1)
	st = wantReason(t, err, codes.ResourceExhausted, reasonBusy)
	if info, _ := infoOf(st); info.GetMetadata()["txid"] != id.String() || delayOf(st, err) != time.Minute {
		t.Errorf("told %v", st)
	}
	if err := s.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

// slow scripts a coordinator that holds the submissions of a client whose first
// branch says so, until they are released.
func (n *testNode) slow() (begun chan txn.TxID, release chan struct{}) {
	begun, release = make(chan txn.TxID, 100), make(chan struct{})
	n.coordinator.submit = func(ctx context.Context, s coordinator.Submission) (coordinator.Result, error) {
		if string(s.Branches[0].Payload) != "slow" {
			return committed(s.ID), nil
		}
		begun <- s.ID
		select {
		case <-release:
			return committed(s.ID), nil
		case <-ctx.Done():
			return coordinator.Result{}, coordinator.ErrOutcomeUnknown
		}
	}
	return begun, release
}

func slowSubmission() *decreev1.SubmitRequest {
	req := submission()
	req.Branches[0].Content = &decreev1.NewBranch_Payload{Payload: []byte("slow")}
	return req
}

func TestSlowSubmissionHoldsUpNoOther(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	begun, release := n.slow()
	s := n.submitMany(t.Context(), t)
	s.send(1, slowSubmission(), submission())
	for sequence := range uint64(50) {
		if _, err := s.answer(2 + sequence); err != nil {
			t.Fatal(err)
		}
		s.send(3+sequence, submission())
	}
	<-begun
	close(release)
	if _, err := s.answer(1); err != nil {
		t.Error(err)
	}
}

// R14: past the window nothing is read, and each answer makes room.
func TestWindowBoundsAStream(t *testing.T) {
	n := (&world{}).serve(t, "n1", func(c *Config) { c.MaxPerStream = 2 })
	n.coordinator.lead(true)
	n.node.believe("n1")
	begun, release := n.slow()
	s := n.submitMany(t.Context(), t)
	if s.window != 2 {
		t.Errorf("a window of %d", s.window)
	}
	s.send(1, slowSubmission(), slowSubmission(), submission(), submission())
	<-begun
	<-begun
	if got := len(n.coordinator.ids()); got != 2 {
		t.Errorf("%d run", got)
	}
	close(release)
	for sequence := range uint64(4) {
		if _, err := s.answer(1 + sequence); err != nil {
			t.Error(err)
		}
	}
}

// R14: the bound on a node's calls holds for those in streams.
func TestStreamedSubmissionsAreCallsOfTheNode(t *testing.T) {
	n := (&world{}).serve(t, "n1", func(c *Config) { c.MaxCalls = 1 })
	n.coordinator.lead(true)
	n.node.believe("n1")
	begun, release := n.slow()
	s := n.submitMany(t.Context(), t)
	s.send(1, slowSubmission())
	<-begun
	s.send(2, submission())
	_, err := s.answer(2)
	wantReason(t, err, codes.ResourceExhausted, reasonBusy)
	close(release)
	if _, err := s.answer(1); err != nil {
		t.Error(err)
	}
}

// R5: a submission that was started here and may have run is never answered that the node
// is busy, which would say that it has not: it keeps its place among the calls.
func TestWhatMayHaveRunKeepsItsPlace(t *testing.T) {
	n := (&world{}).serve(t, "n1", func(c *Config) { c.MaxCalls = 1 })
	n.coordinator.lead(true)
	if err := n.enter(); err != nil { // as its start did
		t.Fatal(err)
	}
	e := &errand[string]{
		failed: coordinator.ErrOutcomeUnknown,
		local:  func(context.Context) (string, error) { return "the outcome", nil },
	}
	if answer, err := carryOut(t.Context(), n.Server, 0, e); err != nil || !e.ran {
		t.Errorf("got %q, %v; ran: %t", answer, err, e.ran)
	}
	if err := n.enter(); err != nil {
		t.Errorf("its place was not given back: %v", err)
	}
	n.leave()
}

func TestStreamedSubmissionsAreForwarded(t *testing.T) {
	w := &world{}
	leader, follower := w.leader(t, "n1"), w.serve(t, "n2", nil)
	follower.node.believe("n1")
	s := follower.submitMany(t.Context(), t)
	id := txid(t)
	s.send(1, submissionOf(id))
	if _, err := s.answer(1); err != nil {
		t.Fatal(err)
	}
	if ran := leader.coordinator.ids(); len(ran) != 1 || ran[0] != id || len(follower.coordinator.ids()) != 0 {
		t.Errorf("the leader ran %v", ran)
	}
	// What was passed on is not passed on again.
	s = follower.submitMany(metadata.AppendToOutgoingContext(t.Context(), metadataHop, "1"), t)
	s.send(1, submission())
	_, err := s.answer(1)
	wantReason(t, err, codes.Unavailable, reasonNotLeader)
	s = leader.submitMany(metadata.AppendToOutgoingContext(t.Context(), metadataHop, "2"), t)
	s.send(1, submission())
	_, err = s.answer(1)
	wantReason(t, err, codes.Unavailable, reasonNotLeader)
}

// R5 and R11: a leader that is deposed passes its streamed submissions on, under
// their txids.
func TestDeposedLeaderPassesItsStreamOn(t *testing.T) {
	w := &world{}
	old, next := w.leader(t, "n1"), w.leader(t, "n2")
	old.coordinator.submit = func(context.Context, coordinator.Submission) (coordinator.Result, error) {
		old.coordinator.lead(false)
		old.node.believe("n2")
		return coordinator.Result{}, coordinator.ErrOutcomeUnknown
	}
	s := old.submitMany(t.Context(), t)
	id := txid(t)
	s.send(1, submissionOf(id))
	if _, err := s.answer(1); err != nil {
		t.Fatal(err)
	}
	if ran := next.coordinator.ids(); len(ran) != 1 || ran[0] != id {
		t.Errorf("the new leader ran %v", ran)
	}
}

// A server that stops answers what it has read, and all that was on its way.
func TestStopAnswersStreams(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	begun, release := n.slow()
	s := n.submitMany(t.Context(), t)
	s.send(1, slowSubmission())
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- n.Stop(t.Context()) }()
	for {
		frame, err := s.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if frame.GetDraining() {
			break
		}
	}
	s.send(2, submission()) // before the client had heard
	if err := s.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	close(release)
	for _, sequence := range []uint64{1, 2} {
		if _, err := s.answer(sequence); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestStopCutsStreamsThatDoNotEnd(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	begun, _ := n.slow()
	s := n.submitMany(t.Context(), t)
	s.send(1, slowSubmission())
	<-begun
	n.Abort()
	for {
		if _, err := s.stream.Recv(); err != nil {
			return
		}
	}
}

// A client that goes away ends what waits for it, as the end of a call does.
func TestBrokenStreamEndsItsSubmissions(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	begun, ended := make(chan struct{}), make(chan struct{})
	n.coordinator.submit = func(ctx context.Context, _ coordinator.Submission) (coordinator.Result, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return coordinator.Result{}, coordinator.ErrOutcomeUnknown
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := n.submitMany(ctx, t)
	s.send(1, slowSubmission())
	<-begun
	cancel()
	<-ended
}

// The answer leaves before the client's patience ends, with what is known.
func TestPatienceIsADeadline(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	n.coordinator.calls = true // where it is started, it is told to leave by then
	left := make(chan time.Duration, 1)
	n.coordinator.submit = func(ctx context.Context, s coordinator.Submission) (coordinator.Result, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		if string(s.Branches[0].Payload) == "slow" {
			<-ctx.Done()
		}
		return committed(s.ID), nil // delivery pending
	}
	s := n.submitMany(t.Context(), t)
	send := func(patience time.Duration, req *decreev1.SubmitRequest) time.Duration {
		if err := s.stream.Send(&decreev1.SubmitManyRequest{Submissions: []*decreev1.Submission{
			{Sequence: 1, PatienceUs: uint64(patience.Microseconds()), Request: req},
		}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.answer(1); err != nil {
			t.Error(err)
		}
		return <-left
	}
	if got := send(time.Hour, submission()); got > time.Hour-answerMargin || got < time.Hour-2*time.Minute {
		t.Errorf("of an hour %s were left", got)
	}
	if got := send(0, submission()); got > 15*time.Second+callBudget || got < 20*time.Second {
		t.Errorf("without patience: %s", got)
	}
	if got := send(1<<62, submission()); got <= 0 {
		t.Errorf("for ever is %s", got)
	}
	send(20*time.Millisecond, slowSubmission())
}

// One that nobody waits for is told to leave at its deadline, or before.
func TestStartedSubmissionLeavesInTime(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	causes := make(chan error, 1)
	n.coordinator.submit = func(ctx context.Context, s coordinator.Submission) (coordinator.Result, error) {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return coordinator.Result{}, coordinator.ErrOutcomeUnknown
	}
	s := n.submitMany(t.Context(), t)
	if err := s.stream.Send(&decreev1.SubmitManyRequest{Submissions: []*decreev1.Submission{
		{Sequence: 1, PatienceUs: uint64(time.Second.Microseconds()), Request: submission()},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.answer(1); reasonOf(err) != reasonOutcomeUnknown {
		t.Errorf("it was told %v", err)
	}
	if cause := <-causes; !errors.Is(cause, context.DeadlineExceeded) {
		t.Errorf("it left because of %v", cause)
	}
	if calls := len(n.coordinator.submits); calls != 1 {
		t.Errorf("the coordinator was asked %d times", calls)
	}
}

func TestDeadlinesAreSharedAndNeverLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeadlines(t.Context(), nil)
		defer d.close()
		for _, left := range []time.Duration{-time.Second, 0, 1, 63, time.Millisecond, time.Second, 10 * time.Second, time.Hour, 24 * 365 * time.Hour} {
			distinct := make(map[time.Time]bool)
			for range 1000 {
				ctx := d.in(left)
				deadline, _ := ctx.Deadline()
				early := left - time.Until(deadline)
				if early < 0 || early > max(0, left/deadlineShare) {
					t.Fatalf("in %s: %s early", left, early)
				}
				distinct[deadline] = true
				time.Sleep(max(0, left/10000))
			}
			if len(distinct) > 20 {
				t.Errorf("in %s: %d deadlines within a tenth of that", left, len(distinct))
			}
		}
		ctx := d.in(time.Second)
		time.Sleep(time.Second)
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("after its time: %v", ctx.Err())
		}
	})
}

// R14: what has passed is forgotten.
func TestDeadlinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeadlines(t.Context(), nil)
		defer d.close()
		most := 0
		for range 100_000 {
			d.in(time.Second)
			time.Sleep(time.Millisecond)
			most = max(most, len(d.open))
		}
		if most > 6*deadlineShare {
			t.Errorf("%d at once", most)
		}
	})
}

// A crew's goroutines are used again, and bounded while they are idle.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crew{}
		ran := make(chan int, 2*maxIdleHands)
		hold := make(chan struct{})
		for range 2 * maxIdleHands { // all at once
			c.give(taskFunc(func() { <-hold; ran <- 1 }))
		}
		synctest.Wait()
		close(hold)
		synctest.Wait()
		if len(ran) != 2*maxIdleHands || len(c.idle) != maxIdleHands {
			t.Errorf("%d ran, %d are idle", len(ran), len(c.idle))
		}
		for range 10 { // one after the other
			c.give(taskFunc(func() { <-ran }))
			synctest.Wait()
			if len(c.idle) != maxIdleHands {
				t.Fatalf("%d are idle", len(c.idle))
			}
		}
		c.close()
	})
}

type taskFunc func()

func (f taskFunc) carryOut() { f() }

// An error's details are those of a call.
func TestErrorMessage(t *testing.T) {
	e := errorMessage(refuse(fmt.Errorf("x: %w", txn.ErrFuture), someTxID))
	if codes.Code(e.GetCode()) != codes.OutOfRange || len(e.GetDetails()) != 1 {
		t.Errorf("got %v", e)
	}
	var info errdetails.ErrorInfo
	if err := e.GetDetails()[0].UnmarshalTo(&info); err != nil || info.GetReason() != reasonFuture {
		t.Error(&info, err)
	}
}

// What is passed on to the next leader, of a submission that has waited here, is the
// same submission, JSON or not.
func TestRequestIsMadeAgainFromWhatItSays(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	content, err := structpb.NewValue(map[string]any{"b": 1, "a": "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, req := range []*decreev1.SubmitRequest{
		submission(),
		{
			Wait: decreev1.Wait_WAIT_DECISION, Timeout: durationpb.New(3 * time.Second),
			Branches: []*decreev1.NewBranch{{Participant: "a", Content: &decreev1.NewBranch_Json{Json: content}}, {Participant: "b"}},
		},
	} {
		x := newSubmitting(&transactions{Server: n.Server})
		if err := x.begin(req, coordinator.Caller{}); err != nil {
			t.Fatal(err)
		}
		want := x.sub
		x.req = nil
		again := newSubmitting(x.server)
		if err := again.begin(x.request(), coordinator.Caller{}); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.sub, want) {
			t.Errorf("%+v, want %+v", again.sub, want)
		}
	}
}
