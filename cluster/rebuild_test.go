package cluster

// A directory begins a new life wholly or not at all: whatever call the process dies in,
// and whatever of what was not synced is lost then, no node starts in a directory that
// is half rebuilt, the command that made it goes on, and the old content is kept (R10,
// R15).

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// fixed is a state machine with one state.
type fixed string

func (fixed) Apply(*raft.Log) any                   { return nil }
func (f fixed) Snapshot() (raft.FSMSnapshot, error) { return f, nil }
func (fixed) Restore(io.ReadCloser) error           { return nil }
func (fixed) Release()                              {}
func (f fixed) Persist(sink raft.SnapshotSink) error {
	_, err := io.WriteString(sink, string(f))
	return errors.Join(err, sink.Close())
}

func newLife(log LogStore) NewLife {
	return NewLife{ID: "n1", RaftAddress: "n1:7000", LogStore: log, Term: 5000, Index: 40, State: fixed("what there was")}
}

// member is a directory of a node that has been one.
func member(t *testing.T, log LogStore) string {
	t.Helper()
	dir := boltLog(t, 1, 40)
	me := newIdentity("n1")
	me.Phase = phaseMember
	raw, err := me.encode()
	must(t, err, os.WriteFile(filepath.Join(dir, identityFile), raw, 0o600))
	if log == WAL {
		_, closeIt := mustOpen(t, inWAL(dir))
		closeIt()
	}
	return dir
}

// holdsLife fails where a directory does not hold newLife, and nothing else.
func holdsLife(t *testing.T, dir string, log LogStore) {
	t.Helper()
	f := files{dir: dir, log: log, segment: smallSegment}
	remains, err := f.Inspect()
	must(t, err)
	me, err := parseIdentity(remains.Identity, dir, "n1")
	must(t, err, mayOpen(me, false, remains.Used, dir))
	if me.Phase != phaseMember || len(me.Lineage) != lineageBytes || len(me.Founders) != 0 {
		t.Fatalf("identity %+v", me)
	}
	s, closeIt := mustOpen(t, f)
	defer closeIt()
	term, err1 := s.GetUint64(keyCurrentTerm)
	last, err2 := s.LastIndex()
	list, err3 := s.Snapshots().List()
	must(t, err1, err2, err3)
	if term != 5000 || last != 0 || len(list) != 1 || list[0].Index != 40 || list[0].Term != 5000 {
		t.Fatalf("term %d, last entry %d, snapshots %v", term, last, list)
	}
	if m := list[0].Configuration.Servers; len(m) != 1 || m[0].ID != "n1" || m[0].Address != "n1:7000" || m[0].Suffrage != raft.Voter {
		t.Errorf("members %v", m)
	}
	_, from, err := s.Snapshots().Open(list[0].ID)
	must(t, err)
	raw, err := io.ReadAll(from)
	must(t, err, from.Close())
	if string(raw) != "what there was" {
		t.Errorf("the state is %q", raw)
	}
}

// isOld reports whether a directory still holds what member made.
func isOld(t *testing.T, dir string, log LogStore) bool {
	t.Helper()
	f := files{dir: dir, log: log, segment: smallSegment}
	remains, err := f.Inspect()
	if err != nil || remains.Identity == nil {
		return false
	}
	if me, err := parseIdentity(remains.Identity, dir, "n1"); err != nil || me.Lineage != "" {
		return false
	}
	s, closeIt := mustOpen(t, f)
	defer closeIt()
	holdsLog(t, s, 1, 40)
	return true
}

// replaced are the directories with old content.
func replaced(t *testing.T, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(names(t, dir), func(name string) bool { return !strings.HasPrefix(name, replacedPrefix) })
}

func TestBeginInAnEmptyDirectory(t *testing.T) {
	for _, log := range []LogStore{BoltDB, WAL} {
		dir := filepath.Join(memoryDir(t), "n1")
		must(t, Begin(dir, newLife(log), hclog.NewNullLogger()))
		holdsLife(t, dir, log)
		if err := Begin(dir, newLife(log), hclog.NewNullLogger()); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a second time: %v", err)
		}
		holdsLife(t, dir, log)
	}
}

func TestBeginRefuses(t *testing.T) {
	for name, broken := range map[string]func(*NewLife){
		"no id":         func(l *NewLife) { l.ID = "" },
		"no address":    func(l *NewLife) { l.RaftAddress = "0.0.0.0:7000" },
		"no such store": func(l *NewLife) { l.LogStore = "tape" },
		"no term":       func(l *NewLife) { l.Term = 0 },
		"no entry":      func(l *NewLife) { l.Index = 0 },
	} {
		life := newLife(BoltDB)
		broken(&life)
		dir := filepath.Join(t.TempDir(), "n1")
		if err := Begin(dir, life, hclog.NewNullLogger()); err == nil {
			t.Errorf("%s: began", name)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: it has made the directory", name)
		}
	}
}

// A survivor's directory is locked from when it is opened until it is closed, and what is
// no survivor's is refused and left as it was.
func TestOpenSurvivorRefuses(t *testing.T) {
	log := hclog.NewNullLogger()
	dir := member(t, BoltDB)
	s, _, err := OpenSurvivor(dir, log)
	must(t, err)
	if _, _, err := OpenSurvivor(dir, log); !errors.Is(err, ErrDirInUse) {
		t.Errorf("open twice: %v", err)
	}
	if _, err := s.Begin(NewLife{ID: "n1", RaftAddress: "n1:7000", Term: 77, Index: 40, State: fixed("")}); err == nil {
		t.Error("it began in a term that the node has seen")
	}
	must(t, s.Close())
	if !isOld(t, dir, BoltDB) {
		t.Error("the directory has changed")
	}

	if _, _, err := OpenSurvivor(filepath.Join(dir, "nowhere"), log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, _, err := OpenSurvivor(t.TempDir(), log); !errors.Is(err, ErrDataLost) {
		t.Errorf("an empty directory: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, boltFile), []byte(strings.Repeat("rubbish", 5000)), 0o600))
	if _, _, err := OpenSurvivor(dir, log); !errors.Is(err, ErrCorruptDir) {
		t.Errorf("a log that can't be read: %v", err)
	}
}

// A crash in each of the calls, and then in each of those by which the next try goes on.
func TestCrashWhileRebuilding(t *testing.T) {
	made := member(t, BoltDB) // a wal is one more name, and its files take long to copy
	first, step := crashPoints()
	for _, l := range []loss{loseNothing, loseAll, loseSome} {
		for at, crashed := first, true; crashed; at += step {
			crashed = crashAt(t, made, BoltDB, l, at)
		}
	}
}

// crashAt crashes in one call, and reports whether there was one.
func crashAt(t *testing.T, made string, log LogStore, l loss, at int) (crashed bool) {
	t.Helper()
	d := newDoomed(t, at)
	onCopy(t, made, func(dir string) {
		crashed = crashRebuild(t, d, dir, l, uint64(at), func(r rebuild) error { return r.replace(newLife(log)) })
		if !crashed {
			if d.calls < 15 {
				t.Fatalf("the rebuild took %d calls: this has shown nothing", d.calls)
			}
			holdsLife(t, dir, log)
			return
		}
		goesOn(t, dir, log)
		for again, more := 1, true; more; again++ {
			onCopy(t, dir, func(next string) {
				more = crashRebuild(t, newDoomed(t, again), next, l, uint64(again), func(r rebuild) error {
					_, err := r.finishOrForget()
					return err
				})
				goesOn(t, next, log)
			})
		}
	})
	return crashed
}

// onCopy does something with a copy of a directory.
func onCopy(t *testing.T, dir string, do func(string)) {
	t.Helper()
	root, err := os.MkdirTemp(memoryRoot(), "decree-test-")
	must(t, err)
	defer os.RemoveAll(root) //nolint:errcheck // in memory
	to := filepath.Join(root, "copy")
	must(t, os.CopyFS(to, os.DirFS(dir)))
	do(to)
}

// replace is what Survivor.Begin does with its directory.
func (r rebuild) replace(life NewLife) error {
	if err := r.make(life); err != nil {
		return err
	}
	if _, err := r.setAside(); err != nil {
		return err
	}
	return r.install()
}

func crashRebuild(t *testing.T, d *doomed, dir string, l loss, seed uint64, do func(rebuild) error) bool {
	t.Helper()
	err := do(rebuild{dir: dir, log: hclog.NewNullLogger(), on: d.system(), segment: smallSegment})
	if !d.crashed {
		must(t, err)
		return false
	}
	if err != nil && !strings.Contains(err.Error(), errCrashed.Error()) {
		t.Fatalf("call %d: %v", d.at, err)
	}
	d.loses(l, rand.New(rand.NewPCG(seed, 1)))
	return true
}

// goesOn holds that a directory is as it was, or is one in which no node starts, and that
// the next try leaves the old life there, or the new one with the old one kept.
func goesOn(t *testing.T, dir string, log LogStore) {
	t.Helper()
	onCopy(t, dir, func(dir string) {
		remains, err := files{dir: dir, log: log}.Inspect()
		if err == nil && remains.Identity == nil {
			t.Fatalf("a node would start with nothing in %v", names(t, dir))
		}
		done, err := rebuild{dir: dir, log: hclog.NewNullLogger(), on: machine}.finishOrForget()
		must(t, err)
		old := isOld(t, dir, log)
		if !old {
			holdsLife(t, dir, log)
		}
		if done && old {
			t.Error("it is done, and the old life is there")
		}
		if !old && len(replaced(t, dir)) == 0 {
			t.Errorf("the old content is gone: %v", names(t, dir))
		}
	})
}
