package fsm

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"reflect"
	"runtime"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// perByte bounds what a decoder may allocate for each byte of its input (rule R14):
// the least part of a message, two bytes, becomes a struct of some hundred. A length
// that is claimed and does not come must cost nothing like it.
const perByte = 256

// allocated is how many bytes f allocates, whether or not they are freed.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// FuzzDecode holds that no bytes make the decoder panic, or take memory out of
// proportion to their number; that what it accepts, it accepts again after Encode,
// as the same entry (or a leader could not propose what a node can apply); and that
// applying it never halts or panics.
func FuzzDecode(f *testing.F) {
	for _, c := range everyCommand() {
		b, err := Encode(Entry{Header: someHeader, Commands: []Command{c}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	f.Add([]byte{0x08, 0x02})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		var err error
		if n := allocated(func() { e, err = decode(b, nil) }); n > perByte*len(b)+64<<10 {
			t.Fatalf("%d bytes of memory for %d of input", n, len(b))
		}
		if err != nil {
			return
		}
		again, err := Encode(e)
		if err != nil {
			t.Fatalf("decoded, but not encoded: %v", err)
		}
		if e2, err := decode(again, nil); err != nil || !reflect.DeepEqual(e, e2) {
			t.Fatalf("%v\n got %+v\nwant %+v", err, e2, e)
		}
		m := newMachine(t)
		m.state.cluster = txn.Cluster{Epoch: e.Header.Epoch}
		if len(e.Commands) == 1 {
			if _, ok := e.Commands[0].(Lead); ok {
				m.state.cluster.Epoch--
			}
		}
		answer := m.Apply(&raft.Log{Index: 1, Term: e.Header.Epoch, Type: raft.LogCommand, Data: b}).(Applied)
		if answer.Err != nil || len(answer.Results) != len(e.Commands) {
			t.Fatalf("answered %+v", answer)
		}
		checkIndices(t, m)
	})
}

// FuzzRestore holds that no bytes make restore panic, or take memory out of
// proportion to their number, whatever lengths they claim; that what it refuses
// changes nothing; and that what it accepts is written again as the same state. Few
// inputs have the right checksum, so each is also tried with a trailer that fits it.
func FuzzRestore(f *testing.F) {
	good := persist(f, lively(f).m)
	f.Add(good)
	f.Add(persist(f, New(Options{})))
	f.Add(good[:len(good)/2])
	f.Add([]byte{0, 0, 0, 0})
	f.Add(binary.BigEndian.AppendUint32(nil, math.MaxUint32))
	f.Add(binary.BigEndian.AppendUint32(nil, maxRecordBytes)) // and none of them comes
	f.Fuzz(func(t *testing.T, b []byte) {
		tryRestore(t, b)
		tryRestore(t, withTrailer(b))
	})
}

func tryRestore(t *testing.T, b []byte) {
	t.Helper()
	m := newMachine(t)
	before := persist(t, m)
	var err error
	if n := allocated(func() { err = restore(m, b) }); n > perByte*len(b)+1<<20 {
		t.Fatalf("%d bytes of memory for %d of input", n, len(b))
	}
	if err != nil {
		if !bytes.Equal(persist(t, m), before) {
			t.Fatal("a refused snapshot changed the state")
		}
		return
	}
	checkIndices(t, m)
	written := persist(t, m)
	twin := newMachine(t)
	if err := restore(twin, written); err != nil {
		t.Fatalf("restored, but not again: %v", err)
	}
	if !bytes.Equal(persist(t, twin), written) {
		t.Fatal("two snapshots of one state")
	}
}

// withTrailer keeps the whole records of b, and ends them with a trailer that
// counts and sums them up.
func withTrailer(b []byte) []byte {
	var out []byte
	trailer := new(fsmpb.Trailer)
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint32(b))
		if n > len(b)-4 {
			break
		}
		r := new(fsmpb.Record)
		if proto.Unmarshal(b[4:4+n], r) != nil || r.GetTrailer() != nil {
			break
		}
		if r.GetParticipant() != nil {
			trailer.Participants++
		}
		if r.GetTransaction() != nil {
			trailer.Transactions++
		}
		out, b = append(out, b[:4+n]...), b[4+n:]
	}
	trailer.Crc32C = crc32.Checksum(out, castagnoli)
	return appendRecord(out, &fsmpb.Record{Kind: &fsmpb.Record_Trailer{Trailer: trailer}})
}
