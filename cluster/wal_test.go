package cluster

// A wal answers as bbolt's store does, whatever is done to it, and keeps over a crash
// what it has acknowledged, whichever call the crash is in and whatever of what was not
// synced is lost (R10); a damaged or missing file is told, and not taken for the end
// of the log (R15). Where the library is worked around, a control shows what it does
// by itself: once one fails the workaround can go.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"pgregory.net/rapid"
)

// contentsOf are a store's entries, term and vote, as text.
func contentsOf(s logAndVote) (string, error) {
	first, err1 := s.FirstIndex()
	last, err2 := s.LastIndex()
	var b strings.Builder
	for i := first; i <= last && i > 0; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			return "", fmt.Errorf("entry %d of %d to %d: %w", i, first, last, err)
		}
		fmt.Fprintf(&b, "%d:%d:%d:%.9s/%d ", l.Index, l.Term, l.Type, l.Data, len(l.Data))
	}
	for _, beyond := range []uint64{first - 1, last + 1} {
		if err := s.GetLog(beyond, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
			return "", fmt.Errorf("entry %d, beyond %d to %d: %w", beyond, first, last, err)
		}
	}
	term, err3 := s.GetUint64(keyCurrentTerm)
	vote, err4 := s.Get(keyLastVoteCand)
	for _, err := range []error{err3, err4} {
		if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return "", err
		}
	}
	fmt.Fprintf(&b, "term %d vote %s", term, vote)
	return b.String(), errors.Join(err1, err2)
}

// step is one thing that Raft does to its stores.
type step struct {
	what string
	do   func(logAndVote) error
}

// nextStep draws a step that Raft could take after what a store holds.
func nextStep(draw func(what string, from, to uint64) uint64, s logAndVote) (step, error) {
	first, err1 := s.FirstIndex()
	last, err2 := s.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return step{}, err
	}
	appended := func(from uint64) step {
		// Now and then an entry is as large as half a file, or larger than one.
		size := int([]uint64{0, 1, 3, 20, 20, 20, 500, 1500}[draw("size", 0, 7)])
		ls := entries(from, from+draw("more", 0, 5), size)
		return step{fmt.Sprintf("append %d to %d", ls[0].Index, ls[len(ls)-1].Index), func(s logAndVote) error { return s.StoreLogs(ls) }}
	}
	switch draw("step", 0, 9) {
	case 0:
		term := draw("term", 0, 9)
		return step{"term", func(s logAndVote) error { return s.SetUint64(keyCurrentTerm, term) }}, nil
	case 1:
		vote := fmt.Sprint("n", draw("vote", 1, 9))
		return step{"vote", func(s logAndVote) error { return s.Set(keyLastVoteCand, []byte(vote)) }}, nil
	case 2: // compaction
		to := draw("to", first, last)
		return step{fmt.Sprintf("delete up to %d", to), func(s logAndVote) error { return s.DeleteRange(first, to) }}, nil
	case 3: // a conflict
		from := draw("from", first, last)
		return step{fmt.Sprintf("delete from %d", from), func(s logAndVote) error { return s.DeleteRange(from, last) }}, nil
	case 4: // after a snapshot was installed
		if last == 0 {
			return appended(draw("first", 1, 50)), nil
		}
		gap := appended(last + 1 + draw("gap", 1, 20))
		return step{gap.what + " after a gap", func(s logAndVote) error {
			if _, here := s.(*raftboltdb.BoltStore); here { // which would keep both sides of it
				if err := s.DeleteRange(first, last); err != nil {
					return err
				}
			}
			return gap.do(s)
		}}, nil
	default:
		return appended(last + 1), nil
	}
}

func drawing(t *rapid.T) func(string, uint64, uint64) uint64 {
	return func(what string, from, to uint64) uint64 { return rapid.Uint64Range(from, max(from, to)).Draw(t, what) }
}

func TestWALAnswersAsBboltDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(memoryRoot(), "wal")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "bbolt"), NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer bolt.Close()
		f := inWAL(filepath.Join(dir, "n1"))
		f.on = newQuick()
		s, err := f.Open(hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if rapid.IntRange(0, 7).Draw(t, "reopen") == 0 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if _, err := f.Inspect(); err != nil {
					t.Fatalf("after a close: %v", err)
				}
				if s, err = f.Open(hclog.NewNullLogger()); err != nil {
					t.Fatal(err)
				}
			}
			next, err := nextStep(drawing(t), bolt)
			if err != nil {
				t.Fatal(err)
			}
			s.(*openFiles).logAndVote.(*walStore).snapshots = nil // whatever gap there is, a snapshot covers it
			if errA, errB := next.do(s), next.do(bolt); errA != nil || errB != nil {
				t.Fatalf("%s: %v in the wal, %v in bbolt", next.what, errA, errB)
			}
			got, errA := contentsOf(s.(*openFiles))
			want, errB := contentsOf(bolt)
			if got != want || errA != nil || errB != nil {
				t.Fatalf("%s:\n got %s (%v)\nwant %s (%v)", next.what, got, errA, want, errB)
			}
		}
	})
}

// newQuick is the machine's file system with small files.
func newQuick() *fileSystem {
	on := *machine
	on.create = func(path string, size int64) error { return createSegment(path, size/256) }
	return &on
}

// A crash in each call of a life that appends, fills files, compacts, resolves
// conflicts, installs snapshots and votes.
func TestWALKeepsWhatItAcknowledged(t *testing.T) {
	const steps = 60
	crashes := 0
	first, step := crashPoints()
	for _, l := range []loss{loseNothing, loseAll, loseSome} {
		for at := first; ; at += step {
			d := newDoomed(t, at)
			dir := filepath.Join(memoryDir(t), "n1")
			before, after := live(t, d, dir, steps)
			if !d.crashed {
				break
			}
			crashes++
			d.loses(l, rand.New(rand.NewPCG(uint64(at), uint64(l))))
			if _, err := inWAL(dir).Inspect(); err != nil {
				t.Fatalf("crash in call %d (loss %d): %v", at, l, err)
			}
			s, closeIt := mustOpen(t, inWAL(dir))
			got, err := contentsOf(s)
			must(t, err)
			if !slices.Contains(append(after, before), got) {
				t.Fatalf("crash in call %d (loss %d):\n   got %s\nbefore %s\n after %s", at, l, got, before, after)
			}
			last, err := s.LastIndex()
			must(t, err, s.StoreLogs(entries(last+1, last+40, 20))) // beyond a file's end
			closeIt()
		}
	}
	if crashes < 3*steps/step {
		t.Errorf("%d crashes: this has shown nothing", crashes)
	}
}

// live takes steps until the crash, and returns what the log was before the step that
// met it, and what it may be after it. The steps are the same each time.
func live(t *testing.T, d *doomed, dir string, steps int) (before string, after []string) {
	t.Helper()
	chance := rand.New(rand.NewPCG(1, 2))
	draw := func(_ string, from, to uint64) uint64 { return from + chance.Uint64N(max(to, from)-from+1) }
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(memoryDir(t), "bbolt"), NoSync: true})
	must(t, err)
	defer bolt.Close()
	before, err = contentsOf(bolt)
	must(t, err)
	f := inWAL(dir)
	f.on = d.system()
	s, err := f.Open(hclog.NewNullLogger())
	if d.crashed {
		if err == nil {
			must(t, s.Close())
		}
		return before, nil
	}
	must(t, err)
	w := s.(*openFiles).logAndVote.(*walStore)
	w.snapshots = nil
	defer s.Close()
	for range steps {
		next, err := nextStep(draw, bolt)
		must(t, err)
		lost := next.do(s)
		must(t, next.do(bolt))
		done, err := contentsOf(bolt)
		must(t, err)
		if lost != nil {
			if !d.crashed {
				t.Fatalf("%s: %v", next.what, lost)
			}
			// Before a gap everything goes first.
			term := before[strings.LastIndex(before, "term"):]
			return before, []string{done, term}
		}
		before = done
	}
	return before, nil
}

// stubborn is a list of files that takes no change.
type stubborn struct {
	metadb.BoltMetaDB
	closed bool
}

func (m *stubborn) CommitState(s types.PersistentState) error {
	if m.closed {
		return errCrashed
	}
	return m.BoltMetaDB.CommitState(s)
}

// filled makes a wal whose process died when a file was full, before the next one was
// listed, or inside the append that filled it.
func filled(t *testing.T, inside bool) (dir string, last uint64) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "n1")
	must(t, os.MkdirAll(filepath.Join(dir, walDir), 0o700))
	m := &stubborn{}
	w, err := wal.Open(filepath.Join(dir, walDir), wal.WithMetaStore(m), wal.WithSegmentSize(smallSegment), wal.WithLogger(hclog.NewNullLogger()))
	must(t, err)
	m.closed = true
	for err == nil {
		last++
		err = w.StoreLog(written(last, 20))
	}
	last--
	must(t, w.Close())
	if !inside {
		return dir, last
	}
	// The last batch loses its commit.
	path := filepath.Join(dir, walDir, "00000000000000000001-0000000000000000.wal")
	raw, err := os.ReadFile(path)
	must(t, err)
	end := len(raw)
	for raw[end-1] == 0 {
		end--
	}
	must(t, overwrite0(path, int64(end-8), int64(end)))
	return dir, last - 1
}

// overwrite0 writes zeros into a part of a file.
func overwrite0(path string, from, to int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, to-from), from)
	return errors.Join(err, f.Close())
}

// The library takes no append any more after a crash when a file was full, or inside
// the append that fills it: R10, for a node in that state never comes back.
func TestAppendsGoOnBehindAFullFile(t *testing.T) {
	for name, inside := range map[string]bool{"after the append": false, "inside the append": true} {
		t.Run(name, func(t *testing.T) {
			dir, last := filled(t, inside)
			s, closeIt := mustOpen(t, inWAL(dir))
			if got, err := s.LastIndex(); got != last || err != nil {
				t.Fatalf("the log ends at %d, not %d (%v)", got, last, err)
			}
			must(t, s.StoreLogs(entries(last+1, last+50, 20)))
			closeIt()
			s, closeIt = mustOpen(t, inWAL(dir))
			must(t, sameEntriesAs(s, 1, last+50))
			closeIt()
		})
		t.Run(name+", control", func(t *testing.T) {
			dir, _ := filled(t, inside)
			w, err := wal.Open(filepath.Join(dir, walDir), wal.WithSegmentSize(smallSegment), wal.WithLogger(hclog.NewNullLogger()))
			must(t, err)
			defer w.Close()
			last, err := w.LastIndex()
			must(t, err)
			if err := w.StoreLog(written(last+1, 20)); !errors.Is(err, wal.ErrSealed) {
				t.Errorf("the library appends (%v): it shows no defect any more", err)
			}
		})
	}
}

func sameEntriesAs(s raft.LogStore, from, to uint64) error {
	for i := from; i <= to; i++ {
		var got raft.Log
		if err := s.GetLog(i, &got); err != nil {
			return err
		}
		if string(got.Data) != string(written(i, 20).Data) {
			return fmt.Errorf("entry %d is %.20q", i, got.Data)
		}
	}
	return nil
}

// A snapshot that arrives a second time, late, must not cost what was acknowledged
// after the first: Raft deletes the whole log of a store that calls itself monotonic.
func TestRaftIsNotToldThatAWALIsMonotonic(t *testing.T) {
	s, _ := mustOpen(t, inWAL(filepath.Join(t.TempDir(), "n1")))
	g := &guard{stores: s, limit: DefaultStoreTimeout, appended: func(time.Duration) {}}
	for _, l := range []any{s.logAndVote, s, g, &logCache{LogStore: g}} {
		if m, ok := l.(raft.MonotonicLogStore); ok && m.IsMonotonic() {
			t.Errorf("%T is monotonic", l)
		}
	}
}

// An entry that does not follow on the log is taken where a snapshot stands for what
// is between, as after a crash between a snapshot's installation and the deletion of
// what it replaces; and refused where none does.
func TestGapNeedsASnapshot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "n1")
	s, closeIt := mustOpen(t, inWAL(dir))
	must(t, s.StoreLogs(entries(1, 10, 20)))
	if err := s.StoreLogs(entries(21, 30, 20)); err == nil {
		t.Fatal("a gap that nothing covers was taken")
	}
	must(t, sameEntriesAs(s, 1, 10))
	snapshotAt(t, dir, 20)
	must(t, s.StoreLogs(entries(21, 30, 20)), sameEntriesAs(s, 21, 30))
	if first, err := s.FirstIndex(); first != 21 || err != nil {
		t.Errorf("the log begins at %d, %v", first, err)
	}
	closeIt()
}

// What is damaged or gone is told by name; what a crash can have left is not.
func TestDamageOfAWAL(t *testing.T) {
	file := func(dir string, n int) string {
		all, _ := filepath.Glob(filepath.Join(dir, walDir, "*.wal"))
		return all[n]
	}
	last := func(dir string) string {
		all, _ := filepath.Glob(filepath.Join(dir, walDir, "*.wal"))
		return all[len(all)-1]
	}
	flip := func(path string, at int64) error {
		raw, err := os.ReadFile(path)
		raw[at] ^= 0x40
		return errors.Join(err, os.WriteFile(path, raw, 0o600))
	}
	for name, meddle := range map[string]func(dir string) error{
		"a bit in the first file":   func(dir string) error { return flip(file(dir, 0), 300) },
		"a bit in the last file":    func(dir string) error { return flip(last(dir), 60) },
		"a bit in a frame's length": func(dir string) error { return flip(last(dir), 32+4) },
		"a bit in a frame's kind":   func(dir string) error { return flip(last(dir), 32) },
		"zeros in the last file":    func(dir string) error { return overwrite0(last(dir), 40, 100) },
		"the last file is gone":     func(dir string) error { return os.Remove(last(dir)) },
		"the first file is gone":    func(dir string) error { return os.Remove(file(dir, 0)) },
		"the first file is cut":     func(dir string) error { return os.Truncate(file(dir, 0), 500) },
		"the list is gone":          func(dir string) error { return os.Remove(filepath.Join(dir, walDir, metadb.FileName)) },
		"the list is cut":           func(dir string) error { return os.Truncate(filepath.Join(dir, walDir, metadb.FileName), 9000) },
		"the list is empty":         func(dir string) error { return os.Truncate(filepath.Join(dir, walDir, metadb.FileName), 0) },
		"the list is some other file": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, walDir, metadb.FileName), []byte("hello"), 0o600)
		},
		"two files have changed names": func(dir string) error {
			a, b := file(dir, 0), file(dir, 1)
			return errors.Join(os.Rename(a, a+"x"), os.Rename(b, a), os.Rename(a+"x", b))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "n1")
			s, closeIt := mustOpen(t, inWAL(dir))
			for i := uint64(1); i <= 110; i++ { // ten of them in the last file, which begins with 101
				must(t, s.StoreLog(written(i, 20)))
			}
			closeIt()
			must(t, meddle(dir))
			if _, err := inWAL(dir).Inspect(); !errors.Is(err, ErrCorruptDir) || !strings.Contains(err.Error(), walDir+"/") {
				t.Errorf("got %v, want ErrCorruptDir with the file", err)
			}
		})
	}
}

// Blocks of zeros are passed over at once, and belong to the batch that they lie in.
func TestDamageBeforeABatchOfZeros(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "n1")
	f := files{dir: dir, log: WAL, segment: 128 << 10}
	s, closeIt := mustOpen(t, f)
	zeros := &raft.Log{Index: 2, Term: 1, Data: make([]byte, 10*len(noBytes)+3)}
	must(t, s.StoreLog(written(1, 20)), s.StoreLog(zeros))
	closeIt()
	_, err := f.Inspect()
	must(t, err)
	path := filepath.Join(dir, walDir, "00000000000000000001-0000000000000000.wal")
	must(t, overwrite0(path, segmentHeader, segmentHeader+1)) // the kind of the first frame
	if _, err := f.Inspect(); !errors.Is(err, ErrCorruptDir) {
		t.Errorf("got %v, want ErrCorruptDir", err)
	}
}

// Every append of a wal is synced before it is acknowledged, and its file is written
// nowhere else.
func TestEveryAppendOfAWALIsSynced(t *testing.T) {
	d := newDoomed(t, 0)
	f := inWAL(filepath.Join(t.TempDir(), "n1"))
	f.on = d.system()
	s, err := f.Open(hclog.NewNullLogger())
	must(t, err)
	defer s.Close()
	for i := uint64(1); i <= 100; i++ {
		must(t, s.StoreLog(written(i, 20)))
		for _, c := range d.unsynced() {
			if c.sector {
				t.Fatalf("entry %d was acknowledged with %s not synced", i, c.in)
			}
		}
	}
}

// A conflict ends a file of the wal however little it holds, and a disk would soon be
// full of what was allocated for more.
func TestConflictsCostNoRoom(t *testing.T) {
	f := files{dir: filepath.Join(t.TempDir(), "n1"), log: WAL}
	s, closeIt := mustOpen(t, f)
	free := func() int64 {
		t.Helper()
		sum := int64(0)
		all, err := filepath.Glob(filepath.Join(f.path(walDir), "*.wal"))
		must(t, err)
		for _, path := range all {
			info, err := os.Stat(path)
			must(t, err)
			sum += info.Size()
		}
		return sum
	}
	must(t, s.StoreLogs(entries(1, 10, 20)))
	before := free()
	for i := uint64(10); i < 20; i++ {
		must(t, s.StoreLog(written(i+1, 20)), s.DeleteRange(i+1, i+1), s.StoreLog(written(i+1, 20)))
	}
	if grown := free() - before; grown > 64<<10 {
		t.Errorf("ten conflicts took %d bytes", grown)
	}
	must(t, sameEntriesAs(s, 1, 20))
	closeIt()
	s, _ = mustOpen(t, f)
	must(t, sameEntriesAs(s, 1, 20))
}
