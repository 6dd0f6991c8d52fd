//go:build darwin || freebsd

package cluster

import (
	"os"
	"syscall"
)

// freeBytes is what this process may still write to the file system of a directory.
func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:gosec // no disk has that many
}

func allocate(f *os.File, size int64) error { return fill(f, size) }
