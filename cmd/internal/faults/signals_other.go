//go:build !unix

package faults

import "syscall"

// There are no such signals here, and sending them fails.
const (
	pause  = syscall.Signal(-1)
	resume = syscall.Signal(-1)
)

func ownSession() *syscall.SysProcAttr { return nil }
