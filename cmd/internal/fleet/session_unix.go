//go:build unix

package fleet

import "syscall"

// ownSession keeps a terminal's interrupt away from a child: it is for us alone,
// who then stop everything in order.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
