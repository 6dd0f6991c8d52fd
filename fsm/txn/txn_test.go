package txn_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/txn"
)

// TestTxIDIsAUUIDv7 holds that ids made by a library are read as they are written,
// sort as they were made, and carry their time.
func TestTxIDIsAUUIDv7(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	made := uuid.Must(uuid.NewV7())
	after := time.Now()
	for _, s := range []string{made.String(), strings.ToUpper(made.String())} {
		id, err := txn.ParseTxID(s)
		if err != nil {
			t.Fatal(err)
		}
		if id != txn.TxID(made) || id.String() != made.String() {
			t.Errorf("%s became %s", s, id)
		}
		if at := id.Time().Std(); at.Before(before) || at.After(after) {
			t.Errorf("%s was made at %s, not between %s and %s", s, at, before, after)
		}
	}
}

func TestTxIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(0, math.MaxInt64/int64(time.Millisecond)).Draw(t, "ms")
		at := txn.Time(ms) * txn.Time(time.Millisecond)
		id := newID(at, rapid.Byte().Draw(t, "n"))
		back, err := txn.ParseTxID(id.String())
		if err != nil || back != id || back.Time() != at {
			t.Fatalf("%s: %s, made %d of %d, %v", id, back, back.Time(), at, err)
		}
	})
}

func TestMalformedTxIDsAreRefused(t *testing.T) {
	for name, s := range map[string]string{
		"empty":         "",
		"braces":        "{01890a5d-ac96-774b-bcce-b302099a8057}",
		"no hyphens":    "01890a5dac96774bbcceb302099a8057",
		"hyphen moved":  "01890a5da-c96-774b-bcce-b302099a8057",
		"second hyphen": "01890a5d-ac967-74b-bcce-b302099a8057",
		"third hyphen":  "01890a5d-ac96-774bb-cce-b302099a8057",
		"fourth hyphen": "01890a5d-ac96-774b-bcceb-302099a8057",
		"no hex":        "01890a5d-ac96-774b-bcce-b302099a805g",
		"version 4":     "01890a5d-ac96-474b-bcce-b302099a8057",
		"other variant": "01890a5d-ac96-774b-3cce-b302099a8057",
		"nil":           "00000000-0000-0000-0000-000000000000",
	} {
		if id, err := txn.ParseTxID(s); !errors.Is(err, txn.ErrMalformedTxID) || id != (txn.TxID{}) {
			t.Errorf("%s: %s, %v", name, id, err)
		}
	}
}

// TestFarFutureIDIsRefused holds R11 where the time of an id is past what
// nanoseconds can hold. It overflowed once, and 2^48 milliseconds less a little
// could pass for today.
func TestFarFutureIDIsRefused(t *testing.T) {
	now := txn.Time(1_700_000_000 * int64(time.Second))
	c := txn.Cluster{Epoch: 1, Now: now}
	wrapsToToday := uint64(math.MaxUint64)/1_000_000 + uint64(now)/1_000_000 + 1
	for _, ms := range []uint64{1<<48 - 1, wrapsToToday, math.MaxInt64/1_000_000 + 1} {
		var id txn.TxID
		for i := range 6 {
			id[i] = byte(ms >> (40 - 8*i))
		}
		id[6], id[8] = 0x70, 0x80
		if id.Time() != math.MaxInt64 {
			t.Errorf("%s was made at %s", id, id.Time().Std())
		}
		if err := c.CheckID(id); !errors.Is(err, txn.ErrFuture) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := c.CheckID(txn.TxID{1}); !errors.Is(err, txn.ErrMalformedTxID) {
		t.Errorf("an id of no version: %v", err)
	}
}

// TestTooManyBranches holds R14 at its edge: the last branch fits, one more is
// refused, whether staged, enlisted or taken over by an abort.
func TestTooManyBranches(t *testing.T) {
	id, at := newID(beginning, 1), txn.At{Cluster: txn.Cluster{Epoch: 1, Now: beginning}, Index: 1}
	branches := make([]txn.Branch, txn.MaxBranches+1)
	for i := range branches {
		branches[i] = txn.NewBranch(fmt.Sprint("p", i), nil)
	}
	abort := txn.Decide{ID: id, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonRefused}, Branches: branches}
	for _, c := range []txn.Command{txn.Stage{ID: id, Branches: branches}, abort} {
		if _, _, err := txn.Step(at, nil, c); !errors.Is(err, txn.ErrTooManyBranches) {
			t.Errorf("%T: %v", c, err)
		}
	}
	if _, _, err := txn.Step(at, nil, txn.Stage{ID: id, Branches: branches[1:]}); err != nil {
		t.Error(err)
	}
	open, _, err := txn.Step(at, nil, txn.Stage{ID: id, Interactive: true})
	for _, b := range branches[1:] {
		if err == nil {
			open, _, err = txn.Step(at, open, txn.Enlist{ID: id, Branch: b})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := txn.Step(at, open, txn.Enlist{ID: id, Branch: branches[0]}); !errors.Is(err, txn.ErrTooManyBranches) {
		t.Error(err)
	}
}

// unknownCommand is what no decoder lets through.
type unknownCommand struct{}

func (unknownCommand) Transaction() txn.TxID { return txn.TxID{} }

// TestBrokenInvariantsPanic holds that what the decoder cannot let through stops
// the node (R12): above all, what is not an abort is not therefore a commit.
func TestBrokenInvariantsPanic(t *testing.T) {
	at := txn.At{Cluster: txn.Cluster{Epoch: 1, Now: beginning}, Index: 1}
	staged, _, err := txn.Step(at, nil, txn.Stage{ID: newID(beginning, 1), Branches: []txn.Branch{txn.NewBranch("bank", nil)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]txn.Command{
		"a command of no kind":      unknownCommand{},
		"a decision of no kind":     txn.Decide{ID: staged.ID},
		"a decision of a new kind":  txn.Decide{ID: staged.ID, Decision: 3},
		"a command without content": nil,
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was applied", name)
				}
			}()
			txn.Step(at, staged, c) //nolint:errcheck // it panics
		}()
	}
}

// TestBallotWaitsForTheSeal holds that a transaction which is still open can only
// end in an abort (R4), and that the replicated votes of a sealed one count (R13).
func TestBallotWaitsForTheSeal(t *testing.T) {
	open := txn.NewBallot(nil)
	open.Stage()
	if v, ok := open.Verdict(); ok {
		t.Errorf("an open transaction got the verdict %+v", v)
	}
	open.Withdraw(txn.Reason{Code: txn.ReasonClient})
	if v, ok := open.Verdict(); !ok || v.Decision != txn.Abort {
		t.Errorf("verdict %+v %t after the client withdrew", v, ok)
	}
	external := txn.Branch{Participant: "warehouse", External: true, Vote: txn.VoteReadOnly}
	sealed := txn.NewBallot([]txn.Branch{external})
	sealed.Stage()
	if v, ok := sealed.Verdict(); !ok || v.Decision != txn.Commit || len(v.ReadOnly) != 1 {
		t.Errorf("verdict %+v %t of a replicated read-only vote", v, ok)
	}
}

// TestImpossibleStatesAreFound breaks good transactions in each way that Check
// knows: restore depends on it.
func TestImpossibleStatesAreFound(t *testing.T) {
	stamp := txn.Stamp{Index: 1, Epoch: 1, At: beginning}
	good := func(s txn.State) txn.Transaction {
		t := txn.Transaction{ID: newID(beginning, 1), State: s, Fingerprint: txn.Fingerprint{1}, Staged: stamp}
		t.Branches = []txn.Branch{{Participant: "bank"}, {Participant: "shop"}}
		t.Interactive = s == txn.Active
		if s.Decided() {
			t.Decided = stamp
		}
		if t.Decision() == txn.Abort {
			t.Reason.Code = txn.ReasonTimeout
		}
		if s.Finished() {
			t.Finished = stamp
			t.Branches[0].Receipt, t.Branches[1].Receipt = txn.Done, txn.HeuristicHazard
		}
		return t
	}
	for s := txn.Active; s <= txn.Aborted; s++ {
		if tx := good(s); tx.Check() != nil {
			t.Errorf("%s: %v", s, tx.Check())
		}
	}
	for name, broken := range map[string]struct {
		state txn.State
		how   func(*txn.Transaction)
	}{
		"no state":                     {txn.Active, func(t *txn.Transaction) { t.State = 0 }},
		"a state to come":              {txn.Active, func(t *txn.Transaction) { t.State = 7 }},
		"never staged":                 {txn.Preparing, func(t *txn.Transaction) { t.Staged = txn.Stamp{} }},
		"decided by nobody":            {txn.Committing, func(t *txn.Transaction) { t.Decided = txn.Stamp{} }},
		"decided too early":            {txn.Preparing, func(t *txn.Transaction) { t.Decided = stamp }},
		"finished by nobody":           {txn.Committed, func(t *txn.Transaction) { t.Finished = txn.Stamp{} }},
		"finished too early":           {txn.Aborting, func(t *txn.Transaction) { t.Finished = stamp }},
		"prepared without branches":    {txn.Preparing, func(t *txn.Transaction) { t.Branches = nil }},
		"a participant twice":          {txn.Preparing, func(t *txn.Transaction) { t.Branches[1].Participant = "bank" }},
		"too many branches":            {txn.Preparing, func(t *txn.Transaction) { t.Branches = make([]txn.Branch, txn.MaxBranches+1) }},
		"a payload kept":               {txn.Aborting, func(t *txn.Transaction) { t.Branches[0].Payload = []byte{1} }},
		"a receipt too early":          {txn.Preparing, func(t *txn.Transaction) { t.Branches[0].Receipt = txn.Done }},
		"a commit against a vote":      {txn.Committing, func(t *txn.Transaction) { t.Branches[0].Vote = txn.VoteAbort }},
		"finished, and owed":           {txn.Committed, func(t *txn.Transaction) { t.Branches[0].Receipt = txn.ReceiptNone }},
		"unfinished, and owed nothing": {txn.Aborting, func(t *txn.Transaction) { t.Branches = nil }},
		"an open tombstone":            {txn.Preparing, func(t *txn.Transaction) { t.Fingerprint = txn.Fingerprint{} }},
		"an abort without a reason":    {txn.Aborting, func(t *txn.Transaction) { t.Reason = txn.Reason{} }},
		"a commit with a reason":       {txn.Committing, func(t *txn.Transaction) { t.Reason.Code = txn.ReasonVote }},
		"one-shot, and open":           {txn.Active, func(t *txn.Transaction) { t.Interactive = false }},
	} {
		tx := good(broken.state)
		broken.how(&tx)
		if tx.Check() == nil {
			t.Errorf("%s: %+v passed", name, tx)
		}
	}
}

// TestNames holds what people read in logs and answers, and that a number of no
// name does not end in a panic there.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		got  fmt.Stringer
		want string
	}{
		{txn.Committing, "Committing"},
		{txn.State(9), "invalid(9)"},
		{txn.VoteReadOnly, "read-only"},
		{txn.Commit, "commit"},
		{txn.HeuristicHazard, "heuristic-hazard"},
		{txn.ReasonRefused, "refused"},
		{txn.Work{Kind: txn.CommitBranch, Branch: 2}, "commit branch=2"},
		{txn.Work{Kind: txn.DecideOutcome}, "decide"},
		{txn.Reason{Code: txn.ReasonVote, Branch: 1, Detail: "sold out"}, `vote branch=1 "sold out"`},
		{beginning.Std(), "2023-11-14 22:13:20 +0000 UTC"},
	} {
		if c.got.String() != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

// TestDigestsSeparateTheirFields holds that content cannot move between fields
// without changing a digest (R8).
func TestDigestsSeparateTheirFields(t *testing.T) {
	a, b := txn.NewBranch("ab", []byte("c")), txn.NewBranch("a", []byte("bc"))
	if a.Digest == b.Digest {
		t.Error("two contents, one digest")
	}
	one := txn.ContentFingerprint(false, []txn.Branch{a, b})
	for name, other := range map[string]txn.Fingerprint{
		"order":       txn.ContentFingerprint(false, []txn.Branch{b, a}),
		"fewer":       txn.ContentFingerprint(false, []txn.Branch{a}),
		"interactive": txn.ContentFingerprint(true, []txn.Branch{a, b}),
	} {
		if other == one {
			t.Errorf("%s: two contents, one fingerprint", name)
		}
	}
	if txn.ContentFingerprint(true, nil) == (txn.Fingerprint{}) {
		t.Error("content that looks like a tombstone's")
	}
}

// A payload may be hashed in one piece or in several: it is the same content, and a
// digest that an earlier version wrote must still match.
func TestDigestOfContent(t *testing.T) {
	for _, size := range []int{0, 1, 494, 495, 496, 497, 5000} {
		payload := bytes.Repeat([]byte{7}, size)
		var fields []byte
		for _, f := range [][]byte{[]byte("p"), payload} {
			fields = append(binary.BigEndian.AppendUint64(fields, uint64(len(f))), f...)
		}
		if got, want := txn.NewBranch("p", payload).Digest, txn.Digest(sha256.Sum256(fields)); got != want {
			t.Errorf("the digest of %d bytes is %x, want %x", size, got, want)
		}
	}
}
