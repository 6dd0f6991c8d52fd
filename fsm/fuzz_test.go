package fsm

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm/txn"
)

// FuzzDecode holds that no bytes make the decoder panic; that what it accepts, it
// accepts again after Encode, as the same entry (or a leader could not propose what
// a node can apply); and that applying it never halts or panics.
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
		e, err := decode(b)
		if err != nil {
			return
		}
		again, err := Encode(e)
		if err != nil {
			t.Fatalf("decoded, but not encoded: %v", err)
		}
		if e2, err := decode(again); err != nil || !reflect.DeepEqual(e, e2) {
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

// FuzzRestore holds that no bytes make restore panic; that what it refuses changes
// nothing; and that what it accepts is written again as the same state.
func FuzzRestore(f *testing.F) {
	good := persist(f, lively(f).m)
	f.Add(good)
	f.Add(persist(f, New(Options{})))
	f.Add(good[:len(good)/2])
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(t)
		before := persist(t, m)
		if err := restore(m, b); err != nil {
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
	})
}
