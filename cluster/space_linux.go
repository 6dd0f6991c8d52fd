package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
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

// Reserved implements [Bounded]: the blocks of the log's file beyond its size. A hole
// within it counts against them.
func (f files) Reserved() (int64, error) {
	var st syscall.Stat_t
	path := filepath.Join(f.dir, logFile)
	if err := syscall.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return max(0, st.Blocks*blockUnit-st.Size), nil
}

// Reserve implements [Bounded]. It gives the log's file its holes and so many blocks
// behind its end, and leaves its size and content alone. bbolt grows the file into
// them; nobody else can.
func (f files) Reserve(bytes int64) error {
	file, err := os.OpenFile(filepath.Join(f.dir, logFile), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(file.Fd()), keepSize, 0, info.Size()+bytes) //nolint:gosec // a descriptor
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return fmt.Errorf("reserve blocks: %w: %w", errors.ErrUnsupported, err)
	}
	return err
}
