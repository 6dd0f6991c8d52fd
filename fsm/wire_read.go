package fsm

import (
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// The readers here take what wire.go writes, and nothing else: fields in their
// order, each once, each within its bounds. Whatever looks odd they leave to
// decode.go, which alone knows what is refused and says why, so that they may be
// stricter than it but never more lenient.

// cursor reads one message.
type cursor struct {
	b    []byte
	at   int    // what is left begins here
	last uint64 // tag
	odd  bool   // something is not as it was written; the cursor is at its end
}

func (c *cursor) more() bool { return c.at < len(c.b) }

// stop is what every doubt comes to.
func (c *cursor) stop() { c.odd, c.at = true, len(c.b) }

// tag reads the next field's tag. Only a repeated field may have that of the field
// before.
func (c *cursor) tag(repeated uint64) uint64 {
	t := c.uint()
	if t < c.last || t == c.last && t != repeated {
		c.stop()
	}
	c.last = t
	return t
}

func (c *cursor) uint() uint64 {
	if c.more() && c.b[c.at] < 0x80 {
		c.at++
		return uint64(c.b[c.at-1])
	}
	v, n := protowire.ConsumeVarint(c.b[c.at:])
	if n < 0 {
		c.stop()
		return 0
	}
	c.at += n
	return v
}

// atMost reads a number with a bound.
func (c *cursor) atMost(n uint64) uint64 {
	v := c.uint()
	if v > n {
		c.stop()
	}
	return v
}

func (c *cursor) bytes() []byte {
	n := c.uint()
	if n > uint64(len(c.b)-c.at) {
		c.stop()
		return nil
	}
	end := c.at + int(n)
	b := c.b[c.at:end:end]
	c.at = end
	return b
}

func (c *cursor) fill(to []byte) {
	if copy(to, c.fixed(len(to))) != len(to) {
		c.stop()
	}
}

// fixed reads a string of bytes that has n of them, or none.
func (c *cursor) fixed(n int) []byte {
	b := c.bytes()
	if len(b) != n {
		c.stop()
		return nil
	}
	return b
}

func (c *cursor) txid() (id txn.TxID) {
	c.fill(id[:])
	if id.Validate() != nil {
		c.stop()
	}
	return id
}

// count tells how many fields of a message have a tag.
func (c cursor) count(tag uint64) (n int) {
	for c.more() {
		t := c.uint()
		if t == tag {
			n++
		}
		if t&7 == length {
			c.bytes()
		} else {
			c.uint()
		}
	}
	return n
}

// names are the registered participants by name. A branch shares its participant's
// name with the registry where it can: a million open branches need no copy each.
type names []Participant

func (all names) share(b []byte) (string, bool) {
	low, high := 0, len(all)
	for low < high {
		mid := int(uint(low+high) >> 1)
		if all[mid].Name < string(b) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < len(all) && all[low].Name == string(b) {
		return all[low].Name, true
	}
	name := string(b)
	return name, checkName("participant", name) == nil
}

// readEntry reads an entry, the rarer commands in it through the generated types.
func readEntry(b []byte, known names) (e Entry, ok bool) {
	c := cursor{b: b}
	e.Commands = make([]Command, 0, c.count(tagCommand))
	version := uint64(0)
	for c.more() {
		switch c.tag(tagCommand) {
		case tagVersion:
			version = c.uint()
		case tagEntryEpoch:
			e.Header.Epoch = c.uint()
		case tagEntryTime:
			e.Header.Time = txn.Time(c.uint())
		case tagHorizon:
			e.Header.Horizon = txn.Time(c.uint())
		case tagCommand:
			command, ok := readCommand(c.bytes(), known)
			if !ok {
				c.stop()
			}
			e.Commands = append(e.Commands, command)
		default:
			c.stop()
		}
	}
	return e, !c.odd && version == uint64(entryLevel(e.Commands)) && checkHeader(e.Header) == nil && leadsAlone(e.Commands)
}

// leadsAlone holds that a Lead is the only command of its entry.
func leadsAlone(commands []Command) bool {
	for _, c := range commands {
		if _, ok := c.(Lead); ok && len(commands) != 1 {
			return false
		}
	}
	return true
}

func readCommand(b []byte, known names) (Command, bool) {
	c := cursor{b: b}
	tag := uint64(0)
	if c.more() {
		tag = c.tag(0)
	}
	switch tag {
	case tagStage:
		s, ok := readStage(c.bytes(), known)
		return s, ok && !c.odd && !c.more()
	case tagDecide:
		if d, ok := readDecide(c.bytes()); ok {
			return d, !c.odd && !c.more()
		}
	case tagAcknowledge:
		a, ok := readAcknowledge(c.bytes())
		return a, ok && !c.odd && !c.more()
	}
	var pb fsmpb.Command
	if proto.Unmarshal(b, &pb) != nil {
		return nil, false
	}
	command, err := commandFromProto(&pb)
	return command, err == nil
}

func readStage(b []byte, known names) (s txn.Stage, ok bool) {
	c := cursor{b: b}
	for c.more() {
		switch c.tag(tagBranches) {
		case tagTxid:
			s.ID = c.txid()
		case tagInteractive:
			s.Interactive = c.atMost(1) == 1
		case tagBranches:
			if s.Branches == nil {
				s.Branches = make([]txn.Branch, 0, min(cursor{b: b}.count(tagBranches), txn.MaxBranches))
			}
			c.branch(&s.Branches, known)
		case tagTimeout:
			s.Timeout = time.Duration(c.uint())
		case tagOwner:
			s.Owner = c.owner()
		default:
			c.stop()
		}
	}
	if c.odd || s.ID == (txn.TxID{}) || checkTimeout(s.Timeout) != nil || !newOnly(s.Branches) {
		return s, false
	}
	ownPayloads(s.Branches)
	return s, true
}

// newOnly reports whether branches are such as a Stage may name.
func newOnly(branches []txn.Branch) bool {
	for i := range branches {
		if b := &branches[i]; b.External || b.Vote != txn.VoteNone || b.Receipt != txn.ReceiptNone || b.Resolved != txn.Undecided {
			return false
		}
	}
	return true
}

// ownPayloads copies the payloads out of the bytes that were read, into one piece:
// a transaction that waits for long must not keep the whole entry in memory.
func ownPayloads(branches []txn.Branch) {
	n := 0
	for i := range branches {
		n += len(branches[i].Payload)
	}
	if n == 0 {
		return
	}
	room := make([]byte, 0, n)
	for i := range branches {
		if p := branches[i].Payload; p != nil {
			room = append(room, p...)
			branches[i].Payload = room[len(room)-len(p) : len(room) : len(room)]
		}
	}
}

// branch reads a Branch and appends it; its payload is still a part of the input.
func (c *cursor) branch(to *[]txn.Branch, known names) {
	in := cursor{b: c.bytes()}
	var b txn.Branch
	digest := false
	for in.more() {
		switch in.tag(0) {
		case tagParticipant:
			name, ok := known.share(in.bytes())
			if b.Participant = name; !ok {
				in.stop()
			}
		case tagPayload:
			if p := in.bytes(); len(p) > 0 {
				b.Payload = p
			}
		case tagDigest:
			in.fill(b.Digest[:])
			digest = true
		case tagExternal:
			b.External = in.atMost(1) == 1
		case tagVote:
			b.Vote = txn.Vote(in.atMost(uint64(txn.VoteAbort)))
		case tagReceipt:
			b.Receipt = txn.Receipt(in.atMost(uint64(txn.HeuristicHazard)))
		case tagResolved:
			b.Resolved = txn.Decision(in.atMost(uint64(txn.Abort)))
		default:
			in.stop()
		}
	}
	if in.odd || b.Participant == "" || !digest || len(*to) == txn.MaxBranches {
		c.stop()
		return
	}
	*to = append(*to, b)
}

func readDecide(b []byte) (d txn.Decide, ok bool) {
	c := cursor{b: b}
	for c.more() {
		switch c.tag(0) {
		case tagTxid:
			d.ID = c.txid()
		case tagDecision:
			d.Decision = txn.Decision(c.atMost(uint64(txn.Abort)))
		case tagDecideReason:
			d.Reason = c.reason()
		case tagReadOnly:
			for in := (cursor{b: c.bytes()}); in.more(); {
				d.ReadOnly = append(d.ReadOnly, in.branchNumber())
				if in.odd || len(d.ReadOnly) > txn.MaxBranches {
					c.stop()
					break
				}
			}
		default:
			c.stop()
		}
	}
	return d, !c.odd && d.ID != (txn.TxID{}) && d.Decision != txn.Undecided && checkDecision(d) == nil
}

func (c *cursor) branchNumber() int {
	n := c.atMost(txn.MaxBranches)
	if n == 0 {
		c.stop()
	}
	return int(n)
}

func (c *cursor) reason() (r txn.Reason) {
	in := cursor{b: c.bytes()}
	for in.more() {
		switch in.tag(0) {
		case tagReasonCode:
			r.Code = txn.ReasonCode(in.atMost(uint64(txn.ReasonOperator)))
		case tagReasonBranch:
			r.Branch = int(in.atMost(txn.MaxBranches))
		case tagDetail:
			detail := in.bytes()
			if len(detail) > txn.MaxReasonDetail || !utf8.Valid(detail) {
				in.stop()
			}
			r.Detail = string(detail)
		default:
			in.stop()
		}
	}
	if in.odd || r.Code == txn.ReasonNone {
		c.stop()
	}
	return r
}

func readAcknowledge(b []byte) (a txn.Acknowledge, ok bool) {
	c := cursor{b: b}
	for c.more() {
		switch c.tag(tagReceipts) {
		case tagTxid:
			a.ID = c.txid()
		case tagReceipts:
			if a.Receipts == nil {
				a.Receipts = make([]txn.BranchReceipt, 0, min(cursor{b: b}.count(tagReceipts), txn.MaxBranches))
			}
			if len(a.Receipts) == txn.MaxBranches {
				c.stop()
				break
			}
			a.Receipts = append(a.Receipts, c.receipt())
		default:
			c.stop()
		}
	}
	return a, !c.odd && a.ID != (txn.TxID{})
}

func (c *cursor) receipt() (r txn.BranchReceipt) {
	in := cursor{b: c.bytes()}
	for in.more() {
		switch in.tag(0) {
		case tagReceiptBranch:
			r.Branch = in.branchNumber()
		case tagReceiptKind:
			r.Receipt = txn.Receipt(in.atMost(uint64(txn.HeuristicHazard)))
		default:
			in.stop()
		}
	}
	if in.odd || r.Branch == 0 {
		c.stop()
	}
	return r
}

// readTransaction reads a transaction as [appendTransaction] wrote it into t, whose branches
// it may overwrite, and reports whether it was one. It does not ask whether such a
// transaction can be. Payloads are still a part of the input.
func readTransaction(b []byte, known names, t *txn.Transaction) bool {
	out := cursor{b: b}
	if !out.more() || out.tag(0) != tagTransaction {
		return false
	}
	b = out.bytes()
	if out.odd || out.more() {
		return false
	}
	c := cursor{b: b}
	*t = txn.Transaction{Branches: t.Branches[:0]}
	for c.more() {
		switch c.tag(tagTransactionBranch) {
		case tagTxid:
			t.ID = c.txid()
		case tagState:
			t.State = txn.State(c.atMost(uint64(txn.Aborted)))
		case tagTransactionKind:
			t.Interactive = c.atMost(1) == 1
		case tagFingerprint:
			c.fill(t.Fingerprint[:])
		case tagTransactionBranch:
			if t.Branches == nil {
				t.Branches = make([]txn.Branch, 0, min(cursor{b: b}.count(tagTransactionBranch), txn.MaxBranches))
			}
			c.branch(&t.Branches, known)
		case tagTransactionTime:
			t.Timeout = time.Duration(c.uint())
		case tagReason:
			t.Reason = c.reason()
		case tagStaged:
			t.Staged = c.stamp()
		case tagDecided:
			t.Decided = c.stamp()
		case tagFinished:
			t.Finished = c.stamp()
		case tagTransactionOwner:
			t.Owner = c.owner()
		default:
			c.stop()
		}
	}
	if len(t.Branches) == 0 {
		t.Branches = nil
	}
	return !c.odd
}

func (c *cursor) owner() txn.Owner {
	name := string(c.bytes())
	if checkName("owner", name) != nil {
		c.stop()
	}
	return txn.OwnerOf(name)
}

func (c *cursor) stamp() (s txn.Stamp) {
	in := cursor{b: c.bytes()}
	for in.more() {
		switch in.tag(0) {
		case tagIndex:
			s.Index = in.uint()
		case tagStampEpoch:
			s.Epoch = in.uint()
		case tagStampTime:
			s.At = txn.Time(in.atMost(uint64(maxTime)))
		default:
			in.stop()
		}
	}
	if in.odd {
		c.stop()
	}
	return s
}
