package faults

import (
	"os"
	"syscall"
	"unsafe"
)

const (
	// shutdownRequest is EXT4_IOC_SHUTDOWN, which is XFS_IOC_GOINGDOWN too:
	// _IOR('X', 125, __u32).
	shutdownRequest = 0x8004587D
	// noLogFlush loses the journal's tail as well.
	noLogFlush uint32 = 2
)

// shutDown makes a mounted file system forget whatever is not on its device, and
// fail from now on.
func shutDown(point string) error {
	dir, err := os.Open(point)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // it was only asked
	how := noLogFlush
	_, _, failed := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), shutdownRequest, uintptr(unsafe.Pointer(&how))) //nolint:gosec // an ioctl
	if failed != 0 {
		return failed
	}
	return nil
}
