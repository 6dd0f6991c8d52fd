package grpcparticipant

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// The one error of this wire that means something (see the .proto file).
const (
	errorDomain      = "decree"
	reasonStaleEpoch = "STALE_EPOCH"
)

func branchToWire(b participants.Branch) *participantv1.Branch {
	return &participantv1.Branch{
		Cluster: b.Cluster,
		Txid:    b.TxID.String(),
		Number:  uint32(b.Number),
		Epoch:   b.Epoch,
		Horizon: int64(b.Horizon),

		Traceparent: b.Traceparent,
	}
}

// branchFromWire checks everything about a branch that can be checked without
// state, and reports all that is wrong with it.
func branchFromWire(w *participantv1.Branch) (participants.Branch, error) {
	if w == nil {
		return participants.Branch{}, errors.New("branch: missing")
	}
	var problems []error
	if err := checkCluster(w.GetCluster()); err != nil {
		problems = append(problems, fmt.Errorf("branch.%w", err))
	}
	id, err := txn.ParseTxID(w.GetTxid())
	if err != nil {
		problems = append(problems, fmt.Errorf("branch.txid: %w", err))
	}
	if n := w.GetNumber(); n < 1 || n > txn.MaxBranches {
		problems = append(problems, fmt.Errorf("branch.number: %d, want 1 to %d", n, txn.MaxBranches))
	}
	if w.GetHorizon() < 0 {
		problems = append(problems, fmt.Errorf("branch.horizon: %d, before 1970", w.GetHorizon()))
	}
	return participants.Branch{
		Cluster: w.GetCluster(),
		TxID:    id,
		Number:  int(w.GetNumber()),
		Epoch:   w.GetEpoch(),
		Horizon: txn.Time(w.GetHorizon()),

		Traceparent: w.GetTraceparent(),
	}, errors.Join(problems...)
}

func checkCluster(cluster string) error {
	if cluster == "" || len(cluster) > participants.MaxClusterID {
		return fmt.Errorf("cluster: %d bytes, want 1 to %d", len(cluster), participants.MaxClusterID)
	}
	return nil
}

// recoveredBranch reads one branch of a Recover answer. The service may leave
// the cluster out, because it was asked for one.
func recoveredBranch(cluster string, w *participantv1.Branch) (participants.Branch, error) {
	if got := w.GetCluster(); got != "" && got != cluster {
		return participants.Branch{}, fmt.Errorf("cluster %q, asked for %q", got, cluster)
	}
	b, err := branchFromWire(&participantv1.Branch{Cluster: cluster, Txid: w.GetTxid(), Number: w.GetNumber()})
	if err != nil {
		return participants.Branch{}, err
	}
	return b, nil
}

// receiptFromWire turns the answer to commit or abort into the contract's error.
// against is the heuristic that makes sense for the call: a commit that says
// "heuristically committed" was not understood by the service, and not by us.
func receiptFromWire(call string, b participants.Branch, r participantv1.Receipt, detail string, against txn.Receipt) error {
	var got txn.Receipt
	switch r {
	case participantv1.Receipt_RECEIPT_DONE:
		return nil
	case participantv1.Receipt_RECEIPT_HEURISTIC_COMMIT:
		got = txn.HeuristicCommit
	case participantv1.Receipt_RECEIPT_HEURISTIC_ABORT:
		got = txn.HeuristicAbort
	case participantv1.Receipt_RECEIPT_HEURISTIC_HAZARD:
		got = txn.HeuristicHazard
	}
	if got != against && got != txn.HeuristicHazard {
		return fmt.Errorf("%s %s: the service answered %s, which is no answer to a %s", call, b.Name(), r, call)
	}
	return &participants.Heuristic{Receipt: got, Detail: clip(detail)}
}

func receiptToWire(r txn.Receipt) participantv1.Receipt {
	switch r {
	case txn.HeuristicCommit:
		return participantv1.Receipt_RECEIPT_HEURISTIC_COMMIT
	case txn.HeuristicAbort:
		return participantv1.Receipt_RECEIPT_HEURISTIC_ABORT
	case txn.HeuristicHazard:
		return participantv1.Receipt_RECEIPT_HEURISTIC_HAZARD
	default:
		return participantv1.Receipt_RECEIPT_UNSPECIFIED
	}
}

// failure classifies a gRPC error: a stale epoch is certain, UNIMPLEMENTED is
// named, and everything else, whatever its code, means "not known". An ended
// context can be found in it with errors.Is; the service may have noticed the
// deadline before this side's timer did.
func failure(ctx context.Context, call string, b participants.Branch, err error) error {
	switch s := status.Convert(err); {
	case staleEpoch(s):
		detail := strings.TrimPrefix(s.Message(), participants.ErrStaleEpoch.Error()+": ")
		return fmt.Errorf("%s %s: %w: %s", call, b.Name(), participants.ErrStaleEpoch, clip(detail))
	case s.Code() == codes.Unimplemented:
		return fmt.Errorf("%s %s: %w by the service: %w", call, b.Name(), errors.ErrUnsupported, err)
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s: %w: %w", call, b.Name(), ctx.Err(), err)
	case s.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("%s %s: %w: %w", call, b.Name(), context.DeadlineExceeded, err)
	default:
		return fmt.Errorf("%s %s: %w", call, b.Name(), err)
	}
}

// staleEpoch asks for the code, the domain and the reason, because a stale epoch
// ends the caller's work: a FAILED_PRECONDITION of the service's own must not.
func staleEpoch(s *status.Status) bool {
	if s.Code() != codes.FailedPrecondition {
		return false
	}
	for _, d := range s.Details() {
		if e, ok := d.(*errdetails.ErrorInfo); ok && e.GetDomain() == errorDomain && e.GetReason() == reasonStaleEpoch {
			return true
		}
	}
	return false
}

// statusError is the server's half of failure.
func statusError(err error) error {
	switch {
	case errors.Is(err, participants.ErrStaleEpoch):
		s := status.New(codes.FailedPrecondition, clip(err.Error()))
		withReason, err := s.WithDetails(&errdetails.ErrorInfo{Domain: errorDomain, Reason: reasonStaleEpoch})
		if err != nil {
			return s.Err() // a detail that does not marshal; the message is still true
		}
		return withReason.Err()
	case errors.Is(err, errors.ErrUnsupported):
		return status.Error(codes.Unimplemented, clip(err.Error()))
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, clip(err.Error()))
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, clip(err.Error()))
	default:
		return status.Error(codes.Unknown, clip(err.Error()))
	}
}

// clip bounds a text for people that comes from the other side: at most
// txn.MaxReasonDetail bytes, whole characters, valid UTF-8.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= txn.MaxReasonDetail {
		return s
	}
	n := txn.MaxReasonDetail
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
