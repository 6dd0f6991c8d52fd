package callmany

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// maxText bounds what one answer says to people, in bytes, for its neighbours' sake:
// a message that is too long, or no UTF-8, would break the stream for all. decree
// keeps half of it.
const maxText = 1024

// complete gives the branch of a call what the message says of all branches.
func complete(w *participantv1.Call, frame *participantv1.CallManyRequest) {
	for _, b := range [...]*participantv1.Branch{
		w.GetPrepare().GetBranch(), w.GetCommit().GetBranch(), w.GetAbort().GetBranch(),
	} {
		if b != nil {
			b.Cluster, b.Epoch, b.Horizon = frame.GetCluster(), frame.GetEpoch(), frame.GetHorizon()
		}
	}
}

func microseconds(n uint64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/uint64(time.Microsecond))) * time.Microsecond
}

// carryOut asks h, unless the caller has gone by now.
func (c *call) carryOut(h Handler) *participantv1.CallAnswer {
	defer c.ctx.end()
	answer := &participantv1.CallAnswer{Sequence: c.GetSequence()}
	err := c.ctx.Err()
	if err == nil {
		err = c.ask(h, answer)
	}
	if err != nil {
		return &participantv1.CallAnswer{Sequence: c.GetSequence(), Error: errorOf(err)}
	}
	return answer
}

func (c *call) ask(h Handler, answer *participantv1.CallAnswer) (err error) {
	switch {
	case c.GetPrepare() != nil:
		answer.Prepare, err = h.Prepare(&c.ctx, c.GetPrepare())
		if r := answer.GetPrepare(); !fits(r.GetReason()) {
			answer.Prepare = &participantv1.PrepareResponse{Vote: r.GetVote(), Reason: clip(r.GetReason())}
		}
	case c.GetCommit() != nil:
		answer.Commit, err = h.Commit(&c.ctx, c.GetCommit())
		if r := answer.GetCommit(); !fits(r.GetDetail()) {
			answer.Commit = &participantv1.CommitResponse{Receipt: r.GetReceipt(), Detail: clip(r.GetDetail())}
		}
	case c.GetAbort() != nil:
		answer.Abort, err = h.Abort(&c.ctx, c.GetAbort())
		if r := answer.GetAbort(); !fits(r.GetDetail()) {
			answer.Abort = &participantv1.AbortResponse{Receipt: r.GetReceipt(), Detail: clip(r.GetDetail())}
		}
	default:
		err = status.Error(codes.InvalidArgument, "the call has no request that is known here")
	}
	return err
}

// errorOf is the error as gRPC would have made a status of it.
func errorOf(err error) *participantv1.Error {
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	e := &participantv1.Error{Code: int32(s.Code()), Message: clip(s.Message())} //nolint:gosec // a code
	if details := s.Proto().GetDetails(); detailsFit(details) {
		e.Details = details
	}
	return e
}

func detailsFit(details []*anypb.Any) bool {
	size := 0
	for _, d := range details {
		if size += proto.Size(d); size > maxText || !utf8.ValidString(d.GetTypeUrl()) {
			return false
		}
	}
	return true
}

func fits(s string) bool { return len(s) <= maxText && utf8.ValidString(s) }

// clip shortens a text for people to maxText bytes of whole characters.
func clip(s string) string {
	if fits(s) {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	n := min(maxText, len(s))
	for n < len(s) && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
