// These tests prove that an operator can't end what is another's, nor fail at something,
// without it being on the record.
package transport

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// TestWhoEndsAnothersTransactionIsOnTheRecord, by way of a follower, and before it is done.
func TestWhoEndsAnothersTransactionIsOnTheRecord(t *testing.T) {
	c := newCastle(t)
	leader := c.leaderNode("n1")
	follower := c.node("n2", nil)
	follower.follow("n1")
	begun := func(owner string) string {
		id := txid(t)
		leader.log.apply(txn.Stage{ID: id, Interactive: true, Timeout: 1e12, Owner: txn.OwnerOf(owner)})
		return id.String()
	}
	ada := decreev1.NewTransactionsClient(c.dial(follower, "operator/ada"))
	web := decreev1.NewTransactionsClient(c.dial(follower, "client/web"))
	abort := func(by decreev1.TransactionsClient, id string) error {
		_, err := by.Abort(t.Context(), &decreev1.AbortRequest{Txid: id, Reason: "it hangs"})
		return err
	}
	commit := func(by decreev1.TransactionsClient, id string) error {
		_, err := by.Commit(t.Context(), &decreev1.CommitRequest{Txid: id})
		return err
	}
	aborted, committed, unknown := begun("client/web"), begun("client/web"), txid(t).String()
	for _, err := range []error{
		abort(ada, aborted), commit(ada, committed), abort(ada, unknown),
		abort(ada, begun("operator/ada")), commit(ada, begun("operator/ada")), // its own
		abort(web, begun("client/web")),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"operator/ada, abort, " + aborted + ", begun by client/web, it hangs",
		"operator/ada, commit, " + committed + ", begun by client/web, ",
		"operator/ada, abort, " + unknown + ", , it hangs",
	}
	if !slices.Equal(leader.registrar.noted, want) {
		t.Errorf("on the record are\n%s", strings.Join(leader.registrar.noted, "\n"))
	}
	leader.registrar.note = errors.New("the disk is full")
	leader.coordinator.abort = func(context.Context, txn.TxID, string, coordinator.Wait) (coordinator.Result, error) {
		t.Error("aborted, and not on the record")
		return coordinator.Result{}, coordinator.ErrNotLeader
	}
	if err := abort(ada, begun("client/web")); err == nil {
		t.Error("no error")
	}
}

// TestAFailureInManyWordsIsOnTheRecord: what is cut is cut at a rune's edge, or the trail
// would not take it.
func TestAFailureInManyWordsIsOnTheRecord(t *testing.T) {
	n := newCastle(t).leaderNode("n1")
	failed := errors.New("x" + strings.Repeat("é", 300))
	err := n.onRecord(t.Context(), "remove node", "n9", "", "", func() error { return failed })
	if !errors.Is(err, failed) || len(n.registrar.noted) != 2 {
		t.Fatal(err, n.registrar.noted)
	}
	want := "anonymous, remove node: failed, n9, x" + strings.Repeat("é", 255) + ", "
	if n.registrar.noted[1] != want {
		t.Errorf("on the record is %q", n.registrar.noted[1])
	}
}
