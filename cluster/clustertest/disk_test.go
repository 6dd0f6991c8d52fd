package clustertest

// What is proven: a disk in memory answers as bbolt and Raft's snapshots in files
// do, whatever is done to it; it keeps over a crash what it has acknowledged, and
// leaves to chance only what was under way; a process that lost it writes nothing
// more; and a node on it behaves as on files: it exits where the disk fails or
// hangs, and comes back to what it held.

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"pgregory.net/rapid"

	"github.com/decree-tx/decree/cluster"
)

func opened(t interface{ Fatal(...any) }, d *Disk) cluster.Store {
	s, err := d.Open(hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stores is what both can do.
type stores interface {
	raft.LogStore
	raft.StableStore
}

// same reports whether both say the same, errors that Raft tells apart included.
func same(t *rapid.T, what string, a, b any, errA, errB error) {
	t.Helper()
	if !reflect.DeepEqual(a, b) || (errA == nil) != (errB == nil) || errA != nil && errA.Error() != errB.Error() {
		t.Fatalf("%s: %v, %v here, and %v, %v in bbolt", what, a, errA, b, errB)
	}
}

func TestDiskAnswersAsBboltDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(tempDir(t), "raft.db")
		bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer bolt.Close()
		var mem, file stores = opened(t, NewDisk("d", 1)), bolt
		index := rapid.Uint64Range(1, 12)
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				var ls []*raft.Log
				first := index.Draw(t, "first")
				for i := range rapid.Uint64Range(1, 4).Draw(t, "entries") {
					ls = append(ls, &raft.Log{Index: first + i, Term: index.Draw(t, "term"), Data: []byte{byte(i)}})
				}
				same(t, "StoreLogs", nil, nil, mem.StoreLogs(ls), file.StoreLogs(ls))
				ls[0].Data[0] = 0xff // the caller's, and no longer the disk's
			case 1:
				from := index.Draw(t, "from")
				to := from + index.Draw(t, "more") - 1
				same(t, "DeleteRange", nil, nil, mem.DeleteRange(from, to), file.DeleteRange(from, to))
			case 2:
				v := index.Draw(t, "value")
				same(t, "SetUint64", nil, nil, mem.SetUint64([]byte("n"), v), file.SetUint64([]byte("n"), v))
			case 3:
				v := []byte(rapid.StringN(1, 3, 9).Draw(t, "value"))
				same(t, "Set", nil, nil, mem.Set([]byte("k"), v), file.Set([]byte("k"), v))
			case 4:
				i := index.Draw(t, "index")
				var a, b raft.Log
				errA, errB := mem.GetLog(i, &a), file.GetLog(i, &b)
				same(t, "GetLog", [3]any{a.Index, a.Term, string(a.Data)}, [3]any{b.Index, b.Term, string(b.Data)}, errA, errB)
			}
			first, errA := mem.FirstIndex()
			firstB, errB := file.FirstIndex()
			same(t, "FirstIndex", first, firstB, errA, errB)
			last, errA := mem.LastIndex()
			lastB, errB := file.LastIndex()
			same(t, "LastIndex", last, lastB, errA, errB)
			v, errA := mem.Get([]byte("k"))
			vB, errB := file.Get([]byte("k"))
			same(t, "Get", string(v), string(vB), errA, errB)
			n, errA := mem.GetUint64([]byte("n"))
			nB, errB := file.GetUint64([]byte("n"))
			same(t, "GetUint64", n, nB, errA, errB)
		}
	})
}

// tempDir is a directory for one try of a property.
func tempDir(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// The newest two snapshots are kept, in their order, and read back whole; one that
// was cancelled, or whose process died before it closed it, was never there.
func TestDiskKeepsSnapshots(t *testing.T) {
	d := NewDisk("d", 1)
	s := opened(t, d).Snapshots()
	write := func(index uint64) raft.SnapshotSink {
		sink, err := s.Create(1, index, 3, raft.Configuration{Servers: []raft.Server{{ID: "n1"}}}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(sink, "state at ")
		sink.Write([]byte{byte('0' + index)})
		return sink
	}
	for _, index := range []uint64{1, 3, 2} {
		if err := write(index).Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(4).Cancel()
	late := write(5)
	d.Kill()
	if err := late.Close(); err == nil {
		t.Error("a dead process completed a snapshot")
	}
	s = opened(t, d).Snapshots()
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Index != 3 || list[1].Index != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	meta, r, err := s.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if state, _ := io.ReadAll(r); string(state) != "state at 3" || meta.Size != 10 || meta.Configuration.Servers[0].ID != "n1" {
		t.Errorf("%q, %+v", state, meta)
	}
	if _, _, err := s.Open("another"); err == nil {
		t.Error("it opened a snapshot that is not there")
	}
}

// A crash keeps every write that was acknowledged, and of the one under way either
// all or nothing; over many disks, both.
func TestDiskOverACrash(t *testing.T) {
	kept := 0
	const tries = 64
	for seed := range uint64(tries) {
		synctest.Test(t, func(t *testing.T) {
			d := NewDisk("d", seed)
			d.Slow(time.Millisecond, 2*time.Millisecond)
			s := opened(t, d)
			if err := errors.Join(s.PutIdentity([]byte("me")), s.SetUint64([]byte("term"), 7), s.StoreLog(&raft.Log{Index: 1})); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Open(nil); !errors.Is(err, cluster.ErrDirInUse) {
				t.Errorf("a second process: %v", err)
			}
			failed := make(chan error)
			go func() { failed <- s.StoreLogs([]*raft.Log{{Index: 2}, {Index: 3}}) }()
			time.Sleep(time.Millisecond / 2)
			d.Kill()
			again := opened(t, d)
			before, _ := again.LastIndex()
			if err := <-failed; err == nil {
				t.Error("a dead process was told of a write")
			}
			if err := s.SetUint64([]byte("term"), 8); err == nil {
				t.Error("a dead process wrote")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			term, err := again.GetUint64([]byte("term"))
			last, _ := again.LastIndex()
			if err != nil || term != 7 || last != before || last != 1 && last != 3 {
				t.Errorf("term %d, %v; entries to %d, then %d", term, err, before, last)
			}
			if last == 3 {
				kept++
			}
			again.Close()
			if r, err := d.Inspect(); err != nil || !r.Used || !bytes.Equal(r.Identity, []byte("me")) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	if kept < tries/4 || kept > tries*3/4 {
		t.Errorf("of %d writes under way %d were kept", tries, kept)
	}
}

// R10: a node whose disk fails, or hangs, exits; the others go on; and it comes
// back on the disk that it had.
func TestNodeOnADiskThatFailsOrHangs(t *testing.T) {
	for name, harm := range map[string]func(*Disk){"fails": (*Disk).Break, "hangs": (*Disk).Hang} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(t, Options{FSM: func(string) raft.FSM { return &counter{} }, Memory: true, Seed: 1})
				c.Apply([]byte("a"))
				node := c.WaitLeader()
				leader := node.Status().ID
				harm(c.Disk(leader))
				node.Apply([]byte("b")) // nobody waits: a hung node answers nothing
				err := c.WaitExit(leader)
				if want := "the disk " + name; !strings.Contains(err.Error(), want) || name == "fails" && !errors.Is(err, syscall.EIO) {
					t.Errorf("exit: %v, want %s", err, want)
				}
				c.Crash(leader)
				c.Apply([]byte("b"))
				c.Disk(leader).Repair()
				c.Start(leader)
				c.Crash(c.WaitLeaderExcept(leader).Status().ID) // now its disk counts
				if _, answer := c.Apply([]byte("c")); answer.(int) < 3 {
					t.Errorf("%v commands applied, of 3", answer)
				}
			})
		})
	}
}

// R15: a disk in memory that was wiped is no way round the rule.
func TestWipedDiskInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(t, Options{FSM: func(string) raft.FSM { return &counter{} }, Memory: true})
		c.Apply([]byte("a"))
		c.Crash("n2")
		c.Wipe("n2")
		if _, err := c.Open("n2"); !errors.Is(err, cluster.ErrEmptyDisk) {
			t.Errorf("got %v, want ErrEmptyDisk", err)
		}
	})
}
