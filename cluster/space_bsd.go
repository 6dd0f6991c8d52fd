//go:build darwin || freebsd

package cluster

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Free implements [Bounded].
func (f files) Free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: f.dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:gosec // no disk has that many
}

// Reserved implements [Bounded].
func (f files) Reserved() (int64, error) { return 0, nil }

// Reserve implements [Bounded].
func (f files) Reserve(int64) error {
	return fmt.Errorf("reserve blocks on this system: %w", errors.ErrUnsupported)
}
