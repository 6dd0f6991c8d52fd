package grpcparticipant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// maxRecovered bounds the branches that one Recover takes in: some ten megabytes
// of memory. A service that lists more is broken or lies; a list that was cut
// short would hide branches, so it is an error.
const maxRecovered = 100_000

// How the background learner asks whether a service can list what it holds.
const (
	// probeCluster is no cluster's id, so there is nothing to list under it.
	probeCluster = "probe"
	learnTimeout = 30 * time.Second
	learnPause   = 250 * time.Millisecond
	// A service that cannot list is asked again at this pace: it may be replaced
	// by a version that can.
	learnPauseMax = time.Minute
)

// client is one open participant. All its methods may be called from many
// goroutines at once.
type client struct {
	// Set once by Open.
	conn *grpc.ClientConn
	api  participantv1.ParticipantClient
	log  hclog.Logger

	recovers atomic.Bool // the answer of Recovers; written by list
	streams  streams

	// Of learn, the one goroutine that client owns; Close ends it and waits.
	stopLearning context.CancelFunc
	learnt       chan struct{}
}

var _ interface {
	participants.Participant
	participants.StatusReporter
	participants.Starter
} = (*client)(nil)

// Prepare implements participants.Participant.
func (c *client) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	answer, err := c.prepare(ctx, b)
	if err != nil {
		return participants.Vote{}, failure(ctx, "prepare", b, err)
	}
	return voteFromWire(b, answer)
}

func voteFromWire(b participants.Branch, answer *participantv1.PrepareResponse) (participants.Vote, error) {
	switch answer.GetVote() {
	case participantv1.Vote_VOTE_COMMIT:
		return participants.Yes(), nil
	case participantv1.Vote_VOTE_READ_ONLY:
		return participants.ReadOnly(), nil
	case participantv1.Vote_VOTE_ABORT:
		return participants.No("%s", clip(answer.GetReason())), nil
	default:
		return participants.Vote{}, fmt.Errorf("prepare %s: the service answered with no vote that is known here: %s",
			b.Name(), answer.GetVote())
	}
}

// Commit implements participants.Participant.
func (c *client) Commit(ctx context.Context, b participants.Branch) error {
	answer, err := c.commit(ctx, b)
	if err != nil {
		return failure(ctx, "commit", b, err)
	}
	return receiptFromWire("commit", b, answer.GetReceipt(), answer.GetDetail(), txn.HeuristicAbort)
}

// Abort implements participants.Participant.
func (c *client) Abort(ctx context.Context, b participants.Branch) error {
	answer, err := c.abort(ctx, b)
	if err != nil {
		return failure(ctx, "abort", b, err)
	}
	return receiptFromWire("abort", b, answer.GetReceipt(), answer.GetDetail(), txn.HeuristicCommit)
}

// prepare, commit and abort are calls on the stream where that takes them, and RPCs
// otherwise.
func (c *client) prepare(ctx context.Context, b participants.Branch) (*participantv1.PrepareResponse, error) {
	answer, err := c.streams.call(ctx, callPrepare, b)
	if errors.Is(err, errNotSent) {
		return c.api.Prepare(ctx, &participantv1.PrepareRequest{Branch: branchToWire(b), Payload: b.Payload, Digest: b.Digest[:]})
	}
	return answer.GetPrepare(), err
}

func (c *client) commit(ctx context.Context, b participants.Branch) (*participantv1.CommitResponse, error) {
	answer, err := c.streams.call(ctx, callCommit, b)
	if errors.Is(err, errNotSent) {
		return c.api.Commit(ctx, &participantv1.CommitRequest{Branch: branchToWire(b)})
	}
	return answer.GetCommit(), err
}

func (c *client) abort(ctx context.Context, b participants.Branch) (*participantv1.AbortResponse, error) {
	answer, err := c.streams.call(ctx, callAbort, b)
	if errors.Is(err, errNotSent) {
		return c.api.Abort(ctx, &participantv1.AbortRequest{Branch: branchToWire(b)})
	}
	return answer.GetAbort(), err
}

// Status implements participants.StatusReporter. The error of a service that
// does not offer it wraps errors.ErrUnsupported.
func (c *client) Status(ctx context.Context, b participants.Branch) (participants.Status, error) {
	answer, err := c.api.Status(ctx, &participantv1.StatusRequest{Branch: branchToWire(b)})
	if err != nil {
		return participants.StatusUnknown, failure(ctx, "status", b, err)
	}
	switch answer.GetStatus() {
	case participantv1.BranchStatus_BRANCH_STATUS_UNSPECIFIED:
		return participants.StatusUnknown, nil
	case participantv1.BranchStatus_BRANCH_STATUS_PREPARED:
		return participants.StatusPrepared, nil
	case participantv1.BranchStatus_BRANCH_STATUS_COMMITTED:
		return participants.StatusCommitted, nil
	case participantv1.BranchStatus_BRANCH_STATUS_ABORTED:
		return participants.StatusAborted, nil
	default:
		return participants.StatusUnknown, fmt.Errorf("status %s: the service answered %s, which is not known here",
			b.Name(), answer.GetStatus())
	}
}

// Recover implements participants.Participant. The error of a service that
// cannot list its branches wraps errors.ErrUnsupported.
func (c *client) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	return c.list(ctx, cluster)
}

// Recovers implements participants.Participant: false until the service has
// listed its branches once, and again from when it says that it cannot.
func (c *client) Recovers() bool { return c.recovers.Load() }

// Close implements participants.Participant.
func (c *client) Close() error {
	c.streams.close()
	c.stopLearning()
	<-c.learnt
	return c.conn.Close()
}

// learn finds out in the background whether the service can list its branches,
// so that the first transactions after Open need not wait for a recovery scan. A
// service that is down costs no calls: each waits for the connection.
func (c *client) learn(ctx context.Context) {
	defer close(c.learnt)
	for pause := learnPause; ; pause = min(2*pause, learnPauseMax) {
		call, cancel := context.WithTimeout(ctx, learnTimeout)
		_, err := c.list(call, probeCluster, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return
		}
		if errors.Is(err, errors.ErrUnsupported) {
			pause = learnPauseMax
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// list calls Recover and remembers whether the service can do that.
func (c *client) list(ctx context.Context, cluster string, opts ...grpc.CallOption) ([]participants.Branch, error) {
	branches, err := c.stream(ctx, cluster, opts...)
	switch {
	case err == nil:
		if !c.recovers.Swap(true) {
			c.log.Info("the service lists its prepared branches: prepares need not wait for staging")
		}
	case errors.Is(err, errors.ErrUnsupported):
		if c.recovers.Swap(false) {
			c.log.Warn("the service no longer lists its prepared branches: prepares wait for staging")
		}
	}
	return branches, err
}

func (c *client) stream(ctx context.Context, cluster string, opts ...grpc.CallOption) ([]participants.Branch, error) {
	ctx, cancel := context.WithCancel(ctx) // frees the stream where it is left early
	defer cancel()
	stream, err := c.api.Recover(ctx, &participantv1.RecoverRequest{Cluster: cluster}, opts...)
	if err != nil {
		return nil, recoverFailure(err)
	}
	var branches []participants.Branch
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return branches, nil
		}
		if err != nil {
			return nil, recoverFailure(err)
		}
		if len(branches)+len(page.GetBranches()) > maxRecovered {
			return nil, fmt.Errorf("recover: the service lists more than %d branches", maxRecovered)
		}
		for _, w := range page.GetBranches() {
			b, err := recoveredBranch(cluster, w)
			if err != nil {
				return nil, fmt.Errorf("recover: the service lists what is no branch of the cluster: %w", err)
			}
			branches = append(branches, b)
		}
	}
}

// recoverFailure keeps the two meanings that a failed Recover can have apart.
func recoverFailure(err error) error {
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("recover: %w by the service: %w", errors.ErrUnsupported, err)
	}
	return fmt.Errorf("recover: %w", err)
}
