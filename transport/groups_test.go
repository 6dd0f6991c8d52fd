package transport_test

// What is proven here: a cluster of real nodes is told its group by an operator's call, once
// and on the record, and then refuses another group's txid in the same words whatever way
// it comes: the stream, a call, HTTP, an interactive transaction, an inquiry (R1, R6).

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants/participanttest"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// idOf reads a txid.
func idOf(t *testing.T, txid string) txn.TxID {
	t.Helper()
	id, err := txn.ParseTxID(txid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// foreignID makes a txid that is not of a group.
func foreignID(t *testing.T, g client.Group) string {
	t.Helper()
	for {
		txid, err := client.NewTxID()
		if err != nil {
			t.Fatal(err)
		}
		if !g.Takes(idOf(t, txid)) {
			return txid
		}
	}
}

func TestAClusterIsToldItsGroup(t *testing.T) {
	x := newEmptyTrio(t)
	second := client.Group{Number: 2, Of: 3}
	for _, wrong := range []client.Group{{}, {Number: 4, Of: 3}, {Number: -1, Of: 3}, {Number: 1, Of: group.Slots + 1}} {
		if err := x.client.SetGroup(x.ctx(), wrong); !errors.Is(err, client.ErrInvalidRequest) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
	for range 2 { // the same again changes nothing
		if err := x.client.SetGroup(client.Because(x.ctx(), "three of them"), second); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.client.SetGroup(x.ctx(), client.Group{Number: 1, Of: 3}); !errors.Is(err, client.ErrGroupStays) {
		t.Errorf("another group: %v", err)
	}
	x.register()
	if s, err := x.client.Status(x.ctx()); err != nil || s.GetGroup().GetNumber() != 2 || s.GetGroup().GetOf() != 3 {
		t.Errorf("the status has %v, %v", s.GetGroup(), err)
	}
	trail, err := x.client.Audit(x.ctx(), 0, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range trail.Records {
		if r.GetAction() == "set group" && r.GetTarget() == "group 2 of 3" && r.GetReason() == "three of them" && !r.GetRefused() {
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d records in %v", found, trail.Records)
	}

	foreign := foreignID(t, second)
	branches := []client.Branch{client.Bytes("a", []byte("work")), client.Bytes("b", []byte("work"))}
	conn, err := grpc.NewClient(x.members["n1"].api, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	direct := decreev1.NewTransactionsClient(conn)
	unary := &decreev1.SubmitRequest{Txid: foreign, Branches: []*decreev1.NewBranch{{Participant: "a"}}}
	for name, call := range map[string]func() error{
		"stream": func() error {
			_, err := x.client.Submit(x.ctx(), client.Transaction{TxID: foreign, Branches: branches})
			return err
		},
		"begin":   func() error { _, err := x.client.BeginAs(x.ctx(), foreign, time.Minute); return err },
		"enlist":  func() error { _, err := x.client.Resume(foreign).Enlist(x.ctx(), branches[0]); return err },
		"commit":  func() error { _, err := x.client.Resume(foreign).Commit(x.ctx()); return err },
		"abort":   func() error { _, err := x.client.Resume(foreign).Abort(x.ctx(), ""); return err },
		"inquire": func() error { _, err := x.client.Inquire(x.ctx(), foreign); return err },
		"get":     func() error { _, err := x.client.Get(x.ctx(), foreign); return err },
		"decide": func() error {
			_, err := x.client.Decide(x.ctx(), client.Committed, "a test", foreign)
			return err
		},
		"examine": func() error { _, err := x.client.ExamineBranch(x.ctx(), foreign, 1); return err },
	} {
		var refusal *client.Error
		if err := call(); !errors.As(err, &refusal) || refusal.Reason != client.ErrOtherGroup || refusal.Group != second ||
			!strings.Contains(refusal.Message, "this cluster is group 2; nothing was done here") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := direct.Submit(x.ctx(), unary); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("unary: %v", err)
	}
	for _, path := range []string{"", "/" + foreign + ":inquire", ":begin"} {
		x.refusedOverHTTP(path, foreign)
	}
	if _, known := x.members["n1"].node.Machine.Transaction(idOf(t, foreign)); known {
		t.Error("the log has it")
	}
	if n := x.fakes["a"].Count(participanttest.Prepare, idOf(t, foreign)); n != 0 {
		t.Errorf("%d prepares left", n)
	}
}

// refusedOverHTTP posts another group's txid and wants a 409 that says so.
func (x *trio) refusedOverHTTP(path, txid string) {
	x.t.Helper()
	body := `{"txid":"` + txid + `","branches":[{"participant":"a","json":1}]}`
	if strings.Contains(path, txid) {
		body = "{}"
	} else if path != "" {
		body = `{"txid":"` + txid + `"}`
	}
	answer, err := http.Post(x.members["n2"].web+"/v1/transactions"+path, "application/json", strings.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	var told struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(text, &told); err != nil || answer.StatusCode != http.StatusConflict ||
		!strings.Contains(told.Message, "belongs to another group") || !strings.Contains(string(text), "TXID_OTHER_GROUP") {
		x.t.Errorf("POST %q: %s, %s", path, answer.Status, text)
	}
}

// Whoever makes a txid for somebody makes one that is the cluster's: the SDK for Submit and
// Begin, once it was told the group, and a node for requests without one.
func TestTxidsAreMadeForTheGroup(t *testing.T) {
	x := newEmptyTrio(t)
	fourth := client.Group{Number: 4, Of: 64}
	if err := x.client.SetGroup(x.ctx(), fourth); err != nil {
		t.Fatal(err)
	}
	x.register()
	for range 20 {
		r, err := x.client.Submit(x.ctx(), client.Transaction{Branches: []client.Branch{client.Bytes("a", []byte("work"))}})
		if err != nil || r.Outcome != client.Committed || !fourth.Takes(idOf(t, r.TxID)) {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	tx, err := x.client.Begin(x.ctx(), time.Minute)
	if err != nil || !fourth.Takes(idOf(t, tx.ID)) {
		t.Errorf("%+v, %v", tx, err)
	}
	for _, m := range x.members {
		answer, err := http.Post(m.web+"/v1/transactions", "application/json", strings.NewReader(`{"branches":[{"participant":"a","json":1}]}`))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", m.id, answer.Status)
		}
	}
	if err := x.client.SetGroup(x.ctx(), client.Group{Number: 1, Of: 64}); !errors.Is(err, client.ErrGroupStays) {
		t.Error(err)
	}
}

// A cluster that had a participant is not told a group any more.
func TestTooLateForAGroup(t *testing.T) {
	x := newTrio(t)
	if err := x.client.SetGroup(x.ctx(), client.Group{Number: 1, Of: 3}); !errors.Is(err, client.ErrTooLateForGroup) {
		t.Error(err)
	}
}
