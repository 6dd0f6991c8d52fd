package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// This file is the only one that knows both errors and gRPC codes.
//
// Outwards, refuse turns an error into a status whose ErrorInfo carries a stable
// reason, in the domain "decree", with the txid in its metadata. Clients branch on
// the reason; the code is for those who know nothing of decree:
//
//	INVALID_ARGUMENT     the request can never be right
//	NOT_FOUND            it names something that does not exist
//	ALREADY_EXISTS       it would make again, differently, what exists
//	OUT_OF_RANGE         its txid lies before the horizon or too far ahead
//	FAILED_PRECONDITION  the state is in its way; repeating it does not help
//	RESOURCE_EXHAUSTED   a bound is reached; RetryInfo says when to repeat it
//	UNAVAILABLE          certainly nothing was done; RetryInfo, as above
//	DEADLINE_EXCEEDED    the time was over before the outcome was known
//	ABORTED              a stream was cut; open it again
//	UNAUTHENTICATED      the node does not know who calls
//	PERMISSION_DENIED    it does, and they may not
//
// OUTCOME_UNKNOWN is DEADLINE_EXCEEDED and not UNAVAILABLE: the latter invites a
// generic client to send the call again, which without a txid of its own would be
// a second run.
//
// Inwards, judge reads a status that another node sent, or an error of this one,
// and says what it tells about the attempt.
const errorDomain = "decree"

// The reasons. transport/client has a sentinel for each.
const (
	reasonInvalidRequest      = "INVALID_REQUEST"
	reasonInvalidTimeout      = "INVALID_TIMEOUT"
	reasonMalformedTxID       = "MALFORMED_TXID"
	reasonExpired             = "TXID_EXPIRED"
	reasonFuture              = "TXID_FUTURE"
	reasonOtherGroup          = "TXID_OTHER_GROUP"
	reasonGroupStays          = "GROUP_STAYS"
	reasonTooLateForGroup     = "GROUP_TOO_LATE"
	reasonLost                = "TXID_LOST"
	reasonNotLost             = "TXID_NOT_LOST"
	reasonReused              = "TXID_REUSED"
	reasonEmpty               = "EMPTY_TRANSACTION"
	reasonTooManyBranches     = "TOO_MANY_BRANCHES"
	reasonDuplicateBranch     = "DUPLICATE_BRANCH"
	reasonNoSuchBranch        = "NO_SUCH_BRANCH"
	reasonTooLarge            = "PAYLOAD_TOO_LARGE"
	reasonSealed              = "SEALED"
	reasonAborted             = "TRANSACTION_ABORTED"
	reasonCommitted           = "TRANSACTION_COMMITTED"
	reasonUndecided           = "NOT_DECIDED"
	reasonResolved            = "BRANCH_RESOLVED"
	reasonSettled             = "BRANCH_SETTLED"
	reasonNotFound            = "NOT_FOUND"
	reasonUnknownParticipant  = "UNKNOWN_PARTICIPANT"
	reasonParticipantInUse    = "PARTICIPANT_IN_USE"
	reasonParticipantUnfit    = "PARTICIPANT_UNFIT"
	reasonUnknownDriver       = "UNKNOWN_DRIVER"
	reasonUnknownNode         = "UNKNOWN_NODE"
	reasonAlreadyMember       = "ALREADY_MEMBER"
	reasonNodeRefused         = "NODE_REFUSED"
	reasonNodeTooOld          = "NODE_TOO_OLD"
	reasonLevel               = "CLUSTER_LEVEL"
	reasonNodeUnreachable     = "NODE_UNREACHABLE"
	reasonLastVoter           = "LAST_VOTER"
	reasonWatchLagged         = "WATCH_LAGGED"
	reasonNotLeader           = "NOT_LEADER"
	reasonBusy                = "BUSY"
	reasonShuttingDown        = "SHUTTING_DOWN"
	reasonOutcomeUnknown      = "OUTCOME_UNKNOWN"
	reasonCanceled            = "CANCELED"
	reasonInternal            = "INTERNAL"
	reasonUnauthenticated     = "UNAUTHENTICATED"
	reasonDenied              = "PERMISSION_DENIED"
	reasonUnreachable         = "UNREACHABLE" // inside only: no connection, hence nothing sent
	maxMessage                = 2048          // bytes of a message: errors of participants may be long
	retryLeader               = 200 * time.Millisecond
	metadataTxID, metadataHop = "txid", "decree-hops"
)

// refusal is one row of the mapping.
type refusal struct {
	err    error
	code   codes.Code
	reason string
}

// refusals is read from the top, so that an error which wraps two of them gets
// the one that says more.
var refusals = [...]refusal{
	{txn.ErrMalformedTxID, codes.InvalidArgument, reasonMalformedTxID},
	{txn.ErrOtherGroup, codes.FailedPrecondition, reasonOtherGroup},
	{txn.ErrExpired, codes.OutOfRange, reasonExpired},
	{txn.ErrFuture, codes.OutOfRange, reasonFuture},
	{txn.ErrLost, codes.FailedPrecondition, reasonLost},
	{txn.ErrNotLost, codes.FailedPrecondition, reasonNotLost},
	{txn.ErrContentMismatch, codes.AlreadyExists, reasonReused},
	{txn.ErrEmpty, codes.InvalidArgument, reasonEmpty},
	{txn.ErrTooManyBranches, codes.InvalidArgument, reasonTooManyBranches},
	{txn.ErrDuplicateBranch, codes.AlreadyExists, reasonDuplicateBranch},
	{txn.ErrNoSuchBranch, codes.InvalidArgument, reasonNoSuchBranch},
	{txn.ErrUndecided, codes.FailedPrecondition, reasonUndecided},
	{txn.ErrResolved, codes.FailedPrecondition, reasonResolved},
	{txn.ErrSettled, codes.FailedPrecondition, reasonSettled},
	{txn.ErrVotedTwice, codes.InvalidArgument, reasonInvalidRequest},
	{txn.ErrSealed, codes.FailedPrecondition, reasonSealed},
	{txn.ErrUnknown, codes.NotFound, reasonNotFound},
	{coordinator.ErrNotTheirs, codes.NotFound, reasonNotFound},
	{coordinator.ErrTooLarge, codes.InvalidArgument, reasonTooLarge},
	{coordinator.ErrAborted, codes.FailedPrecondition, reasonAborted},
	{coordinator.ErrCommitted, codes.FailedPrecondition, reasonCommitted},
	{coordinator.ErrUnknownParticipant, codes.NotFound, reasonUnknownParticipant},
	{fsm.ErrUnknownParticipant, codes.NotFound, reasonUnknownParticipant},
	{fsm.ErrParticipantInUse, codes.FailedPrecondition, reasonParticipantInUse},
	{fsm.ErrGroupStays, codes.FailedPrecondition, reasonGroupStays},
	{fsm.ErrTooLateForGroup, codes.FailedPrecondition, reasonTooLateForGroup},
	{fsm.ErrNoCluster, codes.FailedPrecondition, reasonInvalidRequest},
	{fsm.ErrTooManyParticipants, codes.FailedPrecondition, reasonInvalidRequest},
	{fsm.ErrLagged, codes.Aborted, reasonWatchLagged},
	{participants.ErrUnfit, codes.FailedPrecondition, reasonParticipantUnfit},
	{participants.ErrUnknownDriver, codes.InvalidArgument, reasonUnknownDriver},
	{cluster.ErrAlreadyMember, codes.AlreadyExists, reasonAlreadyMember},
	{cluster.ErrUnknownNode, codes.NotFound, reasonUnknownNode},
	{cluster.ErrLastVoter, codes.FailedPrecondition, reasonLastVoter},
	{cluster.ErrNotEmpty, codes.FailedPrecondition, reasonNodeRefused},
	{cluster.ErrEmptyDisk, codes.FailedPrecondition, reasonNodeRefused},
	{cluster.ErrWrongNode, codes.FailedPrecondition, reasonNodeRefused},
	{cluster.ErrTooOld, codes.FailedPrecondition, reasonNodeTooOld},
	{fsm.ErrLevel, codes.FailedPrecondition, reasonLevel},
	{cluster.ErrUnreachable, codes.FailedPrecondition, reasonNodeUnreachable},
	{fsm.ErrInvalidEntry, codes.InvalidArgument, reasonInvalidRequest},
	{cluster.ErrInvalidPeer, codes.InvalidArgument, reasonInvalidRequest},
	{coordinator.ErrInvalid, codes.InvalidArgument, reasonInvalidRequest},

	{errUnauthenticated, codes.Unauthenticated, reasonUnauthenticated},
	{errDenied, codes.PermissionDenied, reasonDenied},

	{errStopping, codes.Unavailable, reasonShuttingDown},
	{errUnreachable, codes.Unavailable, reasonUnreachable},
	{coordinator.ErrOutcomeUnknown, codes.DeadlineExceeded, reasonOutcomeUnknown},
	{cluster.ErrUnknown, codes.DeadlineExceeded, reasonOutcomeUnknown},
	// A proposal that met a newer epoch: the transaction lives on under the new
	// leader, so that nothing definite can be said of the call.
	{txn.ErrStaleEpoch, codes.DeadlineExceeded, reasonOutcomeUnknown},
	{coordinator.ErrNotLeader, codes.Unavailable, reasonNotLeader},
	{cluster.ErrNotLeader, codes.Unavailable, reasonNotLeader},
	{context.DeadlineExceeded, codes.DeadlineExceeded, reasonOutcomeUnknown},
	{context.Canceled, codes.Canceled, reasonCanceled},
}

// Errors of this package's own.
var (
	errStopping = errors.New("this node is shutting down")
	// errUnreachable is definite: nothing was sent to the leader.
	errUnreachable = errors.New("the leader can't be reached")
)

// violation is one thing wrong with a request.
type violation struct {
	reason string
	field  string // as in the .proto, such as branches[2].participant
	text   string
}

// invalidError tells everything that is wrong with a request; the first violation
// gives the reason.
type invalidError []violation

func (e invalidError) Error() string {
	texts := make([]string, len(e))
	for i, v := range e {
		texts[i] = v.field + ": " + v.text
	}
	return strings.Join(texts, "; ")
}

// refuse makes the status that a client gets for err. A status that another node
// made passes unchanged, for that node knew more.
func refuse(err error, txid string) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		if _, made := infoOf(st); made {
			return st.Err()
		}
	}
	code, reason := classify(err)
	return detailed(code, reason, err, txid).Err()
}

// classify finds an error's row.
func classify(err error) (codes.Code, string) {
	var invalid invalidError
	var busy *coordinator.BusyError
	switch {
	case errors.As(err, &invalid):
		return codes.InvalidArgument, invalid[0].reason
	case errors.As(err, &busy), errors.Is(err, fsm.ErrTooManyWatches):
		return codes.ResourceExhausted, reasonBusy
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.code, r.reason
		}
	}
	if st, ok := status.FromError(err); ok { // gRPC's own, on the way to the leader
		return st.Code(), reasonInternal
	}
	return codes.Internal, reasonInternal
}

func detailed(code codes.Code, reason string, err error, txid string) *status.Status {
	info := &errdetails.ErrorInfo{Domain: errorDomain, Reason: reason}
	if txid != "" {
		info.Metadata = map[string]string{metadataTxID: strings.ToValidUTF8(txid, "�")}
	}
	var elsewhere *txn.GroupError
	if errors.As(err, &elsewhere) {
		noteGroup(info, elsewhere.Asked)
	}
	details := []protoadapt.MessageV1{protoadapt.MessageV1Of(info)}
	if wait := retryAfter(reason, err); wait > 0 {
		details = append(details, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}))
	}
	var invalid invalidError
	if errors.As(err, &invalid) {
		details = append(details, protoadapt.MessageV1Of(badRequest(invalid)))
	}
	st := status.New(code, message(err))
	with, derr := st.WithDetails(details...)
	if derr != nil { // the details above always marshal
		return status.New(codes.Internal, fmt.Sprintf("%v, and its details: %v", err, derr))
	}
	return with
}

func badRequest(invalid invalidError) *errdetails.BadRequest {
	out := &errdetails.BadRequest{}
	for _, v := range invalid {
		out.FieldViolations = append(out.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: v.field, Description: strings.ToValidUTF8(v.text, "�"), Reason: v.reason,
		})
	}
	return out
}

// retryAfter is when repeating the call may help; 0 where it can't.
func retryAfter(reason string, err error) time.Duration {
	var busy *coordinator.BusyError
	switch {
	case errors.As(err, &busy):
		return busy.RetryAfter
	case reason == reasonBusy:
		return time.Second
	case reason == reasonNotLeader, reason == reasonUnreachable, reason == reasonShuttingDown:
		return retryLeader
	}
	return 0
}

// message is the text of an error, bounded and in UTF-8.
func message(err error) string {
	text := err.Error()
	if st, ok := status.FromError(err); ok {
		text = st.Message()
	}
	if len(text) > maxMessage {
		text = text[:maxMessage] + "..."
	}
	return strings.ToValidUTF8(text, "�")
}

// infoOf reads the ErrorInfo that decree put into a status.
func infoOf(st *status.Status) (*errdetails.ErrorInfo, bool) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info, true
		}
	}
	return nil, false
}

// reasonOf is the reason of an error of this node or of another one's status.
func reasonOf(err error) string {
	if st, ok := status.FromError(err); ok {
		if info, ok := infoOf(st); ok {
			return info.GetReason()
		}
	}
	_, reason := classify(err)
	return reason
}

// fate is what an error tells about the attempt that it ended.
type fate uint8

const (
	answered   fate = iota // a definite answer, to be passed on
	notRun                 // certainly nothing was done: another attempt may be
	mayHaveRun             // neither is certain
)

// judge reads an attempt's error. A node that is busy also says how long to wait;
// one that does not lead is asked again as soon as another may.
func judge(err error) (fate, time.Duration) {
	st, remote := status.FromError(err)
	if remote {
		if _, ours := infoOf(st); !ours {
			return judgeForeign(st.Code()), 0
		}
	}
	switch reason := reasonOf(err); reason {
	case reasonBusy:
		return notRun, delayOf(st, err)
	case reasonNotLeader, reasonUnreachable:
		return notRun, 0
	case reasonOutcomeUnknown, reasonShuttingDown, reasonCanceled, reasonInternal:
		return mayHaveRun, 0 // an error that nobody understands is not a definite one
	default:
		return answered, 0
	}
}

// judgeForeign judges what gRPC itself says about a call to the leader: only
// refusals of the request as such are definite.
func judgeForeign(c codes.Code) fate {
	switch c {
	case codes.ResourceExhausted, codes.Unimplemented, codes.InvalidArgument:
		return answered
	default:
		return mayHaveRun
	}
}

// delayOf is the RetryInfo of a status, or what would become it.
func delayOf(st *status.Status, err error) time.Duration {
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	var busy *coordinator.BusyError
	if errors.As(err, &busy) {
		return busy.RetryAfter
	}
	return 0
}
