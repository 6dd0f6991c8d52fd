package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/raft-wal/metadb"
)

// keepSize is FALLOC_FL_KEEP_SIZE: blocks beyond the end of the file.
const keepSize = 1

// blockUnit is the unit of stat's block counts, whatever the file system's own is.
const blockUnit = 512

// Free implements [Bounded].
func (f files) Free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: f.dir, Err: err}
	}
	unit := st.Frsize // the unit of its counts, where it is not the block's
	if unit == 0 {
		unit = st.Bsize
	}
	return int64(st.Bavail) * unit, nil //nolint:gosec // no disk has that many
}

// Reserved implements [Bounded]: the blocks of bbolt's file beyond its size, where a
// hole within it counts against them, or the spare files of the wal.
func (f files) Reserved() (int64, error) {
	if f.log == WAL {
		spares, err := f.segments().spares()
		return int64(len(spares)) * int64(f.segmentSize()), err
	}
	var st syscall.Stat_t
	path := f.path(boltFile)
	if err := syscall.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return max(0, st.Blocks*blockUnit-st.Size), nil
}

// Reserve implements [Bounded]. Of bbolt, it gives the file its holes and so many
// blocks behind its end, and leaves its size and content alone; bbolt grows the file
// into them, and nobody else can. Of a wal, it makes spare files, and gives the file
// that holds the vote what it can need.
func (f files) Reserve(bytes int64) error {
	if f.log != WAL {
		return reserveBehind(f.path(boltFile), bytes)
	}
	if err := reserveBehind(filepath.Join(f.path(walDir), metadb.FileName), metaReserve); err != nil {
		return err
	}
	return f.segments().reserve(bytes)
}

// metaReserve is more than votes and the list of the wal's files ever take.
const metaReserve = 1 << 20

// reserveBehind gives a file its holes and so many blocks behind its end.
func reserveBehind(path string, bytes int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return fallocate(file, keepSize, info.Size()+bytes)
}

// allocate gives a new file its size and its blocks, all zero.
func allocate(file *os.File, size int64) error { return fallocate(file, 0, size) }

func fallocate(file *os.File, mode uint32, size int64) error {
	err := syscall.Fallocate(int(file.Fd()), mode, 0, size) //nolint:gosec // a descriptor
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return fmt.Errorf("reserve blocks: %w: %w", errors.ErrUnsupported, err)
	}
	return err
}
