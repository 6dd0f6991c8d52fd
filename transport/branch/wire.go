package branch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

const (
	// What decree promises of a branch's name; anything else is not from decree.
	maxCluster = 255 // bytes of a cluster's id
	maxNumber  = 256 // branches of a transaction
	digestSize = 32  // SHA-256

	// maxReason is what decree keeps of a text for people, in bytes.
	maxReason = 512
)

// txid is a transaction's id, a UUIDv7: its first 48 bits are the milliseconds
// since the Unix epoch at which it was made.
type txid [txidSize]byte

const txidSize = 16

func (id txid) String() string { return uuid.UUID(id).String() }

// time is when the id was made, in nanoseconds since the Unix epoch.
func (id txid) time() int64 {
	return int64(binary.BigEndian.Uint64(id[:8])>>16) * 1_000_000
}

// message is a request that was found to be well formed.
type message struct {
	branch  Branch
	id      txid // of branch.TxID
	epoch   uint64
	horizon int64
	digest  []byte // of a prepare
}

// key is the branch's key in its cluster's buckets.
func (m message) key() (k branchKey) {
	copy(k[:], m.id[:])
	binary.BigEndian.PutUint16(k[txidSize:], uint16(m.branch.Number))
	return k
}

// remembered is the branch with what was remembered of it since its prepare.
func (m message) remembered(r Record) Branch {
	b := m.branch
	b.Payload = r.Payload
	return b
}

// parseMessage checks everything that can be checked without the books, and
// reports all that is wrong.
func parseMessage(w *participantv1.Branch) (message, error) {
	if w == nil {
		return message{}, errors.New("branch: missing")
	}
	var problems []error
	if err := checkCluster(w.GetCluster()); err != nil {
		problems = append(problems, fmt.Errorf("branch.%w", err))
	}
	id, err := uuid.Parse(w.GetTxid())
	if err != nil || len(w.GetTxid()) != 36 || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		problems = append(problems, errors.New("branch.txid: want a UUIDv7 such as 01890a5d-ac96-774b-bcce-b302099a8057"))
	}
	if n := w.GetNumber(); n < 1 || n > maxNumber {
		problems = append(problems, fmt.Errorf("branch.number: %d, want 1 to %d", n, maxNumber))
	}
	if w.GetHorizon() < 0 {
		problems = append(problems, fmt.Errorf("branch.horizon: %d, before 1970", w.GetHorizon()))
	}
	return message{
		branch:  Branch{Cluster: w.GetCluster(), TxID: id.String(), Number: int(w.GetNumber())},
		id:      txid(id),
		epoch:   w.GetEpoch(),
		horizon: w.GetHorizon(),
	}, errors.Join(problems...)
}

func checkCluster(id string) error {
	if id == "" || len(id) > maxCluster {
		return fmt.Errorf("cluster: %d bytes, want 1 to %d", len(id), maxCluster)
	}
	return nil
}

// statusError is the one place where errors become codes. Only the stale epoch
// has a meaning for decree; the other codes are for people and dashboards.
func statusError(err error) error {
	code := codes.Unknown
	var failed *serviceError
	switch {
	case errors.Is(err, errStaleEpoch):
		return staleEpoch(err)
	case errors.Is(err, errFull), errors.Is(err, ErrClusters):
		code = codes.ResourceExhausted
	case errors.Is(err, errStuck), errors.Is(err, errHazard):
		code = codes.FailedPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.As(err, &failed):
		code = codes.Unknown
	default:
		code = codes.Internal // the books
	}
	return status.Error(code, clip(err.Error()))
}

func staleEpoch(err error) error {
	s := status.New(codes.FailedPrecondition, clip(err.Error()))
	withReason, detailErr := s.WithDetails(&errdetails.ErrorInfo{Domain: "decree", Reason: "STALE_EPOCH"})
	if detailErr != nil {
		return s.Err() // a detail that does not marshal; the message is still true
	}
	return withReason.Err()
}

func invalid(err error) error { return status.Error(codes.InvalidArgument, err.Error()) }

// clip bounds a text for people: at most maxReason bytes, whole characters, valid
// UTF-8.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxReason {
		return s
	}
	n := maxReason
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
