package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft-wal/types"
)

// fileSystem is what changes a directory. Tests crash between its calls.
type fileSystem struct {
	mkdir   func(path string) error
	rename  func(from, to string) error
	remove  func(path string) error // with all that is in it, and where there is nothing
	syncDir func(path string) error
	// create makes a file of zeros, durable but for its name, with so many bytes
	// allocated where the file system can do that.
	create func(path string, size int64) error
	// file is a file of the wal, opened for writing.
	file func(*os.File) types.WritableFile
}

var machine = &fileSystem{
	mkdir:   func(path string) error { return os.Mkdir(path, 0o700) },
	rename:  os.Rename,
	remove:  os.RemoveAll,
	syncDir: syncDir,
	create:  createSegment,
	file:    func(f *os.File) types.WritableFile { return f },
}

func (f files) system() *fileSystem {
	if f.on == nil {
		return machine
	}
	return f.on
}

// createZeros makes a file of zeros, durable but for its name. Where the file system
// can't allocate blocks in advance the error wraps errors.ErrUnsupported, and there is
// no file.
func createZeros(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = allocate(f, size)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(&os.PathError{Op: "create", Path: path, Err: err}, os.Remove(path))
	}
	return nil
}

// createSegment is createZeros, or an empty file where blocks can't be allocated.
func createSegment(path string, size int64) error {
	err := createZeros(path, size)
	if errors.Is(err, errors.ErrUnsupported) {
		return writeSynced(path, nil)
	}
	return err
}

// segments is the directory of a wal, as the library sees it.
type segments struct {
	dir    string
	size   int // of a file
	system *fileSystem
	last   *lastFile
}

func (f files) segments() segments {
	return segments{dir: f.path(walDir), size: f.segmentSize(), system: f.system(), last: new(lastFile)}
}

// spare names files that are ready to become part of the wal: their blocks are what
// the log can grow by when nobody has a free byte left.
const (
	spare    = "spare-"
	spareNew = "spare.new"
	// mostSpares bounds their numbers.
	mostSpares = 1 << 10
)

// make makes a file for entries, of a spare one where there is one. It does nothing
// where the file is there.
func (s segments) make(name string) error {
	path := filepath.Join(s.dir, name)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	spares, err := s.spares()
	if err != nil {
		return err
	}
	if len(spares) > 0 {
		err = s.system.rename(spares[0], path)
	} else {
		err = s.system.create(path, int64(s.size+segmentSlack))
	}
	if err != nil {
		return err
	}
	return s.system.syncDir(s.dir)
}

// spares are the paths of the spare files.
func (s segments) spares() ([]string, error) { return filepath.Glob(filepath.Join(s.dir, spare+"*")) }

// reserve makes spare files for so many bytes, less than a file more.
func (s segments) reserve(bytes int64) error {
	spares, err := s.spares()
	if err != nil {
		return err
	}
	have := make(map[string]bool)
	for _, path := range spares {
		have[path] = true
	}
	unready := filepath.Join(s.dir, spareNew)
	for n := 0; int64(len(have))*int64(s.size) < bytes && n < mostSpares; n++ {
		path := filepath.Join(s.dir, fmt.Sprintf("%s%d", spare, n))
		if have[path] {
			continue
		}
		if err := s.system.remove(unready); err != nil {
			return err
		}
		if err := createZeros(unready, int64(s.size+segmentSlack)); err != nil {
			return err
		}
		if err := s.system.rename(unready, path); err != nil {
			return err
		}
		have[path] = true
	}
	return nil
}

// ListDir implements [types.VFS].
func (s segments) ListDir(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, nil
}

// Create implements [types.VFS]. The file is there: see walMeta.
func (s segments) Create(dir, name string, _ uint64) (types.WritableFile, error) {
	return s.OpenWriter(dir, name)
}

// OpenWriter implements [types.VFS].
func (s segments) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &segmentFile{WritableFile: s.system.file(f), name: name, last: s.last}, nil
}

// lastFile is how far the file reaches that is written to.
type lastFile struct {
	mu   sync.Mutex
	name string // guarded by mu
	end  int64  // guarded by mu
}

// segmentFile notes how far it is written.
type segmentFile struct {
	types.WritableFile
	name string
	last *lastFile
}

// WriteAt implements [io.WriterAt].
func (f *segmentFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.WritableFile.WriteAt(p, at)
	f.last.mu.Lock()
	defer f.last.mu.Unlock()
	f.last.name, f.last.end = f.name, at+int64(n)
	return n, err
}

// trim gives back what was allocated for a file that is complete. A conflict completes
// one however little it holds.
func (s segments) trim(name string) {
	s.last.mu.Lock()
	defer s.last.mu.Unlock()
	if s.last.name == name { // its index, which ends it, is what was written last
		_ = os.Truncate(filepath.Join(s.dir, name), s.last.end) // else it goes when the log is compacted
		s.last.name = ""
	}
}

// OpenReader implements [types.VFS].
func (s segments) OpenReader(dir, name string) (types.ReadableFile, error) {
	return os.Open(filepath.Join(dir, name))
}

// Delete implements [types.VFS].
func (s segments) Delete(dir, name string) error {
	return errors.Join(s.system.remove(filepath.Join(dir, name)), s.system.syncDir(dir))
}
