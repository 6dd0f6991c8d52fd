package grpcparticipant

import (
	"time"

	"github.com/decree-tx/decree/fsm/txn"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// kind is what a call asks for.
type kind uint8

const (
	callPrepare kind = iota
	callCommit
	callAbort
)

var kindNames = [...]string{"prepare", "commit", "abort"}

func (k kind) String() string { return kindNames[k] }

// size is what the call takes in a message, at most.
func (c *call) size() int { return callSize + len(c.branch.Payload) + len(c.branch.Traceparent) }

// message is what a sender fills again for each send. That is safe because this
// package's connections have neither tracing nor handlers of statistics, which might
// look at a message later than gRPC does. It refers to a call's payload, which nobody
// changes, and to nothing else that is the call's.
type message struct {
	participantv1.CallManyRequest
	now   time.Time
	bytes int
	rooms []*room
}

// room is for one call.
type room struct {
	call    participantv1.Call
	branch  participantv1.Branch
	digest  txn.Digest
	prepare participantv1.PrepareRequest
	commit  participantv1.CommitRequest
	abort   participantv1.AbortRequest
}

func newRoom() *room {
	r := &room{}
	r.prepare.Branch, r.commit.Branch, r.abort.Branch = &r.branch, &r.branch, &r.branch
	r.prepare.Digest = r.digest[:]
	return r
}

func (m *message) begin(cancelled []uint64) {
	clear(m.Calls)
	m.Calls = m.Calls[:0]
	m.Cancelled = append(m.Cancelled[:0], cancelled...)
	m.now, m.bytes = time.Now(), 0
}

// add reports whether there was room for c, and whether it is of the same cluster and
// time as the message's other calls.
func (m *message) add(c *call) bool {
	n := len(m.Calls)
	horizon := int64(c.branch.Horizon)
	switch {
	case n == 0:
		m.Cluster, m.Epoch, m.Horizon = c.branch.Cluster, c.branch.Epoch, horizon
	case m.bytes+c.size() > maxFrame,
		m.Cluster != c.branch.Cluster, m.Epoch != c.branch.Epoch, m.Horizon != horizon:
		return false
	}
	if n == len(m.rooms) {
		m.rooms = append(m.rooms, newRoom())
	}
	m.rooms[n].fill(c, m.now)
	m.Calls = append(m.Calls, &m.rooms[n].call)
	m.bytes += c.size()
	return true
}

func (r *room) fill(c *call, now time.Time) {
	r.branch.Txid, r.branch.Number = c.txid, uint32(c.branch.Number)
	r.branch.Traceparent = c.branch.Traceparent
	r.call.Sequence, r.call.PatienceUs = c.sequence, 0
	if !c.deadline.IsZero() {
		r.call.PatienceUs = uint64(max(1, c.deadline.Sub(now).Microseconds()))
	}
	r.prepare.Payload = nil
	r.call.Prepare, r.call.Commit, r.call.Abort = nil, nil, nil
	switch c.kind {
	case callPrepare:
		r.digest, r.prepare.Payload = c.branch.Digest, c.branch.Payload
		r.call.Prepare = &r.prepare
	case callCommit:
		r.call.Commit = &r.commit
	case callAbort:
		r.call.Abort = &r.abort
	}
}
