package cluster_test

// The port: strangers, half-open connections and absurd frames cost a node nothing
// but a connection, a node of another id is not mistaken for the one that was meant,
// and closing leaves nothing running.

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

func TestStrangersAreRefused(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		stranger := c.Network.Host("stranger")
		for what, sent := range map[string][]byte{
			"nothing":            nil,
			"HTTP":               []byte("GET / HTTP/1.1\r\n\r\n"),
			"a frame too long":   binary.BigEndian.AppendUint32([]byte("H"), 1<<31),
			"a frame cut short":  binary.BigEndian.AppendUint32([]byte("H"), 100),
			"a frame of rubbish": append(binary.BigEndian.AppendUint32([]byte("H"), 3), "{]}"...),
			"rubbish to Raft":    []byte("R\xff\xff\xff\xff"),
		} {
			conn, err := stranger.Dial(within(t, time.Minute), clustertest.Address("n1"))
			if err != nil {
				t.Fatal(err)
			}
			conn.Write(sent)
			conn.SetDeadline(time.Now().Add(time.Minute))
			if answer, err := io.ReadAll(conn); len(answer) > 0 || err != nil {
				t.Errorf("%s: got %q and %v, want the connection closed", what, answer, err)
			}
			conn.Close()
		}
		c.Apply([]byte("a"))
	})
}

// A crowd of silent strangers is bounded, and goes away by itself.
func TestSilentStrangersAreBounded(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		c.Apply([]byte("a"))
		before := runtime.NumGoroutine()
		var crowd []net.Conn
		for range 2000 {
			conn, err := c.Network.Host("stranger").Dial(within(t, time.Minute), clustertest.Address("n1"))
			if err != nil {
				t.Fatal(err)
			}
			crowd = append(crowd, conn)
		}
		synctest.Wait()
		if got := runtime.NumGoroutine() - before; got > 600 {
			t.Errorf("2000 silent connections hold %d goroutines", got)
		}
		time.Sleep(10 * time.Second)
		c.Apply([]byte("b"))
		for _, conn := range crowd {
			conn.Close()
		}
	})
}

// The configured address of n2 belongs to n3: a mistake, named as such.
func TestAnotherNodeAtAPeersAddress(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.Prepare(t, clustertest.Options{LogStore: logStore, FSM: js.make, Configure: func(cfg *cluster.Config) {
			if cfg.ID == "n1" {
				cfg.Peers[1].RaftAddress, cfg.Peers[2].RaftAddress = cfg.Peers[2].RaftAddress, cfg.Peers[1].RaftAddress
			} else {
				cfg.Network = deaf{cfg.Network} // or they would be the first to notice
			}
		}})
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, id := range []string{"n2", "n3"} {
			wg.Go(func() { c.OpenContext(within(t, 10*time.Second), id) })
		}
		_, err := c.OpenContext(within(t, time.Minute), "n1")
		if err == nil || !strings.Contains(err.Error(), "is configured as node") {
			t.Errorf("got %v", err)
		}
	})
}

// A member that moves where the others do not look for it is told so.
func TestMemberAtAnotherAddress(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		c.Crash("n2")
		cfg := c.Config("n2")
		cfg.Peers, cfg.Bind = nil, "n2:7001"
		if _, err := cluster.Open(within(t, time.Minute), cfg); err == nil || !strings.Contains(err.Error(), "keep the address") {
			t.Errorf("got %v", err)
		}
	})
}

// Over TCP, in real time: after Close no goroutine of the node is left.
func TestCloseLeavesNothingRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		n, err := cluster.Open(within(t, time.Minute), alone(t, "n1", t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		changes, cancel := n.LeaderChanges()
		for _, ok := n.Leader(); !ok; _, ok = n.Leader() {
			<-changes
		}
		cancel()
		n.Lead(func(ctx context.Context, _ uint64) { <-ctx.Done() })
		if _, _, err := n.Apply([]byte("a")).Wait(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}
