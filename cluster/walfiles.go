package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
}

func (f files) segments() segments {
	return segments{dir: f.path(walDir), size: f.segmentSize(), system: f.system()}
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
	return s.system.file(f), nil
}

// OpenReader implements [types.VFS].
func (s segments) OpenReader(dir, name string) (types.ReadableFile, error) {
	return os.Open(filepath.Join(dir, name))
}

// Delete implements [types.VFS].
func (s segments) Delete(dir, name string) error {
	return errors.Join(s.system.remove(filepath.Join(dir, name)), s.system.syncDir(dir))
}
