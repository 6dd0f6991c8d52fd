package client_test

// What is proven here: a transaction goes to the cluster that its txid belongs to and to no
// other, retries and inquiries included, and no cluster is used that is not the group it is
// taken for.

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/fsm/group"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// trioOfGroups starts three clusters of one scripted node each.
func trioOfGroups(t *testing.T, near ...int) ([]*node, *client.Groups) {
	t.Helper()
	var nodes []*node
	cfg := client.GroupsConfig{Near: near}
	for i := range 3 {
		n, _ := cluster(t, 1)
		n[0].group = client.Group{Number: i + 1, Of: 3}
		nodes = append(nodes, n[0])
		cfg.Clusters = append(cfg.Clusters, client.Config{Endpoints: []string{n[0].addr}})
	}
	g, err := client.NewGroups(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return nodes, g
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestATransactionGoesToItsGroup(t *testing.T) {
	nodes, g := trioOfGroups(t)
	sent := make([][]string, 3)
	for range 100 {
		r, err := g.Submit(soon(t), client.Transaction{Branches: []client.Branch{client.Bytes("a", nil)}})
		if err != nil {
			t.Fatal(err)
		}
		n := group.Number(uuid.MustParse(r.TxID), 3) - 1
		sent[n] = append(sent[n], r.TxID)
	}
	for i, n := range nodes {
		if !slices.Equal(n.seen(), sent[i]) || len(sent[i]) == 0 {
			t.Errorf("group %d got %d transactions, of which %d are its own", i+1, len(n.seen()), len(sent[i]))
		}
		if n.asked != 1 {
			t.Errorf("group %d was asked %d times which it is", i+1, n.asked)
		}
	}
}

// R11: through a failure, and asked for later, it is the same cluster and the same txid.
func TestARetryMeetsTheSameGroup(t *testing.T) {
	nodes, g := trioOfGroups(t)
	txid, err := g.NewTxID()
	if err != nil {
		t.Fatal(err)
	}
	n := nodes[group.Number(uuid.MustParse(txid), 3)-1]
	n.script(answer(refusal(codes.DeadlineExceeded, "OUTCOME_UNKNOWN", 0)), answer(refusal(codes.Unavailable, "NOT_LEADER", time.Millisecond)))
	if _, err := g.Submit(soon(t), client.Transaction{TxID: txid, Branches: []client.Branch{client.Bytes("a", nil)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Inquire(soon(t), txid); err != nil {
		t.Fatal(err)
	}
	if seen := n.seen(); len(seen) != 4 || slices.ContainsFunc(seen, func(s string) bool { return s != txid }) {
		t.Errorf("it got %v", seen)
	}
	for _, other := range nodes {
		if other != n && len(other.seen()) != 0 {
			t.Errorf("another group got %v", other.seen())
		}
	}
}

func TestNearGroups(t *testing.T) {
	nodes, g := trioOfGroups(t, 1, 3)
	for range 60 {
		if _, err := g.Submit(soon(t), client.Transaction{Branches: []client.Branch{client.Bytes("a", nil)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.NewTxID(); err != nil {
			t.Fatal(err)
		}
	}
	if len(nodes[0].seen()) == 0 || len(nodes[1].seen()) != 0 || len(nodes[2].seen()) == 0 {
		t.Errorf("%d, %d and %d transactions", len(nodes[0].seen()), len(nodes[1].seen()), len(nodes[2].seen()))
	}
	for { // one of the far group is found as well
		txid, err := client.NewTxID()
		if err != nil {
			t.Fatal(err)
		}
		if group.Number(uuid.MustParse(txid), 3) == 2 {
			if _, err := g.Inquire(soon(t), txid); err != nil || !slices.Equal(nodes[1].seen(), []string{txid}) {
				t.Errorf("%v, %v", nodes[1].seen(), err)
			}
			return
		}
	}
}

// TestAMisplacedClusterIsNotUsed holds that clusters which are in another order, of other
// groups, or of none, get nothing; and that a node which is behind is asked again.
func TestAMisplacedClusterIsNotUsed(t *testing.T) {
	for want, wrong := range map[string]client.Group{
		"is group 1 of 3":   {Number: 1, Of: 3},
		"is group 2 of 4":   {Number: 2, Of: 4},
		"was told no group": {},
	} {
		nodes, g := trioOfGroups(t, 2)
		nodes[1].group = wrong
		tx := client.Transaction{Branches: []client.Branch{client.Bytes("a", nil)}}
		_, err := g.Submit(soon(t), tx)
		if !errors.Is(err, client.ErrMisplaced) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := g.Begin(soon(t), time.Minute); !errors.Is(err, client.ErrMisplaced) {
			t.Errorf("begin: %v", err)
		}
		if seen := nodes[1].seen(); len(seen) != 0 {
			t.Errorf("it was sent %v", seen)
		}
		nodes[1].mu.Lock()
		nodes[1].group, nodes[1].behind = client.Group{Number: 2, Of: 3}, 2 // as of a follower that catches up
		nodes[1].mu.Unlock()
		if _, err := g.Submit(soon(t), tx); err != nil {
			t.Error(err)
		}
	}
}

// A client of one cluster learns from a refusal, under which nothing was done, that it is
// one of several, and makes its txids accordingly from then on. A txid of the caller's own
// is never replaced.
func TestAClientLearnsItsGroup(t *testing.T) {
	nodes, c := cluster(t, 1)
	g := client.Group{Number: 7, Of: 8}
	refuse := func(ctx context.Context, n *node) (*decreev1.Result, error) {
		st, err := status.New(codes.FailedPrecondition, "another group's").WithDetails(&errdetails.ErrorInfo{
			Domain: "decree", Reason: "TXID_OTHER_GROUP", Metadata: map[string]string{"group": "7", "groups": "8"},
		})
		if err != nil {
			panic(err)
		}
		return nil, st.Err()
	}
	var foreign string
	for foreign == "" || g.Takes(uuid.MustParse(foreign)) {
		var err error
		if foreign, err = client.NewTxID(); err != nil {
			t.Fatal(err)
		}
	}
	tx := client.Transaction{TxID: foreign, Branches: []client.Branch{client.Bytes("a", nil)}}
	nodes[0].script(refuse)
	var refusal *client.Error
	if _, err := c.Submit(soon(t), tx); !errors.As(err, &refusal) || refusal.Group != g || len(nodes[0].seen()) != 1 {
		t.Fatalf("%v after %v", err, nodes[0].seen())
	}
	tx.TxID = ""
	for range 50 { // until one is refused: seven in eight are
		nodes[0].script(func(ctx context.Context, n *node) (*decreev1.Result, error) {
			if seen := n.seen(); !g.Takes(uuid.MustParse(seen[len(seen)-1])) {
				return refuse(ctx, n)
			}
			return &decreev1.Result{Outcome: decreev1.Outcome_OUTCOME_COMMITTED}, nil
		})
		r, err := c.Submit(soon(t), tx)
		if err != nil || !g.Takes(uuid.MustParse(r.TxID)) && len(nodes[0].seen()) > 40 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	late := nodes[0].seen()[30:]
	if slices.ContainsFunc(late, func(txid string) bool { return !g.Takes(uuid.MustParse(txid)) }) {
		t.Errorf("it still makes txids of other groups: %v", late)
	}
}

func TestGroupsConfigSaysEverythingThatIsWrong(t *testing.T) {
	err := client.GroupsConfig{Clusters: []client.Config{{}, {Endpoints: []string{"x"}}}, Near: []int{0, 3}}.Validate()
	for _, want := range []string{"group 1: decree: no endpoints", `group 2: decree: endpoint "x"`, "near group 0 of 2", "near group 3 of 2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := client.NewGroups(client.GroupsConfig{}); err == nil || !strings.Contains(err.Error(), "0 clusters") {
		t.Error(err)
	}
	_, g := trioOfGroups(t)
	if _, err := g.Inquire(soon(t), "nonsense"); !errors.Is(err, client.ErrMalformedTxID) {
		t.Error(err)
	}
}
