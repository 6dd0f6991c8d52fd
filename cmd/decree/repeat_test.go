package main

// One txid is submitted twice, at two nodes, while a participant's commits fail:
// there is one run, both are told the recorded outcome, and nobody is told that it
// is done before every branch has acknowledged (R10, R11).

import (
	"bytes"
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func TestOneTxidAtTwoNodesWhileCommitsFail(t *testing.T) {
	b := startBench(t)
	b.deposit("bank-a", "alice", 10)
	leader, _ := b.leader(0, nil)
	leader.arm("after-decision")
	txid := mustTxID(t)

	transfer := client.Transaction{TxID: txid, Timeout: patience, Branches: []client.Branch{
		client.JSON("bank-a", add("alice", -1)), client.JSON("bank-b", add("bob", 1)),
	}}
	// Each waits as long as a client would, and is answered before its deadline.
	const deadline = 5 * time.Second
	answers := make(chan answer, 2)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for _, s := range b.servers[:2] {
		go func() {
			r, err := b.at(s).Submit(ctx, transfer)
			answers <- answer{r, err}
		}()
	}
	// bank-b stops between its vote and its commit.
	b.await("the decision", func(context.Context) bool { return leader.hit("after-decision") })
	b.banks["bank-b"].signal(syscall.SIGSTOP)
	leader.release("after-decision")
	for range 2 {
		a := <-answers
		if a.err != nil || a.result.Outcome != client.Committed {
			t.Errorf("told %v, %v", a.result.Outcome, a.err)
		}
		if a.result.Delivered {
			t.Error("told delivered while bank-b had not acknowledged")
		}
	}
	for _, s := range b.servers {
		if got := b.get(s, txid); got.GetState() != decreev1.State_STATE_COMMITTING {
			t.Errorf("%s says %s while bank-b is stopped", s.id, got.GetState())
		}
	}
	other := transfer
	other.Branches = []client.Branch{client.JSON("bank-a", add("alice", -2))}
	again, done := context.WithTimeout(context.Background(), patience)
	defer done()
	if _, err := b.client.Submit(again, other); !errors.Is(err, client.ErrReused) {
		t.Errorf("the txid with other content: %v", err)
	}

	b.banks["bank-b"].signal(syscall.SIGCONT)
	r, err := b.at(b.servers[2]).Submit(again, transfer)
	if err != nil || r.Outcome != client.Committed || !r.Delivered {
		t.Errorf("after bank-b went on: %+v, %v", r, err)
	}
	b.settled(txid)
	b.check("bank-a", "alice", 9)
	b.check("bank-b", "bob", 1)
	b.nothingPrepared()
}

// at is a client that knows one node only.
func (b *bench) at(s *server) *client.Client {
	b.t.Helper()
	c, err := client.New(client.Config{Endpoints: []string{s.grpc}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}

// A release binary knows nothing of the failpoints by which these tests hold it, nor
// of the command that uses them.
func TestReleaseBinaryHasNoFailpoints(t *testing.T) {
	contents := map[string][]byte{}
	for _, tags := range []string{"", "failpoints"} {
		content, err := os.ReadFile(build(t, tags))
		if err != nil {
			t.Fatal(err)
		}
		contents[tags] = content
	}
	for _, name := range []string{"DECREE_FAILPOINT_DIR", "before-receipts", module + "/cmd/internal/chaos"} {
		if !bytes.Contains(contents["failpoints"], []byte(name)) {
			t.Errorf("%s is not in a build with failpoints: this test proves nothing", name)
		}
		if bytes.Contains(contents[""], []byte(name)) {
			t.Errorf("%s is in a build without failpoints", name)
		}
	}
}
