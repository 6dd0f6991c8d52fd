//go:build unix

package cluster

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes a file's lock, or a share of it, and returns false where another
// process has it. Closing the file gives it back, and so does the end of the process.
func tryLock(f *os.File, shared bool) (bool, error) {
	how := syscall.LOCK_EX
	if shared {
		how = syscall.LOCK_SH
	}
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB) //nolint:gosec // a descriptor
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}
