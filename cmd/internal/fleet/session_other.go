//go:build !unix

package fleet

import "syscall"

func ownSession() *syscall.SysProcAttr { return nil }
