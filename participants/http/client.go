package httpparticipant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
)

const (
	// maxAnswer bounds the body of an answer: a few words, and a text for people of
	// which the first txn.MaxReasonDetail bytes are kept.
	maxAnswer = 64 << 10
	userAgent = "decree"
)

// client is one open participant. All its methods may be called from many
// goroutines at once.
type client struct {
	// Set once by Open.
	url  string // without a slash at its end
	pool *pool
	log  hclog.Logger

	recovers atomic.Bool // the answer of Recovers; written by list

	// Of learn, the one goroutine that client owns; Close ends it and waits.
	stopLearning context.CancelFunc
	learnt       chan struct{}
}

var _ interface {
	participants.Participant
	participants.StatusReporter
} = (*client)(nil)

// Prepare implements participants.Participant.
func (c *client) Prepare(ctx context.Context, b participants.Branch) (vote participants.Vote, err error) {
	r, err := c.ask(ctx, opPrepare, b)
	if err == nil {
		vote, err = r.vote()
	}
	return vote, failure(ctx, opPrepare, b, err)
}

// Commit implements participants.Participant.
func (c *client) Commit(ctx context.Context, b participants.Branch) error {
	r, err := c.ask(ctx, opCommit, b)
	if err == nil {
		err = r.receipt(opCommit, statusCommitted, heuristicAbort)
	}
	return failure(ctx, opCommit, b, err)
}

// Abort implements participants.Participant.
func (c *client) Abort(ctx context.Context, b participants.Branch) error {
	r, err := c.ask(ctx, opAbort, b)
	if err == nil {
		err = r.receipt(opAbort, statusAborted, heuristicCommit)
	}
	return failure(ctx, opAbort, b, err)
}

// Status implements participants.StatusReporter. The error of a service that
// does not offer it wraps errors.ErrUnsupported.
func (c *client) Status(ctx context.Context, b participants.Branch) (fate participants.Status, err error) {
	r, err := c.ask(ctx, opStatus, b)
	if err == nil {
		fate, err = r.fate()
	}
	return fate, failure(ctx, opStatus, b, err)
}

// Close implements participants.Participant.
func (c *client) Close() error {
	c.stopLearning()
	<-c.learnt
	c.pool.close()
	return nil
}

// ask posts an operation on one branch.
func (c *client) ask(ctx context.Context, op operation, b participants.Branch) (reply, error) {
	request, err := requestFor(op, b)
	if err != nil {
		return reply{}, err
	}
	return c.post(ctx, op, request, maxAnswer, b.Traceparent)
}

// post sends a request and reads the response to its end, at most limit bytes of
// it. It goes through the transport alone: http.Client would follow redirects,
// keep cookies, and put the url into its errors.
//
// Retries are the coordinator's, with one exception that is left to net/http: a
// request that goes out on a kept connection just as the service closes it, which
// services do after seconds of silence, is sent again on another one. Without
// that, quiet services would abort transactions for nothing. A service may so see
// a request twice, as it may see any: all five are idempotent on the branch's name
// and carry the same epoch both times. net/http does this where a POST is marked
// by the header below; a key of no length is a mark that is not sent, because a
// gateway that replays answers by such keys would repeat a yes after an abort.
func (c *client) post(ctx context.Context, op operation, body any, limit int64, traceparent string) (reply, error) {
	text, err := encode(body)
	if err != nil {
		return reply{}, err
	}
	transport, token, err := c.pool.route(op)
	if err != nil {
		return reply{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/"+string(op), bytes.NewReader(text))
	if err != nil {
		return reply{}, err
	}
	request.Header = http.Header{
		"Accept":          {contentType},
		"Content-Type":    {contentType},
		"Idempotency-Key": {},
		"User-Agent":      {userAgent},
	}
	if traceparent != "" {
		request.Header.Set("Traceparent", traceparent)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return reply{}, legible(err)
	}
	defer response.Body.Close() //nolint:errcheck // what matters was read
	content, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return reply{}, fmt.Errorf("the answer was cut short: %w", legible(err))
	}
	if int64(len(content)) > limit {
		return reply{}, fmt.Errorf("the answer has more than %d bytes", limit)
	}
	return reply{response.StatusCode, response.Header.Get("Content-Type"), content}, nil
}

// failure names the call that failed. An ended context can be found in it with
// errors.Is; a heuristic is no failure and stays as it is.
func failure(ctx context.Context, op operation, b participants.Branch, err error) error {
	var h *participants.Heuristic
	switch {
	case err == nil || errors.As(err, &h):
		return err
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("%s %s: %w: %w", op, b.Name(), ctx.Err(), err)
	default:
		return fmt.Errorf("%s %s: %w", op, b.Name(), err)
	}
}

// legibleError is an error of the network whose text may quote what came over it,
// such as the names in a certificate.
type legibleError struct {
	text string
	err  error
}

func (e *legibleError) Error() string { return e.text }
func (e *legibleError) Unwrap() error { return e.err }

func legible(err error) error { return &legibleError{forPeople(err.Error()), err} }
