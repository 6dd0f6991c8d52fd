package cluster_test

// What the stories of this package share: a state machine that remembers what it
// applied, and virtual time.

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// journal is a state machine that remembers every command, in order. Its answer to
// a command is how many it has.
type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) Apply(l *raft.Log) any { return j.ApplyBatch([]*raft.Log{l})[0] }

func (j *journal) ApplyBatch(ls []*raft.Log) []any {
	j.mu.Lock()
	defer j.mu.Unlock()
	answers := make([]any, len(ls))
	for i, l := range ls {
		if l.Type == raft.LogCommand {
			j.entries = append(j.entries, string(l.Data))
			answers[i] = len(j.entries)
		}
	}
	return answers
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.entries)
}

func (j *journal) has(entry string) bool { return slices.Contains(j.all(), entry) }

func (j *journal) Snapshot() (raft.FSMSnapshot, error) { return frozen(j.all()), nil }

func (j *journal) Restore(r io.ReadCloser) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = nil
	return json.NewDecoder(r).Decode(&j.entries)
}

type frozen []string

func (f frozen) Persist(sink raft.SnapshotSink) error {
	raw, err := json.Marshal([]string(f))
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, bytes.NewReader(raw)); err != nil {
		return err
	}
	return sink.Close()
}

func (frozen) Release() {}

// journals are the state machines of a cluster, by node.
type journals struct {
	mu sync.Mutex
	by map[string]*journal
}

func (js *journals) make(id string) raft.FSM {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.by == nil {
		js.by = make(map[string]*journal)
	}
	js.by[id] = &journal{}
	return js.by[id]
}

func (js *journals) of(id string) *journal {
	js.mu.Lock()
	defer js.mu.Unlock()
	return js.by[id]
}

// logStore is what the nodes of a story keep their log in; see onBothLogStores. No two
// stories run at a time.
var logStore = cluster.BoltDB

// onBothLogStores runs a story with each of them: under the race detector, where that
// takes minutes, with one a day; make whole does both.
func onBothLogStores(t *testing.T, story func(t *testing.T)) {
	t.Helper()
	stores := []cluster.LogStore{cluster.BoltDB, cluster.WAL}
	if cluster.RaceDetector {
		day := int(time.Now().Unix()/86400) + len(t.Name()) // some stories have the one, some the other
		stores = stores[day%2:][:1]
	}
	defer func(before cluster.LogStore) { logStore = before }(logStore)
	for _, logStore = range stores {
		t.Run(string(logStore), story)
	}
}

// inVirtualTime runs a story, on both log stores, where time passes only while
// everybody waits, so that nothing in it depends on how fast the machine is.
func inVirtualTime(t *testing.T, story func(t *testing.T)) {
	t.Helper()
	onBothLogStores(t, func(t *testing.T) { synctest.Test(t, story) })
}

// logOf is where a node's log is, in its directory.
func logOf(dir string) string {
	if logStore == cluster.WAL {
		return filepath.Join(dir, "wal")
	}
	return filepath.Join(dir, "raft.db")
}

// within is a context for something that takes at most d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// follower is a first member that does not lead.
func follower(c *clustertest.Cluster) string {
	leader := c.WaitLeader().Status().ID
	i := slices.IndexFunc(c.IDs(), func(id string) bool { return id != leader })
	return c.IDs()[i]
}

// others are the first members without id.
func others(c *clustertest.Cluster, id string) []string {
	return slices.DeleteFunc(c.IDs(), func(other string) bool { return other == id })
}

// voters are the ids of the voters that a node knows of.
func voters(n *cluster.Node) []string {
	var ids []string
	for _, m := range n.Status().Members {
		if m.Voter {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// eventually waits, a virtual moment at a time, for something that has no event.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
