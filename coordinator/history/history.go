// Package history keeps what clients asked of a cluster, what they were told, and
// what was found at nodes and participants, and judges whether all of it can be
// true of one register a txid that is written once (rule R1).
//
// It owns one format, which the simulation, the chaos runs and the bank share, and
// the model by which porcupine judges it. It refuses to know how the answers were
// come by: it reaches no cluster.
package history

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Kind says what was asked.
type Kind string

// The kinds.
const (
	// Run submits or commits a transaction: the cluster may decide it meanwhile. A
	// client that begins a transaction and later ends it makes one Run of all that.
	Run Kind = "run"
	// Abort asks for an abort.
	Abort Kind = "abort"
	// Inquire asks for an outcome that will stand: what is not known is aborted, and
	// an undecided transaction was undecided at some moment of the call.
	Inquire Kind = "inquire"
	// Observe reads a node's or a participant's own state, which may be behind: only
	// a decision that it shows says something.
	Observe Kind = "observe"
)

// Answer is what was told or found.
type Answer string

// The answers.
const (
	Committed Answer = "committed"
	Aborted   Answer = "aborted"
	Undecided Answer = "undecided"
	// Unknown is either outcome, now or later, or none; also that of a call which
	// never returned.
	Unknown Answer = "unknown"
)

// Op is one call and its answer.
type Op struct {
	Client int    `json:"client"` // whose call; one client makes one at a time
	Kind   Kind   `json:"kind"`
	TxID   string `json:"txid"`
	Answer Answer `json:"answer"`
	// Call and Return order the calls of one history. Return is 0 where there was no
	// answer that ends the matter: it may take effect at any later moment.
	Call   int64 `json:"call"`
	Return int64 `json:"return,omitempty"`
	// For people.
	Where string        `json:"where,omitempty"` // the node or participant that answered
	At    time.Duration `json:"at"`              // of the call, from the beginning of the history
	Took  time.Duration `json:"took"`
	Note  string        `json:"note,omitempty"`
}

func (o Op) String() string {
	s := fmt.Sprintf("%12s  client %-3d %s %s", o.At, o.Client, o.Kind, o.TxID)
	if o.Where != "" {
		s += " at " + o.Where
	}
	s += fmt.Sprintf(" -> %s after %s", o.Answer, o.Took)
	if o.Note != "" {
		s += ": " + o.Note
	}
	return s
}

// Recorder writes a history. Its methods are safe for concurrent use; the zero
// Recorder is not one.
type Recorder struct {
	began time.Time // of a virtual clock, inside a bubble

	mu   sync.Mutex
	tick int64 // guarded by mu
	ops  []Op  // guarded by mu; those that have not returned too
}

// NewRecorder begins a history now.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Begin notes a call that is about to leave; call the function with what came of
// it. A call whose function is never called counts as unknown.
func (r *Recorder) Begin(client int, kind Kind, txid string) (end func(a Answer, where, note string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tick++
	n := len(r.ops)
	r.ops = append(r.ops, Op{Client: client, Kind: kind, TxID: txid, Answer: Unknown, Call: r.tick, At: time.Since(r.began)})
	return func(a Answer, where, note string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tick++
		o := &r.ops[n]
		o.Answer, o.Where, o.Note, o.Took = a, where, note, time.Since(r.began)-o.At
		if a != Unknown {
			o.Return = r.tick
		}
	}
}

// Found notes what a look at a node or participant showed, at this moment.
func (r *Recorder) Found(client int, txid string, a Answer, where string) {
	r.Begin(client, Observe, txid)(a, where, "")
}

// Ops are a copy of all calls so far, in the order in which they left.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops)
}

// Write writes a history as JSON, one call a line.
func Write(w io.Writer, ops []Op) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	for _, o := range ops {
		if err := e.Encode(o); err != nil {
			return err
		}
	}
	return b.Flush()
}

// Read reads what Write wrote.
func Read(r io.Reader) ([]Op, error) {
	var ops []Op
	d := json.NewDecoder(r)
	for {
		var o Op
		switch err := d.Decode(&o); {
		case err == io.EOF: //nolint:errorlint // the decoder returns it bare
			return ops, nil
		case err != nil:
			return nil, fmt.Errorf("line %d of the history: %w", len(ops)+1, err)
		}
		ops = append(ops, o)
	}
}

// byTransaction splits a history by txid, in the order of first calls.
func byTransaction(ops []Op) [][]Op {
	place := make(map[string]int)
	var parts [][]Op
	for _, o := range ops {
		n, ok := place[o.TxID]
		if !ok {
			n = len(parts)
			place[o.TxID] = n
			parts = append(parts, nil)
		}
		parts[n] = append(parts[n], o)
	}
	for _, p := range parts {
		slices.SortFunc(p, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	}
	return parts
}
