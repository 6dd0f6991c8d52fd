package doctor

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileSystems are the kernel's magic numbers of file systems (statfs(2)).
var fileSystems = map[int64]struct {
	name string
	kind systemKind
}{
	unix.EXT4_SUPER_MAGIC:      {"ext4", localSystem},
	unix.XFS_SUPER_MAGIC:       {"xfs", localSystem},
	unix.BTRFS_SUPER_MAGIC:     {"btrfs", localSystem},
	unix.F2FS_SUPER_MAGIC:      {"f2fs", localSystem},
	0x2fc12fc1:                 {"zfs", localSystem},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlayfs", layeredSystem},
	unix.NFS_SUPER_MAGIC:       {"nfs", remoteSystem},
	unix.SMB_SUPER_MAGIC:       {"smb", remoteSystem},
	unix.SMB2_SUPER_MAGIC:      {"smb2", remoteSystem},
	unix.CIFS_SUPER_MAGIC:      {"cifs", remoteSystem},
	unix.CEPH_SUPER_MAGIC:      {"ceph", remoteSystem},
	unix.V9FS_MAGIC:            {"9p", remoteSystem},
	unix.FUSE_SUPER_MAGIC:      {"fuse", remoteSystem},
	unix.TMPFS_MAGIC:           {"tmpfs", volatileSystem},
	unix.RAMFS_MAGIC:           {"ramfs", volatileSystem},
}

func fileSystemOf(dir string) (string, systemKind) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err.Error(), unknownSystem
	}
	if fs, known := fileSystems[int64(st.Type)]; known { //nolint:unconvert // 32 bits on some systems
		return fs.name, fs.kind
	}
	return fmt.Sprintf("type %#x", st.Type), unknownSystem
}

// room is the free bytes of a directory's disk, and how many files can still be made.
func room(dir string) (free, files uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	files = st.Ffree
	if st.Files == 0 {
		files = 1 << 62 // it makes them as they are needed, as btrfs does
	}
	return st.Bavail * uint64(st.Bsize), files, nil //nolint:gosec // not negative
}

// fileLimit is how many files and connections the process may have open. The Go runtime
// raises the soft limit to the hard one, so that it is the hard one that counts.
func fileLimit() (uint64, bool) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	return l.Max, true
}
