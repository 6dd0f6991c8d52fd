package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/decree-tx/decree/transport"
	"github.com/decree-tx/decree/transport/client"
)

// maxInput bounds a file that a command reads. A transaction may carry 1 MiB by
// default, and base64 and JSON quoting add to that.
const maxInput = 16 << 20

// source reads what an argument stands for: the text itself, the file behind an
// @, or stdin for @-.
func (p *program) source(argument string) ([]byte, error) {
	path, isFile := strings.CutPrefix(argument, "@")
	if !isFile {
		return []byte(argument), nil
	}
	return p.readFile(path)
}

// readFile reads a file, or stdin when its name is a dash.
func (p *program) readFile(path string) ([]byte, error) {
	in := p.stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	content, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxInput {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxInput)
	}
	return content, nil
}

// canonicalJSON gives the bytes that the HTTP API makes of the same JSON: sorted
// keys, no spaces. A transaction that is submitted again by the other way is then
// the same. A number that the HTTP API would refuse, since it cannot carry it, stays
// as it is written.
func canonicalJSON(content []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, fmt.Errorf("not JSON: %w", sayEnd(err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not JSON: something follows the first value")
	}
	v = carried(v)
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// carried makes numbers the float64 that the HTTP API takes them for.
func carried(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			v[key] = carried(value)
		}
	case []any:
		for i, value := range v {
			v[i] = carried(value)
		}
	case json.Number:
		if f, err := v.Float64(); err == nil && transport.CarriesNumber(v.String()) {
			return f
		}
	}
	return v
}

// sayEnd puts into words that a JSON text ended before its value did.
func sayEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends too early")
	}
	return err
}

// branchFlags are the branches on a command line.
type branchFlags struct {
	json, bytes []string
}

// branches reads them; every mistake is in the error.
func (p *program) branches(f branchFlags) ([]client.Branch, error) {
	var branches []client.Branch
	var errs []error
	add := func(flag, argument string, encode func([]byte) ([]byte, error)) {
		participant, text, ok := strings.Cut(argument, "=")
		if !ok || participant == "" {
			errs = append(errs, fmt.Errorf("--%s %q: want participant=content", flag, argument))
			return
		}
		content, err := p.source(text)
		if err == nil {
			content, err = encode(content)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s %s: %w", flag, participant, err))
			return
		}
		branches = append(branches, client.Bytes(participant, content))
	}
	for _, argument := range f.json {
		add("branch", argument, canonicalJSON)
	}
	for _, argument := range f.bytes {
		add("branch-bytes", argument, func(b []byte) ([]byte, error) { return b, nil })
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &usageError{err}
	}
	return branches, nil
}

// transactionFile is what `tx submit -f` reads: the body that the HTTP API takes.
type transactionFile struct {
	TxID     string `json:"txid"`
	Branches []struct {
		Participant string          `json:"participant"`
		JSON        json.RawMessage `json:"json"`
		Payload     []byte          `json:"payload"` // base64
	} `json:"branches"`
	Timeout string    `json:"timeout"` // such as 5s
	Wait    *waitFlag `json:"wait"`
}

func (p *program) transactionFrom(path string) (client.Transaction, error) {
	content, err := p.readFile(path)
	if err != nil {
		return client.Transaction{}, &usageError{err}
	}
	t, err := parseTransaction(content)
	if err != nil {
		return client.Transaction{}, usagef("%s: %w", path, err)
	}
	return t, nil
}

func parseTransaction(content []byte) (client.Transaction, error) {
	var file transactionFile
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return client.Transaction{}, fmt.Errorf("not a transaction: %w", sayEnd(err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return client.Transaction{}, errors.New("something follows the JSON object")
	}
	t := client.Transaction{TxID: file.TxID}
	if file.Wait != nil {
		t.Wait = client.Wait(*file.Wait)
	}
	var errs []error
	if file.Timeout != "" {
		d, err := time.ParseDuration(file.Timeout)
		if err != nil {
			errs = append(errs, fmt.Errorf("timeout %q: want a duration, such as 5s", file.Timeout))
		}
		t.Timeout = d
	}
	for i, b := range file.Branches {
		payload := b.Payload
		if b.JSON != nil {
			canonical, err := canonicalJSON(b.JSON)
			errs = append(errs, err) // cannot fail: it was decoded
			payload = canonical
		}
		if b.JSON != nil && b.Payload != nil {
			errs = append(errs, fmt.Errorf("branches[%d]: json and payload exclude each other", i))
		}
		t.Branches = append(t.Branches, client.Bytes(b.Participant, payload))
	}
	return t, errors.Join(errs...)
}

// waitFlag is a client.Wait on a command line or in a file.
type waitFlag client.Wait

var waits = []string{"delivery", "decision"} // in the order of client.Wait

func (w *waitFlag) String() string { return waits[*w] }
func (w *waitFlag) Type() string   { return "wait" }

func (w *waitFlag) Set(s string) error {
	for i, name := range waits {
		if s == name || s == "WAIT_"+strings.ToUpper(name) {
			*w = waitFlag(i)
			return nil
		}
	}
	return errors.New("want delivery or decision")
}

// UnmarshalText reads it in a file.
func (w *waitFlag) UnmarshalText(text []byte) error {
	if err := w.Set(string(text)); err != nil {
		return fmt.Errorf("wait %q: %w", text, err)
	}
	return nil
}

// parseVotes reads votes of external branches: branch=vote.
func parseVotes(arguments []string) ([]client.BranchVote, error) {
	kinds := map[string]client.Vote{
		"commit": client.VoteCommit, "read-only": client.VoteReadOnly, "abort": client.VoteAbort,
	}
	var votes []client.BranchVote
	var errs []error
	for _, argument := range arguments {
		number, word, _ := strings.Cut(argument, "=")
		n, err := strconv.ParseUint(number, 10, 16)
		kind, known := kinds[word]
		if err != nil || n == 0 || !known {
			errs = append(errs, fmt.Errorf("--vote %q: want branch=vote, such as 2=commit; votes are commit, read-only, abort", argument))
			continue
		}
		votes = append(votes, client.BranchVote{Branch: int(n), Vote: kind})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &usageError{err}
	}
	return votes, nil
}
