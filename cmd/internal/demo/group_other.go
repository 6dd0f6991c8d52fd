//go:build !unix

package demo

import "syscall"

// ownGroup has no counterpart here.
func ownGroup() *syscall.SysProcAttr { return nil }
