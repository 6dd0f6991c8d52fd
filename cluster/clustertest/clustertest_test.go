package clustertest

// The tests' own world is held to what it claims: its connections behave as
// net.Conn asks, a cut link keeps bytes until it heals and only in its direction, a
// process that is killed is gone for its peers, and a cluster runs on all that in
// virtual time.

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/net/nettest"
)

func TestConnBehavesAsNetConn(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		near, far := connect(NewNetwork(), "a", "b")
		return near, far, func() { near.Close(); far.Close() }, nil
	})
}

// pair is a connection from host a to host b, which has accepted it.
func pair(t *testing.T, n *Network) (near, far net.Conn, a, b *Host) {
	t.Helper()
	a, b = n.Host("a"), n.Host("b")
	l, err := b.Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	accepted := make(chan net.Conn)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	if near, err = a.Dial(context.Background(), "b:1"); err != nil {
		t.Fatal(err)
	}
	return near, <-accepted, a, b
}

func TestCutLinkKeepsBytesUntilItHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		near, far, _, _ := pair(t, n)
		n.Cut("a", "b")
		if _, err := near.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		far.SetReadDeadline(time.Now().Add(time.Hour))
		if got, err := far.Read(make([]byte, 4)); err == nil {
			t.Fatalf("%d bytes passed a cut link", got)
		}
		far.SetReadDeadline(time.Time{})

		// The other direction works.
		far.Write([]byte("back"))
		b := make([]byte, 4)
		if _, err := io.ReadFull(near, b); err != nil || string(b) != "back" {
			t.Fatalf("got %q and %v", b, err)
		}
		n.Heal()
		if _, err := io.ReadFull(far, b); err != nil || string(b) != "late" {
			t.Errorf("after the link healed: got %q and %v", b, err)
		}
	})
}

func TestDialOverACutLinkWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		_, _, a, _ := pair(t, n)
		n.Cut("b", "a") // the answer would not arrive
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		began := time.Now()
		if _, err := a.Dial(ctx, "b:1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) < time.Minute {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		if _, err := a.Dial(context.Background(), "c:1"); err == nil {
			t.Error("nobody listens there")
		}
	})
}

// What is written arrives late, in order, and however the later of two writes was
// drawn; a reader that waits for it can still give up or be closed.
func TestSlowLinkKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		delays := make(chan time.Duration, 4)
		n.Delay(func(string, string) time.Duration { return <-delays })
		near, far, _, _ := pair(t, n)
		began := time.Now()
		delays <- 30 * time.Millisecond
		delays <- 10 * time.Millisecond
		near.Write([]byte("first, "))
		near.Write([]byte("second"))
		b := make([]byte, 13)
		far.SetReadDeadline(began.Add(20 * time.Millisecond))
		if got, err := far.Read(b); err == nil {
			t.Errorf("%d bytes were there too early", got)
		}
		far.SetReadDeadline(time.Time{})
		if _, err := io.ReadFull(far, b); err != nil || string(b) != "first, second" {
			t.Errorf("got %q and %v", b, err)
		}
		if took := time.Since(began); took != 30*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		delays <- time.Hour
		near.Write([]byte("x"))
		time.AfterFunc(time.Second, func() { far.Close() })
		if _, err := far.Read(b); err == nil || time.Since(began) > time.Minute {
			t.Errorf("closed while it read: %v after %s", err, time.Since(began))
		}
	})
}

// A reset loses what is on its way, and both ends notice; other connections do not.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far, a, _ := pair(t, NewNetwork())
		near.Write([]byte("lost"))
		a.Reset("c")
		if _, err := far.Read(make([]byte, 1)); err != nil {
			t.Errorf("another link's reset: %v", err)
		}
		a.Reset("b")
		for name, c := range map[string]net.Conn{"near": near, "far": far} {
			if _, err := c.Read(make([]byte, 4)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %s: %v", name, err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("write %s: %v", name, err)
			}
		}
	})
}

func TestKilledProcessIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _, a, b := pair(t, NewNetwork())
		b.Kill()
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		if _, err := near.Write([]byte("x")); err == nil {
			t.Error("a write to a dead process succeeded")
		}
		if _, err := a.Dial(context.Background(), "b:1"); err == nil {
			t.Error("a dead process accepts")
		}
		if _, err := b.Dial(context.Background(), "a:1"); err == nil {
			t.Error("a dead process dials")
		}
		if _, err := b.network.Host("b").Listen("b:1"); err != nil {
			t.Errorf("its successor can not listen: %v", err)
		}
	})
}

// counter is a state machine that counts commands.
type counter struct {
	mu    sync.Mutex
	count int
}

func (c *counter) Apply(*raft.Log) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	return c.count
}
func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots") }
func (c *counter) Restore(io.ReadCloser) error         { return nil }

// Fifty leaders die in less than a minute of real time: virtual time runs at the
// speed of the disk, and there is none where disks are in memory.
func TestFailoversInVirtualTime(t *testing.T) {
	for name, memory := range map[string]bool{"files": false, "memory": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(t, Options{FSM: func(string) raft.FSM { return &counter{} }, Memory: memory})
				for range 50 {
					c.Apply([]byte("a"))
					leader := c.WaitLeader().Status().ID
					c.Crash(leader)
					c.WaitLeaderExcept(leader)
					c.Start(leader)
				}
				if _, answer := c.Apply([]byte("a")); answer.(int) < 51 {
					t.Errorf("%v commands applied, of 51 that were answered", answer)
				}
			})
		})
	}
}
