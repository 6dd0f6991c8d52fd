//go:build unix

package demo

import "syscall"

// ownGroup puts a child into a process group of its own, so that ctrl-C reaches
// only the demo, which then stops everything in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
