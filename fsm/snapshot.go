package fsm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// maxRecordBytes bounds one record, so that a damaged length can't take all
// memory. A transaction of MaxTransactionBytes with the longest names fits.
const maxRecordBytes = MaxEntryBytes

// castagnoli is the polynomial for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshot is the replicated part of the state at one entry. It does not change.
type snapshot struct {
	header       *fsmpb.Header
	participants []Participant
	audits       audits
	transactions catalogue
}

// Snapshot implements raft.FSM: it copies some pointers, and Persist does the
// rest beside the entries that are applied meanwhile.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped != nil {
		return nil, m.stopped
	}
	return m.state.snapshot(), nil
}

func (s *state) snapshot() *snapshot {
	return &snapshot{
		header: &fsmpb.Header{
			Version:  uint32(s.level),
			Cluster:  s.clusterID,
			Epoch:    s.cluster.Epoch,
			Time:     int64(s.cluster.Now),
			Horizon:  int64(s.cluster.Horizon),
			Revision: s.revision,
			Index:    s.index,

			RestoredEpoch: s.cluster.Restored.Epoch,
			RestoredUntil: int64(s.cluster.Restored.Until),

			Group: groupToProto(s.cluster.Group),
		},
		participants: s.participants,
		audits:       s.audits,
		transactions: s.transactions.clone(),
	}
}

// Persist implements raft.FSMSnapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		sink.Cancel() //nolint:errcheck // the first error is the one that counts
		return fmt.Errorf("write snapshot: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot. The trees go with the last reference.
func (s *snapshot) Release() {}

// write streams the snapshot as fsm.proto describes it: the same state gives the
// same bytes on every node.
func (s *snapshot) write(to io.Writer) error {
	w := &recordWriter{w: bufio.NewWriterSize(to, 64<<10)}
	w.record(&fsmpb.Record{Kind: &fsmpb.Record_Header{Header: s.header}})
	for _, p := range s.participants {
		w.record(&fsmpb.Record{Kind: &fsmpb.Record_Participant{Participant: participantToProto(p)}})
	}
	for i := range s.audits.records {
		w.record(&fsmpb.Record{Kind: &fsmpb.Record_Audit{Audit: auditToProto(s.audits.at(i))}})
	}
	s.transactions.ascend(func(i item) bool {
		w.transaction(i)
		return w.err == nil
	})
	w.record(&fsmpb.Record{Kind: &fsmpb.Record_Trailer{Trailer: &fsmpb.Trailer{
		Participants: uint64(len(s.participants)),
		Transactions: uint64(s.transactions.len()),
		Audits:       uint64(len(s.audits.records)),
		Crc32C:       w.crc,
	}}})
	if w.err != nil {
		return w.err
	}
	return w.w.Flush()
}

// recordWriter writes length-prefixed records and sums them up. Its first error
// stands.
type recordWriter struct {
	w   *bufio.Writer
	crc uint32
	buf []byte
	err error
}

func (w *recordWriter) record(r *fsmpb.Record) {
	if w.err == nil {
		w.buf, w.err = marshal.MarshalAppend(w.begin(), r)
	}
	w.end()
}

// transaction writes a record as it is kept, and makes only those of transactions
// that are not.
func (w *recordWriter) transaction(i item) {
	if i.live != nil {
		w.buf = appendTransaction(w.begin(), i.live)
	} else {
		w.buf = append(w.begin(), i.record...)
	}
	w.end()
}

// recordPrefix is the length in front of a record.
const recordPrefix = 4

// begin makes room for the length of the next record.
func (w *recordWriter) begin() []byte { return append(w.buf[:0], make([]byte, recordPrefix)...) }

// end writes the record that the buffer holds.
func (w *recordWriter) end() {
	n := len(w.buf) - recordPrefix
	if w.err == nil && n > maxRecordBytes {
		w.err = fmt.Errorf("a record of %d bytes, at most %d", n, maxRecordBytes)
	}
	if w.err != nil {
		return
	}
	binary.BigEndian.PutUint32(w.buf, uint32(n))
	w.crc = crc32.Update(w.crc, castagnoli, w.buf)
	_, w.err = w.w.Write(w.buf)
}

// Restore implements raft.FSM. It reads and verifies the whole snapshot before it
// gives up the state that is there; an error leaves that as it was.
func (m *Machine) Restore(from io.ReadCloser) error {
	defer from.Close() //nolint:errcheck // nothing is written
	s, err := readSnapshot(from)
	if errors.Is(err, errNewer) {
		// Raft would try an older snapshot, or be sent this one again and again.
		err = unreadable(err)
		m.halt(err)
	}
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	m.mu.Lock()
	m.state = s
	m.mu.Unlock()
	m.level.Store(uint32(s.level))
	m.feed.cut()
	m.log.Info("restored a snapshot", "index", s.index, "epoch", s.cluster.Epoch,
		"transactions", s.transactions.len(), "unfinished", s.unfinished.Len(), "participants", len(s.participants))
	return nil
}

// readSnapshot builds the state that a snapshot holds. It keeps nothing of the
// input but that state and one record.
func readSnapshot(from io.Reader) (*state, error) {
	r := &recordReader{r: bufio.NewReaderSize(from, 64<<10)}
	first, err := r.record()
	if err != nil {
		return nil, err
	}
	s := newState()
	if err := s.restoreHeader(first.GetHeader()); err != nil {
		return nil, err
	}
	var scratch txn.Transaction
	for n := 2; ; n++ {
		sum := r.crc // of all before this record, as the trailer has it
		b, err := r.bytes()
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
		if readTransaction(b, s.participants, &scratch) && checkTransaction(&scratch) == nil {
			if err := s.restoreTransaction(&scratch); err != nil {
				return nil, fmt.Errorf("record %d: %w", n, err)
			}
			continue
		}
		record, err := recordFromProto(b)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
		switch kind := record.Kind.(type) {
		case *fsmpb.Record_Participant:
			err = s.restoreParticipant(kind.Participant)
		case *fsmpb.Record_Audit:
			err = s.restoreAudit(kind.Audit)
		case *fsmpb.Record_Transaction:
			var t *txn.Transaction
			if t, err = transactionFromProto(kind.Transaction); err == nil {
				err = s.restoreTransaction(t)
			}
		case *fsmpb.Record_Trailer:
			if err := s.checkTrailer(kind.Trailer, sum, r); err != nil {
				return nil, fmt.Errorf("trailer: %w", err)
			}
			s.ripening.seal()
			return s, nil
		default:
			err = fmt.Errorf("a %T has no place here", record.Kind)
		}
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
	}
}

func (s *state) restoreHeader(h *fsmpb.Header) error {
	if h == nil {
		return fmt.Errorf("it does not begin with a header: it was not written by decree")
	}
	if err := checkVersion("snapshot", h.Version); err != nil {
		return err
	}
	if err := known(h); err != nil {
		return err
	}
	s.cluster = txn.Cluster{Epoch: h.Epoch, Now: txn.Time(h.Time), Horizon: txn.Time(h.Horizon)}
	s.clusterID, s.revision, s.index = h.Cluster, h.Revision, h.Index
	s.level = Level(h.Version)
	if s.cluster.Epoch == 0 {
		if s.cluster != (txn.Cluster{}) || s.clusterID != "" || h.Group != nil {
			return fmt.Errorf("header: cluster time, or a group, without an epoch")
		}
		return nil // taken before there was a leader
	}
	if err := s.restoreRestored(h); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if err := s.restoreGroup(h.Group); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	header := txn.Header{Epoch: s.cluster.Epoch, Time: s.cluster.Now, Horizon: s.cluster.Horizon}
	if err := checkHeader(header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return checkName("cluster", s.clusterID)
}

func (s *state) restoreRestored(h *fsmpb.Header) error {
	r := txn.Restored{Epoch: h.RestoredEpoch, Until: txn.Time(h.RestoredUntil)}
	switch {
	case r == txn.Restored{}:
		return nil
	case s.level < LevelRestore:
		return fmt.Errorf("a restore at level %d, which needs %d", s.level, LevelRestore)
	case r.Epoch == 0 || r.Epoch > s.cluster.Epoch || r.Until <= 0 || r.Until > maxTime:
		return fmt.Errorf("a restore in epoch %d of %d, at time %d", r.Epoch, s.cluster.Epoch, r.Until)
	}
	s.cluster.Restored = r
	return nil
}

func (s *state) restoreParticipant(pb *fsmpb.Participant) error {
	if err := known(pb); err != nil {
		return err
	}
	p := Participant{Name: pb.Name, Driver: pb.Driver, Config: pb.Config, Revision: pb.Revision, Identity: pb.Identity}
	if err := checkParticipant(p); err != nil {
		return err
	}
	last := len(s.participants) - 1
	switch {
	case s.transactions.len() > 0 || len(s.audits.records) > 0:
		return fmt.Errorf("participant %q comes after a transaction or an audit record", p.Name)
	case last >= 0 && s.participants[last].Name >= p.Name:
		return fmt.Errorf("participant %q comes after %q", p.Name, s.participants[last].Name)
	case last+1 == MaxParticipants:
		return ErrTooManyParticipants
	case p.Revision == 0 || p.Revision > s.revision:
		return fmt.Errorf("participant %q has revision %d of %d", p.Name, p.Revision, s.revision)
	}
	s.participants = append(s.participants, p)
	return nil
}

func (s *state) restoreAudit(pb *fsmpb.Audit) error {
	if s.transactions.len() > 0 {
		return fmt.Errorf("audit record %d comes after a transaction", pb.Number)
	}
	return s.audits.restore(pb)
}

// restoreTransaction takes a transaction over; t may be overwritten afterwards.
func (s *state) restoreTransaction(t *txn.Transaction) error {
	if last := s.transactions.max(); !lessID(last, t.ID) {
		return fmt.Errorf("transaction %s comes after %s", t.ID, last)
	}
	if !ripens(t) {
		own := *t
		own.Branches = slices.Clone(t.Branches)
		ownPayloads(own.Branches)
		t = &own
	}
	s.put(nil, t)
	return nil
}

func (s *state) checkTrailer(pb *fsmpb.Trailer, sum uint32, r *recordReader) error {
	participants, transactions, audits := uint64(len(s.participants)), uint64(s.transactions.len()), uint64(len(s.audits.records))
	switch {
	case pb.Crc32C != sum:
		return fmt.Errorf("checksum %08x, the records give %08x", pb.Crc32C, sum)
	case pb.Participants != participants || pb.Transactions != transactions:
		return fmt.Errorf("the trailer counts %d participants and %d transactions, there are %d and %d",
			pb.Participants, pb.Transactions, participants, transactions)
	case pb.Audits != audits:
		return fmt.Errorf("the trailer counts %d audit records, there are %d", pb.Audits, audits)
	}
	if err := known(pb); err != nil {
		return err
	}
	// No sum covers the trailer itself, and protobuf reads some damage as nothing.
	if again, err := marshal.Marshal(&fsmpb.Record{Kind: &fsmpb.Record_Trailer{Trailer: pb}}); err != nil || !bytes.Equal(again, r.last) {
		return errors.New("it is damaged")
	}
	if _, err := r.r.ReadByte(); err != io.EOF {
		return fmt.Errorf("something follows the trailer (%v)", err)
	}
	return nil
}
