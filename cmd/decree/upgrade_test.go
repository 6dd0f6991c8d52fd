package main

// What is proven here: a cluster of an older release is upgraded node by node under
// load, and no client notices. Nodes of both releases form one cluster on the way,
// with either as the leader, and a node may go back to the old one. What that wrote
// stays readable. Once all are of the new release the cluster's level rises, and a
// node that is put back then says what is wrong and ends.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/decree-tx/decree/fsm"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// oldRelease is the commit that stands for an older release: the last one before
// nodes told each other what they can read.
const oldRelease = "ce12011f9842324d0f8fe5102a2964753525cc5c"

// old builds the old release, once.
var old struct {
	sync.Once
	path string
	err  error
}

// buildOld is the binary of the old release, from the repository's own history.
func buildOld(t testing.TB) string {
	t.Helper()
	root := filepath.Join("..", "..")
	if err := exec.Command("git", "-C", root, "cat-file", "-e", oldRelease+"^{commit}").Run(); err != nil {
		shallow, _ := exec.Command("git", "-C", root, "rev-parse", "--is-shallow-repository").Output()
		if strings.TrimSpace(string(shallow)) == "true" {
			t.Skipf("this clone is shallow and lacks %s: git fetch --unshallow", oldRelease)
		}
		t.Fatalf("the repository lacks %s (%v)", oldRelease, err)
	}
	old.Do(func() { old.path, old.err = compileCommit(root, oldRelease, filepath.Join(builds.dir, "old")) })
	if old.err != nil {
		t.Fatal(old.err)
	}
	return old.path
}

// compileCommit builds a commit's cmd/decree in a directory.
func compileCommit(root, commit, dir string) (string, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "decree-old")
	// -trimpath, and no cgo, share the build cache with make build and other runs of this test.
	shell := exec.Command("sh", "-euc", `git -C "$1" archive "$2" | tar -x -C "$3"; cd "$3"; go build -trimpath -buildvcs=false -o "$4" ./cmd/decree`,
		"sh", root, commit, dir, path)
	shell.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := shell.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", commit, err, bytes.TrimSpace(out))
	}
	return path, nil
}

func TestRollingUpgradeIsNotNoticed(t *testing.T) {
	before, after := buildOld(t), build(t, "")
	b := startTrio(t, before)
	w := b.startTraffic()
	known := b.commitOne()
	upgrade := func(s *server, path string) {
		b.restart(s, path)
		w.found(s)
		w.progress()
	}
	n1, n2, n3 := b.servers[0], b.servers[1], b.servers[2]
	for _, s := range []*server{n1, n2} {
		upgrade(s, after)
		for _, leader := range []*server{n1, n3} { // one of either release
			b.handTo(leader)
			w.progress()
		}
	}
	upgrade(n1, before) // somebody has second thoughts
	upgrade(n1, after)
	upgrade(n3, after)
	b.await("the level to rise everywhere", func(ctx context.Context) bool {
		for _, s := range b.servers {
			st, err := b.client.NodeStatus(ctx, s.grpc)
			if err != nil || st.GetLevel() != uint32(fsm.Newest) {
				return false
			}
		}
		return true
	})
	w.progress()
	for _, s := range b.servers {
		if tx := b.get(s, known); tx.GetState() != decreev1.State_STATE_COMMITTED {
			t.Errorf("%s shows the old release's %s as %s", s.id, known, tx.GetState())
		}
	}
	w.audit()
	b.sameHistory()
	b.refusesToGoBack(n2, before)
}

// refusesToGoBack puts an older binary in a node's place, which has to end and to say
// what is wrong; the newer one then finds everything as it was.
func (b *bench) refusesToGoBack(s *server, path string) {
	b.t.Helper()
	newer := s.path
	s.signal(syscall.SIGTERM)
	<-s.done
	s.path = path
	s.start()
	b.await("the older binary to end", func(context.Context) bool { return !s.alive() })
	log, err := os.ReadFile(s.log)
	if err != nil {
		b.t.Fatal(err)
	}
	if s.cmd.ProcessState.Success() || !bytes.Contains(tail(log, 2000), []byte("this node's binary is too old")) {
		b.t.Errorf("it ended with %s and said:\n%s", s.cmd.ProcessState, tail(log, 2000))
	}
	s.path = newer
	s.start()
	b.caughtUp(s)
	b.sameHistory()
}

// commitOne commits a transaction of no consequence and gives its txid.
func (b *bench) commitOne() string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := b.client.Submit(ctx, client.Transaction{Branches: []client.Branch{client.JSON("bank-a", add("one", 1))}})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return r.TxID
}

// handTo has a node lead, and waits until it does.
func (b *bench) handTo(s *server) {
	b.t.Helper()
	b.await(s.id+" to lead", func(ctx context.Context) bool {
		if st, err := b.client.NodeStatus(ctx, s.grpc); err == nil && st.GetLeader() == s.id {
			return true
		}
		_ = b.client.TransferLeadership(ctx, s.id) // perhaps it did not catch up in time: again
		return false
	})
}

// sameHistory waits until all nodes tell the same transactions with the same outcomes.
func (b *bench) sameHistory() {
	b.t.Helper()
	var at []*client.Client
	for _, s := range b.servers {
		at = append(at, b.at(s))
	}
	b.await("one history", func(context.Context) bool {
		told := history(b.t.Context(), at[0])
		return told != "" && told == history(b.t.Context(), at[1]) && told == history(b.t.Context(), at[2])
	})
}

// history is the transactions that a node tells of; empty where it does not.
func history(ctx context.Context, c *client.Client) string {
	var told strings.Builder
	for tx, err := range c.List(ctx, client.Filter{}) {
		if err != nil {
			return ""
		}
		told.WriteString(tx.GetTxid() + " " + tx.GetState().String() + "\n")
	}
	return told.String()
}
