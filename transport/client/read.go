package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Get shows a transaction. What it shows as decided is final; [ErrNotFound]
// promises nothing, for the transaction may be on its way: [Client.Inquire] makes
// sure.
func (c *Client) Get(ctx context.Context, txid string) (*decreev1.Transaction, error) {
	answer, err := do(ctx, c, &call{mode: read, txid: txid}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.GetResponse, error) {
		return decreev1.NewTransactionsClient(conn).Get(ctx, &decreev1.GetRequest{Txid: text(txid)})
	})
	return answer.GetTransaction(), err
}

// Timeline tells how a transaction came to where it is: what the log holds, and when each
// message left and was answered, as far as the leaders that can be asked have recorded it.
func (c *Client) Timeline(ctx context.Context, txid string) (*decreev1.GetTimelineResponse, error) {
	return do(ctx, c, &call{mode: read, txid: txid}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.GetTimelineResponse, error) {
		return decreev1.NewTimelinesClient(conn).GetTimeline(ctx, &decreev1.GetTimelineRequest{Txid: text(txid)})
	})
}

// Filter chooses transactions. The zero Filter chooses all.
type Filter struct {
	States      []decreev1.State
	Participant string // only transactions with a branch there
	Damaged     bool   // only those of which a branch went against the decision
}

// listPage is how many transactions List asks for at a time.
const listPage = 200

// List yields transactions, youngest first, as the node that answers knows them.
// It asks for pages as they are needed. An error is yielded last.
func (c *Client) List(ctx context.Context, f Filter) iter.Seq2[*decreev1.Transaction, error] {
	return func(yield func(*decreev1.Transaction, error) bool) {
		req := &decreev1.ListRequest{States: f.States, Participant: text(f.Participant), Damaged: f.Damaged, PageSize: listPage}
		for {
			page, err := do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ListResponse, error) {
				return decreev1.NewTransactionsClient(conn).List(ctx, req)
			})
			if err != nil {
				yield(nil, err)
				return
			}
			for _, t := range page.GetTransactions() {
				if !yield(t, nil) {
					return
				}
			}
			if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
				return
			}
		}
	}
}

// Watch yields the state changes of one transaction, beginning with its present
// state, until it is finished; it goes on at another node when one fails, and may
// then repeat a state. With an empty txid it yields the changes of all, from now
// on, until ctx ends or the node fails. A watcher that is too slow is cut off
// with [ErrWatchLagged]. An error is yielded last.
func (c *Client) Watch(ctx context.Context, txid string) iter.Seq2[*decreev1.Transaction, error] {
	return func(yield func(*decreev1.Transaction, error) bool) {
		k := &call{mode: idempotent}
		if txid == "" {
			k.mode = once // events between two streams would be missed silently
		}
		_, err := do(ctx, c, k, func(ctx context.Context, conn *grpc.ClientConn) (struct{}, error) {
			return struct{}{}, watch(ctx, conn, txid, yield)
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// watch yields one stream's events. It returns nil at the stream's end, and when
// the loop over it was left.
func watch(ctx context.Context, conn *grpc.ClientConn, txid string, yield func(*decreev1.Transaction, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := decreev1.NewTransactionsClient(conn).Watch(ctx, &decreev1.WatchRequest{Txid: text(txid)})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !yield(event.GetTransaction(), nil):
			return nil
		}
	}
}

// NodeStatus is the view of one node, by its endpoint as in Config.
func (c *Client) NodeStatus(ctx context.Context, endpoint string) (*decreev1.StatusResponse, error) {
	e, ok := c.endpoints.find(endpoint)
	if !ok {
		return nil, fmt.Errorf("decree: %q is not one of the endpoints", endpoint)
	}
	answer, err := attempt(ctx, e, nil, askStatus)
	if err != nil {
		k := &call{mode: read}
		k.judge(err)
		return nil, k.err
	}
	return answer, nil
}

// Health is nil where one node, by its endpoint as in Config, says that it serves. It
// needs no identity, and asks once. One that is stopping says that it does not:
// [ErrUnavailable].
func (c *Client) Health(ctx context.Context, endpoint string) error {
	e, ok := c.endpoints.find(endpoint)
	if !ok {
		return fmt.Errorf("decree: %q is not one of the endpoints", endpoint)
	}
	answer, err := attempt(ctx, e, nil, func(ctx context.Context, conn *grpc.ClientConn) (*healthv1.HealthCheckResponse, error) {
		return healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	})
	if err != nil {
		k := &call{mode: read}
		k.judge(err)
		return k.err
	}
	if state := answer.GetStatus(); state != healthv1.HealthCheckResponse_SERVING {
		return &Error{Reason: ErrUnavailable, Code: codes.Unavailable, Message: "the node says " + state.String()}
	}
	return nil
}

// Status is the cluster as the leader sees it, or another node while there is
// none.
func (c *Client) Status(ctx context.Context) (*decreev1.StatusResponse, error) {
	return do(ctx, c, &call{mode: read}, askStatus)
}

func askStatus(ctx context.Context, conn *grpc.ClientConn) (*decreev1.StatusResponse, error) {
	return decreev1.NewClusterClient(conn).Status(ctx, &decreev1.StatusRequest{})
}
