package main

// What is proven here: a participant that is gone for ever, with a commit that it never
// acknowledged, keeps its transaction waiting until an operator says what became of its
// branch (R10). The evidence is shown and the word has to be confirmed; then the
// transaction is delivered, the participant can be removed, and who said what and why is on
// every node's record, also after all of them were killed.

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func TestParticipantGoneForEver(t *testing.T) {
	b := startBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b.await("the level that has resolved branches", func(ctx context.Context) bool {
		for _, s := range b.servers {
			status, err := b.client.NodeStatus(ctx, s.grpc)
			if err != nil || status.GetLevel() != status.GetNewestLevel() {
				return false
			}
		}
		return true
	})
	decree := func(stdin string, args ...string) (string, int) {
		var stdout, stderr bytes.Buffer
		t.Setenv(endpointsEnv, b.servers[0].grpc+","+b.servers[1].grpc+","+b.servers[2].grpc)
		code := Run(ctx, args, strings.NewReader(stdin), &stdout, &stderr)
		return stdout.String() + stderr.String(), code
	}
	says := func(text string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("no %q in\n%s", w, text)
			}
		}
	}

	// bank-b dies between the decision and its delivery, and its disk with it.
	leader, _ := b.leader(0, nil)
	leader.arm("after-decision")
	defer leader.disarm("after-decision")
	txid := mustTxID(t)
	told := make(chan answer, 1)
	go func() {
		r, err := b.client.Submit(ctx, client.Transaction{TxID: txid, Wait: client.WaitDecision, Branches: []client.Branch{
			client.JSON("bank-a", add("alice", 7)), client.JSON("bank-b", add("bob", 7)),
		}})
		told <- answer{r, err}
	}()
	b.await("the leader at the decision", func(context.Context) bool { return leader.hit("after-decision") })
	b.banks["bank-b"].kill()
	if err := os.Remove(b.bankFile("bank-b")); err != nil {
		t.Fatal(err)
	}
	leader.release("after-decision")
	if a := <-told; a.err != nil || a.result.Outcome != client.Committed {
		t.Fatal(a)
	}
	b.await("attempts at bank-b", func(ctx context.Context) bool {
		tx, err := b.client.Get(ctx, txid)
		return err == nil && tx.GetState() == decreev1.State_STATE_COMMITTING && tx.GetBranches()[0].GetReceipt() == decreev1.Receipt_RECEIPT_DONE
	})
	text, code := decree("", "participant", "delete", "bank-b", "--patience", "5s")
	if says(text, "unfinished"); code == 0 {
		t.Error("bank-b was removed while a commit is owed to it")
	}

	evidence, code := decree("", "tx", "resolve", txid, "--branch", "2")
	if says(evidence, "committing", "2 at bank-b", "no answer"); code != 0 {
		t.Errorf("exit code %d", code)
	}
	resolve := []string{"tx", "resolve", txid, "--branch", "2", "--as", "committed", "--reason", "seen in the backup"}
	text, code = decree("yes\n", resolve...)
	if says(text, "as was decided", "nothing was changed"); code == 0 {
		t.Error("resolved without confirmation")
	}
	text, code = decree(txid[len(txid)-confirmBy:]+"\n", resolve...)
	if says(text, "branch 2 at bank-b is resolved as committed; the transaction is committed"); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if text, code = decree("", append(resolve, "--yes")...); code != 0 { // again: as once
		t.Errorf("exit code %d, %s", code, text)
	}
	text, code = decree("", "tx", "resolve", txid, "--branch", "2", "--as", "aborted", "--reason", "another mind", "--yes")
	if says(text, "AGAINST the decision", "already, and otherwise"); code == 0 {
		t.Error("a second, different word was taken")
	}
	text, code = decree("", "participant", "delete", "bank-b", "--reason", "burnt down")
	if code != 0 {
		t.Errorf("exit code %d, %s", code, text)
	}

	for _, s := range b.servers {
		s.kill()
	}
	for _, s := range b.servers {
		s.start()
	}
	b.leader(0, nil)
	text, _ = decree("", "tx", "show", txid)
	says(text, "committed", "resolved as committed")
	for _, s := range b.servers {
		b.await("the trail at "+s.id, func(ctx context.Context) bool {
			var stdout bytes.Buffer
			Run(ctx, []string{"audit", "--endpoints", s.grpc}, strings.NewReader(""), &stdout, &stdout)
			text := stdout.String()
			for _, want := range []string{"anonymous", "resolve branch", txid, "branch 2 as committed", "seen in the backup", "delete participant", "burnt down"} {
				if !strings.Contains(text, want) {
					return false
				}
			}
			return strings.Contains(text, "resolve branch: refused") && strings.Contains(text, "another mind")
		})
	}
	b.await("alice's money", func(ctx context.Context) bool {
		r, err := b.client.Submit(ctx, client.Transaction{Branches: []client.Branch{client.JSON("bank-a", add("alice", 1))}})
		return err == nil && r.Outcome == client.Committed
	})
}
