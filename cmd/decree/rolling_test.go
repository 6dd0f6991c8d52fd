package main

// What is proven here: a cluster whose nodes are restarted one after the other, by
// SIGTERM, has no client who notices. Every transaction under way gets its outcome,
// which is the one that it would have had, and none is carried out twice (rules R5,
// R11 and R13).

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// startTrio is startBench with nodes of a binary of the caller's, with HTTP, and
// without failpoints.
func startTrio(t testing.TB, path string, flags ...string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), banks: map[string]*kvBank{}}
	ports := freePorts(t, 11)
	var peers, endpoints []string
	for i := range 3 {
		peers = append(peers, fmt.Sprintf("n%d=%s", i+1, ports[i]))
		endpoints = append(endpoints, ports[3+i])
	}
	for i := range 3 {
		id := fmt.Sprintf("n%d", i+1)
		s := &server{id: id, grpc: ports[3+i], http: ports[6+i], process: &process{
			t: t, name: id, path: path, log: filepath.Join(b.dir, id+".log"),
			args: append([]string{"server", "--node-id", id, "--data-dir", filepath.Join(b.dir, id), "--raft-addr", ports[i],
				"--grpc-addr", ports[3+i], "--http-addr", ports[6+i], "--peers", strings.Join(peers, ",")}, flags...),
		}}
		b.servers = append(b.servers, s)
		s.start()
	}
	b.join(endpoints, ports[9:])
	return b
}

// restart ends a node as an init system would, and starts the binary at path in its
// place. It returns once the node has applied what the leader had then.
func (b *bench) restart(s *server, path string) {
	b.t.Helper()
	s.signal(syscall.SIGTERM)
	<-s.done
	if state := s.cmd.ProcessState; !state.Success() {
		b.t.Fatalf("%s ended with %s", s.id, state)
	}
	if log, err := os.ReadFile(s.log); err != nil || strings.Contains(string(log), "calls were cut") {
		b.t.Errorf("%s cut calls (%v)", s.id, err)
	}
	s.path = path
	s.start()
	b.caughtUp(s)
}

// caughtUp waits until a node has applied what the cluster has committed by now.
func (b *bench) caughtUp(s *server) {
	b.t.Helper()
	var want uint64
	b.await("the state of the cluster", func(ctx context.Context) bool {
		st, err := b.client.Status(ctx)
		want = st.GetCommitIndex()
		return err == nil
	})
	b.await(s.id+" to catch up", func(ctx context.Context) bool {
		st, err := b.client.NodeStatus(ctx, s.grpc)
		return err == nil && st.GetLeader() != "" && st.GetAppliedIndex() >= want
	})
}

func TestRollingRestartIsNotNoticed(t *testing.T) {
	b := startTrio(t, build(t, ""))
	w := b.startTraffic()
	for range 2 {
		for _, s := range b.servers {
			b.restart(s, s.path)
			w.found(s)
			w.progress()
		}
	}
	w.audit()
}
