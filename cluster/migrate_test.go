package cluster

// A log moves from bbolt's file to a wal once, wholly, or not at all: whatever call
// the process dies in, and whatever of what was not synced is lost then, the next start
// finds one log in force, with every entry, the term and the vote (R10, R15). The way
// back is refused.

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// smallSegment ends a file of the wal after a few entries.
const smallSegment = 2 << 10

func inWAL(dir string) files  { return files{dir: dir, log: WAL, segment: smallSegment} }
func inBolt(dir string) files { return files{dir: dir, log: BoltDB} }

// mustOpen opens a directory until the test ends, or close is called.
func mustOpen(t *testing.T, f files) (_ *openFiles, closeIt func()) {
	t.Helper()
	if _, err := f.Inspect(); err != nil {
		t.Fatal(err)
	}
	s, err := f.Open(hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	closeIt = func() {
		if closed {
			return
		}
		closed = true
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(closeIt)
	return s.(*openFiles), closeIt
}

// written is an entry with everything that an entry can have.
func written(i uint64, size int) *raft.Log {
	return &raft.Log{
		Index: i, Term: i/5 + 1, Type: []raft.LogType{raft.LogCommand, raft.LogNoop, raft.LogConfiguration}[i%3],
		Data: []byte(strings.Repeat(fmt.Sprint(i), size)), Extensions: []byte(strings.Repeat("x", int(i%4))),
		AppendedAt: time.Unix(int64(i), 7).UTC(),
	}
}

// entries are so many.
func entries(from, to uint64, size int) []*raft.Log {
	var ls []*raft.Log
	for i := from; i <= to; i++ {
		ls = append(ls, written(i, size))
	}
	return ls
}

// must fails the test on an error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// boltLog makes a directory with a log in bbolt's file.
func boltLog(t *testing.T, from, to uint64) string {
	t.Helper()
	dir := filepath.Join(memoryDir(t), "n1")
	s, closeIt := mustOpen(t, inBolt(dir))
	must(t, s.StoreLogs(entries(from, to, 20)), s.SetUint64(keyCurrentTerm, 77), s.SetUint64(keyLastVoteTerm, 76),
		s.Set(keyLastVoteCand, []byte("n2:7000")))
	closeIt()
	return dir
}

// holdsLog fails where a log is not what boltLog made.
func holdsLog(t *testing.T, s logAndVote, from, to uint64) {
	t.Helper()
	first, err1 := s.FirstIndex()
	last, err2 := s.LastIndex()
	term, err3 := s.GetUint64(keyCurrentTerm)
	voted, err4 := s.GetUint64(keyLastVoteTerm)
	candidate, err5 := s.Get(keyLastVoteCand)
	must(t, err1, err2, err3, err4, err5)
	if first != from || last != to || term != 77 || voted != 76 || string(candidate) != "n2:7000" {
		t.Fatalf("entries %d to %d, term %d, vote in %d for %s", first, last, term, voted, candidate)
	}
	for i := from; i <= to; i++ {
		var got raft.Log
		must(t, s.GetLog(i, &got))
		want := written(i, 20)
		if got.Index != i || got.Term != want.Term || got.Type != want.Type || string(got.Data) != string(want.Data) ||
			string(got.Extensions) != string(want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
			t.Fatalf("entry %d is %+v, want %+v", i, got, want)
		}
	}
}

// names are what is in a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var ns []string
	for _, e := range list {
		ns = append(ns, e.Name())
	}
	return ns
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(memoryDir(t), "copy")
	must(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

func TestLogMovesToAWAL(t *testing.T) {
	dir := boltLog(t, 3, 100)
	s, closeIt := mustOpen(t, inWAL(dir))
	holdsLog(t, s, 3, 100)
	must(t, s.StoreLog(written(101, 20)))
	closeIt()
	if got, want := names(t, dir), []string{lockFile, "snapshots", walDir}; !slices.Equal(got, want) {
		t.Errorf("the directory holds %v, want %v", got, want)
	}
	s, closeIt = mustOpen(t, inWAL(dir))
	holdsLog(t, s, 3, 101)
	closeIt()
}

// The way back is refused in words, and changes nothing.
func TestNoWayBackFromAWAL(t *testing.T) {
	dir := boltLog(t, 1, 10)
	_, closeIt := mustOpen(t, inWAL(dir))
	closeIt()
	before := names(t, dir)
	_, inspected := inBolt(dir).Inspect()
	_, opened := inBolt(dir).Open(hclog.NewNullLogger())
	for _, err := range []error{inspected, opened} {
		if !errors.Is(err, ErrLogStore) || !strings.Contains(err.Error(), "no way back") || !strings.Contains(err.Error(), "choose log store wal") {
			t.Errorf("got %v, want ErrLogStore with what to do", err)
		}
	}
	if got := names(t, dir); !slices.Equal(got, before) {
		t.Errorf("the directory holds %v, and held %v", got, before)
	}
	s, closeIt := mustOpen(t, inWAL(dir))
	holdsLog(t, s, 1, 10)
	closeIt()
}

// A crash in each of the calls that a move is made of, and in those by which the next
// start goes on with it: all that complete a move which is decided, and the first where
// it begins anew.
func TestCrashWhileMoving(t *testing.T) {
	const anew = 3 // what is left is taken away, and a directory made
	made := boltLog(t, 3, 40)
	first, step := crashPoints()
	for _, l := range []loss{loseNothing, loseAll, loseSome} {
		for at := first; ; at += step {
			dir := copyDir(t, made)
			if d := newDoomed(t, at); !crashIn(t, d, dir, l, uint64(at)) {
				if d.calls < 20 {
					t.Fatalf("the move took %d calls: this has shown nothing", d.calls)
				}
				break
			}
			is := oneLogIsInForce(t, dir)
			for again := 1; is != holdsBolt || again <= anew; again++ {
				next := copyDir(t, dir)
				if !crashIn(t, newDoomed(t, again), next, l, uint64(again)) {
					break
				}
				oneLogIsInForce(t, next)
			}
		}
	}
}

// crashIn opens a directory as a wal on a doomed file system, and reports whether that
// crashed.
func crashIn(t *testing.T, d *doomed, dir string, l loss, seed uint64) bool {
	t.Helper()
	f := inWAL(dir)
	f.on = d.system()
	s, err := f.Open(hclog.NewNullLogger())
	if err == nil {
		err = s.Close()
	}
	if !d.crashed {
		must(t, err)
		return false
	}
	if err != nil && !errors.Is(err, errCrashed) && !strings.Contains(err.Error(), errCrashed.Error()) {
		t.Fatalf("call %d: %v", d.at, err)
	}
	d.loses(l, rand.New(rand.NewPCG(seed, 1)))
	return true
}

// oneLogIsInForce holds that bbolt's log opens as it was, or is refused for good, and
// that the move then comes to its end.
func oneLogIsInForce(t *testing.T, dir string) holding {
	t.Helper()
	back := copyDir(t, dir)
	is, err := inBolt(back).state()
	must(t, err)
	switch is {
	case holdsBolt:
		s, closeIt := mustOpen(t, inBolt(back))
		holdsLog(t, s, 3, 40)
		closeIt()
		if got := names(t, back); slices.Contains(got, walNew) {
			t.Errorf("half a wal stays behind: %v", got)
		}
	case holdsMoved, holdsWAL:
		if _, err := inBolt(back).Inspect(); !errors.Is(err, ErrLogStore) {
			t.Errorf("got %v, want ErrLogStore", err)
		}
	default:
		t.Fatal("no log is in force")
	}
	there := copyDir(t, dir)
	s, closeIt := mustOpen(t, inWAL(there))
	holdsLog(t, s, 3, 40)
	closeIt()
	if got, want := names(t, there), []string{lockFile, "snapshots", walDir}; !slices.Equal(got, want) {
		t.Errorf("the directory holds %v, want %v", got, want)
	}
	return is
}

// A disk that is full in the midst of it leaves bbolt's log as it was, and nothing
// else.
func TestMoveThatFailsChangesNothing(t *testing.T) {
	dir := boltLog(t, 3, 40)
	full := errors.New("no space left")
	f := inWAL(dir)
	on := *machine
	on.create = func(string, int64) error { return full }
	f.on = &on
	if _, err := f.Open(hclog.NewNullLogger()); !errors.Is(err, full) {
		t.Fatalf("got %v", err)
	}
	if got, want := names(t, dir), []string{lockFile, boltFile, "snapshots"}; !slices.Equal(got, want) {
		t.Errorf("the directory holds %v, want %v", got, want)
	}
	oneLogIsInForce(t, dir)
}

// snapshotAt makes a snapshot in a directory.
func snapshotAt(t *testing.T, dir string, index uint64) {
	t.Helper()
	s, err := raft.NewFileSnapshotStore(dir, keptSnapshots, io.Discard)
	must(t, err)
	_, transport := raft.NewInmemTransport("")
	sink, err := s.Create(1, index, 1, raft.Configuration{}, 1, transport)
	must(t, err)
	must(t, sink.Close())
}

// bbolt's log has a gap where a snapshot was installed; a wal holds none. What is
// before the gap goes, if the snapshot stands for it, and else the log is not moved.
func TestMoveOfALogWithAGap(t *testing.T) {
	dir := boltLog(t, 3, 10)
	s, closeIt := mustOpen(t, inBolt(dir))
	must(t, s.StoreLogs(entries(21, 30, 20)))
	closeIt()
	if _, err := inWAL(dir).Open(hclog.NewNullLogger()); !errors.Is(err, ErrCorruptDir) || !strings.Contains(err.Error(), "20") {
		t.Fatalf("without a snapshot: %v", err)
	}
	snapshotAt(t, dir, 19)
	if _, err := inWAL(dir).Open(hclog.NewNullLogger()); !errors.Is(err, ErrCorruptDir) {
		t.Fatalf("with one that ends too early: %v", err)
	}
	snapshotAt(t, dir, 20)
	s, closeIt = mustOpen(t, inWAL(dir))
	holdsLog(t, s, 21, 30)
	closeIt()
}

// A value whose type is not known is not moved by guessing.
func TestMoveRefusesValuesItDoesNotKnow(t *testing.T) {
	dir := boltLog(t, 1, 2)
	s, closeIt := mustOpen(t, inBolt(dir))
	must(t, s.Set([]byte("LastSnapshot"), []byte("x")))
	closeIt()
	if _, err := inWAL(dir).Open(hclog.NewNullLogger()); !errors.Is(err, ErrCorruptDir) || !strings.Contains(err.Error(), `"LastSnapshot"`) {
		t.Fatalf("got %v", err)
	}
	if is, err := inWAL(dir).state(); is != holdsBolt || err != nil {
		t.Errorf("state %v, %v", is, err)
	}
}

// Two logs in one directory are nobody's to choose from, and a copy that is gone is
// not an empty log.
func TestTwoLogsAreRefused(t *testing.T) {
	for name, meddle := range map[string]func(dir string) error{
		"an old one comes back": func(dir string) error {
			db, err := bbolt.Open(filepath.Join(dir, boltFile), 0o600, nil)
			return errors.Join(err, db.Close())
		},
		"the new one is gone": func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, walDir)), os.WriteFile(filepath.Join(dir, boltMoved), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := boltLog(t, 1, 2)
			_, closeIt := mustOpen(t, inWAL(dir))
			closeIt()
			must(t, meddle(dir))
			for _, f := range []files{inWAL(dir), inBolt(dir)} {
				if _, err := f.Inspect(); !errors.Is(err, ErrCorruptDir) {
					t.Errorf("inspect for %s: %v", f.log, err)
				}
				if _, err := f.Open(hclog.NewNullLogger()); !errors.Is(err, ErrCorruptDir) {
					t.Errorf("open for %s: %v", f.log, err)
				}
			}
		})
	}
}

// One process at a time, whichever its log store is, also while there is no log yet.
func TestOneProcessAtATime(t *testing.T) {
	for _, first := range []LogStore{BoltDB, WAL} {
		for _, second := range []LogStore{BoltDB, WAL} {
			dir := filepath.Join(t.TempDir(), "n1")
			_, closeIt := mustOpen(t, files{dir: dir, log: first, segment: smallSegment})
			f := files{dir: dir, log: second, segment: smallSegment}
			_, inspected := f.Inspect()
			_, opened := f.Open(hclog.NewNullLogger())
			if !errors.Is(inspected, ErrDirInUse) || !errors.Is(opened, ErrDirInUse) {
				t.Errorf("%s beside %s: inspect says %v, open %v", second, first, inspected, opened)
			}
			closeIt()
		}
	}
}
