package httpparticipant

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// These types are the bodies of openapi.yaml, field by field; a test holds the
// two together.

// branchRequest is the body of commit, abort and status.
type branchRequest struct {
	Cluster   string `json:"cluster"`
	TxID      string `json:"txid"`
	Branch    int    `json:"branch"`
	Epoch     uint64 `json:"epoch"`
	HorizonMS int64  `json:"horizon_ms"`
}

// prepareRequest is the body of prepare. Exactly one of its payloads is there.
type prepareRequest struct {
	branchRequest
	Digest        string          `json:"digest"`
	Payload       json.RawMessage `json:"payload,omitempty"`
	PayloadBase64 *string         `json:"payload_base64,omitempty"`
}

// recoverRequest is the body of recover. The first page is asked for without a
// cursor.
type recoverRequest struct {
	Cluster string `json:"cluster"`
	Limit   int    `json:"limit"`
	Cursor  string `json:"cursor,omitempty"`
}

type voteAnswer struct {
	Vote   string `json:"vote"`
	Reason string `json:"reason,omitempty"`
}

type statusAnswer struct {
	Status string `json:"status"`
}

type heuristicAnswer struct {
	Heuristic string `json:"heuristic"`
	Detail    string `json:"detail,omitempty"`
}

type errorAnswer struct {
	Error  string `json:"error"`
	Detail string `json:"detail,omitempty"`
}

// recoverAnswer is one page. The last one has no next cursor.
type recoverAnswer struct {
	Branches   []preparedBranch `json:"branches"`
	NextCursor string           `json:"next_cursor,omitempty"`
}

type preparedBranch struct {
	TxID   string `json:"txid"`
	Branch int    `json:"branch"`
}

// The words of the wire. None is ever taken away, and none changes its meaning.
const (
	fieldVote      = "vote"
	fieldStatus    = "status"
	fieldHeuristic = "heuristic"
	fieldError     = "error"

	voteCommit   = "commit"
	voteReadOnly = "read_only"
	voteAbort    = "abort"

	statusUnknown   = "unknown"
	statusPrepared  = "prepared"
	statusCommitted = "committed"
	statusAborted   = "aborted"

	heuristicCommit = "commit"
	heuristicAbort  = "abort"
	heuristicHazard = "hazard"

	// The one error that means something to the caller, and those for people.
	errorStaleEpoch      = "stale_epoch"
	errorInvalid         = "invalid_request"
	errorUnauthenticated = "unauthenticated"
	errorUnsupported     = "unsupported"
	errorUnavailable     = "unavailable"
	errorInternal        = "internal"
)

// operation is one of the five, and its path below the service's url.
type operation string

const (
	opPrepare operation = "prepare"
	opCommit  operation = "commit"
	opAbort   operation = "abort"
	opStatus  operation = "status"
	opRecover operation = "recover"
)

const contentType = "application/json"

// maxEpoch is the largest integer that every JSON reader keeps exact.
const maxEpoch = 1<<53 - 1

// branchToWire fails on what would arrive as something else: JSON has no other
// characters than Unicode's, and some readers no larger integers.
func branchToWire(b participants.Branch) (branchRequest, error) {
	if b.Epoch > maxEpoch {
		return branchRequest{}, fmt.Errorf("epoch %d is larger than JSON's integers", b.Epoch)
	}
	if !utf8.ValidString(b.Cluster) {
		return branchRequest{}, errors.New("the cluster's id is not UTF-8")
	}
	return branchRequest{
		Cluster:   b.Cluster,
		TxID:      b.TxID.String(),
		Branch:    b.Number,
		Epoch:     b.Epoch,
		HorizonMS: int64(b.Horizon) / int64(time.Millisecond),
	}, nil
}

func prepareToWire(b participants.Branch) (prepareRequest, error) {
	named, err := branchToWire(b)
	if err != nil {
		return prepareRequest{}, err
	}
	r := prepareRequest{branchRequest: named, Digest: hex.EncodeToString(b.Digest[:])}
	if utf8.Valid(b.Payload) && json.Valid(b.Payload) {
		r.Payload = b.Payload
	} else {
		text := base64.StdEncoding.EncodeToString(b.Payload)
		r.PayloadBase64 = &text
	}
	return r, nil
}

// maxHorizonMS is the last millisecond that txn.Time holds.
const maxHorizonMS = int64(1<<63-1) / int64(time.Millisecond)

// branch checks everything about a branch that can be checked without state, and
// reports all that is wrong with it.
func (r branchRequest) branch() (participants.Branch, error) {
	var problems []error
	if err := checkCluster(r.Cluster); err != nil {
		problems = append(problems, err)
	}
	id, err := txn.ParseTxID(r.TxID)
	if err != nil {
		problems = append(problems, fmt.Errorf("txid: %w", err))
	}
	if r.Branch < 1 || r.Branch > txn.MaxBranches {
		problems = append(problems, fmt.Errorf("branch: %d, want 1 to %d", r.Branch, txn.MaxBranches))
	}
	if r.Epoch > maxEpoch {
		problems = append(problems, fmt.Errorf("epoch: %d, want at most %d", r.Epoch, uint64(maxEpoch)))
	}
	if r.HorizonMS < 0 || r.HorizonMS > maxHorizonMS {
		problems = append(problems, fmt.Errorf("horizon_ms: %d, want 0 to %d", r.HorizonMS, maxHorizonMS))
	}
	if len(problems) > 0 {
		return participants.Branch{}, errors.Join(problems...)
	}
	return participants.Branch{
		Cluster: r.Cluster,
		TxID:    id,
		Number:  r.Branch,
		Epoch:   r.Epoch,
		Horizon: txn.Time(r.HorizonMS * int64(time.Millisecond)),
	}, nil
}

// branch is as that of a branchRequest, with the content.
func (r prepareRequest) branch() (participants.Branch, error) {
	b, err := r.branchRequest.branch()
	problems := []error{err}
	digest, err := hex.DecodeString(r.Digest)
	if err != nil || len(digest) != len(b.Digest) {
		problems = append(problems, fmt.Errorf("digest: want %d hexadecimal digits", 2*len(b.Digest)))
	}
	copy(b.Digest[:], digest)
	switch {
	case (r.Payload == nil) == (r.PayloadBase64 == nil):
		problems = append(problems, errors.New("payload and payload_base64: want exactly one"))
	case r.PayloadBase64 == nil:
		b.Payload = r.Payload
	default:
		if b.Payload, err = base64.StdEncoding.DecodeString(*r.PayloadBase64); err != nil {
			problems = append(problems, fmt.Errorf("payload_base64: %w", err))
		}
	}
	return b, errors.Join(problems...)
}

func checkCluster(cluster string) error {
	if cluster == "" || len(cluster) > participants.MaxClusterID {
		return fmt.Errorf("cluster: %d bytes, want 1 to %d", len(cluster), participants.MaxClusterID)
	}
	return nil
}

// encode makes a body. Strings stay as they are: no browser will read them, so
// no "<" need be escaped.
func encode(body any) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	err := enc.Encode(body)
	return text.Bytes(), err
}

// object is a JSON object's fields as they were written.
type object map[string]json.RawMessage

// readObject reads a body that is one JSON object. A field that stands there
// twice makes it unreadable: readers differ in which one they take.
func readObject(body []byte) (object, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	o := object{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errors.New("not a JSON object")
		}
		key, _ := name.(string) // an object's names are strings, or Token fails
		if _, twice := o[key]; twice {
			return nil, fmt.Errorf("field %q is there twice", clean(key, maxName))
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errors.New("not a JSON object, or cut short")
		}
		o[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("not a JSON object, or cut short")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return o, nil
}

// text is the field's string, and whether the field is there.
func (o object) text(name string) (text string, there bool, err error) {
	raw, there := o[name]
	if !there {
		return "", false, nil
	}
	if !strings.HasPrefix(string(raw), `"`) {
		return "", true, fmt.Errorf("field %q is not a string", name)
	}
	return text, true, json.Unmarshal(raw, &text)
}
