// These tests prove that the stream under Submit changes nothing but the cost: when
// it breaks, what was on it is of unknown outcome and is asked again under the same
// txid (rules R5 and R11), one submission does not wait for another, and what does
// not fit goes as a call (rule R14).
package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// hang is a step that ends with its context, after it has said that it began.
func hang(begun chan<- string) step {
	return func(ctx context.Context, _ *node) (*decreev1.Result, error) {
		begun <- ""
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// repeat is as many of a step.
func repeat(n int, s step) []step { return slices.Repeat([]step{s}, n) }

// submitAll submits at once and returns a channel of what came of it.
func submitAll(ctx context.Context, c *client.Client, n int) <-chan error {
	told := make(chan error, n)
	for range n {
		go func() {
			_, err := c.Submit(ctx, transfer())
			told <- err
		}()
	}
	return told
}

// R5 and R11: a stream that breaks leaves each of its submissions unknown, and each
// is asked again under its txid.
func TestBrokenStreamIsAskedAgain(t *testing.T) {
	const many = 50
	nodes, c := cluster(t, 1)
	begun := make(chan string, many)
	nodes[0].script(repeat(many, hang(begun))...)
	told := submitAll(within(t, 20*time.Second), c, many)
	for range many {
		<-begun
	}
	nodes[0].cut <- struct{}{}
	for range many {
		if err := <-told; err != nil {
			t.Error(err)
		}
	}
	runs := make(map[string]int)
	for _, id := range nodes[0].seen() {
		runs[id]++
	}
	for id, n := range runs {
		if n != 2 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
	if streams, _ := nodes[0].count(); len(runs) != many || streams != 2 {
		t.Errorf("%d txids by %d streams", len(runs), streams)
	}
}

// R5: where there is no time to ask again, the outcome is said to be unknown.
func TestBrokenStreamAtTheEndIsUnknown(t *testing.T) {
	nodes, c := cluster(t, 1)
	begun := make(chan string, 1)
	nodes[0].script(hang(begun))
	ctx, cancel := context.WithCancel(within(t, 20*time.Second))
	told := submitAll(ctx, c, 1)
	<-begun
	cancel()
	if err := <-told; !errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSlowSubmissionHoldsUpNoOther(t *testing.T) {
	nodes, c := cluster(t, 1)
	begun, release := make(chan string, 1), make(chan struct{})
	nodes[0].script(func(context.Context, *node) (*decreev1.Result, error) {
		begun <- ""
		<-release
		return &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_COMMITTED}, nil
	})
	told := submitAll(within(t, 20*time.Second), c, 1)
	<-begun
	for range 20 {
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	if err := <-told; err != nil {
		t.Error(err)
	}
	if streams, streamed := nodes[0].count(); streams != 1 || streamed != 21 {
		t.Errorf("%d submissions by %d streams", streamed, streams)
	}
}

// A node without the stream is not asked for it each time.
func TestNodeWithoutStreamIsRemembered(t *testing.T) {
	nodes, c := start(t, 1, true)
	for range 10 {
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
	}
	if streams, _ := nodes[0].count(); streams != 1 || len(nodes[0].seen()) != 10 {
		t.Errorf("%d streams were asked for, %d submissions came", streams, len(nodes[0].seen()))
	}
}

func TestLargeSubmissionIsACall(t *testing.T) {
	nodes, c := cluster(t, 1)
	for _, bytes := range []int{1 << 10, 300 << 10} {
		tx := client.Transaction{Branches: []client.Branch{client.Bytes("a", make([]byte, bytes))}}
		if _, err := c.Submit(within(t, 10*time.Second), tx); err != nil {
			t.Fatal(err)
		}
	}
	if _, streamed := nodes[0].count(); streamed != 1 || len(nodes[0].seen()) != 2 {
		t.Errorf("%d came by stream, %d in all", streamed, len(nodes[0].seen()))
	}
}

// R14: what the window has no room for is a call, and an answer makes room.
func TestWindowIsKept(t *testing.T) {
	nodes, c := cluster(t, 1)
	nodes[0].window = 2
	if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil { // now it is known
		t.Fatal(err)
	}
	begun, release := make(chan string, 5), make(chan struct{})
	nodes[0].script(repeat(5, func(context.Context, *node) (*decreev1.Result, error) {
		begun <- ""
		<-release
		return &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_COMMITTED}, nil
	})...)
	told := submitAll(within(t, 20*time.Second), c, 5)
	for range 5 {
		<-begun
	}
	if _, streamed := nodes[0].count(); streamed != 1+2 {
		t.Errorf("%d came by stream", streamed)
	}
	close(release)
	for range 5 {
		if err := <-told; err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
		t.Fatal(err)
	}
	if _, streamed := nodes[0].count(); streamed != 1+2+1 {
		t.Errorf("%d came by stream", streamed)
	}
}

// A node that stops gets nothing more by its stream, and answers what it has.
func TestDrainingStreamIsClosed(t *testing.T) {
	nodes, c := cluster(t, 1)
	begun, release := make(chan string, 1), make(chan struct{})
	nodes[0].script(func(context.Context, *node) (*decreev1.Result, error) {
		begun <- ""
		<-release
		return &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_COMMITTED}, nil
	})
	told := submitAll(within(t, 20*time.Second), c, 1)
	<-begun
	nodes[0].say <- struct{}{}
	// Until the client has heard, submissions go on by the stream, and are answered.
	for by := 0; by == 0; {
		_, before := nodes[0].count()
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
		if _, after := nodes[0].count(); after == before {
			by++
		}
	}
	close(release)
	if err := <-told; err != nil {
		t.Error(err)
	}
	if seen := nodes[0].seen(); len(slices.Compact(slices.Sorted(slices.Values(seen)))) != len(seen) {
		t.Errorf("something was sent twice: %v", seen)
	}
}

// A node that comes back is found again.
func TestStreamToARestartedNode(t *testing.T) {
	nodes, c := cluster(t, 1)
	for range 3 {
		if _, err := c.Submit(within(t, 20*time.Second), transfer()); err != nil {
			t.Fatal(err)
		}
		nodes[0].grpc.Stop()
		l, err := net.Listen("tcp", nodes[0].addr)
		if err != nil {
			t.Fatal(err)
		}
		nodes[0].serve(l)
	}
	if streams, streamed := nodes[0].count(); streams != 3 || streamed != 3 {
		t.Errorf("%d submissions by %d streams", streamed, streams)
	}
}

// A stream that may not be opened, or is refused for what it carries, leaves the
// submissions to calls, which have answers of their own.
func TestRefusedStreamIsLeftToCalls(t *testing.T) {
	for _, code := range []codes.Code{codes.PermissionDenied, codes.ResourceExhausted} {
		nodes, _ := cluster(t, 1)
		c, err := client.New(client.Config{Endpoints: []string{nodes[0].addr}, DialOptions: []grpc.DialOption{
			grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				if method == decreev1.Transactions_SubmitMany_FullMethodName {
					return nil, status.Error(code, "no streams here")
				}
				return streamer(ctx, desc, cc, method, opts...)
			}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		nodes[0].script(answer(refusal(codes.NotFound, "UNKNOWN_PARTICIPANT", 0)))
		if _, err := c.Submit(within(t, 10*time.Second), transfer()); !errors.Is(err, client.ErrUnknownParticipant) {
			t.Errorf("got %v", err)
		}
		if _, streamed := nodes[0].count(); streamed != 0 || len(nodes[0].seen()) != 1 {
			t.Errorf("%d came by stream, %d in all", streamed, len(nodes[0].seen()))
		}
	}
}

// The client is closed with submissions under way: they end at once, and every
// goroutine ends.
func TestCloseEndsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(1 << 16)
		n := &node{}
		n.serve(l)
		c, err := client.New(client.Config{
			Endpoints: []string{"127.0.0.1:1", "127.0.0.1:2"},
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				if addr == "127.0.0.1:2" {
					return nil, io.ErrUnexpectedEOF // a node that is down
				}
				return l.DialContext(ctx)
			})},
		})
		if err != nil {
			t.Fatal(err)
		}
		begun := make(chan string, 10)
		n.script(repeat(10, hang(begun))...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var work sync.WaitGroup
		for range 10 {
			work.Go(func() {
				if _, err := c.Submit(ctx, transfer()); !errors.Is(err, client.ErrOutcomeUnknown) {
					t.Errorf("got %v", err)
				}
			})
		}
		for range 10 {
			<-begun
		}
		closed := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		work.Wait()
		if took := time.Since(closed); took > time.Minute {
			t.Errorf("they went on for %s", took)
		}
		n.grpc.Stop()
	})
}
