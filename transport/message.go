package transport

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// This file turns the state of a transaction into messages. The enums of
// transactions.proto are declared in the order of package txn's, with the same
// numbers; a test holds that.

func resultMessage(r coordinator.Result) *decreev1.Result {
	m := &decreev1.Result{Txid: r.Transaction.ID.String()}
	tell(m, r)
	return m
}

// tell writes what became of a transaction into an empty message, all but its
// txid.
func tell(m *decreev1.Result, r coordinator.Result) {
	t := r.Transaction
	m.Outcome, m.Delivered = decreev1.Outcome(t.Decision()), r.Delivered
	m.Reason, m.Damage = reasonMessage(t), decreev1.Receipt(t.Damage())
}

func reasonMessage(t *txn.Transaction) *decreev1.AbortReason {
	if t.Reason.Code == txn.ReasonNone {
		return nil
	}
	m := &decreev1.AbortReason{
		Code:   decreev1.AbortCode(t.Reason.Code),
		Branch: uint32(t.Reason.Branch), //nolint:gosec // at most MaxBranches
		Detail: strings.ToValidUTF8(t.Reason.Detail, "\uFFFD"),
	}
	if n := t.Reason.Branch; n >= 1 && n <= len(t.Branches) {
		m.Participant = t.Branches[n-1].Participant
	}
	return m
}

// transactionMessage shows a transaction, with what the leader knows of its
// deliveries, if this node is the leader.
func transactionMessage(t *txn.Transaction, live []coordinator.Delivery) *decreev1.Transaction {
	m := &decreev1.Transaction{
		Txid:        t.ID.String(),
		State:       decreev1.State(t.State),
		Interactive: t.Interactive,
		Reason:      reasonMessage(t),
		Damage:      decreev1.Receipt(t.Damage()),
		Staged:      stampMessage(t.Staged),
		Decided:     stampMessage(t.Decided),
		Finished:    stampMessage(t.Finished),
	}
	if t.Timeout > 0 {
		m.Timeout = durationpb.New(t.Timeout)
	}
	for i, b := range t.Branches {
		m.Branches = append(m.Branches, &decreev1.Branch{
			Number:      uint32(i + 1), //nolint:gosec // at most MaxBranches
			Participant: b.Participant,
			External:    b.External,
			Vote:        decreev1.Vote(voteOf(t, i+1)),
			Receipt:     decreev1.Receipt(b.Receipt),
			Digest:      b.Digest[:],
			Resolved:    decreev1.Outcome(b.Resolved),
		})
	}
	for _, d := range live {
		if d.Branch >= 1 && d.Branch <= len(m.Branches) {
			addDelivery(m.Branches[d.Branch-1], d)
		}
	}
	return m
}

// voteOf is what the replicated state tells of a branch's vote. Most votes are not
// replicated, but a commit had all of them, and an abort may name the one that
// caused it.
func voteOf(t *txn.Transaction, branch int) txn.Vote {
	switch vote := t.Branches[branch-1].Vote; {
	case vote != txn.VoteNone:
		return vote
	case t.Decision() == txn.Commit:
		return txn.VoteCommit
	case t.Reason.Branch == branch && t.Reason.Code == txn.ReasonVote:
		return txn.VoteAbort
	default:
		return txn.VoteNone
	}
}

func addDelivery(b *decreev1.Branch, d coordinator.Delivery) {
	if b.Vote == decreev1.Vote_VOTE_UNSPECIFIED {
		b.Vote = decreev1.Vote(d.Vote) // heard, and not replicated
	}
	b.Attempts = uint32(max(0, d.Attempts)) //nolint:gosec // a count
	b.LastError = message(errorText(d.LastError))
	if !d.Next.IsZero() {
		b.NextAttempt = timestamppb.New(d.Next)
	}
}

// errorText is a participant's error as it was noted down.
type errorText string

func (e errorText) Error() string { return string(e) }

func stampMessage(s txn.Stamp) *decreev1.Stamp {
	if s == (txn.Stamp{}) {
		return nil
	}
	return &decreev1.Stamp{Index: s.Index, Epoch: s.Epoch, Time: timeMessage(s.At)}
}

func timeMessage(t txn.Time) *timestamppb.Timestamp {
	if t == 0 {
		return nil
	}
	return timestamppb.New(t.Std())
}

// canonicalJSON writes a JSON value, which v holds and plain is, with sorted keys
// and without escapes meant for HTML, so that equal values give equal bytes, and
// with them equal digests. What is no JSON, such as NaN, is an error: plain has
// the string "NaN" in its place.
func canonicalJSON(v proto.Message, plain any) ([]byte, error) {
	if _, err := protojson.Marshal(v); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// durationOf reads a timeout: 0 where it is not set, which means the default.
func durationOf(field string, d *durationpb.Duration, most time.Duration, bad *invalidError) time.Duration {
	if d == nil {
		return 0
	}
	switch v := d.AsDuration(); {
	case d.CheckValid() != nil:
		bad.add(reasonInvalidTimeout, field, "%v", d.CheckValid())
	case v <= 0:
		bad.add(reasonInvalidTimeout, field, "%s is not positive; leave it out for the default", v)
	case v > most:
		bad.add(reasonInvalidTimeout, field, "%s, at most %s", v, most)
	default:
		return v
	}
	return 0
}
