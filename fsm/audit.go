package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// Bounds of the audit trail. What an operator did a year ago has long been exported by
// those who must keep it; ten thousand actions are some megabytes at the very most.
const (
	// MaxAudits is how many records are kept.
	MaxAudits = 10_000
	// AuditAge is how long one is kept, in cluster time. The last one stays.
	AuditAge = 400 * 24 * time.Hour
	// MaxAuditText bounds each text of a record in bytes.
	MaxAuditText = 512
)

// Operator is who does something to the cluster, and why. The zero Operator is nobody: the
// cluster itself, and tests.
type Operator struct {
	Who string // as authenticated
	Why string // in their words; may be empty
}

// Audited is what an operator does, on the record: who, what and why. Where the log
// carries it out itself, Command is what is done, in the same entry: a PutParticipant, a
// DeleteParticipant, a SetGroup, a txn.Arbitrate or a txn.Resolve. Otherwise, as for a change
// of the membership, the record stands alone and is written before the action.
//
// The texts are the proposer's. None is made by the state machine, where two releases
// would word it differently.
type Audited struct {
	Who    string // as authenticated; not empty
	Action string // such as "remove node"; not empty
	Target string // what it is done to: a name, an id; may be empty
	Detail string // how, such as an address; may be empty
	Why    string // in the operator's words; may be empty

	Command Command
}

// Transaction implements txn.Command: an action may be one on a transaction.
func (a Audited) Transaction() txn.TxID {
	if c, ok := a.Command.(txn.Command); ok {
		return c.Transaction()
	}
	return txn.TxID{}
}

// Audit is a record of the trail.
type Audit struct {
	Number uint64   // from 1, in the order of the log, without a gap
	Index  uint64   // of the log entry
	Epoch  uint64   // of the leader
	At     txn.Time // cluster time
	Who    string
	Action string
	Target string
	Detail string
	Why    string
	// Refused says that the state machine refused the action: a participant in use was
	// not deleted.
	Refused bool
}

// auditable are the commands that an Audited may hold.
func auditable(c Command) bool {
	switch c.(type) {
	case nil, PutParticipant, DeleteParticipant, SetGroup, txn.Arbitrate, txn.Resolve:
		return true
	}
	return false
}

func auditedToProto(a Audited) (*fsmpb.Audited, error) {
	pb := &fsmpb.Audited{Who: a.Who, Action: a.Action, Target: a.Target, Detail: a.Detail, Why: a.Why}
	if a.Command == nil {
		return pb, nil
	}
	var err error
	pb.Command, err = commandToProto(a.Command)
	return pb, err
}

func auditedFromProto(pb *fsmpb.Audited) (Audited, error) {
	a := Audited{Who: pb.Who, Action: pb.Action, Target: pb.Target, Detail: pb.Detail, Why: pb.Why}
	if err := checkAudit(a.Who, a.Action, a.Target, a.Detail, a.Why); err != nil || pb.Command == nil {
		return a, err
	}
	if pb.Command.GetAudited() != nil {
		return a, errors.New("an audited command is audited again") // before the recursion
	}
	var err error
	if a.Command, err = commandFromProto(pb.Command); err != nil {
		return a, err
	}
	if !auditable(a.Command) {
		return a, fmt.Errorf("a %T is no operator's action", a.Command)
	}
	return a, nil
}

func checkAudit(who, action string, more ...string) error {
	for _, s := range append([]string{who, action}, more...) {
		if len(s) > MaxAuditText || !utf8.ValidString(s) {
			return fmt.Errorf("a text of the audit trail has at most %d bytes of UTF-8, this has %d", MaxAuditText, len(s))
		}
	}
	if who == "" || action == "" {
		return errors.New("an audited action has somebody who does it, and a name")
	}
	return nil
}

// audits is the trail: each record as protobuf, one piece of memory each. The slice is
// appended to and cut at its beginning, and shared with readers and snapshots, which
// never look past its end.
type audits struct {
	last    uint64 // the number of the last record
	records []string
}

// add appends a record and lets go of what is too old or too much.
func (t *audits) add(r Audit) {
	t.last++
	r.Number = t.last
	b, err := marshal.Marshal(auditToProto(r))
	if err != nil {
		panic(fmt.Sprintf("fsm: an audit record can't be written: %v", err)) // its texts are UTF-8
	}
	t.records = append(t.records, string(b))
	for len(t.records) > MaxAudits || len(t.records) > 1 && t.at(0).At.Add(AuditAge) < r.At {
		t.records = t.records[1:]
	}
}

// at reads a record.
func (t audits) at(i int) Audit {
	pb := new(fsmpb.Audit)
	if err := proto.Unmarshal([]byte(t.records[i]), pb); err != nil {
		panic(fmt.Sprintf("fsm: an audit record can't be read back: %v", err))
	}
	return auditFromProto(pb)
}

// first is the number of the first record that is kept.
func (t audits) first() uint64 { return t.last - uint64(len(t.records)) + 1 }

// restore appends a record of a snapshot.
func (t *audits) restore(pb *fsmpb.Audit) error {
	if err := cmp.Or(known(pb), checkAudit(pb.Who, pb.Action, pb.Target, pb.Detail, pb.Why)); err != nil {
		return fmt.Errorf("audit record %d: %w", pb.Number, err)
	}
	n := len(t.records)
	switch {
	case pb.Time < 0 || txn.Time(pb.Time) > maxTime:
		return fmt.Errorf("audit record %d: time %d lies outside of 0 to %d", pb.Number, pb.Time, maxTime)
	case pb.Number == 0 || n > 0 && pb.Number != t.last+1:
		return fmt.Errorf("audit record %d comes after %d", pb.Number, t.last)
	case n == MaxAudits:
		return fmt.Errorf("more than %d audit records", MaxAudits)
	}
	b, err := marshal.Marshal(pb)
	t.last, t.records = pb.Number, append(t.records, string(b))
	return err
}

func auditToProto(r Audit) *fsmpb.Audit {
	return &fsmpb.Audit{
		Number: r.Number, Index: r.Index, Epoch: r.Epoch, Time: int64(r.At), Who: r.Who,
		Action: r.Action, Target: r.Target, Detail: r.Detail, Why: r.Why, Refused: r.Refused,
	}
}

func auditFromProto(pb *fsmpb.Audit) Audit {
	return Audit{
		Number: pb.Number, Index: pb.Index, Epoch: pb.Epoch, At: txn.Time(pb.Time), Who: pb.Who,
		Action: pb.Action, Target: pb.Target, Detail: pb.Detail, Why: pb.Why, Refused: pb.Refused,
	}
}

// Trail returns records of the audit trail, the youngest first: those with a number
// above after and, where before is not 0, below before; at most limit, or 100 where that
// is not positive, and 1000 in any case. more reports that older ones are left.
func (m *Machine) Trail(after, before uint64, limit int) (page []Audit, more bool) {
	m.mu.RLock()
	t := m.state.audits
	m.mu.RUnlock()
	if limit = min(limit, maxPage); limit <= 0 {
		limit = defaultPage
	}
	number := t.last
	if before > 0 {
		number = min(number, before-1)
	}
	for ; number > after && number >= t.first() && len(t.records) > 0; number-- {
		if len(page) == limit {
			return page, true
		}
		page = append(page, t.at(int(number-t.first())))
	}
	return page, false
}
