package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// What is proven here: signals as the process meets them. One stops it in an
// orderly way, with exit code 0; a second one that somebody meant is told from an
// echo of the first.

func TestSignalsStopANode(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			node := newLone(t)
			p := &process{t: t, name: "n1", path: build(t, "failpoints"), args: node.args(), log: filepath.Join(t.TempDir(), "n1.log")}
			p.start()
			defer p.kill()
			awaitLone(t, node, p)
			p.signal(sig)
			select {
			case <-p.done:
			case <-time.After(patience):
				t.Fatal("it does not stop")
			}
			if code := p.cmd.ProcessState.ExitCode(); code != exitOK {
				content, _ := os.ReadFile(p.log)
				t.Errorf("exit %d\n%s", code, content)
			}
			free(t, node.raft, node.grpc, node.http)
		})
	}
}

// awaitLone polls until the node leads.
func awaitLone(t *testing.T, node lone, p *process) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) && p.alive() {
		if run(t, nil, "", "cluster", "status", "-q", "--patience", "1s", "--endpoints", node.grpc).stdout == "n1\n" {
			return
		}
	}
	content, _ := os.ReadFile(p.log)
	t.Fatalf("it does not lead\n%s", content)
}

// TestSecondSignal holds the line between an echo and a person.
func TestSecondSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		start := time.Now()
		returned := make(chan time.Duration, 1)
		go func() {
			awaitSecond(signals)
			returned <- time.Since(start)
		}()
		for _, at := range []time.Duration{sameSignal / 10, sameSignal, 2 * time.Second} {
			timer := time.NewTimer(at - time.Since(start))
			<-timer.C
			signals <- syscall.SIGINT
		}
		if after := <-returned; after != 2*time.Second {
			t.Errorf("it was in a hurry after %s, want 2s: the others are echoes", after)
		}
	})
}
