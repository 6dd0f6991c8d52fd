package main

// What is proven here, with real processes (R15): a cluster whose every directory is
// gone begins again from a saved file, and one that has lost two of three nodes from the
// third. What was finished is there; what was decided after the backup is not presumed:
// it stays prepared, is listed with what the participants can prove, and an operator ends
// it. The new life's epoch is above the old one's, and participants refuse the old one.

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// dataDir is a node's.
func (b *bench) dataDir(s *server) string { return filepath.Join(b.dir, s.id) }

// transfer runs a transaction at both banks.
func (b *bench) transfer(ctx context.Context, txid string) (client.Result, error) {
	return b.client.Submit(ctx, client.Transaction{TxID: txid, Timeout: patience, Branches: []client.Branch{
		client.JSON("bank-a", add("alice", 1)), client.JSON("bank-b", add("bob", 1)),
	}})
}

func (b *bench) mustTransfer(ctx context.Context) (txid string) {
	b.t.Helper()
	txid = mustTxID(b.t)
	if r, err := b.transfer(ctx, txid); err != nil || r.Outcome != client.Committed {
		b.t.Fatalf("%v, %v", r.Outcome, err)
	}
	return txid
}

// holdPrepared has the leader stop between a decision and its delivery, and returns the
// transaction's id.
func (b *bench) holdPrepared(ctx context.Context) (txid string) {
	b.t.Helper()
	leader, _ := b.leader(0, nil)
	leader.arm("after-decision")
	txid = mustTxID(b.t)
	ctx, cancel := context.WithCancel(ctx)
	b.t.Cleanup(cancel)
	go func() { _, _ = b.transfer(ctx, txid) }() // nobody answers it
	b.await("the leader at the decision", func(context.Context) bool { return leader.hit("after-decision") })
	return txid
}

// command runs decree against the bench's nodes.
func (b *bench) command(stdin string, args ...string) ran {
	b.t.Helper()
	var endpoints []string
	for _, s := range b.servers {
		endpoints = append(endpoints, s.grpc)
	}
	b.t.Setenv(endpointsEnv, strings.Join(endpoints, ","))
	var stdout, stderr bytes.Buffer
	exit := Run(b.t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return ran{exit, stdout.String(), stderr.String()}
}

func (b *bench) mustRun(args ...string) string {
	b.t.Helper()
	r := b.command("", args...)
	if r.exit != exitOK {
		b.t.Fatalf("decree %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
	}
	return r.stdout
}

// addNode starts a node with an empty directory and has it admitted.
func (b *bench) addNode(ctx context.Context, id string) {
	b.t.Helper()
	ports := freePorts(b.t, 2)
	s := &server{id: id, grpc: ports[1], process: &process{
		t: b.t, name: id, path: build(b.t, "failpoints"), log: filepath.Join(b.dir, id+".log"),
		args: []string{"server", "--node-id", id, "--data-dir", filepath.Join(b.dir, id), "--raft-addr", ports[0],
			"--grpc-addr", ports[1], "--http-addr", "", "--join"},
	}}
	b.servers = append(b.servers, s)
	s.start()
	b.await(id+" to be a member", func(context.Context) bool { return b.client.AddNode(ctx, id, ports[0]) == nil })
}

// prepared is what a participant holds.
func (b *bench) prepared(ctx context.Context, name string) uint32 {
	b.t.Helper()
	answer, err := b.client.CheckParticipant(ctx, name)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.GetPrepared()
}

// logged waits until a node's log tells something.
func (b *bench) logged(s *server, text string) {
	b.t.Helper()
	b.await(s.id+" to log: "+text, func(context.Context) bool {
		log, err := os.ReadFile(s.log)
		return err == nil && bytes.Contains(log, []byte(text))
	})
}

// refusesEpoch holds that a participant has heard of a branch in a later epoch.
func (b *bench) refusesEpoch(ctx context.Context, bank, cluster, txid string, number uint32, epoch uint64) {
	b.t.Helper()
	conn, err := grpc.NewClient(b.banks[bank].address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	branch := &participantv1.Branch{Cluster: cluster, Txid: txid, Number: number, Epoch: epoch}
	if _, err := participantv1.NewParticipantClient(conn).Abort(ctx, &participantv1.AbortRequest{Branch: branch}); err == nil {
		b.t.Errorf("%s takes an abort of epoch %d", bank, epoch)
	}
}

func TestRestoreAfterAllIsLost(t *testing.T) {
	b := startBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	finished := b.mustTransfer(ctx)
	open, err := b.client.Begin(ctx, patience)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.Enlist(ctx, client.JSON("bank-a", add("alice", 100))); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(b.dir, "decree.snap")
	b.mustRun("snapshot", "save", file)
	if again := b.command("", "snapshot", "save", file); again.exit != exitUsage {
		t.Errorf("saved over a file: %+v", again)
	}
	if text := b.mustRun("snapshot", "inspect", file); !strings.Contains(text, "Active                 1") || !strings.Contains(text, "bank-b (grpc)") || strings.Contains(text, b.banks["bank-b"].address) {
		t.Errorf("inspected:\n%s", text)
	}

	// All that follows is not in the file.
	if r, err := open.Commit(ctx); err != nil || r.Outcome != client.Committed {
		t.Fatal(r, err)
	}
	forgotten := b.mustTransfer(ctx)
	lost := b.holdPrepared(ctx)
	_, epoch := b.leader(0, nil)
	status, err := b.client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range b.servers {
		s.kill()
		if err := os.RemoveAll(b.dataDir(s)); err != nil {
			t.Fatal(err)
		}
	}

	n1 := b.servers[0]
	b.servers = b.servers[:1]
	args := []string{"snapshot", "restore", file, "--node-id", n1.id, "--data-dir", b.dataDir(n1), "--raft-advertise", raftAddress(n1), "--skew", "0s"}
	unsure := b.command("yes\n", args...)
	if _, err := os.Stat(b.dataDir(n1)); unsure.exit != exitUsage || !errors.Is(err, os.ErrNotExist) || !strings.Contains(unsure.stderr, "EVERY DECISION MADE AFTER IT IS LOST") {
		t.Errorf("without the word: %+v, %v", unsure, err)
	}
	b.mustRun(append(args, "--yes")...)
	n1.start()
	leader, newEpoch := b.leader(epoch, nil)
	if newEpoch <= epoch {
		t.Errorf("epoch %d follows %d", newEpoch, epoch)
	}

	b.logged(leader, "prepared branches wait for an operator")
	b.logged(leader, "transactions were undecided when the cluster was restored")
	if got := b.get(leader, finished); got.GetState() != decreev1.State_STATE_COMMITTED {
		t.Errorf("what was finished is %s", got.GetState())
	}
	for _, txid := range []string{forgotten, lost, open.ID} {
		if r, err := b.transfer(ctx, txid); !errors.Is(err, client.ErrLost) {
			t.Errorf("a retry: %v, %v", r, err)
		}
		if r, err := b.client.Inquire(ctx, txid); !errors.Is(err, client.ErrLost) {
			t.Errorf("an inquiry: %v, %v", r, err)
		}
	}
	for _, bank := range []string{"bank-a", "bank-b"} {
		if n := b.prepared(ctx, bank); n != 1 {
			t.Errorf("%s holds %d prepared", bank, n)
		}
	}
	list := b.mustRun("tx", "unresolved")
	for _, want := range []string{lost, "bank-a/1 bank-b/2", open.ID} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not in:\n%s", want, list)
		}
	}
	if strings.Contains(list, forgotten) {
		t.Errorf("what is prepared nowhere is listed:\n%s", list)
	}

	// The operator takes what is proven, and decides the rest.
	told := b.mustRun("tx", "decide", "--all", "--as", "evident", "--reason", "after the fire", "--yes")
	if !strings.Contains(told, lost+" is left alone") {
		t.Errorf("decided by evidence:\n%s", told)
	}
	wrong := b.command("no\n", "tx", "decide", lost, "--as", "committed", "--reason", "the client has a receipt")
	if wrong.exit != exitUsage || !strings.Contains(wrong.stdout, "prepared") {
		t.Errorf("without the word: %+v", wrong)
	}
	right := b.command("committed\n", "tx", "decide", lost, "--as", "committed", "--reason", "the client has a receipt")
	if right.exit != exitOK {
		t.Errorf("%+v", right)
	}
	b.await("nothing to be prepared", func(ctx context.Context) bool {
		return b.prepared(ctx, "bank-a")+b.prepared(ctx, "bank-b") == 0
	})
	b.refusesEpoch(ctx, "bank-a", status.GetCluster(), lost, 1, epoch)
	b.refusesEpoch(ctx, "bank-b", status.GetCluster(), lost, 2, epoch)
	if list := strings.TrimSpace(b.mustRun("tx", "unresolved", "-q")); list != "" {
		t.Errorf("still unresolved: %s", list)
	}
	b.mustTransfer(ctx)
	b.check("bank-a", "alice", 4+100) // finished, forgotten, lost, and the last; and what was open
	b.check("bank-b", "bob", 4)

	b.addNode(ctx, "n4")
	b.mustTransfer(ctx)
}

// raftAddress is the one in a server's arguments.
func raftAddress(s *server) string {
	for i, arg := range s.args {
		if arg == "--raft-addr" {
			return s.args[i+1]
		}
	}
	return ""
}

func TestRecoverFromALostQuorum(t *testing.T) {
	b := startBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	finished := b.mustTransfer(ctx)
	lost := b.holdPrepared(ctx)
	leader, epoch := b.leader(0, nil)
	var survivor *server
	for _, s := range b.servers {
		if s != leader {
			survivor = s
		}
	}
	b.await("the survivor to have what was finished", func(ctx context.Context) bool {
		state := b.get(survivor, finished).GetState()
		return state == decreev1.State_STATE_COMMITTING || state == decreev1.State_STATE_COMMITTED
	})
	for _, s := range b.servers {
		if s != survivor {
			s.kill()
			if err := os.RemoveAll(b.dataDir(s)); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.servers = []*server{survivor}
	args := []string{"cluster", "recover", "--data-dir", b.dataDir(survivor), "--skew", "0s"}
	if running := b.command("", append(args, "--yes")...); running.exit != exitFailed || !strings.Contains(running.stderr, "in use") {
		t.Errorf("while the node runs: %+v", running)
	}
	survivor.signal(syscall.SIGTERM)
	<-survivor.done
	if unsure := b.command("\n", args...); unsure.exit != exitUsage || !strings.Contains(unsure.stderr, "Node "+survivor.id+" has entries up to") {
		t.Errorf("without the word: %+v", unsure)
	}
	told := b.mustRun(append(args, "--yes")...)
	if kept, err := filepath.Glob(filepath.Join(b.dataDir(survivor), "replaced-*", "raft.db")); err != nil || len(kept) != 1 || !strings.Contains(told, filepath.Dir(kept[0])) {
		t.Errorf("the old log is in %v (%v), and was told of:\n%s", kept, err, told)
	}

	survivor.start()
	leader, newEpoch := b.leader(epoch, nil)
	if newEpoch < uint64(time.Now().Add(-time.Hour).UnixMilli()) {
		t.Errorf("epoch %d follows %d", newEpoch, epoch)
	}
	// The survivor may hold the decision, its staging, or neither: it is never aborted. Nor
	// is what was decided by its last entries, which only an operator knows to be so.
	if r, err := b.client.Inquire(ctx, lost); err == nil && r.Outcome == client.Aborted {
		t.Errorf("what was committed is %v", r)
	}
	list := b.mustRun("tx", "unresolved", "-q")
	for _, txid := range []string{finished, lost} {
		if strings.Contains(list, txid) {
			b.mustRun("tx", "decide", txid, "--as", "committed", "--reason", "the books", "--yes")
		}
	}
	b.await("what was committed to be delivered", func(context.Context) bool {
		return b.get(leader, finished).GetState() == decreev1.State_STATE_COMMITTED
	})
	b.await("nothing to be prepared", func(ctx context.Context) bool {
		return b.prepared(ctx, "bank-a")+b.prepared(ctx, "bank-b") == 0
	})
	b.addNode(ctx, "n4")
	b.addNode(ctx, "n5")
	b.mustTransfer(ctx)
	b.check("bank-a", "alice", 3)
	b.check("bank-b", "bob", 3)
	status, err := b.client.Status(ctx)
	if err != nil || len(status.GetNodes()) != 3 {
		t.Errorf("%v, %v", status.GetNodes(), err)
	}
}
