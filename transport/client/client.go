package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/decree-tx/decree/transport/api/decree/submitmany"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Config says where the cluster is.
type Config struct {
	// Endpoints are the gRPC addresses, host:port, of some or better all nodes. One
	// that answers is enough.
	Endpoints []string
	// Security secures the connections; the zero Security is plain text.
	Security Security
	// DialOptions are added to the client's own.
	DialOptions []grpc.DialOption
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("decree: no endpoints")
	}
	var errs []error
	seen := make(map[string]bool)
	for _, e := range c.Endpoints {
		if _, _, err := net.SplitHostPort(e); err != nil {
			errs = append(errs, fmt.Errorf("decree: endpoint %q: want host:port", e))
		}
		if seen[e] {
			errs = append(errs, fmt.Errorf("decree: endpoint %q is given twice", e))
		}
		seen[e] = true
	}
	return errors.Join(errs...)
}

// Client talks to a decree cluster. It is safe for concurrent use; one for a
// process is enough.
type Client struct {
	endpoints *endpoints // set once by New
	// group is the cluster's, of several, once a refusal has told it: txids that the
	// client makes are of it from then on.
	group atomic.Pointer[Group]
}

// New makes a client. It does not wait for a connection. Close it when done.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	secured, err := cfg.Security.dialOptions()
	if err != nil {
		return nil, err
	}
	p, err := newEndpoints(cfg.Endpoints, append(secured, cfg.DialOptions...))
	if err != nil {
		return nil, err
	}
	return &Client{endpoints: p}, nil
}

// Close ends the client's connections and waits for its goroutines. Calls under
// way fail.
func (c *Client) Close() error { return c.endpoints.close() }

// NewTxID makes a txid: a UUIDv7, which carries the time of its making.
func NewTxID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("decree: make a txid: %w", err)
	}
	return id.String(), nil
}

// Submit runs a one-shot transaction. That it aborted is a Result and no error;
// see [Result.Err].
//
// Submit repeats the call under the same txid through leader failures until ctx
// ends, so that it returns one definite outcome. If ctx ends before the outcome
// is known, the error is an *[UnknownError] with the txid to ask again with. If
// ctx ends between decision and delivery, the Result is not Delivered. Give ctx a
// deadline: without one, Submit waits for a cluster that is down.
func (c *Client) Submit(ctx context.Context, t Transaction) (Result, error) {
	if t.TxID != "" {
		return c.submitAs(ctx, t)
	}
	return underNewID(c, func(txid string) (Result, error) {
		t.TxID = txid
		return c.submitAs(ctx, t)
	})
}

func (c *Client) submitAs(ctx context.Context, t Transaction) (Result, error) {
	req := &decreev1.SubmitRequest{Txid: text(t.TxID), Timeout: durationProto(t.Timeout), Wait: t.Wait.proto()}
	var err error
	if req.Branches, err = protos(t.Branches); err != nil {
		return Result{TxID: req.Txid}, err
	}
	ctx, span, traceparent := startSpan(ctx, "decree.Submit", req.Txid)
	req.Traceparent = traceparent
	r, err := c.submit(ctx, req)
	endSpan(span, traceparent, r, err)
	return r, err
}

func (c *Client) submit(ctx context.Context, req *decreev1.SubmitRequest) (Result, error) {
	k := &call{txid: req.Txid}
	result, err := pursue(ctx, c, k, func(ctx context.Context, at choice) (*decreev1.Result, error) {
		if result, err := at.line.Submit(ctx, at.reign, req); !errors.Is(err, submitmany.ErrByCall) {
			return result, err
		}
		answer, err := attempt(ctx, at.endpoint, at.reign, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.SubmitResponse, error) {
			return decreev1.NewTransactionsClient(conn).Submit(ctx, req)
		})
		return answer.GetResult(), err
	})
	if err != nil {
		return Result{TxID: req.Txid}, err
	}
	return resultOf(result), nil
}

// Inquire asks for an outcome that will stand. A transaction that runs is told as
// Undecided. One that the cluster does not know is aborted first, and can then
// never run; that is how to make sure of what a lost Submit did.
func (c *Client) Inquire(ctx context.Context, txid string) (Result, error) {
	k := &call{txid: txid}
	answer, err := do(ctx, c, k, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.InquireResponse, error) {
		return decreev1.NewTransactionsClient(conn).Inquire(ctx, &decreev1.InquireRequest{Txid: text(txid)})
	})
	if err != nil {
		return Result{TxID: txid}, err
	}
	return resultOf(answer.GetResult()), nil
}
