package bare

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/decree-tx/decree/cluster"
)

// What is proven here: a bare node applies what its callers propose and counts each
// entry once, and refuses what is no order.

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	control := l.Addr().String()
	l.Close()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, Config{Control: control, Cluster: cluster.Config{
			ID: "n1", Bind: "127.0.0.1:0", Dir: t.TempDir(), Peers: []cluster.Peer{{ID: "n1"}},
		}})
	}()
	awaitLeader(t, control)

	body, _ := json.Marshal(Order{Callers: 4, Bytes: 100, Warmup: 20 * time.Millisecond, Duration: 200 * time.Millisecond})
	answer, err := http.Post("http://"+control+ApplyPath, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var out Outcome
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	if latency := hdr.Import(out.Latency); out.Entries == 0 || out.Failed != 0 || latency.TotalCount() != int64(out.Entries) {
		t.Errorf("%d entries, %d failed, %d latencies", out.Entries, out.Failed, latency.TotalCount())
	}

	refused, err := http.Post("http://"+control+ApplyPath, "application/json", bytes.NewReader([]byte(`{"callers": 0}`)))
	if err != nil {
		t.Fatal(err)
	}
	refused.Body.Close()
	if refused.StatusCode != http.StatusBadRequest {
		t.Errorf("no callers: %s", refused.Status)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// awaitLeader asks until the node leads, for what another goroutine opens has no event
// out here.
func awaitLeader(t *testing.T, control string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); ; {
		if answer, err := http.Get("http://" + control + LeadsPath); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it never leads")
		}
	}
}

func TestPeers(t *testing.T) {
	peers, err := Peers("n1=127.0.0.1:1,n2=127.0.0.1:2")
	if err != nil || len(peers) != 2 || peers[1] != (cluster.Peer{ID: "n2", RaftAddress: "127.0.0.1:2"}) {
		t.Errorf("peers %v, %v", peers, err)
	}
	if _, err := Peers("n1"); err == nil {
		t.Error("a peer without an address")
	}
}
