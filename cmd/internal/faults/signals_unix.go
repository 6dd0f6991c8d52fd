//go:build unix

package faults

import "syscall"

// The signals that Pause sends.
const (
	pause  = syscall.SIGSTOP
	resume = syscall.SIGCONT
)

// ownSession keeps a terminal's interrupt away from a tracer, which is undone in
// order.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
