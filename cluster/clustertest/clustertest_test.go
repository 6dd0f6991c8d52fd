package clustertest_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster/clustertest"
)

type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) Apply(l *raft.Log) any {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, string(l.Data))
	return len(j.entries)
}
func (j *journal) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
func (j *journal) Restore(io.ReadCloser) error         { return nil }

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, clustertest.Options{FSM: func(string) raft.FSM { return &journal{} }, Dir: dir})
		c.Apply([]byte("a"))
		l := c.Leader().Status().ID
		c.Crash(l)
		c.WaitLeaderExcept(l)
		c.Apply([]byte("b"))
		if err := c.Leader().Barrier(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}
