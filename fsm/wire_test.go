package fsm

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// encodeAny is Encode through the generated types alone: the definition of the form.
func encodeAny(e Entry) ([]byte, error) {
	pb := &fsmpb.Entry{Version: uint32(entryLevel(e.Commands)), Epoch: e.Header.Epoch, Time: int64(e.Header.Time), Horizon: int64(e.Header.Horizon)}
	for _, c := range e.Commands {
		out, err := commandToProto(c)
		if err != nil {
			return nil, err
		}
		pb.Commands = append(pb.Commands, out)
	}
	return marshal.Marshal(pb)
}

// TestTheHandWritesWhatProtobufWrites holds that entries and records are for ever
// what fsm.proto says: what is written by hand is the same to the byte, and both
// readers read the same from it.
func TestTheHandWritesWhatProtobufWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Entry{Header: someHeader, Commands: []Command{}}
		for range rapid.IntRange(0, 5).Draw(t, "commands") {
			e.Commands = append(e.Commands, drawFrequent(t))
		}
		e.Commands = append(e.Commands, everyCommand()...)
		want, err := encodeAny(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Encode(e)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v\n got %x\nwant %x", err, got, want)
		}
		byHand, ok := readEntry(got, nil)
		byTypes, err := decodeAny(got)
		if !ok || err != nil || !reflect.DeepEqual(byHand, byTypes) {
			t.Fatalf("%t, %v\n got %+v\nwant %+v", ok, err, byHand, byTypes)
		}
	})
}

// drawFrequent draws one of the commands that are read and written by hand.
func drawFrequent(t *rapid.T) Command {
	id := idAt(beginning, rapid.IntRange(0, 1<<20).Draw(t, "id"))
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return txn.Stage{ID: id, Branches: drawBranches(t), Timeout: time.Duration(rapid.Int64Range(0, int64(MaxTimeout)).Draw(t, "timeout"))}
	case 1:
		return txn.Decide{ID: id, Decision: txn.Commit, ReadOnly: rapid.SliceOfN(rapid.IntRange(1, txn.MaxBranches), 0, 200).Draw(t, "read-only")}
	case 2:
		return txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.Reason{
			Code:   txn.ReasonCode(rapid.IntRange(int(txn.ReasonVote), int(txn.ReasonRefused)).Draw(t, "code")),
			Branch: rapid.IntRange(0, txn.MaxBranches).Draw(t, "branch"),
			Detail: rapid.StringN(0, 100, txn.MaxReasonDetail).Draw(t, "detail"),
		}}
	default:
		a := txn.Acknowledge{ID: id}
		for range rapid.IntRange(0, 4).Draw(t, "receipts") {
			a.Receipts = append(a.Receipts, txn.BranchReceipt{
				Branch:  rapid.IntRange(1, txn.MaxBranches).Draw(t, "branch"),
				Receipt: txn.Receipt(rapid.IntRange(0, int(txn.HeuristicHazard)).Draw(t, "receipt")),
			})
		}
		return a
	}
}

func drawBranches(t *rapid.T) (list []txn.Branch) {
	for range rapid.IntRange(0, 4).Draw(t, "branches") {
		name := rapid.StringN(1, 40, MaxNameBytes).Draw(t, "participant")
		list = append(list, txn.NewBranch(name, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")))
	}
	for i := range list {
		if len(list[i].Payload) == 0 {
			list[i].Payload = nil
		}
	}
	return list
}

// TestRecordsAreWhatProtobufWrites holds the same for the transactions of snapshots,
// in each state that a lively cluster brings them to.
func TestRecordsAreWhatProtobufWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := newJournal(t)
		for range rapid.IntRange(1, 20).Draw(t, "entries") {
			j.draw(t)
		}
		j.m.state.transactions.ascend(func(i item) bool {
			tx := i.transaction(nil)
			want, err := marshal.Marshal(&fsmpb.Record{Kind: &fsmpb.Record_Transaction{Transaction: transactionToProto(tx)}})
			if err != nil {
				t.Fatal(err)
			}
			got := appendTransaction(nil, tx)
			if !bytes.Equal(got, want) {
				t.Fatalf("%s\n got %x\nwant %x", tx.State, got, want)
			}
			var again txn.Transaction
			if !readTransaction(got, nil, &again) || !reflect.DeepEqual(&again, tx) {
				t.Fatalf("%s\n got %+v\nwant %+v", tx.State, again, tx)
			}
			return true
		})
	})
}

// FuzzTheHandReadsNoMore holds that the readers by hand accept nothing that the
// generated types refuse, and read the same (R12): two nodes of different binaries
// may never differ about an entry.
func FuzzTheHandReadsNoMore(f *testing.F) {
	for _, c := range everyCommand() {
		b, err := Encode(Entry{Header: someHeader, Commands: []Command{c}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	lively(f).m.state.transactions.ascend(func(i item) bool {
		f.Add(appendTransaction(nil, i.transaction(nil)))
		return true
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		if byHand, ok := readEntry(b, nil); ok {
			if byTypes, err := decodeAny(b); err != nil || !reflect.DeepEqual(byHand, byTypes) {
				t.Fatalf("entry: %v\n got %+v\nwant %+v", err, byHand, byTypes)
			}
		}
		var byHand txn.Transaction
		if !readTransaction(b, nil, &byHand) || checkTransaction(&byHand) != nil {
			return
		}
		record, err := recordFromProto(b)
		if err != nil {
			t.Fatalf("record: %v", err)
		}
		if byTypes, err := transactionFromProto(record.GetTransaction()); err != nil || !reflect.DeepEqual(&byHand, byTypes) {
			t.Fatalf("transaction: %v\n got %+v\nwant %+v", err, byHand, byTypes)
		}
	})
}

// TestWhatIsOddIsLeftToTheTypes changes each byte of an entry and of a record to
// every other value: the hand refuses, or both read the same. The race detector, which
// has nothing to find here, sees a sixteenth of the bytes each day; make whole does all.
func TestWhatIsOddIsLeftToTheTypes(t *testing.T) {
	first, step := 0, 1
	if raceDetector {
		first, step = int(time.Now().Unix()/86400)%16, 16
	}
	good, err := Encode(Entry{Header: someHeader, Commands: everyCommand()})
	if err != nil {
		t.Fatal(err)
	}
	for i := first; i < len(good); i += step {
		for v := range 256 {
			bad := bytes.Clone(good)
			bad[i] = byte(v)
			byHand, ok := readEntry(bad, nil)
			if !ok {
				continue
			}
			if byTypes, err := decodeAny(bad); err != nil || !reflect.DeepEqual(byHand, byTypes) {
				t.Fatalf("byte %d as %#x: %v\n got %+v\nwant %+v", i, v, err, byHand, byTypes)
			}
		}
		if _, ok := readEntry(good[:i], nil); ok {
			if _, err := decodeAny(good[:i]); err != nil {
				t.Fatalf("cut after %d bytes: %v", i, err)
			}
		}
	}
}

// TestTooManyAreLeftToTheTypes holds the bounds of lists at the hand's readers: what
// is one too many is refused, as everywhere.
func TestTooManyAreLeftToTheTypes(t *testing.T) {
	const many = txn.MaxBranches
	var branches []txn.Branch
	var receipts []txn.BranchReceipt
	var readOnly []int
	for i := range many + 1 {
		branches = append(branches, txn.NewBranch(string(rune('a'+i)), nil))
		receipts = append(receipts, txn.BranchReceipt{Branch: 1 + i%many, Receipt: txn.Done})
		readOnly = append(readOnly, 1+i%many)
	}
	for name, of := range map[string]func(n int) Command{
		"branches":  func(n int) Command { return txn.Stage{ID: someID, Branches: branches[:n]} },
		"receipts":  func(n int) Command { return txn.Acknowledge{ID: someID, Receipts: receipts[:n]} },
		"read-only": func(n int) Command { return txn.Decide{ID: someID, Decision: txn.Commit, ReadOnly: readOnly[:n]} },
	} {
		for n, want := range map[int]bool{many: true, many + 1: false} {
			b, err := appendCommand(appendHeader(nil, LevelFirst, someHeader), of(n))
			if err != nil {
				t.Fatal(err)
			}
			if _, got := readEntry(b, nil); got != want {
				t.Errorf("%d %s: %t", n, name, got)
			}
		}
	}
}

// TestARecordThatIsBrokenIsNeverServed holds that an invariant which breaks stops
// the node, and is no transaction that a reader believes.
func TestARecordThatIsBrokenIsNeverServed(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it was served")
		}
	}()
	item{id: someID, record: "nonsense"}.transaction(nil)
}

// TestWhatIsReadKeepsNothingOfTheEntry holds R14: an open transaction keeps its own
// payload in memory, and not the entry that it came in.
func TestWhatIsReadKeepsNothingOfTheEntry(t *testing.T) {
	stage := txn.Stage{ID: someID, Branches: []txn.Branch{txn.NewBranch("bank", []byte("-10")), txn.NewBranch("shop", []byte("+10"))}}
	b, err := Encode(Entry{Header: someHeader, Commands: []Command{stage}})
	if err != nil {
		t.Fatal(err)
	}
	e, ok := readEntry(b, names{{Name: "bank"}, {Name: "shop"}})
	clear(b)
	if !ok || !reflect.DeepEqual(e.Commands[0], Command(stage)) {
		t.Errorf("%t, %+v", ok, e.Commands[0])
	}
	first := e.Commands[0].(txn.Stage).Branches
	if first[0].Payload = append(first[0].Payload, '!'); string(first[1].Payload) != "+10" {
		t.Errorf("one branch's payload runs into the other's: %s", first[1].Payload)
	}
}

func transactionToProto(t *txn.Transaction) *fsmpb.Transaction {
	pb := &fsmpb.Transaction{
		Txid:        t.ID[:],
		State:       uint32(t.State),
		Interactive: t.Interactive,
		Branches:    branchesToProto(t.Branches),
		Timeout:     int64(t.Timeout),
		Reason:      reasonToProto(t.Reason),
		Staged:      stampToProto(t.Staged),
		Decided:     stampToProto(t.Decided),
		Finished:    stampToProto(t.Finished),
		Owner:       t.Owner.String(),
	}
	if !t.Tombstone() {
		pb.Fingerprint = t.Fingerprint[:]
	}
	return pb
}

func stampToProto(s txn.Stamp) *fsmpb.Stamp {
	if s == (txn.Stamp{}) {
		return nil
	}
	return &fsmpb.Stamp{Index: s.Index, Epoch: s.Epoch, Time: int64(s.At)}
}
