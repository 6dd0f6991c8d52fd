package httpparticipant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// The types of this package that have JSON tags are the bodies of openapi.yaml,
// field by field; a test holds the two together.

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
