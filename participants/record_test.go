package participants

// These tests hold what every participant that keeps its own books answers from
// memory: one row per thing remembered and message that arrives.

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/decree-tx/decree/fsm/txn"
)

func id(at time.Time) txn.TxID {
	ms := at.UnixMilli()
	id := txn.TxID{6: 0x70, 8: 0x80}
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

var (
	noon    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	content = txn.NewBranch("bank", []byte("one")).Digest
	other   = txn.NewBranch("bank", []byte("two")).Digest
)

func branch() Branch {
	return Branch{Cluster: "c", TxID: id(noon), Number: 1, Epoch: 7, Digest: content}
}

// R8 and R11: a stale message is refused and does not even raise the horizon; any
// other raises both.
func TestFenceRefusesAnOlderEpoch(t *testing.T) {
	f := Fence{Epoch: 7, Horizon: 10}
	b := branch()
	b.Epoch, b.Horizon = 6, 99
	got, err := f.Admit(b)
	if !errors.Is(err, ErrStaleEpoch) || got != f {
		t.Fatalf("Admit = %+v, %v; want the fence as it was and ErrStaleEpoch", got, err)
	}
	b.Epoch, b.Horizon = 8, 5
	if got, err := f.Admit(b); err != nil || got != (Fence{Epoch: 8, Horizon: 10}) {
		t.Fatalf("Admit = %+v, %v; want epoch 8 and a horizon that does not go back", got, err)
	}
	b.Horizon = 11
	if got, err := f.Admit(b); err != nil || got != (Fence{Epoch: 8, Horizon: 11}) {
		t.Fatalf("Admit = %+v, %v; want epoch 8 and the later horizon", got, err)
	}
}

// R8 and R11: what a prepare hears, by what is remembered.
func TestRecordPrepare(t *testing.T) {
	past := Fence{Horizon: txn.Time(noon.Add(time.Hour).UnixNano())}
	for _, tc := range []struct {
		name  string
		rec   Record
		fence Fence
		want  txn.Vote // VoteNone: the resource must be asked
	}{
		{"a new branch", Record{}, Fence{}, txn.VoteNone},
		{"a new branch before the horizon", Record{}, past, txn.VoteAbort},
		{"prepared", Record{Status: StatusPrepared, Digest: content}, Fence{}, txn.VoteCommit},
		{"prepared before the horizon", Record{Status: StatusPrepared, Digest: content}, past, txn.VoteCommit},
		{"prepared with other content", Record{Status: StatusPrepared, Digest: other}, Fence{}, txn.VoteAbort},
		{"committed", Record{Status: StatusCommitted, Digest: content}, Fence{}, txn.VoteCommit},
		{"committed with other content", Record{Status: StatusCommitted, Digest: other}, Fence{}, txn.VoteAbort},
		{"aborted", Record{Status: StatusAborted}, Fence{}, txn.VoteAbort},
		{"refused", Refused(No("no money")), Fence{}, txn.VoteAbort},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, known := tc.rec.Prepare(tc.fence, branch())
			if v.Kind != tc.want || known != (tc.want != txn.VoteNone) {
				t.Fatalf("Prepare = %v %q, %v; want %v", v.Kind, v.Reason, known, tc.want)
			}
		})
	}
}

// R8 and R9: what commit and abort hear, and what is remembered afterwards.
func TestRecordPhaseTwo(t *testing.T) {
	past := Fence{Horizon: txn.Time(noon.Add(time.Hour).UnixNano())}
	prepared := Record{Status: StatusPrepared, Digest: content}
	committed := Record{Status: StatusCommitted, Digest: content}
	aborted := Record{Status: StatusAborted}
	commit, abort := Record.Commit, Record.Abort
	for _, tc := range []struct {
		name  string
		call  func(Record, Fence, Branch) (Record, error)
		rec   Record
		fence Fence
		next  Status
		want  txn.Receipt // ReceiptNone: no error
	}{
		{"commit of prepared", commit, prepared, Fence{}, StatusCommitted, txn.ReceiptNone},
		{"commit of prepared before the horizon", commit, prepared, past, StatusCommitted, txn.ReceiptNone},
		{"commit of committed", commit, committed, Fence{}, StatusCommitted, txn.ReceiptNone},
		{"commit of aborted", commit, aborted, Fence{}, StatusAborted, txn.HeuristicAbort},
		{"commit of unknown", commit, Record{}, Fence{}, StatusAborted, txn.HeuristicAbort},
		{"commit of forgotten", commit, Record{}, past, StatusUnknown, txn.HeuristicHazard},
		{"abort of prepared", abort, prepared, Fence{}, StatusAborted, txn.ReceiptNone},
		{"abort of aborted", abort, aborted, Fence{}, StatusAborted, txn.ReceiptNone},
		{"abort of unknown", abort, Record{}, Fence{}, StatusAborted, txn.ReceiptNone},
		{"abort of forgotten", abort, Record{}, past, StatusUnknown, txn.ReceiptNone},
		{"abort of committed", abort, committed, Fence{}, StatusCommitted, txn.HeuristicCommit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			next, err := tc.call(tc.rec, tc.fence, branch())
			var h *Heuristic
			got := txn.ReceiptNone
			if errors.As(err, &h) {
				got = h.Receipt
			}
			if next.Status != tc.next || got != tc.want || (err != nil) != (tc.want != txn.ReceiptNone) {
				t.Fatalf("next = %v, err = %v; want %v, %v", next.Status, err, tc.next, tc.want)
			}
		})
	}
}

func TestRefusedKeepsAReasonThatFitsTheWire(t *testing.T) {
	r := Refused(No("%s", strings.Repeat("x", txn.MaxReasonDetail-1)+"é"))
	if len(r.Reason) != txn.MaxReasonDetail-1 || !utf8.ValidString(r.Reason) {
		t.Fatalf("reason of %d bytes, valid UTF-8: %v", len(r.Reason), utf8.ValidString(r.Reason))
	}
}

func TestBranchValidateReportsEveryProblem(t *testing.T) {
	err := Branch{}.Validate()
	for _, want := range []string{"cluster", "transaction id", "number"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want a word about the %s", err, want)
		}
	}
	if err := branch().Validate(); err != nil {
		t.Errorf("Validate of a good branch = %v", err)
	}
}
