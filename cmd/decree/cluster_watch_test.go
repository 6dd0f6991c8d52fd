package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// What is proven here: a watcher sees what goes on, on a terminal and in a file, and goes
// on through nodes that do not answer.

type fakeLive struct {
	decreev1.UnimplementedLiveServer
	*fakeNode
}

func (f fakeLive) Look(ctx context.Context, r *decreev1.LookRequest) (*decreev1.LookResponse, error) {
	if f.live == nil {
		return f.UnimplementedLiveServer.Look(ctx, r)
	}
	return &decreev1.LookResponse{View: f.live}, f.heard(r)
}

func someFrame() frame {
	at := time.Unix(1_700_000_000, 0)
	status := func(node string, applied uint64) *decreev1.StatusResponse {
		return &decreev1.StatusResponse{
			Cluster: "c1", Node: node, Leader: "n1", Epoch: 4, CommitIndex: 120, AppliedIndex: applied, Entries: applied,
			Unfinished: 7, Damaged: 1, DiskFree: 20 << 30, Version: "v1",
			Nodes: []*decreev1.Node{{Id: "n1", Voter: true, Leader: true}, {Id: "n2", Voter: true}},
		}
	}
	leader := &decreev1.View{
		Node: "n1", Leading: true, OldestTxid: someTxID, Oldest: timestamppb.New(at.Add(-90 * time.Second)),
		Pulse: &decreev1.Pulse{Transactions: 250, PerSecond: 25, P50: durationpb.New(3 * time.Millisecond), P99: durationpb.New(12 * time.Millisecond), AbortShare: 0.05},
		Loads: []*decreev1.Load{
			{Participant: "bank-a", Unfinished: 2, Preparing: 1, Pace: durationpb.New(1500 * time.Microsecond)},
			{Participant: "evil\x1b[2J", Unfinished: 5, Delivering: 1, DeliveriesWaiting: 4, Failures: 9, Down: true},
		},
	}
	views := []nodeView{
		{endpoint: "b:1", status: status("n2", 100), live: &decreev1.View{Node: "n2"}},
		{endpoint: "a:1", status: status("n1", 120), live: leader},
		{endpoint: "c:1", err: errors.New("decree: cannot connect")},
	}
	return frame{at, views, bestView(views)}
}

func TestDrawFrame(t *testing.T) {
	now := someFrame()
	before := someFrame()
	before.at = now.at.Add(-2 * time.Second)
	before.views[1].status.Entries = 100
	p := &program{out: &printer{}}
	got := string(p.drawFrame(now, before))
	_, got, _ = strings.Cut(got, "\n") // the time is local
	want := `
cluster     c1
leader      n1
epoch       4
decided     25.0/s, p50 3ms, p99 12ms, 5.0% aborted
unfinished  7, the oldest for 1m30s: ` + someTxID + `
damage      1 transaction: decree tx list --damaged

NODE  ROLE      ENDPOINT  APPLIED  LAG  ENTRIES/S  DISK FREE  VERSION  ERROR
n1    leader    a:1           120    0         10  20 GiB     v1       -
n2    follower  b:1           100   20          0  20 GiB     v1       -
-     -         c:1             -    -          -  -          -        cannot connect

PARTICIPANT  UNFINISHED  PREPARING  DELIVERING  WAITING  FAILURES  PACE   ERROR
bank-a                2          1           0        0         0  1.5ms  -
evil\x1b[2J           5          0           1        4         9  -      down
`
	if want = strings.TrimPrefix(want, "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	line := now.line()
	if !strings.HasSuffix(line, "  leader n1  nodes 2/3  epoch 4  unfinished 7  oldest 1m30s  decided 25.0/s, p50 3ms, p99 12ms, 5.0% aborted  lag 20") {
		t.Errorf("line %q", line)
	}
	empty := frame{}
	if text := p.drawFrame(empty, empty); !strings.Contains(string(text), "leader      none") {
		t.Errorf("of nobody: %s", text)
	}
}

func TestOnScreen(t *testing.T) {
	got := string(onScreen([]byte("a\nb\nc\n"), 2))
	if want := "\x1b[Ha\x1b[K\nb\x1b[K\x1b[J"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWatchCluster(t *testing.T) {
	old := &fakeNode{status: someFrame().best} // of a version that cannot be looked at
	view := someFrame().views[1].live
	view.Status = someFrame().best
	node := &fakeNode{live: view}
	endpoints := "--endpoints=" + node.serve(t) + "," + old.serve(t) + "," + unusedAddress(t)

	r := start(t, "cluster", "status", "--watch", "--interval", "100ms", endpoints)
	r.await("three lines", func() bool { return strings.Count(r.stdout.String(), "\n") >= 3 })
	if code := r.end(); code != exitOK || !strings.Contains(r.stdout.String(), "leader n1  nodes 2/3  epoch 4") {
		t.Errorf("exit %d:\n%s%s", code, r.stdout.String(), r.stderr.String())
	}
	r = start(t, "cluster", "status", "--watch", "-o", "json", endpoints)
	r.await("an object", func() bool { return strings.Contains(r.stdout.String(), "\n") })
	r.end()
	first, _, _ := strings.Cut(r.stdout.String(), "\n")
	var report struct {
		Leader string
		Nodes  []struct {
			Status *struct{ Node string }
			Live   *struct{ Pulse struct{ Transactions string } }
		}
	}
	if err := json.Unmarshal([]byte(first), &report); err != nil || report.Leader != "n1" ||
		report.Nodes[0].Live.Pulse.Transactions != "250" || report.Nodes[1].Live != nil || report.Nodes[2].Status != nil {
		t.Errorf("%s (%v)", first, err)
	}
}
