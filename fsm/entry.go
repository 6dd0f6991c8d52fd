package fsm

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// Bounds of what a log entry may hold. Nodes must agree on them, so each is a
// part of the entry's version and no configuration.
const (
	// MaxEntryBytes bounds an encoded entry: Raft replicates and stores it as one
	// message. It leaves room for a transaction of [MaxTransactionBytes] and the
	// names of its branches.
	MaxEntryBytes = 16 << 20
	// MaxTransactionBytes bounds the payloads of one transaction, so that it always
	// fits one snapshot record. The coordinator's own bound lies well below.
	MaxTransactionBytes = 8 << 20
	// MaxTimeout bounds a transaction's time: past a month it is no transaction,
	// and a deadline must not overflow.
	MaxTimeout = 31 * 24 * time.Hour
	// MaxNameBytes bounds names of participants, drivers, nodes and clusters.
	MaxNameBytes = 255
	// MaxConfigBytes bounds a participant's configuration, which every node keeps
	// in memory and every snapshot holds.
	MaxConfigBytes = 64 << 10
	// MaxCollect bounds the transactions that one [Collect] forgets, so that it
	// holds up the commands behind it for some milliseconds at most.
	MaxCollect = 10_000
)

// maxTime is the last cluster time that leaves room for a deadline and for clock
// skew, in the year 2262.
const maxTime = math.MaxInt64 - txn.Time(MaxTimeout) - txn.Time(txn.MaxSkew)

// ErrInvalidEntry is wrapped by all that [Encode] and [Validate] refuse.
var ErrInvalidEntry = errors.New("invalid log entry")

// Entry is the content of one Raft log entry: commands of many transactions that
// were waiting at the same time. An entry without commands only moves cluster
// time and the horizon.
type Entry struct {
	Header   txn.Header
	Commands []Command
}

// Command is one of txn.Stage, txn.Enlist, txn.Prepare, txn.Decide, txn.Presume,
// txn.Arbitrate, txn.Resolve, txn.Acknowledge, [Lead], [PutParticipant], [DeleteParticipant],
// [Collect], [RaiseLevel], [SetGroup] and [Audited], each as a value and not as a pointer.
type Command any

// Lead opens the epoch that its entry's header names; it stands alone in the
// entry, and the epoch must be the entry's Raft term (rule R3).
type Lead struct {
	Node    string // the leader
	Cluster string // the cluster's id; that of the first Lead is kept for ever
}

// PutParticipant registers a participant or changes its registration. The
// revision is the state machine's to give.
type PutParticipant struct {
	Participant Participant
}

// DeleteParticipant ends a registration.
type DeleteParticipant struct {
	Name string
}

// Collect forgets finished transactions whose id and whose end lie before the
// retention horizon, at most Limit of them, in the order in which they became
// old enough. Damaged transactions stay.
type Collect struct {
	Limit int // from 1 to MaxCollect
}

// Participant is what an operator registered under a name.
type Participant struct {
	Name   string
	Driver string
	Config []byte // the driver's own, opaque here
	// Identity names the resource that the configuration led to when it was
	// registered; empty where the driver cannot tell.
	Identity string
	// Revision is new after each change of any registration's content, and was
	// never given before.
	Revision uint64
}

// Encode makes the bytes of a log entry. It reads them back as every node will,
// and refuses with [ErrInvalidEntry] what a node could not apply: a bad entry must
// never be committed, because it would stop all nodes (rule R12).
//
// The detail of an abort's reason is for people and comes from outside; it is cut
// to txn.MaxReasonDetail bytes of UTF-8 rather than refused.
func Encode(e Entry) ([]byte, error) {
	room := HeaderBytes
	for _, c := range e.Commands {
		room += frequentBytes(c)
	}
	b := appendHeader(make([]byte, 0, room), entryLevel(e.Commands), e.Header)
	for i, c := range e.Commands {
		var err error
		if b, err = appendCommand(b, c); err != nil {
			return nil, fmt.Errorf("%w: command %d: %w", ErrInvalidEntry, i+1, err)
		}
	}
	if len(b) > MaxEntryBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalidEntry, len(b), MaxEntryBytes)
	}
	if _, err := decode(b, nil); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidEntry, err)
	}
	return b, nil
}

// appendCommand writes one of Entry.commands.
func appendCommand(b []byte, c Command) ([]byte, error) {
	if n, ok := frequentSize(c); ok {
		return appendFrequent(appendLength(b, tagCommand, n), c), nil
	}
	pb, err := commandToProto(c)
	if err != nil {
		return b, err
	}
	return marshal.MarshalAppend(appendLength(b, tagCommand, proto.Size(pb)), pb)
}

// Validate reports whether a command alone would pass [Encode], so that a writer
// which packs the commands of many callers can refuse a bad one at its door.
func Validate(c Command) error {
	pb, err := commandToProto(c)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidEntry, err)
	}
	if n := sizeInEntry(pb); n > maxCommandBytes {
		return fmt.Errorf("%w: a command of %d bytes, at most %d", ErrInvalidEntry, n, maxCommandBytes)
	}
	if _, err := commandFromProto(pb); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidEntry, err)
	}
	return nil
}

// HeaderBytes is more than an entry's header can take; the rest of MaxEntryBytes
// is for commands, of which each takes [Size] bytes.
const HeaderBytes = 64

const maxCommandBytes = MaxEntryBytes - HeaderBytes

// Size is how many bytes a command takes in an encoded entry; 0 for what is no
// command.
func Size(c Command) int {
	if n := frequentBytes(c); n > 0 {
		return n
	}
	pb, err := commandToProto(c)
	if err != nil {
		return 0
	}
	return sizeInEntry(pb)
}

// frequentBytes is Size for frequent commands, and 0 for others.
func frequentBytes(c Command) int {
	n, ok := frequentSize(c)
	if !ok {
		return 0
	}
	return sizeMessage(n)
}

func sizeInEntry(pb *fsmpb.Command) int { return sizeMessage(proto.Size(pb)) }

// marshal gives the same bytes for the same message, always.
var marshal = proto.MarshalOptions{Deterministic: true}
