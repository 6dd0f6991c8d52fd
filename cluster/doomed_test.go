package cluster

// A file system that crashes before, in or after any one of its calls, and then has
// lost what was not synced: all of it, nothing of it, or some.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft-wal/types"
)

var errCrashed = errors.New("the machine has crashed")

// loss says what becomes of what was not synced.
type loss int

const (
	loseNothing loss = iota // the process died, and not the machine
	loseAll
	loseSome
)

// doomed crashes at one of its calls. What that call does has been done then, unless
// it is a sync, and may be lost.
type doomed struct {
	t       *testing.T
	at      int // the call that crashes; 0 for none
	calls   int
	crashed bool
	trash   string

	mu      sync.Mutex // a wal prepares its next file beside its writer
	pending []change   // guarded by mu: not synced, oldest first
}

// change is one change that was not synced.
type change struct {
	in     string // the directory whose sync makes it durable, or the file
	sector bool   // it may come apart, and is in no order with others
	undo   func() error
}

// crashPoints are the first call to crash in, and how far it is to the next: every call
// counts, but under the race detector, which has nothing to find here and takes minutes,
// each day has an eighth of them; make whole does all.
func crashPoints() (first, step int) {
	if raceDetector {
		return 1 + int(time.Now().Unix()/86400)%8, 8
	}
	return 1, 1
}

func newDoomed(t *testing.T, at int) *doomed {
	return &doomed{t: t, at: at, trash: filepath.Join(memoryDir(t), "trash")}
}

// memoryDir is a directory in memory, where there is such a place: what is lost is
// decided by doomed, and the machine's own disk has no say.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(memoryRoot(), "decree-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// call counts a call, and does it with mu held.
func (d *doomed) call(do func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return errCrashed
	}
	d.calls++
	err := do()
	if d.calls == d.at {
		d.crashed = true
		return errCrashed
	}
	return err
}

func (d *doomed) system() *fileSystem {
	return &fileSystem{
		mkdir: func(path string) error {
			return d.call(func() error {
				d.named(path, func() error { return os.RemoveAll(path) })
				return os.Mkdir(path, 0o700)
			})
		},
		rename: func(from, to string) error {
			return d.call(func() error {
				d.named(from, func() error { return os.Rename(to, from) })
				return os.Rename(from, to)
			})
		},
		remove: func(path string) error {
			return d.call(func() error {
				if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
					return nil
				}
				to := filepath.Join(d.trash, fmt.Sprint(d.calls))
				if err := os.MkdirAll(d.trash, 0o700); err != nil {
					return err
				}
				d.named(path, func() error { return os.Rename(to, path) })
				return os.Rename(path, to)
			})
		},
		syncDir: func(path string) error { return d.sync(path) },
		create: func(path string, size int64) error {
			return d.call(func() error {
				d.named(path, func() error { return os.Remove(path) })
				return os.WriteFile(path, make([]byte, size/256), 0o600) // zeros are zeros
			})
		},
		file: func(f *os.File) types.WritableFile { return &doomedFile{File: f, on: d} },
	}
}

// named notes a change of a name. mu is held.
func (d *doomed) named(path string, undo func() error) {
	d.pending = append(d.pending, change{in: filepath.Dir(path), undo: undo})
}

// sync makes durable what is pending in a directory or a file, unless it crashes.
func (d *doomed) sync(what string) error {
	err := d.call(func() error { return nil })
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.pending[:0]
	for _, c := range d.pending {
		if c.in != what {
			kept = append(kept, c)
		}
	}
	d.pending = kept
	return nil
}

// unsynced are the changes that may be lost.
func (d *doomed) unsynced() []change {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.pending)
}

// loses undoes what was not synced. Names come back in the order of a journal: each
// of them with all that were changed before it.
func (d *doomed) loses(l loss, chance *rand.Rand) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	from := map[loss]int{loseNothing: len(d.pending)}[l]
	if l == loseSome {
		from = chance.IntN(len(d.pending) + 1)
	}
	for i := len(d.pending) - 1; i >= 0; i-- {
		c := d.pending[i]
		lost := i >= from
		if c.sector && l == loseSome {
			lost = chance.IntN(2) == 0
		}
		if !lost {
			continue
		}
		if err := c.undo(); err != nil && !errors.Is(err, os.ErrNotExist) {
			d.t.Fatal(err)
		}
	}
	d.pending = nil
}

// sectorSize is what a disk writes as a whole.
const sectorSize = 512

// doomedFile is a file of the wal on it.
type doomedFile struct {
	*os.File
	on *doomed
}

func (f *doomedFile) WriteAt(p []byte, at int64) (int, error) {
	err := f.on.call(func() error {
		for from := at; from < at+int64(len(p)); from = (from/sectorSize + 1) * sectorSize {
			to := min(at+int64(len(p)), (from/sectorSize+1)*sectorSize)
			old := make([]byte, to-from)
			f.ReadAt(old, from) //nolint:errcheck // zeros behind the end
			path := f.Name()
			f.on.pending = append(f.on.pending, change{in: path, sector: true, undo: func() error {
				again, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				_, err = again.WriteAt(old, from)
				return errors.Join(err, again.Close())
			}})
		}
		_, err := f.File.WriteAt(p, at)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *doomedFile) Sync() error { return f.on.sync(f.Name()) }

// memoryRoot is where memoryDir makes directories; empty is the usual place.
func memoryRoot() string {
	const shared = "/dev/shm"
	if _, err := os.Stat(shared); err != nil {
		return ""
	}
	return shared
}
