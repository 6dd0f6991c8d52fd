package main

// A leader is killed (kill -9), and separately stopped (SIGSTOP) until another has
// taken over and then woken up, at each step of the protocol. Whatever the step:
//
//   - the client that was waiting gets one definite outcome, and every node tells
//     the same one, then and at the end (R1, R5);
//   - nothing was committed at a participant while the decision was not applied
//     (R2);
//   - a transaction that was preparing is prepared again and commits (R13);
//   - the leader that wakes up changes nothing, and whatever it still sends leaves
//     nothing prepared behind (R3, R8);
//   - the money adds up in the participants' own files.

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/participants/kv"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// The steps, as coordinator names its failpoints, and whether a commit may be
// visible at a participant when the leader is held there.
var steps = []struct {
	name    string
	decided bool
}{
	{"before-stage", false},
	{"after-prepare", false},
	{"after-votes", false},
	{"after-decision", false}, // applied, and told to nobody yet
	{"between-deliveries", true},
}

func TestLeaderFailsAtEachStep(t *testing.T) {
	b := startBench(t)
	b.deposit("bank-a", "alice", 1000)
	b.deposit("bank-b", "bob", 1000)
	moved := 0
	for _, fault := range []string{"kill", "pause"} {
		for _, step := range steps {
			ok := t.Run(fault+" "+step.name, func(t *testing.T) {
				b.t = t
				b.failAt(step.name, step.decided, fault, moved)
			})
			if b.t = t; !ok {
				return // the next one would only fail on what this one left
			}
			moved++
		}
	}
	b.audit(moved)
}

// failAt runs one transfer of 1 from alice to bob through a failure of the leader
// at a step. Before it, as many were moved.
func (b *bench) failAt(step string, decided bool, fault string, moved int) {
	t := b.t
	leader, epoch := b.leader(0, nil)
	leader.arm(step)
	defer leader.disarm(step)
	txid := mustTxID(t)
	answer := b.submit(txid)
	b.await("the leader at "+step, func(context.Context) bool { return leader.hit(step) })

	if !decided {
		b.notCommitted(txid)
	}

	switch fault {
	case "kill":
		leader.kill()
	case "pause":
		leader.signal(syscall.SIGSTOP)
	}
	b.leader(epoch, leader)
	outcome := <-answer
	if outcome.err != nil {
		t.Fatalf("the client was told %v", outcome.err)
	}
	if outcome.result.Outcome != client.Committed {
		t.Fatalf("aborted: %s", outcome.result.Reason)
	}
	before := b.seen(txid, leader)

	switch fault {
	case "kill":
		leader.release(step)
		leader.start()
	case "pause":
		leader.release(step)
		leader.signal(syscall.SIGCONT)
	}
	b.settled(txid)
	for _, s := range b.servers {
		if got := b.get(s, txid); got.GetDecided().GetIndex() != before.GetDecided().GetIndex() {
			t.Errorf("%s has the decision at %d, it was seen at %d", s.id, got.GetDecided().GetIndex(), before.GetDecided().GetIndex())
		}
	}
	b.check("bank-a", "alice", 1000-moved-1)
	b.check("bank-b", "bob", 1000+moved+1)
	b.nothingPrepared()
}

type answer struct {
	result client.Result
	err    error
}

// submit transfers 1 in the background, through whatever happens.
func (b *bench) submit(txid string) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r, err := b.client.Submit(ctx, client.Transaction{
			TxID:    txid,
			Timeout: patience, // a step may be held for long; this is not the test of the timeout
			Branches: []client.Branch{
				client.JSON("bank-a", add("alice", -1)),
				client.JSON("bank-b", add("bob", 1)),
			},
		})
		done <- answer{r, err}
	}()
	return done
}

func add(key string, amount int) map[string]any {
	return map[string]any{"ops": []any{map[string]any{"op": "add", "key": key, "amount": amount, "min": 0}}}
}

func (b *bench) deposit(bank, key string, amount int) {
	b.t.Helper()
	b.mustCommit(client.JSON(bank, add(key, amount)))
}

// check reads a balance with a transaction of its own: the branch votes no unless
// the key has the value.
func (b *bench) check(bank, key string, want int) {
	b.t.Helper()
	op := map[string]any{"op": "check", "key": key, "min": want, "max": want}
	b.mustCommit(client.JSON(bank, map[string]any{"ops": []any{op}}))
}

func (b *bench) mustCommit(branches ...client.Branch) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := b.client.Submit(ctx, client.Transaction{Branches: branches})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// seen is what the nodes other than one tell of a decided transaction.
func (b *bench) seen(txid string, except *server) *decreev1.Transaction {
	b.t.Helper()
	var tx *decreev1.Transaction
	for _, s := range b.servers {
		if s != except {
			b.await(fmt.Sprintf("the decision at %s", s.id), func(ctx context.Context) bool {
				tx = b.getOnce(ctx, s, txid)
				return tx.GetDecided() != nil
			})
		}
	}
	return tx
}

// settled waits until all nodes hold the transaction as finished.
func (b *bench) settled(txid string) {
	b.t.Helper()
	for _, s := range b.servers {
		b.await(fmt.Sprintf("the end at %s", s.id), func(ctx context.Context) bool {
			return b.getOnce(ctx, s, txid).GetState() == decreev1.State_STATE_COMMITTED
		})
	}
}

func (b *bench) get(s *server, txid string) *decreev1.Transaction {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return b.getOnce(ctx, s, txid)
}

// getOnce asks one node, nil where it does not answer.
func (b *bench) getOnce(ctx context.Context, s *server, txid string) *decreev1.Transaction {
	one, err := client.New(client.Config{Endpoints: []string{s.grpc}})
	if err != nil {
		b.t.Fatal(err)
	}
	defer one.Close()
	tx, err := one.Get(ctx, txid)
	if err != nil {
		return nil
	}
	return tx
}

func (b *bench) nothingPrepared() {
	b.t.Helper()
	for bank := range b.banks {
		b.await("nothing prepared at "+bank, func(ctx context.Context) bool {
			r, err := b.client.CheckParticipant(ctx, bank)
			return err == nil && r.GetReachable() && r.GetPrepared() == 0
		})
	}
}

// audit stops the participants and reads their files.
func (b *bench) audit(moved int) {
	b.t.Helper()
	for bank, want := range map[string]struct {
		key    string
		amount int
	}{"bank-a": {"alice", 1000 - moved}, "bank-b": {"bob", 1000 + moved}} {
		b.banks[bank].stop()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		store, err := kv.Open(ctx, b.bankFile(bank), hclog.NewNullLogger())
		if err != nil {
			b.t.Fatal(err)
		}
		defer store.Close()
		got, ok, err := store.Get(ctx, want.key)
		if err != nil || !ok || got != fmt.Sprint(want.amount) {
			b.t.Errorf("%s holds %q (%t, %v), want %d", want.key, got, ok, err, want.amount)
		}
	}
}

func mustTxID(t testing.TB) string {
	t.Helper()
	id, err := client.NewTxID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustStruct(t testing.TB, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// notCommitted asks the participants themselves.
func (b *bench) notCommitted(txid string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	st, err := b.client.Status(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for i, bank := range []string{"bank-a", "bank-b"} {
		conn, err := grpc.NewClient(b.banks[bank].address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.t.Fatal(err)
		}
		defer conn.Close()
		branch := &participantv1.Branch{Cluster: st.GetCluster(), Txid: txid, Number: uint32(i + 1), Epoch: st.GetEpoch()}
		got, err := participantv1.NewParticipantClient(conn).Status(ctx, &participantv1.StatusRequest{Branch: branch})
		if err != nil {
			b.t.Fatal(err)
		}
		if got.GetStatus() == participantv1.BranchStatus_BRANCH_STATUS_COMMITTED {
			b.t.Errorf("%s has committed before the decision was applied", bank)
		}
	}
}
