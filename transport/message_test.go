// These tests prove that requests and state cross the wire unchanged: the enums
// mean the same on both sides, equal JSON gives equal bytes, and what comes from
// outside is cut without breaking it.
package transport

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// The conversions are by number, so the names must agree at each.
func TestEnumsAgree(t *testing.T) {
	plain := func(prefix string, s fmt.Stringer) string {
		return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.String(), prefix)), "_", "-")
	}
	agree := func(core, wire fmt.Stringer, prefix string) {
		t.Helper()
		if got, want := plain(prefix, wire), strings.ToLower(core.String()); got != want {
			t.Errorf("%s is %s on the wire", want, wire)
		}
	}
	for s := txn.Active; s <= txn.Aborted; s++ {
		agree(s, decreev1.State(s), "STATE_")
	}
	for v := txn.VoteCommit; v <= txn.VoteAbort; v++ {
		agree(v, decreev1.Vote(v), "VOTE_")
	}
	for r := txn.Done; r <= txn.HeuristicHazard; r++ {
		agree(r, decreev1.Receipt(r), "RECEIPT_")
	}
	for c := txn.ReasonVote; c <= txn.ReasonOperator; c++ {
		agree(c, decreev1.AbortCode(c), "ABORT_CODE_")
	}
	if decreev1.Outcome(txn.Commit) != decreev1.Outcome_OUTCOME_COMMITTED || decreev1.Outcome(txn.Abort) != decreev1.Outcome_OUTCOME_ABORTED {
		t.Error("decisions differ from outcomes")
	}
	for what, lengths := range map[string][2]int{ // a new value on either side needs one on the other
		"states": {len(decreev1.State_name), int(txn.Aborted) + 1}, "votes": {len(decreev1.Vote_name), int(txn.VoteAbort) + 1},
		"receipts": {len(decreev1.Receipt_name), int(txn.HeuristicHazard) + 1}, "codes": {len(decreev1.AbortCode_name), int(txn.ReasonOperator) + 1},
	} {
		if lengths[0] != lengths[1] {
			t.Errorf("%s: %d on the wire, %d in the core", what, lengths[0], lengths[1])
		}
	}
}

func TestTransactionMessage(t *testing.T) {
	at := txn.Time(1_700_000_000_000_000_000)
	tx := &txn.Transaction{
		ID: txid(t), State: txn.Aborting, Interactive: true, Timeout: time.Minute,
		Branches: []txn.Branch{
			{Participant: "a", Vote: txn.VoteReadOnly},
			{Participant: "b", External: true, Receipt: txn.HeuristicCommit},
		},
		Reason: txn.Reason{Code: txn.ReasonVote, Branch: 2, Detail: "no"},
		Staged: txn.Stamp{Index: 3, Epoch: 2, At: at},
	}
	next := time.Unix(1_800_000_000, 0)
	m := transactionMessage(tx, []coordinator.Delivery{
		{Branch: 1, Vote: txn.VoteAbort, Attempts: 2, LastError: "\xffno route", Next: next}, {Branch: 9},
	})
	a, b := m.GetBranches()[0], m.GetBranches()[1]
	switch {
	case m.GetState() != decreev1.State_STATE_ABORTING, !m.GetInteractive(), m.GetTimeout().AsDuration() != time.Minute:
		t.Error(m)
	case m.GetReason().GetParticipant() != "b", m.GetDamage() != decreev1.Receipt_RECEIPT_HEURISTIC_COMMIT:
		t.Error(m)
	case m.GetStaged().GetTime().AsTime() != at.Std(), m.GetStaged().GetIndex() != 3, m.GetDecided() != nil:
		t.Error(m)
	case a.GetVote() != decreev1.Vote_VOTE_READ_ONLY, a.GetAttempts() != 2, !utf8.ValidString(a.GetLastError()), !a.GetNextAttempt().AsTime().Equal(next):
		t.Error("the replicated vote stands, and the delivery is told:", a)
	case !b.GetExternal(), b.GetReceipt() != decreev1.Receipt_RECEIPT_HEURISTIC_COMMIT, b.GetNextAttempt() != nil:
		t.Error(b)
	}
}

func TestEqualJSONGivesEqualBytes(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{`{"b": 1, "a": {"d": [], "c": null}}`, `{"a":{"c":null,"d":[]},"b":1}`},
		{` {"a":{"c":null,"d":[ ]},"b":1.0}`, `{"a":{"c":null,"d":[]},"b":1}`},
		{`"<&>\u00e9"`, `"<&>é"`},
		{`9007199254740992`, `9007199254740992`},
		{`-0.5`, `-0.5`},
		{`null`, `null`},
	} {
		v := &structpb.Value{}
		if err := v.UnmarshalJSON([]byte(row.in)); err != nil {
			t.Fatal(err)
		}
		got, err := canonicalJSON(v, v.AsInterface())
		if err != nil || string(got) != row.want || !json.Valid(got) {
			t.Errorf("%s: %s, %v", row.in, got, err)
		}
	}
	bad := invalidError{}
	parseBranch(theOne, &decreev1.NewBranch{Participant: "a", Content: &decreev1.NewBranch_Json{Json: structpb.NewNumberValue(math.NaN())}}, &bad)
	if bad.err() == nil {
		t.Error("NaN passes for JSON")
	}
}

func TestClipCutsAtARune(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("é", txn.MaxReasonDetail), "x" + strings.Repeat("é", txn.MaxReasonDetail)} {
		got := clip(s, txn.MaxReasonDetail)
		if len(got) > txn.MaxReasonDetail || !utf8.ValidString(got) || !strings.HasPrefix(s, got) || len(got) < min(len(s), txn.MaxReasonDetail-1) {
			t.Errorf("%d bytes became %d", len(s), len(got))
		}
	}
}

// Begin has a default of its own: people enlist.
func TestBeginTakesAMinute(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	n.coordinator.begin = func(_ context.Context, id txn.TxID, timeout time.Duration) (*txn.Transaction, error) {
		if timeout != time.Minute {
			t.Errorf("got %s", timeout)
		}
		return &txn.Transaction{ID: id, State: txn.Active, Timeout: timeout, Staged: txn.Stamp{At: txn.Time(time.Hour)}}, nil
	}
	answer, err := n.client(t).Begin(t.Context(), &decreev1.BeginRequest{})
	if err != nil || answer.GetDeadline().AsTime().Unix() != 3660 {
		t.Error(answer, err)
	}
}

func TestVotesThatTheStateImplies(t *testing.T) {
	two := []txn.Branch{{Participant: "a"}, {Participant: "b", Vote: txn.VoteReadOnly}}
	for name, c := range map[string]struct {
		tx   txn.Transaction
		want [2]decreev1.Vote
	}{
		"preparing": {txn.Transaction{State: txn.Preparing, Branches: two}, [2]decreev1.Vote{decreev1.Vote_VOTE_UNSPECIFIED, decreev1.Vote_VOTE_READ_ONLY}},
		"committed": {txn.Transaction{State: txn.Committed, Branches: two}, [2]decreev1.Vote{decreev1.Vote_VOTE_COMMIT, decreev1.Vote_VOTE_READ_ONLY}},
		"voted no": {
			txn.Transaction{State: txn.Aborted, Branches: two, Reason: txn.Reason{Code: txn.ReasonVote, Branch: 1}},
			[2]decreev1.Vote{decreev1.Vote_VOTE_ABORT, decreev1.Vote_VOTE_READ_ONLY},
		},
		"not reached": {
			txn.Transaction{State: txn.Aborted, Branches: two, Reason: txn.Reason{Code: txn.ReasonUnavailable, Branch: 1}},
			[2]decreev1.Vote{decreev1.Vote_VOTE_UNSPECIFIED, decreev1.Vote_VOTE_READ_ONLY},
		},
	} {
		m := transactionMessage(&c.tx, nil)
		if got := [2]decreev1.Vote{m.GetBranches()[0].GetVote(), m.GetBranches()[1].GetVote()}; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
