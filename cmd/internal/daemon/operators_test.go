package daemon

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/sim"
)

// What is proven here: operators see a node from before it has opened until it has
// stopped: alive all the while, and ready only while it serves.

func TestOperatorsSeeANodeStartAndStop(t *testing.T) {
	ports := freeAddresses(t, 4)
	cfg := config.Default()
	cfg.NodeID, cfg.DataDir = "n1", filepath.Join(t.TempDir(), "n1")
	cfg.RaftAddr, cfg.GRPCAddr, cfg.HTTPAddr, cfg.OperatorAddr = ports[0], ports[1], ports[2], ports[3]
	cfg.Peers = config.Peers{{ID: "n1", Addr: ports[0]}, {ID: "n2", Addr: "127.0.0.1:1"}} // nobody answers there
	options := Options{
		Drivers: participants.Drivers{"sim": &sim.Driver{}}, Logger: hclog.NewNullLogger(), Exit: func(err error) { panic(err) },
	}
	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan error, 1)
	go func() {
		_, err := Open(ctx, cfg, options)
		opened <- err
	}()
	awaitAnswer(t, ports[3], "/readyz", http.StatusServiceUnavailable, "waits for its peers")
	awaitAnswer(t, ports[3], "/healthz", http.StatusOK, "ok")
	cancel()
	if err := <-opened; err == nil {
		t.Fatal("it opened")
	}

	cfg.DataDir, cfg.Peers = filepath.Join(t.TempDir(), "n1"), config.Peers{{ID: "n1", Addr: ports[0]}}
	cfg.StopTimeout, cfg.DrainDelay = time.Hour, time.Hour-time.Second // until the test has looked
	d, err := Open(t.Context(), cfg, options)
	if err != nil {
		t.Fatal(err)
	}
	served, stopped := make(chan error, 1), make(chan struct{})
	go func() { served <- d.serve() }()
	awaitAnswer(t, ports[3], "/readyz", http.StatusOK, "ready")
	awaitAnswer(t, ports[3], "/metrics", http.StatusOK, "\ndecree_leader 1\n")
	bound, end := context.WithCancel(t.Context())
	go func() {
		defer close(stopped)
		d.stop(bound)
	}()
	awaitAnswer(t, ports[3], "/readyz", http.StatusServiceUnavailable, "stops")
	awaitAnswer(t, ports[3], "/healthz", http.StatusOK, "ok")
	end()
	<-stopped
	if err := <-served; err != nil {
		t.Error(err)
	}
	d.closeOperators()
	if answer, err := http.Get("http://" + ports[3] + "/healthz"); err == nil {
		answer.Body.Close()
		t.Error("it has stopped, and answers")
	}
}

// awaitAnswer asks until the answer is as wanted.
func awaitAnswer(t *testing.T, address, path string, status int, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	last := "nothing"
	for ctx.Err() == nil {
		answer, err := http.Get("http://" + address + path)
		if err != nil {
			last = err.Error()
			<-time.After(time.Millisecond) // it is not listening yet
			continue
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		last = answer.Status + " " + string(body)
		if err == nil && answer.StatusCode == status && strings.Contains(string(body), want) {
			return
		}
		<-time.After(time.Millisecond)
	}
	t.Fatalf("%s answers %s, want %d %q", path, last, status, want)
}
