package cluster

import (
	"errors"
	"os"
	"syscall"
)

// freeBytes is what this process may still write to the file system of a directory.
func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	unit := st.Frsize // the unit of its counts, where it is not the block's
	if unit == 0 {
		unit = st.Bsize
	}
	return int64(st.Bavail) * unit, nil //nolint:gosec // no disk has that many
}

// allocate gives a new file its blocks.
func allocate(f *os.File, size int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size) //nolint:gosec // a descriptor
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return fill(f, size)
	}
	return err
}
