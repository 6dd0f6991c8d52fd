package httpparticipant

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// The requests of the wire, from both of its ends.

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

// maxEpoch is the largest integer that every JSON reader keeps exact.
const maxEpoch = 1<<53 - 1

// requestFor makes the body of an operation on a branch.
func requestFor(op operation, b participants.Branch) (any, error) {
	if op == opPrepare {
		return prepareToWire(b)
	}
	return branchToWire(b)
}

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

// readBranch reads the body of commit, abort and status, and reports all that is
// wrong with it.
func readBranch(body []byte) (participants.Branch, error) {
	var request branchRequest
	if err := read(body, &request, branchFields...); err != nil {
		return participants.Branch{}, err
	}
	return request.branch()
}

// readPrepare reads the body of prepare.
func readPrepare(body []byte) (participants.Branch, error) {
	var request prepareRequest
	if err := read(body, &request, append([]string{"digest"}, branchFields...)...); err != nil {
		return participants.Branch{}, err
	}
	return request.branch()
}

// readRecover reads the body of recover.
func readRecover(body []byte) (recoverRequest, error) {
	var request recoverRequest
	if err := read(body, &request, "cluster", "limit"); err != nil {
		return recoverRequest{}, err
	}
	var problems []error
	if err := checkCluster(request.Cluster); err != nil {
		problems = append(problems, err)
	}
	if request.Limit < 1 {
		problems = append(problems, fmt.Errorf("limit: %d, want 1 or more", request.Limit))
	}
	return request, errors.Join(problems...)
}

// branchFields are those that no request about a branch can go without. A missing
// epoch, above all, is not epoch 0.
var branchFields = []string{"cluster", "txid", "branch", "epoch", "horizon_ms"}

// read decodes a request that has at least the required fields.
func read(body []byte, request any, required ...string) error {
	o, err := readObject(body)
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	var problems []error
	for _, name := range required {
		if _, there := o[name]; !there {
			problems = append(problems, fmt.Errorf("%s: missing", name))
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	if err := json.Unmarshal(body, request); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}
