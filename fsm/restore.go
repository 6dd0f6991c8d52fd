package fsm

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// recordReader reads length-prefixed records and sums them up.
type recordReader struct {
	r    *bufio.Reader
	crc  uint32
	last []byte       // the record that was read last; a part of r's buffer or of buf
	buf  bytes.Buffer // for one that is larger than r's buffer
}

// bytes reads a record, which stays as it is until the next one is read.
func (r *recordReader) bytes() ([]byte, error) {
	prefix, err := r.take(recordPrefix)
	if err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(prefix)
	if n > maxRecordBytes {
		return nil, fmt.Errorf("a length of %d bytes, at most %d", n, maxRecordBytes)
	}
	r.last, err = r.take(int(n))
	return r.last, err
}

// take reads bytes and sums them up. What it holds them in grows with what arrives,
// and not by what a damaged length claims.
func (r *recordReader) take(n int) ([]byte, error) {
	if n <= r.r.Size() {
		b, err := r.r.Peek(n)
		if err != nil {
			return nil, cutShort(err)
		}
		r.crc = crc32.Update(r.crc, castagnoli, b)
		_, err = r.r.Discard(n)
		return b, err
	}
	r.buf.Reset()
	if _, err := io.CopyN(&r.buf, r.r, int64(n)); err != nil {
		return nil, cutShort(err)
	}
	r.crc = crc32.Update(r.crc, castagnoli, r.buf.Bytes())
	return r.buf.Bytes(), nil
}

func (r *recordReader) record() (*fsmpb.Record, error) {
	b, err := r.bytes()
	if err != nil {
		return nil, err
	}
	return recordFromProto(b)
}

func recordFromProto(b []byte) (*fsmpb.Record, error) {
	record := new(fsmpb.Record)
	if err := proto.Unmarshal(b, record); err != nil {
		return nil, err
	}
	return record, known(record)
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it ends before its trailer: %w", io.ErrUnexpectedEOF)
	}
	return err
}

func transactionFromProto(pb *fsmpb.Transaction) (*txn.Transaction, error) {
	id, err := idFromProto(pb.Txid)
	if err != nil {
		return nil, err
	}
	t := &txn.Transaction{ID: id, State: txn.State(pb.State), Interactive: pb.Interactive, Timeout: time.Duration(pb.Timeout)}
	if err := fillTransaction(t, pb); err != nil {
		return nil, fmt.Errorf("transaction %s: %w", id, err)
	}
	return t, nil
}

// checkTransaction is what fillTransaction asks of one that was read by hand.
func checkTransaction(t *txn.Transaction) error {
	return cmp.Or(t.ID.Validate(), checkTimeout(t.Timeout), t.Check())
}

func fillTransaction(t *txn.Transaction, pb *fsmpb.Transaction) (err error) {
	if err := known(pb); err != nil {
		return err
	}
	if pb.State < uint32(txn.Active) || pb.State > uint32(txn.Aborted) {
		return fmt.Errorf("state %d is unknown", pb.State)
	}
	if err := checkTimeout(t.Timeout); err != nil {
		return err
	}
	if n := len(pb.Fingerprint); n != 0 && n != len(t.Fingerprint) {
		return fmt.Errorf("the fingerprint has %d bytes, want %d", n, len(t.Fingerprint))
	}
	copy(t.Fingerprint[:], pb.Fingerprint)
	if t.Branches, err = branchesFromProto(pb.Branches, branchFromProto); err != nil {
		return err
	}
	if t.Reason, err = reasonFromProto(pb.Reason); err != nil {
		return err
	}
	if t.Owner, err = ownerFromProto(pb.Owner); err != nil {
		return err
	}
	for _, s := range []struct {
		to   *txn.Stamp
		from *fsmpb.Stamp
	}{{&t.Staged, pb.Staged}, {&t.Decided, pb.Decided}, {&t.Finished, pb.Finished}} {
		if *s.to, err = stampFromProto(s.from); err != nil {
			return err
		}
	}
	return t.Check()
}

func stampFromProto(pb *fsmpb.Stamp) (txn.Stamp, error) {
	if pb == nil {
		return txn.Stamp{}, nil
	}
	if err := known(pb); err != nil {
		return txn.Stamp{}, err
	}
	if pb.Time < 0 || txn.Time(pb.Time) > maxTime {
		return txn.Stamp{}, fmt.Errorf("stamp: time %d lies outside of 0 to %d", pb.Time, maxTime)
	}
	return txn.Stamp{Index: pb.Index, Epoch: pb.Epoch, At: txn.Time(pb.Time)}, nil
}
