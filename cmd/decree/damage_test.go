package main

// What is proven here: when a database administrator rolls a prepared branch back
// by hand, before its commit arrives, nobody is told of success (rule R9). The
// client, tx show, tx list and the leader's log all say what happened and where, the
// damage stays for ever, and the other branch is committed as decided.

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/decree-tx/decree/participants/participanttest/databases"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func TestDamageIsSeen(t *testing.T) {
	m := &market{bench: startBench(t)}
	postgres := databases.ForTest(t, databases.Postgres, databases.Options{})
	m.register("orders", "postgres", postgres, orderTables)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	config := map[string]any{"dsn": "file:" + m.dir + "/orders.dsn", "raw_sql": true}
	if _, err := m.client.PutParticipant(ctx, &decreev1.Participant{Name: "orders", Driver: "postgres", Config: mustStruct(t, config)}); err != nil {
		t.Fatal(err)
	}

	// The leader is held when the commit is decided and nobody has been told.
	leader, _ := m.leader(0, nil)
	leader.arm("after-decision")
	defer leader.disarm("after-decision")
	txid := mustTxID(t)
	told := make(chan answer, 1)
	go func() {
		r, err := m.client.Submit(ctx, client.Transaction{TxID: txid, Branches: []client.Branch{
			client.JSON("orders", map[string]any{"sql": "UPDATE stock SET available = 7 WHERE item = $1", "args": []any{"book"}, "expect_rows": 1}),
			client.JSON("bank-a", add("alice", 7)),
		}})
		told <- answer{r, err}
	}()
	m.await("the leader at the decision", func(context.Context) bool { return leader.hit("after-decision") })
	gid, err := postgres.Query(ctx, "orders", "SELECT gid FROM pg_prepared_xacts")
	if err != nil || !strings.Contains(gid, txid) {
		t.Fatalf("prepared: %q, %v", gid, err)
	}
	if err := postgres.Exec(ctx, "orders", "ROLLBACK PREPARED '"+gid+"'"); err != nil {
		t.Fatal(err)
	}
	leader.release("after-decision")

	outcome := <-told
	if outcome.err == nil {
		outcome.err = outcome.result.Err()
	}
	if outcome.err == nil || !strings.Contains(outcome.err.Error(), "heuristic") {
		t.Errorf("the client was told: %v, %v", outcome.result, outcome.err)
	}
	for _, args := range [][]string{{"tx", "show", txid}, {"tx", "list", "--damaged"}} {
		var stdout, stderr bytes.Buffer
		t.Setenv(endpointsEnv, leader.grpc)
		Run(ctx, args, strings.NewReader(""), &stdout, &stderr)
		if text := stdout.String(); !strings.Contains(text, txid) || !strings.Contains(text, "heuristic") {
			t.Errorf("decree %s:\n%s%s", strings.Join(args, " "), text, stderr.String())
		}
	}
	log, err := os.ReadFile(leader.log)
	if err != nil || !bytes.Contains(log, []byte("a branch ended against the decision")) || !bytes.Contains(log, []byte("receipt=heuristic-abort")) {
		t.Errorf("the leader's log does not tell of the damage: %v", err)
	}
	m.check("bank-a", "alice", 7)
}
