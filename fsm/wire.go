package fsm

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/decree-tx/decree/fsm/txn"
)

// Nearly all of the log are Stage, Decide and Acknowledge, and nearly all of a
// snapshot are transactions. These are written here by hand, byte for byte as
// protobuf writes fsm.proto's messages, because through the generated types an
// entry's reading costs more than what it does. wire_read.go reads them back.
//
// The rest goes through the generated types, in encode.go and decode.go. Tests hold
// both ways against each other.

// Tags of fsm.proto's fields: all numbers lie below 16, so that a tag is one byte.
const (
	tagVersion     = 1<<3 | varint
	tagEntryEpoch  = 2<<3 | varint
	tagEntryTime   = 3<<3 | varint
	tagHorizon     = 4<<3 | varint
	tagCommand     = 5<<3 | length
	tagStage       = 2<<3 | length // of Command
	tagDecide      = 5<<3 | length
	tagAcknowledge = 7<<3 | length

	tagTxid          = 1<<3 | length // of Stage, Decide, Acknowledge and Transaction
	tagInteractive   = 2<<3 | varint // of Stage
	tagBranches      = 3<<3 | length
	tagTimeout       = 4<<3 | varint
	tagOwner         = 5<<3 | length
	tagDecision      = 2<<3 | varint // of Decide
	tagDecideReason  = 3<<3 | length
	tagReadOnly      = 4<<3 | length // packed
	tagAdopted       = 5<<3 | length
	tagReceipts      = 2<<3 | length // of Acknowledge
	tagReceiptBranch = 1<<3 | varint // of BranchReceipt
	tagReceiptKind   = 2<<3 | varint

	tagParticipant = 1<<3 | length // of Branch
	tagPayload     = 2<<3 | length
	tagDigest      = 3<<3 | length
	tagExternal    = 4<<3 | varint
	tagVote        = 5<<3 | varint
	tagReceipt     = 6<<3 | varint
	tagResolved    = 7<<3 | varint

	tagReasonCode   = 1<<3 | varint // of Reason
	tagReasonBranch = 2<<3 | varint
	tagDetail       = 3<<3 | length
	tagIndex        = 1<<3 | varint // of Stamp
	tagStampEpoch   = 2<<3 | varint
	tagStampTime    = 3<<3 | varint

	tagTransaction       = 3<<3 | length // of Record
	tagState             = 2<<3 | varint // of Transaction
	tagTransactionKind   = 3<<3 | varint
	tagFingerprint       = 4<<3 | length
	tagTransactionBranch = 5<<3 | length
	tagTransactionTime   = 6<<3 | varint
	tagReason            = 7<<3 | length
	tagStaged            = 8<<3 | length
	tagDecided           = 9<<3 | length
	tagFinished          = 10<<3 | length
	tagTransactionOwner  = 11<<3 | length

	varint = uint64(protowire.VarintType)
	length = uint64(protowire.BytesType)
)

// sizeUint and its like give the bytes of a field, which proto3 leaves out where it
// is zero or empty.
func sizeUint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func sizeBool(v bool) int {
	if v {
		return 2
	}
	return 0
}

func sizeText(n int) int {
	if n == 0 {
		return 0
	}
	return sizeMessage(n)
}

// sizeMessage is that of a field that is there, empty or not.
func sizeMessage(n int) int { return 1 + protowire.SizeBytes(n) }

func appendUint(b []byte, tag, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, byte(tag)), v)
}

func appendBool(b []byte, tag uint64, v bool) []byte {
	if v {
		return append(b, byte(tag), 1)
	}
	return b
}

func appendText[T string | []byte](b []byte, tag uint64, v T) []byte {
	if len(v) == 0 {
		return b
	}
	return append(appendLength(b, tag, len(v)), v...)
}

// appendLength begins a field of n bytes.
func appendLength(b []byte, tag uint64, n int) []byte {
	return protowire.AppendVarint(append(b, byte(tag)), uint64(n))
}

// frequentSize is the size of a Command message; false for a command that is
// written through the generated types.
func frequentSize(c Command) (int, bool) {
	switch c := c.(type) {
	case txn.Stage:
		return sizeMessage(stageSize(c)), true
	case txn.Decide:
		return sizeMessage(decideSize(c)), len(c.Branches) == 0
	case txn.Acknowledge:
		return sizeMessage(acknowledgeSize(c)), true
	}
	return 0, false
}

// appendFrequent writes what frequentSize measures.
func appendFrequent(b []byte, c Command) []byte {
	switch c := c.(type) {
	case txn.Stage:
		return appendStage(appendLength(b, tagStage, stageSize(c)), c)
	case txn.Decide:
		return appendDecide(appendLength(b, tagDecide, decideSize(c)), c)
	}
	a := c.(txn.Acknowledge)
	return appendAcknowledge(appendLength(b, tagAcknowledge, acknowledgeSize(a)), a)
}

const sizeTxid = 2 + len(txn.TxID{})

func stageSize(c txn.Stage) int {
	return sizeTxid + sizeBool(c.Interactive) + sizeBranches(c.Branches) + sizeUint(uint64(c.Timeout)) +
		sizeText(len(c.Owner.String()))
}

func appendStage(b []byte, c txn.Stage) []byte {
	b = appendText(b, tagTxid, c.ID[:])
	b = appendBool(b, tagInteractive, c.Interactive)
	b = appendBranches(b, tagBranches, c.Branches)
	b = appendUint(b, tagTimeout, uint64(c.Timeout))
	return appendText(b, tagOwner, c.Owner.String())
}

func decideSize(c txn.Decide) int {
	n := sizeTxid + sizeUint(uint64(c.Decision)) + sizeText(readOnlySize(c.ReadOnly))
	if c.Reason != (txn.Reason{}) {
		n += sizeMessage(reasonSize(c.Reason, clipDetail(c.Reason.Detail)))
	}
	return n
}

func appendDecide(b []byte, c txn.Decide) []byte {
	b = appendText(b, tagTxid, c.ID[:])
	b = appendUint(b, tagDecision, uint64(c.Decision))
	b = appendReason(b, tagDecideReason, c.Reason)
	if n := readOnlySize(c.ReadOnly); n > 0 {
		b = appendLength(b, tagReadOnly, n)
		for _, branch := range c.ReadOnly {
			b = protowire.AppendVarint(b, uint64(number(branch)))
		}
	}
	return b
}

func readOnlySize(branches []int) (n int) {
	for _, branch := range branches {
		n += protowire.SizeVarint(uint64(number(branch)))
	}
	return n
}

func acknowledgeSize(c txn.Acknowledge) int {
	n := sizeTxid
	for _, r := range c.Receipts {
		n += sizeMessage(receiptSize(r))
	}
	return n
}

func appendAcknowledge(b []byte, c txn.Acknowledge) []byte {
	b = appendText(b, tagTxid, c.ID[:])
	for _, r := range c.Receipts {
		b = appendLength(b, tagReceipts, receiptSize(r))
		b = appendUint(b, tagReceiptBranch, uint64(number(r.Branch)))
		b = appendUint(b, tagReceiptKind, uint64(r.Receipt))
	}
	return b
}

func receiptSize(r txn.BranchReceipt) int {
	return sizeUint(uint64(number(r.Branch))) + sizeUint(uint64(r.Receipt))
}

func sizeBranches(branches []txn.Branch) (n int) {
	for i := range branches {
		n += sizeMessage(branchSize(&branches[i]))
	}
	return n
}

func appendBranches(b []byte, tag uint64, branches []txn.Branch) []byte {
	for i := range branches {
		from := &branches[i]
		b = appendLength(b, tag, branchSize(from))
		b = appendText(b, tagParticipant, from.Participant)
		b = appendText(b, tagPayload, from.Payload)
		b = appendText(b, tagDigest, from.Digest[:])
		b = appendBool(b, tagExternal, from.External)
		b = appendUint(b, tagVote, uint64(from.Vote))
		b = appendUint(b, tagReceipt, uint64(from.Receipt))
		b = appendUint(b, tagResolved, uint64(from.Resolved))
	}
	return b
}

func branchSize(b *txn.Branch) int {
	return sizeText(len(b.Participant)) + sizeText(len(b.Payload)) + sizeText(len(b.Digest)) +
		sizeBool(b.External) + sizeUint(uint64(b.Vote)) + sizeUint(uint64(b.Receipt)) +
		sizeUint(uint64(b.Resolved))
}

func appendReason(b []byte, tag uint64, r txn.Reason) []byte {
	if r == (txn.Reason{}) {
		return b
	}
	detail := clipDetail(r.Detail)
	b = appendLength(b, tag, reasonSize(r, detail))
	b = appendUint(b, tagReasonCode, uint64(r.Code))
	b = appendUint(b, tagReasonBranch, uint64(number(r.Branch)))
	return appendText(b, tagDetail, detail)
}

func reasonSize(r txn.Reason, detail string) int {
	return sizeUint(uint64(r.Code)) + sizeUint(uint64(number(r.Branch))) + sizeText(len(detail))
}

// appendTransaction writes a transaction as a snapshot's Record.
func appendTransaction(b []byte, t *txn.Transaction) []byte {
	b = appendLength(b, tagTransaction, transactionSize(t))
	b = appendText(b, tagTxid, t.ID[:])
	b = appendUint(b, tagState, uint64(t.State))
	b = appendBool(b, tagTransactionKind, t.Interactive)
	if !t.Tombstone() {
		b = appendText(b, tagFingerprint, t.Fingerprint[:])
	}
	b = appendBranches(b, tagTransactionBranch, t.Branches)
	b = appendUint(b, tagTransactionTime, uint64(t.Timeout))
	b = appendReason(b, tagReason, t.Reason)
	b = appendStamp(b, tagStaged, t.Staged)
	b = appendStamp(b, tagDecided, t.Decided)
	b = appendStamp(b, tagFinished, t.Finished)
	return appendText(b, tagTransactionOwner, t.Owner.String())
}

func transactionSize(t *txn.Transaction) int {
	n := sizeTxid + sizeUint(uint64(t.State)) + sizeBool(t.Interactive) + sizeBranches(t.Branches) +
		sizeUint(uint64(t.Timeout)) +
		sizeStamp(t.Staged) + sizeStamp(t.Decided) + sizeStamp(t.Finished) + sizeText(len(t.Owner.String()))
	if !t.Tombstone() {
		n += sizeText(len(t.Fingerprint))
	}
	if t.Reason != (txn.Reason{}) {
		n += sizeMessage(reasonSize(t.Reason, clipDetail(t.Reason.Detail)))
	}
	return n
}

func appendStamp(b []byte, tag uint64, s txn.Stamp) []byte {
	if s == (txn.Stamp{}) {
		return b
	}
	b = appendLength(b, tag, stampSize(s))
	b = appendUint(b, tagIndex, s.Index)
	b = appendUint(b, tagStampEpoch, s.Epoch)
	return appendUint(b, tagStampTime, uint64(s.At))
}

func sizeStamp(s txn.Stamp) int {
	if s == (txn.Stamp{}) {
		return 0
	}
	return sizeMessage(stampSize(s))
}

func stampSize(s txn.Stamp) int {
	return sizeUint(s.Index) + sizeUint(s.Epoch) + sizeUint(uint64(s.At))
}

// appendHeader writes an entry's fields before its commands.
func appendHeader(b []byte, level Level, h txn.Header) []byte {
	b = appendUint(b, tagVersion, uint64(level))
	b = appendUint(b, tagEntryEpoch, h.Epoch)
	b = appendUint(b, tagEntryTime, uint64(h.Time))
	return appendUint(b, tagHorizon, uint64(h.Horizon))
}
