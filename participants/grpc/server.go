package grpcparticipant

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/transport/api/decree/participant/callmany"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// recoverPage is how many branches one message of a Recover stream carries: a
// page is then some 200 KiB at most, far below maxMessage.
const recoverPage = 1000

// NewServer puts p behind the wire. It checks what arrives and answers
// INVALID_ARGUMENT to what cannot be a branch; p sees only well-formed ones. The
// caller keeps p and closes it once the gRPC server has stopped.
func NewServer(p participants.Participant) participantv1.ParticipantServer {
	return &server{participant: p}
}

type server struct {
	participantv1.UnimplementedParticipantServer
	participant participants.Participant
}

func (s *server) Prepare(ctx context.Context, r *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
	b, err := branchFromWire(r.GetBranch())
	if n := len(r.GetDigest()); n != len(b.Digest) {
		err = errors.Join(err, fmt.Errorf("digest: %d bytes, want %d", n, len(b.Digest)))
	}
	if err != nil {
		return nil, invalid(err)
	}
	copy(b.Digest[:], r.GetDigest())
	b.Payload = r.GetPayload()
	vote, err := s.participant.Prepare(ctx, b)
	if err != nil {
		return nil, statusError(err)
	}
	switch vote.Kind {
	case txn.VoteCommit:
		return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_COMMIT}, nil
	case txn.VoteReadOnly:
		return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_READ_ONLY}, nil
	case txn.VoteAbort:
		return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_ABORT, Reason: clip(vote.Reason)}, nil
	default:
		return nil, status.Errorf(codes.Internal, "the participant gave no vote but %s", vote.Kind)
	}
}

func (s *server) Commit(ctx context.Context, r *participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
	b, err := branchFromWire(r.GetBranch())
	if err != nil {
		return nil, invalid(err)
	}
	receipt, detail, err := receiptOf(s.participant.Commit(ctx, b))
	if err != nil {
		return nil, err
	}
	return &participantv1.CommitResponse{Receipt: receipt, Detail: detail}, nil
}

func (s *server) Abort(ctx context.Context, r *participantv1.AbortRequest) (*participantv1.AbortResponse, error) {
	b, err := branchFromWire(r.GetBranch())
	if err != nil {
		return nil, invalid(err)
	}
	receipt, detail, err := receiptOf(s.participant.Abort(ctx, b))
	if err != nil {
		return nil, err
	}
	return &participantv1.AbortResponse{Receipt: receipt, Detail: detail}, nil
}

// CallMany answers each call of the stream as the methods above do.
func (s *server) CallMany(stream callmany.Stream) error { return callmany.Serve(stream, s) }

// Recover answers UNIMPLEMENTED where p lists branches but is not known to list
// every one: the caller would build on a list that has holes (rule R4).
func (s *server) Recover(r *participantv1.RecoverRequest, out grpc.ServerStreamingServer[participantv1.RecoverResponse]) error {
	if err := checkCluster(r.GetCluster()); err != nil {
		return invalid(err)
	}
	branches, err := s.participant.Recover(out.Context(), r.GetCluster())
	if err != nil {
		return statusError(err)
	}
	if !s.participant.Recovers() {
		return status.Error(codes.Unimplemented, "the participant cannot list every branch that it holds prepared")
	}
	for len(branches) > 0 {
		n := min(recoverPage, len(branches))
		page := make([]*participantv1.Branch, n)
		for i, b := range branches[:n] {
			b.Cluster = r.GetCluster()
			page[i] = branchToWire(b)
		}
		if err := out.Send(&participantv1.RecoverResponse{Branches: page}); err != nil {
			return err
		}
		branches = branches[n:]
	}
	return nil
}

func (s *server) Status(ctx context.Context, r *participantv1.StatusRequest) (*participantv1.StatusResponse, error) {
	b, err := branchFromWire(r.GetBranch())
	if err != nil {
		return nil, invalid(err)
	}
	reporter, ok := s.participant.(participants.StatusReporter)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the participant cannot prove what became of a branch")
	}
	fate, err := reporter.Status(ctx, b)
	if err != nil {
		return nil, statusError(err)
	}
	answer := &participantv1.StatusResponse{}
	switch fate {
	case participants.StatusPrepared:
		answer.Status = participantv1.BranchStatus_BRANCH_STATUS_PREPARED
	case participants.StatusCommitted:
		answer.Status = participantv1.BranchStatus_BRANCH_STATUS_COMMITTED
	case participants.StatusAborted:
		answer.Status = participantv1.BranchStatus_BRANCH_STATUS_ABORTED
	}
	return answer, nil
}

// receiptOf turns the contract's answer to commit or abort into the wire's. Only
// nil and a heuristic are receipts.
func receiptOf(err error) (participantv1.Receipt, string, error) {
	var h *participants.Heuristic
	switch {
	case err == nil:
		return participantv1.Receipt_RECEIPT_DONE, "", nil
	case errors.As(err, &h):
		return receiptToWire(h.Receipt), clip(h.Detail), nil
	default:
		return 0, "", statusError(err)
	}
}

func invalid(err error) error { return status.Error(codes.InvalidArgument, err.Error()) }
