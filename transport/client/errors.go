package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/transport/api/decree/submitmany"
)

// Reason is the stable word by which decree names a refusal, and itself an error,
// so that errors.Is(err, client.ErrSealed) asks for it. transport/status.go tells
// when each is used.
type Reason string

func (r Reason) Error() string {
	return strings.ToLower(strings.ReplaceAll(string(r), "_", " "))
}

// What a server answers. All but the last group mean that nothing was changed by
// the refused call and that repeating it as it is would be refused again.
const (
	ErrInvalidRequest = Reason("INVALID_REQUEST")
	ErrInvalidTimeout = Reason("INVALID_TIMEOUT")
	ErrMalformedTxID  = Reason("MALFORMED_TXID")
	ErrExpired        = Reason("TXID_EXPIRED") // too old to be run, or to be told about
	ErrFuture         = Reason("TXID_FUTURE")  // a clock is wrong
	// ErrOtherGroup answers a txid that is another cluster's, of several that share out
	// the txids: the message says whose. Nothing was done; see [Groups].
	ErrOtherGroup = Reason("TXID_OTHER_GROUP")
	// ErrLost answers a txid of before a restore that may have run: nobody knows its
	// outcome, it is not run again, and an operator must resolve it.
	ErrLost             = Reason("TXID_LOST")
	ErrNotLost          = Reason("TXID_NOT_LOST") // it is not an operator's to decide
	ErrReused           = Reason("TXID_REUSED")   // the txid ran with other content
	ErrEmptyTransaction = Reason("EMPTY_TRANSACTION")
	ErrTooManyBranches  = Reason("TOO_MANY_BRANCHES")
	ErrDuplicateBranch  = Reason("DUPLICATE_BRANCH")
	ErrNoSuchBranch     = Reason("NO_SUCH_BRANCH")
	ErrTooLarge         = Reason("PAYLOAD_TOO_LARGE")
	ErrSealed           = Reason("SEALED") // it takes no more branches
	ErrAborted          = Reason("TRANSACTION_ABORTED")
	ErrCommitted        = Reason("TRANSACTION_COMMITTED")
	ErrNotDecided       = Reason("NOT_DECIDED")     // there is no decision yet
	ErrResolved         = Reason("BRANCH_RESOLVED") // an operator has said otherwise
	ErrSettled          = Reason("BRANCH_SETTLED")  // there is nothing to be resolved
	ErrNotFound         = Reason("NOT_FOUND")       // no such transaction; promises nothing

	ErrUnknownParticipant = Reason("UNKNOWN_PARTICIPANT")
	ErrParticipantInUse   = Reason("PARTICIPANT_IN_USE")
	ErrParticipantUnfit   = Reason("PARTICIPANT_UNFIT") // its resource cannot be reached, or is not as its driver needs it
	ErrUnknownDriver      = Reason("UNKNOWN_DRIVER")
	ErrUnknownNode        = Reason("UNKNOWN_NODE")
	ErrAlreadyMember      = Reason("ALREADY_MEMBER")
	ErrNodeRefused        = Reason("NODE_REFUSED")  // it is not empty, or not the one that was meant
	ErrNodeTooOld         = Reason("NODE_TOO_OLD")  // its binary can't read what the cluster writes
	ErrLevel              = Reason("CLUSTER_LEVEL") // not all nodes are upgraded to what this needs
	ErrNodeUnreachable    = Reason("NODE_UNREACHABLE")
	ErrLastVoter          = Reason("LAST_VOTER")

	ErrGroupStays      = Reason("GROUP_STAYS")    // the cluster was told another group before
	ErrTooLateForGroup = Reason("GROUP_TOO_LATE") // the cluster has had participants or transactions

	ErrUnauthenticated = Reason("UNAUTHENTICATED")   // the node does not know who calls
	ErrDenied          = Reason("PERMISSION_DENIED") // the caller's role may not

	ErrWatchLagged = Reason("WATCH_LAGGED") // events were missed: list, then watch again

	// The client retries these by itself. A call fails with one of them only once
	// its context has ended.
	ErrNotLeader      = Reason("NOT_LEADER")
	ErrBusy           = Reason("BUSY")
	ErrShuttingDown   = Reason("SHUTTING_DOWN")
	ErrUnavailable    = Reason("UNAVAILABLE")     // no endpoint could be reached
	ErrInternal       = Reason("INTERNAL")        // a fault of the server's
	ErrCanceled       = Reason("CANCELED")        // the call was cut on its way
	ErrOutcomeUnknown = Reason("OUTCOME_UNKNOWN") // see [UnknownError]
)

// Error is a refusal by a server.
type Error struct {
	Reason     Reason
	Code       codes.Code
	Message    string
	TxID       string        // where the call was about a transaction
	Group      Group         // of the cluster that answered, with ErrOtherGroup
	RetryAfter time.Duration // when waiting helps
	Violations []Violation   // of a request that is not well formed, all of them
}

// Violation is one thing wrong with a request.
type Violation struct {
	Field       string // as in the .proto, such as branches[2].participant
	Description string
}

func (e *Error) Error() string {
	return fmt.Sprintf("decree: %s (%s)", e.Message, e.Reason)
}

// Is makes errors.Is match the reason.
func (e *Error) Is(target error) bool {
	r, ok := target.(Reason)
	return ok && r == e.Reason
}

// UnknownError says that the outcome could not be learnt before the context
// ended. It is neither success nor failure: the transaction may be committed,
// aborted, or still run. Submit again with the same txid, or Inquire, to learn.
type UnknownError struct {
	TxID string
	Err  error // of the last attempt, and of the context
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("decree: the outcome of %s is not known: %v", e.TxID, e.Err)
}

// Unwrap gives the cause.
func (e *UnknownError) Unwrap() error { return e.Err }

// Is matches [ErrOutcomeUnknown].
func (e *UnknownError) Is(target error) bool { return target == ErrOutcomeUnknown }

// errorDomain is the ErrorInfo domain of every error that decree itself makes.
const errorDomain = "decree"

// fromStatus turns what gRPC returned into an *Error. Errors that did not come
// from decree keep their code and get the reason UNAVAILABLE where the
// connection failed, or their code's name.
func fromStatus(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	st := status.Convert(err)
	e := &Error{Code: st.Code(), Message: st.Message(), Reason: reasonOfCode(st.Code())}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == errorDomain {
				e.Reason = Reason(d.GetReason())
				e.TxID = d.GetMetadata()["txid"]
				e.Group = groupOf(d.GetMetadata())
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Violations = append(e.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		}
	}
	return e
}

// fromBroken is what a call would have come to whose connection broke, or whose
// context ended.
func fromBroken(err *submitmany.BrokenError) *Error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fromStatus(status.FromContextError(err.Err).Err())
	}
	return &Error{Reason: ErrUnavailable, Code: codes.Unavailable, Message: err.Error()}
}

// reasonOfCode names an error that decree did not make: gRPC's own, or a
// proxy's.
func reasonOfCode(c codes.Code) Reason {
	switch c {
	case codes.Unavailable:
		return ErrUnavailable
	case codes.Internal:
		return ErrInternal
	case codes.Canceled:
		return ErrCanceled
	case codes.ResourceExhausted: // gRPC's word for a message over its size limit
		return ErrTooLarge
	default:
		return Reason("GRPC_" + strings.ToUpper(c.String()))
	}
}

// fate is what an error tells about the attempt that it ended.
type fate uint8

const (
	refused    fate = iota // an answer: repeating the call gives it again
	notRun                 // certainly nothing was done: try again
	mayHaveRun             // neither is certain: try again, with the same txid
)

// fate of the attempt. An error that decree did not make says nothing about what
// happened, except where gRPC refused the message before it was sent.
func (e *Error) fate() fate {
	switch e.Reason {
	case ErrNotLeader, ErrBusy:
		return notRun
	case ErrOutcomeUnknown, ErrUnavailable, ErrShuttingDown, ErrInternal, ErrCanceled,
		reasonOfCode(codes.DeadlineExceeded), reasonOfCode(codes.Unknown):
		return mayHaveRun
	}
	return refused
}
