package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// TestRestoreAndReplayEqualsFullReplay holds the hazard "compaction drops an open
// transaction" (R10, R12): whatever was logged, and wherever a snapshot was taken,
// a node that restores it and replays the rest has the same state, byte for byte,
// as one that replayed everything; and it gives the same answers on the way.
func TestRestoreAndReplayEqualsFullReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := newJournal(t)
		snapshots := [][]byte{persist(t, newMachine(t))} // the one before the first entry
		for range rapid.IntRange(1, 25).Draw(t, "entries") {
			j.draw(t)
		}
		replay := newMachine(t)
		var answers []Applied
		for _, l := range j.logs {
			answers = append(answers, replay.Apply(l).(Applied))
			snapshots = append(snapshots, persist(t, replay))
		}
		end := snapshots[len(snapshots)-1]
		if !bytes.Equal(end, persist(t, j.m)) {
			t.Fatalf("two replays of one log differ")
		}
		for n, s := range snapshots {
			m := newMachine(t)
			if err := restore(m, s); err != nil {
				t.Fatalf("snapshot after %d entries: %v", n, err)
			}
			checkIndices(t, m)
			for i, l := range j.logs[n:] {
				sameAnswer(t, answers[n+i], m.Apply(l).(Applied))
			}
			checkIndices(t, m)
			if !bytes.Equal(end, persist(t, m)) {
				t.Fatalf("the state after restoring snapshot %d and replaying the rest differs", n)
			}
			if m.AppliedIndex() != j.m.AppliedIndex() || m.Cluster() != j.m.Cluster() || m.ClusterID() != j.m.ClusterID() {
				t.Fatalf("restored %d %+v %q", m.AppliedIndex(), m.Cluster(), m.ClusterID())
			}
		}
	})
}

func sameAnswer(t tester, a, b Applied) {
	t.Helper()
	if (a.Err == nil) != (b.Err == nil) || len(a.Results) != len(b.Results) {
		t.Fatalf("two answers to entry %d: %+v, %+v", a.Index, a, b)
	}
	for i := range a.Results {
		x, y := a.Results[i], b.Results[i]
		if (x.Err == nil) != (y.Err == nil) || x.Err != nil && x.Err.Error() != y.Err.Error() ||
			len(x.Due) != len(y.Due) || x.Collected != y.Collected {
			t.Fatalf("two answers to command %d of entry %d: %+v, %+v", i+1, a.Index, x, y)
		}
	}
}

// checkIndices holds that what is derived from the transactions is what they say.
func checkIndices(t tester, m *Machine) {
	t.Helper()
	var unfinished, damaged, ripening int
	waiting := map[ripe]bool{}
	for _, chunk := range m.state.ripening.queue {
		for _, one := range chunk {
			waiting[one] = true
		}
	}
	m.state.ripening.late.Ascend(func(one ripe) bool {
		waiting[one] = true
		return true
	})
	open := map[string]int{}
	m.state.transactions.ascend(func(i item) bool {
		tx := i.transaction(m.state.participants)
		if (i.live == nil) != ripens(tx) {
			t.Fatalf("%s is %s, and kept as a record: %t", i.id, tx.State, i.live == nil)
		}
		if err := tx.Check(); err != nil || i.id != tx.ID {
			t.Fatalf("transaction %s under %s: %v", tx.ID, i.id, err)
		}
		if !tx.State.Finished() {
			unfinished++
			if !m.state.unfinished.Has(i.id) {
				t.Fatalf("%s is %s, and not among the unfinished", i.id, tx.State)
			}
			for _, b := range tx.Branches {
				if b.Resolved == txn.Undecided {
					open[b.Participant]++
				}
			}
		}
		if tx.Troubled() {
			damaged++
			if !m.state.damaged.Has(i.id) {
				t.Fatalf("%s has %s, and is not among the damaged", i.id, tx.Damage())
			}
		} else if tx.State.Finished() {
			ripening++
			if !waiting[ripeOf(tx)] {
				t.Fatalf("%s is %s, and will never be collected", i.id, tx.State)
			}
		}
		return true
	})
	s := m.state
	if unfinished != s.unfinished.Len() || damaged != s.damaged.Len() || ripening != s.ripening.len() || ripening != len(waiting) || len(open) != len(s.openAt) {
		t.Fatalf("indices of %d, %d, %d, %d for %d unfinished, %d damaged, %d ripening, %d participants in use",
			s.unfinished.Len(), s.damaged.Len(), s.ripening.len(), len(s.openAt), unfinished, damaged, ripening, len(open))
	}
	for name, n := range open {
		if m.OpenAt(name) != n {
			t.Fatalf("%d unfinished transactions at %s, want %d", m.OpenAt(name), name, n)
		}
	}
}

// TestSnapshotWhileApplying takes snapshots and reads while entries are applied.
// Each snapshot is a state that was: it restores, and it holds as many
// transactions as its index says. Run it with the race detector.
func TestSnapshotWhileApplying(t *testing.T) {
	const entries = 300
	j := newJournal(t)
	before := j.m.AppliedIndex()
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					readEverything(j.m)
				}
			}
		})
	}
	var persisting sync.WaitGroup
	for i := range entries {
		j.now = j.now.Add(time.Millisecond)
		j.must(txn.Stage{ID: idAt(j.now, i), Branches: []txn.Branch{txn.NewBranch("bank", nil)}, Timeout: time.Second})
		if i%20 != 0 {
			continue
		}
		taken, err := j.m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		persisting.Go(func() {
			defer taken.Release()
			var s sink
			if err := taken.Persist(&s); err != nil {
				t.Error(err)
			}
			m := New(Options{})
			if err := restore(m, s.Bytes()); err != nil {
				t.Error(err)
			}
			if staged := m.AppliedIndex() - before; int(staged) != m.Stats().Retained {
				t.Errorf("%d transactions in a snapshot after %d", m.Stats().Retained, staged)
			}
		})
	}
	persisting.Wait()
	close(done)
	readers.Wait()
	if n := j.m.Stats().Unfinished; n != entries {
		t.Errorf("%d transactions, want %d", n, entries)
	}
}

func readEverything(m *Machine) {
	var last txn.TxID
	m.Open(func(t *txn.Transaction) bool {
		last = t.ID
		return true
	})
	m.Transaction(last)
	m.Participant("bank")
	m.Participants()
	m.OpenAt("bank")
	m.Cluster()
	m.ClusterID()
	m.AppliedIndex()
	m.Stats()
	m.List(Query{Participant: "bank", Limit: 10})
}

// lively is a machine whose snapshot has each kind of record in it, and each kind
// of transaction.
func lively(t tester) *journal {
	t.Helper()
	j := newJournal(t)
	j.finish(idAt(j.now, 1), txn.Done)
	j.finish(idAt(j.now, 2), txn.HeuristicAbort)
	j.must(
		txn.Stage{ID: idAt(j.now, 3), Branches: []txn.Branch{txn.NewBranch("bank", []byte("-10")), txn.NewBranch("shop", nil)}, Timeout: time.Second},
		txn.Stage{ID: idAt(j.now, 4), Interactive: true, Timeout: time.Minute},
		txn.Enlist{ID: idAt(j.now, 4), Branch: txn.NewBranch("hotel", []byte("room"))},
		txn.Presume{ID: idAt(j.now, 5)},
		txn.Decide{ID: idAt(j.now, 6), Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonRefused, Branch: 1, Detail: "no"},
			Branches: []txn.Branch{txn.NewBranch("bank", nil)}},
	)
	return j
}

// TestDamagedSnapshotsAreRefused flips each bit of a snapshot, and cuts it short at
// each byte: all are refused, and the state that was there stays as it was.
func TestDamagedSnapshotsAreRefused(t *testing.T) {
	good := persist(t, lively(t).m)
	m := newJournal(t).m
	m.halt = func(error) {} // what a newer binary wrote, by the version, would stop the node
	before := persist(t, m)
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if restore(m, bad) == nil {
				t.Fatalf("bit %d of byte %d of %d flipped, and nobody saw it", bit, i, len(good))
			}
		}
		if err := restore(m, good[:i]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d of %d bytes: %v", i, len(good), err)
		}
	}
	if restore(m, append(bytes.Clone(good), 0)) == nil {
		t.Error("bytes after the trailer, and nobody saw them")
	}
	if !bytes.Equal(persist(t, m), before) {
		t.Error("a refused snapshot changed the state")
	}
	if err := restore(m, good); err != nil {
		t.Error(err)
	}
}

// records takes a snapshot apart, and join puts it together with a right checksum.
func records(t tester, b []byte) (list []*fsmpb.Record) {
	t.Helper()
	for len(b) > 0 {
		n := binary.BigEndian.Uint32(b)
		r := new(fsmpb.Record)
		if err := proto.Unmarshal(b[4:4+n], r); err != nil {
			t.Fatalf("%v", err)
		}
		list, b = append(list, r), b[4+n:]
	}
	return list
}

func join(list []*fsmpb.Record) (b []byte) {
	for _, r := range list {
		if trailer := r.GetTrailer(); trailer != nil {
			trailer.Crc32C = crc32.Checksum(b, castagnoli)
		}
		b = appendRecord(b, r)
	}
	return b
}

func appendRecord(b []byte, r *fsmpb.Record) []byte {
	m, err := proto.Marshal(r)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(m))), m...)
}

// TestWrongSnapshotsAreRefused changes a snapshot in ways that a checksum does not
// catch: each is refused with an error that says what is wrong.
func TestWrongSnapshotsAreRefused(t *testing.T) {
	good := persist(t, lively(t).m)
	if !bytes.Equal(join(records(t, good)), good) {
		t.Fatal("the test takes snapshots apart wrongly")
	}
	const participants = 1 // where they begin
	const transactions = 4
	future := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	type list = []*fsmpb.Record
	for name, c := range map[string]struct {
		change func(list) list
		want   string
	}{
		"no header":          {func(r list) list { return r[1:] }, "begin with a header"},
		"two headers":        {func(r list) list { return append(list{r[0]}, r...) }, "has no place here"},
		"no version":         {func(r list) list { r[0].GetHeader().Version = 0; return r }, "has no version"},
		"a newer version":    {func(r list) list { r[0].GetHeader().Version = 9; return r }, "too old for snapshot version 9"},
		"time, no epoch":     {func(r list) list { r[0].GetHeader().Epoch = 0; return r }, "without an epoch"},
		"negative time":      {func(r list) list { r[0].GetHeader().Time = -1; return r }, "time -1"},
		"horizon ahead":      {func(r list) list { r[0].GetHeader().Horizon = 1 << 62; return r }, "horizon"},
		"no cluster":         {func(r list) list { r[0].GetHeader().Cluster = ""; return r }, "cluster"},
		"unknown in header":  {func(r list) list { unknown(r[0].GetHeader(), future); return r }, "unknown fields in Header"},
		"unknown in record":  {func(r list) list { unknown(r[2], future); return r }, "unknown fields in Record"},
		"unknown in trailer": {func(r list) list { unknown(r[len(r)-1].GetTrailer(), future); return r }, "unknown fields in Trailer"},
		"unknown in participant": {func(r list) list { unknown(r[participants].GetParticipant(), future); return r },
			"unknown fields in Participant"},
		"unknown in transaction": {func(r list) list { unknown(r[transactions].GetTransaction(), future); return r },
			"unknown fields in Transaction"},
		"unknown in stamp": {func(r list) list { unknown(r[transactions].GetTransaction().Staged, future); return r },
			"unknown fields in Stamp"},
		"participant's name":  {func(r list) list { r[participants].GetParticipant().Name = ""; return r }, "name of a participant"},
		"participants' order": {func(r list) list { r[1], r[2] = r[2], r[1]; return r }, "comes after"},
		"participant after transaction": {func(r list) list {
			return append(r[:len(r)-1], r[1], r[len(r)-1])
		}, "comes after a transaction"},
		"revision":            {func(r list) list { r[participants].GetParticipant().Revision = 99; return r }, "revision 99 of 3"},
		"transactions' order": {func(r list) list { r[4], r[5] = r[5], r[4]; return r }, "comes after"},
		"transaction twice":   {func(r list) list { return append(r[:5], r[4:]...) }, "comes after"},
		"transaction lost":    {func(r list) list { return append(r[:5], r[6:]...) }, "the trailer counts"},
		"txid":                {func(r list) list { r[4].GetTransaction().Txid = []byte{1}; return r }, "1 bytes, want 16"},
		"state":               {func(r list) list { r[4].GetTransaction().State = 7; return r }, "state 7"},
		"another state":       {func(r list) list { r[4].GetTransaction().State = 3; return r }, "Committing"},
		"timeout":             {func(r list) list { r[4].GetTransaction().Timeout = -1; return r }, "timeout"},
		"fingerprint":         {func(r list) list { r[4].GetTransaction().Fingerprint = []byte{1}; return r }, "fingerprint"},
		"branch":              {func(r list) list { r[4].GetTransaction().Branches[0].Vote = 9; return r }, "vote 9"},
		"reason":              {func(r list) list { r[4].GetTransaction().Reason = &fsmpb.Reason{Code: 9}; return r }, "reason code 9"},
		"stamp":               {func(r list) list { r[4].GetTransaction().Finished.Time = -1; return r }, "time -1"},
	} {
		err := restore(New(Options{Halt: func(error) {}}), join(c.change(records(t, good))))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func unknown(m proto.Message, fields []byte) { m.ProtoReflect().SetUnknown(fields) }

// TestManyParticipantsInASnapshot holds the registry's bound in a snapshot, too.
func TestManyParticipantsInASnapshot(t *testing.T) {
	good := records(t, persist(t, newJournal(t).m))
	header := good[0]
	header.GetHeader().Revision = MaxParticipants + 1
	list := []*fsmpb.Record{header}
	for i := range MaxParticipants + 1 {
		list = append(list, &fsmpb.Record{Kind: &fsmpb.Record_Participant{Participant: &fsmpb.Participant{
			Name: string(rune('a'+i/676)) + string(rune('a'+i/26%26)) + string(rune('a'+i%26)), Driver: "sim", Revision: 1,
		}}})
	}
	trailer := &fsmpb.Record{Kind: &fsmpb.Record_Trailer{Trailer: &fsmpb.Trailer{Participants: MaxParticipants}}}
	if err := restore(newMachine(t), join(append(list[:len(list)-1:len(list)-1], trailer))); err != nil {
		t.Errorf("%d participants: %v", MaxParticipants, err)
	}
	if err := restore(newMachine(t), join(append(list, trailer))); !errors.Is(err, ErrTooManyParticipants) {
		t.Errorf("%d participants: %v", MaxParticipants+1, err)
	}
}

// TestADamagedLengthTakesNoMemory holds R14: a length that claims gigabytes, or
// megabytes that never come, is an error and not an allocation.
func TestADamagedLengthTakesNoMemory(t *testing.T) {
	m := newMachine(t)
	if err := restore(m, []byte{0xff, 0xff, 0xff, 0xff}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Error(err)
	}
	claim := binary.BigEndian.AppendUint32(nil, maxRecordBytes)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := restore(m, claim); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > maxRecordBytes/8 {
		t.Errorf("%d bytes for a record that never came", n)
	}
}

// TestAFailedWriteCancelsTheSnapshot holds that Raft never keeps a snapshot that is
// not whole.
func TestAFailedWriteCancelsTheSnapshot(t *testing.T) {
	full := errors.New("disk full")
	for name, m := range map[string]*Machine{"small": lively(t).m, "large": wide(t).m} {
		taken, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		s := sink{fail: full}
		if err := taken.Persist(&s); !errors.Is(err, full) || s.closed || !s.cancelled {
			t.Errorf("%s: %v, closed %t, cancelled %t", name, err, s.closed, s.cancelled)
		}
	}
}

// wide is a machine whose snapshot takes several writes.
func wide(t tester) *journal {
	j := newJournal(t)
	for i := range 40 {
		j.must(txn.Stage{ID: idAt(j.now, i), Branches: []txn.Branch{txn.NewBranch("bank", make([]byte, 10_000))}, Timeout: time.Second})
	}
	return j
}

// TestAnUnreadableRecordIsNeverWritten holds that a snapshot which restore would
// refuse for its size is refused when it is written.
func TestAnUnreadableRecordIsNeverWritten(t *testing.T) {
	s := newState()
	s.put(nil, &txn.Transaction{ID: idAt(beginning, 1), State: txn.Preparing,
		Branches: []txn.Branch{txn.NewBranch("bank", make([]byte, maxRecordBytes))}})
	s.put(nil, &txn.Transaction{ID: idAt(beginning, 2), State: txn.Preparing})
	var out sink
	if err := s.snapshot().Persist(&out); err == nil || !out.cancelled {
		t.Errorf("%v, cancelled %t", err, out.cancelled)
	}
}

// TestAReadErrorIsReported holds that a failing disk is told from a damaged file.
func TestAReadErrorIsReported(t *testing.T) {
	broken := errors.New("input/output error")
	for _, n := range []int{2, 50} {
		from := io.MultiReader(bytes.NewReader(persist(t, lively(t).m)[:n]), failingReader{broken})
		if err := newMachine(t).Restore(io.NopCloser(from)); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
