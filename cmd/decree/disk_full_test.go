//go:build linux

package main

// The hazard "disk full", on a real disk that is small: a stranger fills it to the
// last byte under a node that leads. The node lives; it refuses what is new, with a
// code, a delay and words that tell why; everything that was under way is decided and
// delivered, and answered again; and once the stranger leaves, the door opens.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func TestAFullDiskShutsTheDoorOnly(t *testing.T) {
	disk := smallDisk(t, 32<<20)
	b := startOnDisk(t, disk)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b.deposit("bank-a", "alice", 1000)

	var underWay []*client.Tx
	for range 40 {
		underWay = append(underWay, b.enlisted(ctx))
	}
	open := b.begun(ctx)
	stranger := filepath.Join(disk, "stranger")
	fillDisk(t, stranger)

	// Before anybody looked, or a moment later.
	for _, tx := range underWay[:20] {
		b.mustFinish(ctx, tx)
	}
	b.await("the node to notice", func(ctx context.Context) bool { return b.room(ctx).GetDiskLow() })
	raw := b.raw()
	refused := func(what string, err error) {
		t.Helper()
		s := status.Convert(err)
		if s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "the leader's disk is nearly full") || retryDelay(s) <= 0 {
			t.Errorf("%s: %v, try again after %d", what, err, retryDelay(s))
		}
	}
	_, err := raw.Submit(ctx, &decreev1.SubmitRequest{Branches: []*decreev1.NewBranch{{Participant: "bank-a"}}})
	refused("a new transaction", err)
	_, err = raw.Begin(ctx, &decreev1.BeginRequest{})
	refused("a new interactive one", err)
	_, err = raw.Enlist(ctx, &decreev1.EnlistRequest{Txid: open.ID, Branch: &decreev1.NewBranch{Participant: "bank-b"}})
	refused("a new branch", err)
	if told := b.clusterStatus(); !strings.Contains(told, "MiB, low") {
		t.Errorf("cluster status says\n%s", told)
	}

	for _, tx := range append(underWay[20:], open) {
		b.mustFinish(ctx, tx)
	}
	again, err := raw.Commit(ctx, &decreev1.CommitRequest{Txid: open.ID})
	if err != nil || again.GetResult().GetOutcome() != decreev1.Outcome_OUTCOME_COMMITTED || !again.GetResult().GetDelivered() {
		t.Errorf("a retry of what is finished: %v, %v", again, err)
	}
	inquiry, err := raw.Inquire(ctx, &decreev1.InquireRequest{Txid: mustTxID(t)})
	if err != nil || inquiry.GetResult().GetOutcome() != decreev1.Outcome_OUTCOME_ABORTED {
		t.Errorf("an inquiry for what never was: %v, %v", inquiry, err)
	}

	if err := os.Remove(stranger); err != nil {
		t.Fatal(err)
	}
	b.await("the door to open", func(ctx context.Context) bool {
		st := b.room(ctx)
		return !st.GetDiskLow() && st.GetDiskReserve() == diskReserve
	})
	b.deposit("bank-a", "alice", 7)
	b.check("bank-a", "alice", 1000-41+7)
	b.check("bank-b", "bob", 40)
	b.nothingPrepared()
	if !b.servers[0].alive() {
		t.Error("the node died")
	}
	log, err := os.ReadFile(b.servers[0].log)
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"the disk is nearly full", "the disk has room again"} {
		if n := strings.Count(string(log), words); n != 1 {
			t.Errorf("the log says %d times %q", n, words)
		}
	}
}

const diskReserve = 4 << 20

// smallDisk mounts a file system of so many bytes until the test ends.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a small file system; CI does")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("this kernel lets no tmpfs be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// startOnDisk is startBench with one server, whose data lies on the disk.
func startOnDisk(t *testing.T, disk string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), banks: map[string]*kvBank{}}
	ports := freePorts(t, 4)
	s := &server{id: "n1", grpc: ports[1]}
	s.process = &process{
		t: t, name: "n1", path: build(t, "failpoints"), log: filepath.Join(b.dir, "n1.log"),
		args: []string{"server", "--node-id", "n1", "--data-dir", filepath.Join(disk, "n1"), "--raft-addr", ports[0],
			"--grpc-addr", s.grpc, "--http-addr", "", "--peers", "n1=" + ports[0],
			"--disk-headroom", "4MiB", "--disk-reserve", "4MiB"},
	}
	b.servers = []*server{s}
	s.start()
	b.join(ports[1:2], ports[2:])
	b.await("room to be reserved", func(ctx context.Context) bool { return b.room(ctx).GetDiskReserve() == diskReserve })
	return b
}

// fillDisk writes a file until the disk has no byte left.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// enlisted is a transfer of 1 from alice to bob that needs only its commit.
func (b *bench) enlisted(ctx context.Context) *client.Tx {
	b.t.Helper()
	tx := b.begun(ctx)
	if _, err := tx.Enlist(ctx, client.JSON("bank-b", add("bob", 1))); err != nil {
		b.t.Fatal(err)
	}
	return tx
}

// begun is half of it: alice pays.
func (b *bench) begun(ctx context.Context) *client.Tx {
	b.t.Helper()
	tx, err := b.client.Begin(ctx, patience)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := tx.Enlist(ctx, client.JSON("bank-a", add("alice", -1))); err != nil {
		b.t.Fatal(err)
	}
	return tx
}

// mustFinish commits it, and waits until the banks know.
func (b *bench) mustFinish(ctx context.Context, tx *client.Tx) {
	b.t.Helper()
	r, err := tx.Commit(ctx)
	if err != nil || r.Outcome != client.Committed || !r.Delivered {
		b.t.Errorf("%s, which was under way: %+v, %v", tx.ID, r, err)
	}
}

// room is what the one server says of its disk.
func (b *bench) room(ctx context.Context) *decreev1.StatusResponse {
	st, err := b.client.NodeStatus(ctx, b.servers[0].grpc)
	if err != nil {
		return nil
	}
	return st
}

// raw is a client that hears each answer as it is.
func (b *bench) raw() decreev1.TransactionsClient {
	b.t.Helper()
	conn, err := grpc.NewClient(b.servers[0].grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return decreev1.NewTransactionsClient(conn)
}

func retryDelay(s *status.Status) (delay int64) {
	for _, d := range s.Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok {
			delay = int64(retry.GetRetryDelay().AsDuration())
		}
	}
	return delay
}

// clusterStatus is what people see.
func (b *bench) clusterStatus() string {
	b.t.Helper()
	out, err := exec.Command(b.servers[0].path, "cluster", "status", "--endpoints", b.servers[0].grpc).CombinedOutput()
	if err != nil {
		b.t.Errorf("cluster status: %v", err)
	}
	return string(out)
}
