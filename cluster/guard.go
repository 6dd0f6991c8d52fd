package cluster

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// stores is what Raft writes to: its log, its term and its vote.
type stores interface {
	raft.LogStore
	raft.StableStore
}

// guard stands between Raft and its disk, and ends the process when a write fails
// or hangs.
//
// Raft itself would go on. A failed fsync may have lost pages that a second one
// reports as written, so it must not be tried again. A leader whose disk hangs
// goes on sending heartbeats, which touch no disk, and keeps the others from
// electing one that works (upstream #503).
type guard struct {
	stores
	limit time.Duration // of one write
	fail  func(error)   // ends the process; where it returns, the node is cut off
	look  func()        // at the room on the disk, before each write; nil for none
	// used is told after a write that makes the disk a member's, and before Raft
	// can tell anybody of it; it costs nothing once it has noted that.
	used func() error
	// appended is told how long each append took.
	appended func(time.Duration)
	failed   atomic.Bool
}

func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g *guard) StoreLogs(ls []*raft.Log) error {
	return g.write("append to the log", func() error {
		began := time.Now()
		err := g.stores.StoreLogs(ls)
		g.appended(time.Since(began))
		return err
	}, g.used)
}

func (g *guard) DeleteRange(from, to uint64) error {
	return g.write("cut the log", func() error { return g.stores.DeleteRange(from, to) })
}

func (g *guard) Set(key, value []byte) error {
	return g.write("store the vote", func() error { return g.stores.Set(key, value) }, g.used)
}

func (g *guard) SetUint64(key []byte, value uint64) error {
	store := func() error { return g.stores.SetUint64(key, value) }
	if value == 0 { // NewRaft stores term 0 on an empty disk
		return g.write("store the term", store)
	}
	return g.write("store the term", store, g.used)
}

// write takes its steps, one after the other, under the watchdog. It returns only
// when all of them have succeeded.
func (g *guard) write(what string, steps ...func() error) error {
	watchdog := time.AfterFunc(g.limit, func() {
		g.failed.Store(true)
		g.fail(fmt.Errorf("the disk hangs: %s takes longer than %s", what, g.limit))
	})
	defer watchdog.Stop()
	if g.look != nil {
		g.look()
	}
	for _, step := range steps {
		if g.failed.Load() {
			break
		}
		if err := step(); err != nil {
			g.failed.Store(true)
			g.fail(fmt.Errorf("the disk fails: %s: %w", what, err))
		}
	}
	if g.failed.Load() {
		// Reached only where the process was not ended. No caller in Raft may go
		// on as if the disk had answered, so its goroutine ends here.
		runtime.Goexit()
	}
	return nil
}
